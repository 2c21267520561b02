"""Timing by turns: every row once a round, in an order that alternates, so that what slows the machine slows all."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import helper
from torch.utils.flop_counter import FlopCounterMode

from export.graphs import GraphDefinition

Figures = dict[str, Any]
_PAUSE = 0.1
_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13-libs", "numpy")


def by_turns(
    rows: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    settle: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, list[float]]:
    """Seconds of each call.

    Args:
        rows: what is timed, by name; a call returns when its result is in host memory.
        rounds: calls of each.
        warmup: further ones before them, not counted.
        settle: each timed call comes right after one of the same row that is not, so that caches and threads are as
            they are for a user who calls it again and again, not as the row before left them.
        tell: called with the row that comes next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(-warmup, rounds):
        for name in list(rows) if turn % 2 == 0 else reversed(rows):
            tell(f"{name}, round {turn + 1} of {rounds}" if turn >= 0 else f"{name}, warming up")
            # Threads of the row before wait for more work in a busy loop for a while: it must not cost the next one.
            time.sleep(_PAUSE)
            if settle:
                rows[name]()
            start = time.perf_counter()
            rows[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: list[float]) -> Figures:
    """p50, p90 and p99 in milliseconds, n, and the raw samples."""
    ms = [1e3 * second for second in seconds]
    p50, p90, p99 = (float(np.percentile(ms, q)) for q in (50, 90, 99))
    return {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "n": len(ms), "samples_ms": [round(each, 4) for each in ms]}


def ceilings(device: str = "cpu") -> Figures:
    """What a device reaches at the least: matrix products in GFLOP/s and copies in GB/s, best of several.

    Args:
        device: "cuda", or "cpu", where the product of float32 is PyTorch's or ONNX Runtime's, whichever is faster.
    """
    gpu, found = device == "cuda", {}
    side = 8192 if gpu else 2048
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = _best(_finished(lambda a=a, b=b: a @ b))  # type: ignore[misc]
        if name == "float32" and not gpu:
            seconds = min(seconds, _best(_onnx_product(a.numpy(), b.numpy())))
        found[f"matmul_{name}_gflops"] = 2 * side**3 / 1e9 / seconds
    source = torch.ones(1 << 28 if gpu else 1 << 25, device=device)
    target = torch.empty_like(source)
    found["copy_gb_per_s"] = 2 * source.nbytes / 1e9 / _best(_finished(lambda: target.copy_(source)))
    return found


def _finished(call: Callable[[], object]) -> Callable[[], None]:
    """A call that returns when what it started on the GPU, if there is one, is done."""

    def run() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def _onnx_product(a: NDArray[np.float32], b: NDArray[np.float32]) -> Callable[[], object]:
    """A matrix product in ONNX Runtime."""
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, a.shape) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a, "b": b})


def gflop_of(definition: GraphDefinition) -> float:
    """Multiplications and additions of one run on the CPU for a batch of 1, in GFLOP, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        definition.module(*definition.example({"batch": 1}))
    return float(counter.get_total_flops()) / 1e9


def machine() -> Figures:
    """Processor, cores, packages and the day: what a figure must not be quoted without."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "").split()
    return {
        "cpu": (names or [platform.processor()])[0],
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_bf16", "amx_int8") if flag in flags],
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: found for name in _PACKAGES if (found := _installed(name))},
        "date": date.today().isoformat(),
    }


def _best(call: Callable[[], object], repeats: int = 7) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
