"""Checkpoint to bundle: parity with PyTorch, the report in the manifest, and a refusal that leaves nothing behind."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import export.to_onnx as exporter
import model as model_package
import runtime
from export.bundle_writer import ExportError, describe_model, replacing
from export.parity import BATCHES, Check, compare, references
from model import WaveletTriplaneDiffusion
from runtime.backends.self_check import example_images, psnr
from runtime.bundle import PARITY_DB

SCRIPT = Path(exporter.__file__)
SHIPPED = Path(model_package.__file__).parent / "checkpoints" / "small.safetensors"


def test_the_script_turns_a_checkpoint_into_a_bundle_that_follows_pytorch(tiny_model, pictures, tmp_path):
    checkpoint, out = tmp_path / "mine.safetensors", tmp_path / "bundle"
    tiny_model.save(checkpoint)
    done = subprocess.run(
        [sys.executable, SCRIPT, "--checkpoint", checkpoint, "--precision", "float32", "--out", out],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Parity with PyTorch" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "mine.safetensors"]
    model = WaveletTriplaneDiffusion.load(checkpoint)
    with runtime.load(out) as rt:
        assert rt.bundle.name == "mine"
        for batch in (1, 2, 3):
            for steps in (1, 4, 20):
                images = torch.from_numpy(np.stack(pictures[:batch])).permute(0, 3, 1, 2) / 127.5 - 1
                with torch.no_grad():
                    expected = model(images, True, steps=steps, seed=11)
                scenes = rt.reconstruct(pictures[:batch], steps=steps, seed=11, background="keep")
                for row, scene in enumerate(scenes):
                    assert psnr(scene.triplane, expected["triplane_highres"][row].numpy()) >= 60
                    drawn = scene.render(image_size=64, num_samples=64).rgb.transpose(2, 0, 1)
                    assert psnr(drawn, expected["rendered_image"][row].numpy(), peak=1) >= 60


def test_depths_of_rays_that_hit_nothing_are_no_reason_to_refuse_a_model(tiny_model):
    from export.graphs import graph_definitions, to_onnx
    from export.parity import check_graph

    sharp = copy.deepcopy(tiny_model)
    with torch.no_grad():
        sharp.renderer.density.weight *= 120
        sharp.renderer.density.bias.fill_(-22)
    view = graph_definitions(sharp)["view"]
    assert all(check.passes("float32") for check in check_graph(view, to_onnx(view)))


def test_a_wrong_depth_of_rays_that_hit_misses_its_tolerance(tiny_model):
    from export.graphs import graph_definitions, to_onnx
    from export.parity import check_graph

    class Nearer(torch.nn.Module):
        def __init__(self, view):
            super().__init__()
            self.view = view

        def forward(self, triplane, origin, rays, samples):
            (drawn,) = self.view(triplane, origin, rays, samples)
            return (torch.cat([drawn[:4], 0.99 * drawn[4:]]),)

    view = graph_definitions(tiny_model)["view"]
    proto = to_onnx(replace(view, module=Nearer(view.module)))
    assert not any(check.passes("float32") for check in check_graph(view, proto))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler", "ddpm"])
def test_every_sampler_follows_pytorch(tiny_model, tiny_runtime, pictures, sampler):
    images = torch.from_numpy(np.stack(pictures[:2])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = tiny_model(images, True, steps=5, seed=[1, 2], sampler=sampler)["triplane_highres"].numpy()
    for row, scene in enumerate(
        tiny_runtime.reconstruct(pictures[:2], steps=5, seed=[1, 2], sampler=sampler, background="keep")
    ):
        assert psnr(scene.triplane, expected[row]) >= 60


def test_the_report_is_in_the_manifest(tiny_bundle):
    parity = json.loads((tiny_bundle / "manifest.json").read_text())["precisions"]["float32"]["parity"]
    assert parity["tolerance_db"] == PARITY_DB["float32"] == 60
    compared = {check["what"] for check in parity["checks"]}
    assert {"coarse.triplane_ll, batch 1", "renderer.rgb, batch 4", "picture, batch 2, 20 steps"} <= compared
    assert all(check["psnr_db"] >= 60 for check in parity["checks"])


def test_a_bundle_that_misses_its_tolerance_is_not_written(tiny_model, export_once, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporter, "export_forms", export_once)
    monkeypatch.setattr(exporter, "check_graph", lambda *_: iter([Check("coarse.triplane_ll, batch 2", 59.9, 0.1)]))
    monkeypatch.setattr(exporter, "check_path", lambda *_: iter([]))
    older = tmp_path / "older"
    older.mkdir()
    (older / "manifest.json").write_text('{"precisions": {}}')
    for out in (tmp_path / "new", older):
        with pytest.raises(ExportError, match=r"coarse\.triplane_ll, batch 2"):
            exporter.export_bundle(tiny_model, out, "bad", trained=False)
    assert "MISSED" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["older"]
    assert (older / "manifest.json").read_text() == '{"precisions": {}}'


def test_a_wrong_graph_misses_its_tolerance(tiny_model):
    from export.graphs import graph_definitions, to_onnx
    from export.parity import check_graph

    renderer = graph_definitions(tiny_model)["renderer"]
    proto = to_onnx(renderer)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type = "Identity"
    assert not all(check.passes("float32") for check in check_graph(renderer, proto))


def test_a_folder_with_other_things_in_it_is_left_alone(tiny_model, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "manifest.json").write_text('{"precisions": {}, "name": "some web page"}')
    with pytest.raises(ExportError, match="no bundle"):
        exporter.export_bundle(tiny_model, tmp_path, "x", trained=False)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("arguments", [("--preset", "huge"), ("--checkpoint", "nowhere.safetensors")])
def test_the_script_fails_in_one_sentence(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments, "--out", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_schedule_shorter_than_the_usual_steps_has_fewer():
    model = WaveletTriplaneDiffusion(4, 3, resolution=16, hidden_dim=8, time_embed_dim=8).eval()
    assert describe_model(model, "short", False, {}, [1.0] * 3)["defaults"]["steps"] == 3
    assert {reference.steps for reference in references(model)} == {1, 3}


def test_a_checkpoint_may_name_its_own_defaults(tiny_model):
    notes = {"defaults": {"steps": 7, "sampler": "dpmpp_2m"}}
    assert describe_model(tiny_model, "x", True, notes, [1.0] * 3)["defaults"] == {"steps": 7, "sampler": "dpmpp_2m"}
    assert describe_model(tiny_model, "x", True, {}, [1.0] * 3)["defaults"] == {"steps": 4, "sampler": "ddim"}


def test_the_shipped_bundle_belongs_to_this_code():
    pictures = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    with runtime.load(backend="cpu") as rt:
        model = WaveletTriplaneDiffusion.load(SHIPPED) if rt.bundle.trained else exporter.untrained_model("small")
        with torch.no_grad():
            images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
            expected = model(images, True, steps=1)["triplane_highres"][0].numpy()
        assert psnr(rt.reconstruct(pictures[0], steps=1, background="keep").triplane, expected) >= 60
        assert rt.bundle.manifest["parameters"] == sum(p.numel() for p in model.parameters())


def test_psnr_judges_the_worst_row_and_no_nan():
    expected = np.array([[0.0, 1.0], [0.0, 1.0]])
    check = compare("x", np.array([[0.0, 1.0], [0.0, 0.9]]), expected)
    assert check.psnr == pytest.approx(10 * np.log10(1 / 0.005))
    assert check.largest == pytest.approx(0.1)
    assert psnr(np.array([np.nan, 1.0]), expected[0]) == -np.inf
    assert psnr(np.ones(3), np.zeros(3)) == -np.inf
    assert psnr(np.zeros(3), np.zeros(3)) == 200


def test_the_shipped_int8_draws_as_pytorch_does_row_by_row():
    pictures = example_images(max(BATCHES), 256)
    camera = runtime.Camera.orbit(azimuth=40)
    model = WaveletTriplaneDiffusion.load(SHIPPED)
    with runtime.load(precision="int8", backend="cpu") as rt, torch.no_grad():
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
        planes = model(images, True, steps=1)["triplane_highres"]
        expected = model.renderer.render_volume(planes, 64, 64, camera).permute(0, 2, 3, 1).numpy()
        for batch in BATCHES:
            for scene, wanted in zip(
                rt.reconstruct(pictures[:batch], steps=1, background="keep"), expected, strict=False
            ):
                assert psnr(scene.render(camera, 64).rgb, wanted, peak=1.0) >= PARITY_DB["int8"]
        checked = {check["what"] for check in rt.bundle.manifest["precisions"]["int8"]["parity"]["checks"]}
    assert {f"picture, batch {batch}, {steps} steps" for batch in BATCHES for steps in (1, 4, 20)} <= checked


def test_a_bundle_is_replaced_and_keeps_its_engines(tmp_path):
    out = tmp_path / "bundle"
    (out / "engines" / "float32").mkdir(parents=True)
    (out / "manifest.json").write_text('{"precisions": {}}')
    (out / "engines" / "float32" / "coarse.engine").write_bytes(b"engine")
    with replacing(out) as folder:
        (folder / "new").write_text("")
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == ["coarse.engine", "new"]
