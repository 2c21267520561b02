"""The goals on a GPU, rehearsed on the CPU: every row is timed, and what is met is said of where it ran."""

import io
import json

import pytest
from PIL import Image
from rich.console import Console

from benchmarks import gpu


@pytest.fixture(scope="module")
def report(tiny_model, tiny_bundle, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "picture.png"
    Image.fromarray(pictures[0]).save(path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gpu, "SIZE", 16)
        return gpu.measure(tiny_model, tiny_bundle, path, rounds=2, compiled=False, pictures=3)


def said(report):
    written = io.StringIO()
    gpu.show(report, Console(file=written, width=150))
    return written.getvalue()


def test_rows_are_timed_from_the_picture_to_the_view_and_many_at_once(report):
    device = report["device"]
    names = {row["row"] for row in report["latency"]}
    assert {"PyTorch eager float32", "PyTorch eager bfloat16"} < names
    ours = {name for name in names if name.startswith("ours")}
    assert ours == {row["row"] for row in report["throughput"]}
    assert device == "cuda" or ours == {"ours, cpu float32"}
    assert all(row["p50_ms"] > 0 and row["n"] == 2 for row in report["latency"])
    for row in report["throughput"]:
        assert row["gflops"] == pytest.approx(report["gflop"] / row["p50_ms"] * 1e3)
    json.dumps(report)


def test_goals_are_met_by_what_was_measured(report):
    fast = report | {
        "device": "cuda",
        "ceilings": {"matmul_bfloat16_gflops": 100.0},
        "latency": [
            {"row": name, "p50_ms": ms, "p90_ms": ms, "p99_ms": ms, "n": 1}
            for name, ms in (("ours, tensorrt float16", 4.0), ("torch.compile bfloat16", 6.0))
        ],
        "throughput": [{"row": "ours, tensorrt float16", "p50_ms": 1.0, "gflops": 20.0}],
    }
    text = said(fast)
    assert "latency 4.00 ms, goal 5 ms: met\n" in text
    assert "1.50 times the fastest peer, goal 1: met\n" in text
    assert "20% of the matrix product, goal 30%: MISSED\n" in text
    if report["device"] == "cpu":
        assert said(report).count("a rehearsal on the CPU") == 3
