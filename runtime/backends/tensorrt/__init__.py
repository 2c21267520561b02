"""TensorRT: what is installed, engine files, and their launcher."""
