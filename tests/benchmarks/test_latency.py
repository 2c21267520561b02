"""The latency benchmark: fair turns, honest ratios, a comparison that fails, and a run from end to end."""

import copy
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks import latency, scaling
from benchmarks import report as reporting
from benchmarks.subprocess_runs import first_picture_pytorch
from benchmarks.timing import by_turns, summary


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "tiny.safetensors"
    copy.deepcopy(tiny_model).save(path, trained=True)  # saving as trained notes it in the model, which others share
    return path


@pytest.fixture(scope="module")
def picture(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "picture.png"
    Image.fromarray(pictures[0]).save(path)
    return path


@pytest.fixture(scope="module")
def report(checkpoint, tiny_variants, picture):
    bench = latency.Bench(checkpoint, tiny_variants, tiny_variants, picture, compiled=False)
    return latency.run(
        bench, ["end_to_end", "view_128"], "ours, (default|openvino int8$)|ONNX", rounds=2, slow_rounds=1
    )


def test_every_row_has_its_turn_and_the_order_alternates():
    calls = []
    seconds = by_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=2, warmup=1)
    assert "".join(calls) == "cba" + "abc" + "cba"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2, "c": 2}
    calls.clear()
    seconds = by_turns({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=1, warmup=0, settle=True)
    assert "".join(calls) == "aabb"
    assert len(seconds["a"]) == 1


def test_a_summary_is_of_the_raw_samples():
    found = summary([k / 1000 for k in range(1, 102)])
    assert found["p50_ms"] == pytest.approx(51)
    assert found["p90_ms"] == pytest.approx(91)
    assert found["p99_ms"] == pytest.approx(100)
    assert found["n"] == len(found["samples_ms"]) == 101


def test_a_run_times_every_row_with_its_stages(report, tmp_path):
    rows = {row["row"] for row in report["rows"] if row["case"] == "end_to_end"}
    assert rows == {reporting.EAGER, reporting.OURS, reporting.OURS_FAST, "ONNX Runtime float32"}
    for row in report["rows"]:
        assert row["p50_ms"] > 0
        if row["case"] == "end_to_end":
            assert set(row["stages"]) == {"image", "coarse", "loop", "idwt", "render"}
            stages = sum(np.median(stage["samples_ms"]) for stage in row["stages"].values())
            assert stages == pytest.approx(row["p50_ms"], rel=0.5)
    assert set(report["ratios"]) == {"end_to_end", "view_128"}
    assert report["psnr_to_eager_db"]["view_128"] > 40
    assert report["ceilings"]["matmul_float32_gflops"] > 1
    assert report["memory"]["default"]["peak_mb"] > report["memory"]["default"]["loaded_mb"]
    reporting.plot(report, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size[0] > 500
    console = Console(record=True, width=150, quiet=True)
    reporting.show(report, console)


def test_rows_agree_on_the_picture(checkpoint, tiny_variants, picture):
    bench = latency.Bench(checkpoint, tiny_variants, tiny_variants, picture, compiled=False)
    views = {name: row.view(row.triplane(picture, 2), 24, 16) for name, row in bench.rows.items()}
    for name, view in views.items():
        np.testing.assert_allclose(view, views[reporting.EAGER], atol=0.1, err_msg=name)


def test_ratios_are_of_medians():
    rows = [
        {"case": "view_128", "row": reporting.EAGER, "p50_ms": 100.0},
        {"case": "view_128", "row": reporting.OURS, "p50_ms": 8.0},
        {"case": "step", "row": reporting.EAGER, "p50_ms": 90.0},
        {"case": "step", "row": reporting.OURS_FAST, "p50_ms": 30.0},
        {"case": "mesh", "row": reporting.EAGER, "p50_ms": 90.0},
    ]
    assert reporting.ratios(rows) == {"step": 3.0, "view_128": 12.5}


def test_a_comparison_names_what_became_slower(report):
    assert reporting.regressions(report, report) == []
    slower = copy.deepcopy(report)
    for row in slower["rows"]:
        if (row["case"], row["row"]) == ("view_128", reporting.OURS):
            row["p50_ms"] *= 3
    (said,) = reporting.regressions(report, slower)
    assert said.startswith("view_128, ours, default: 3.00 times as slow")
    uniformly = copy.deepcopy(report)
    for row in uniformly["rows"]:
        row["p50_ms"] *= 2
    assert reporting.regressions(report, uniformly) == [], "a slower machine is no regression"


def test_the_pytorch_process_draws_the_same_picture(checkpoint, tiny_runtime, picture):
    drawn = first_picture_pytorch(picture, checkpoint, 2, tiny_runtime.bundle.framing)
    wanted = tiny_runtime.render(picture, steps=2)
    assert np.abs(drawn.astype(int) - wanted).max() <= 2


def test_the_exponent_of_a_power_is_its_own():
    assert scaling.exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2)


def test_scaling_measures_time_and_memory_of_processes(picture, tmp_path):
    report = scaling.scaling(picture, {"steps": (1, 3)}, [], runs=1)
    steps = report["axes"]["steps"]
    assert steps["sizes"] == [1, 3]
    assert all(seconds > 0 for seconds in steps["seconds"])
    assert all(peak > 50 for peak in steps["peak_mb"])
    scaling.plot(report, tmp_path / "plot.png")
    scaling.show(report, Console(quiet=True))
    json.dumps(report)
