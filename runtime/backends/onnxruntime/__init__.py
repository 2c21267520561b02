"""ONNX Runtime: sessions, and its CUDA provider."""
