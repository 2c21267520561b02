#!/usr/bin/env bash
# All that a GPU is needed for, in one go: bundles, engines, `pytest -m gpu`, the goals on a GPU, the latency table.
# Run it in an environment with the extras [gpu,mesh,export,bench,dev], and [tensorrt-rtx] or TensorRT; not [cpu], whose
# ONNX Runtime would overwrite that of [gpu]. Results go to the folder given, out/gpu by default.
# A step that fails is reported and the next one tried: the exit status is 1 if any failed.
set -uo pipefail
cd "$(dirname "$0")/.."
out="${1:-out/gpu}"
python="${PYTHON:-.venv/bin/python}"
status=0
mkdir -p "$out"

# RTX builds for compute capabilities: that of this GPU, where it knows it.
targets="$("$python" -c 'from runtime.backends.device.cuda import gpu_name; print(gpu_name().split(", ")[-1])' 2>/dev/null || true)"

attempt() {
  local name="$1"
  shift
  echo "== $name: $*"
  "$@" 2>&1 | tee "$out/$name.txt"
  local ended="${PIPESTATUS[0]}"
  if [ "$ended" -ne 0 ]; then
    echo "== $name FAILED ($ended)"
    status=1
  fi
}

attempt doctor "$python" -m runtime doctor
precisions=(--precision float32 --precision float16 --precision int8)
attempt export "$python" export/to_onnx.py --checkpoint model/checkpoints/small.safetensors --out "$out/bench/small" \
  "${precisions[@]}"
attempt export_medium "$python" export/to_onnx.py --preset medium --out "$out/medium" "${precisions[@]}"
attempt engines "$python" export/to_tensorrt.py --bundle "$out/bench/small" ${targets:+--targets "$targets"}
attempt engines_medium "$python" export/to_tensorrt.py --bundle "$out/medium" --batch 1 1 16 --workspace 8192 \
  ${targets:+--targets "$targets"}
attempt tests env REQUIRE_GPU=1 "$python" -m pytest -m gpu -rs
attempt goals "$python" benchmarks/gpu.py --bundle "$out/medium" --json "$out/goals.json" ${GOALS_OPTIONS:-}
attempt latency "$python" benchmarks/latency.py --work "$out/bench" --json "$out/latency.json" --plot "$out/latency.png" \
  ${LATENCY_OPTIONS:-}
exit "$status"
