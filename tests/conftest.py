"""What several test files share: a tiny model, its exported bundle, and a runtime on it."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray

import runtime
from export.to_onnx import FORMS, export_bundle, export_forms
from model import WaveletTriplaneDiffusion
from runtime.bundle import PARITY_DB

# What is not in the inner loop of a developer: exports, training, benchmarks, processes of their own, fuzzing.
SLOW = (
    "browser/", "test_specification_commands.py",
    "export", "benchmarks", "fuzz", "model/training", "test_tools.py", "test_wheel.py", "runtime/test_cli.py",
    "runtime/test_processes.py", "runtime/test_doctor.py", "runtime/backends/test_openvino.py",
)  # fmt: skip


def pytest_configure() -> None:
    """Gives each process of the suite cores of its own: thread pools that share some wait for one another."""
    if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
        number, count = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        cores = sorted(os.sched_getaffinity(0))
        own = cores[number % len(cores) :: count]
        for thread in os.listdir("/proc/self/task"):  # NumPy's have started by now.
            os.sched_setaffinity(int(thread), own)
        torch.set_num_threads(len(own))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow folders and files, and whatever needs all precisions."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here).as_posix()
        if place.startswith(SLOW) or "tiny_variants" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


TINY = {"triplane_channels": 8, "resolution": 16, "hidden_dim": 32, "time_embed_dim": 32, "num_diffusion_steps": 100}


@pytest.fixture(scope="session")
def tiny_model() -> WaveletTriplaneDiffusion:
    """A model of 16x16 planes, with band statistics that a mistake in standardising would show."""
    torch.manual_seed(1)
    model = WaveletTriplaneDiffusion(**TINY).eval()
    for mean, std in ((model.coarse_gen.mean, model.coarse_gen.std), (model.detail_mean, model.detail_std)):
        mean.uniform_(-0.5, 0.5)
        std.uniform_(0.5, 1.5)
    return model


def _sources_digest() -> str:
    """Hash of all that a bundle is made by and from."""
    root = Path(__file__).parent.parent
    files = [file for folder in ("model", "export", "runtime") for file in root.glob(f"{folder}/**/*.py")]
    versions = [version(name) for name in ("torch", "onnx", "onnxruntime", "onnxscript", "numpy")]
    digest = hashlib.sha256(" ".join(versions).encode() + Path(__file__).read_bytes())
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


# Of the start: a source that is edited meanwhile changes nothing for a suite that runs.
_DIGEST = _sources_digest()
_KEPT_SECONDS = 24 * 3600
Protos = dict[str, dict[str, onnx.ModelProto]]
Make = Callable[[Path], object]


@pytest.fixture(scope="session")
def kept(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Make], Path]:
    """Folders that are made once for all processes of the suite, and kept until what makes them changes."""
    place = pytestconfig.cache.mkdir("tiny") if pytestconfig.cache else tmp_path_factory.mktemp("kept")
    folder = place / _DIGEST
    for other in set(place.iterdir()) - {folder}:
        if time.time() - other.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(other, ignore_errors=True)

    def made(name: str, make: Make) -> Path:
        folder.mkdir(exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            if not (folder / name).is_dir():
                partial = folder / f"{name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                partial.rename(folder / name)
        return folder / name

    return made


@pytest.fixture(scope="session")
def export_once(kept: Callable[[str, Make], Path]) -> Callable[..., Protos]:
    """`export_forms` for the tiny model alone, which keeps each form: a form takes a quarter of a minute."""
    loaded: Protos = {}

    def export(model: WaveletTriplaneDiffusion, forms: Iterable[str]) -> Protos:
        wanted = list(forms)
        missing = [form for form in wanted if form not in loaded]
        if missing:
            folder = kept("+".join(missing), lambda folder: _save(export_forms(model, missing), folder))
            for form in missing:
                loaded[form] = {file.stem: onnx.load(file) for file in (folder / form).iterdir()}
        return {form: loaded[form] for form in wanted}

    return export


def _save(protos: Protos, folder: Path) -> None:
    for form, graphs in protos.items():
        (folder / form).mkdir()
        for name, proto in graphs.items():
            onnx.save(proto, folder / form / f"{name}.onnx")


@pytest.fixture(scope="session")
def tiny_protos(tiny_model: WaveletTriplaneDiffusion, export_once: Callable[..., Protos]) -> Protos:
    """The tiny model's graphs, by form and name."""
    return export_once(tiny_model, dict.fromkeys(FORMS.values()))


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_model: WaveletTriplaneDiffusion,
    export_once: Callable[..., Protos],
    kept: Callable[[str, Make], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny model, exported; parity has been checked on the way."""
    made = kept("bundle", lambda folder: _bundle(tiny_model, export_once, folder / "tiny", ["float32"]))
    return shutil.copytree(made / "tiny", tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_variants(
    tiny_model: WaveletTriplaneDiffusion,
    export_once: Callable[..., Protos],
    kept: Callable[[str, Make], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny model in every precision."""
    made = kept("variants", lambda folder: _bundle(tiny_model, export_once, folder / "tiny", list(PARITY_DB)))
    return shutil.copytree(made / "tiny", tmp_path_factory.mktemp("variants") / "tiny")


def _bundle(
    model: WaveletTriplaneDiffusion, export_once: Callable[..., Protos], out: Path, precisions: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.to_onnx.export_forms", export_once)
        export_bundle(model, out, "tiny", trained=True, precisions=precisions)


@pytest.fixture(scope="session")
def tiny_runtime(tiny_bundle: Path) -> Iterator[runtime.Runtime]:
    """A runtime on the tiny bundle."""
    with runtime.load(tiny_bundle, backend="cpu") as rt:
        yield rt


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """Four opaque pictures of the tiny model's input size: smooth, and all different."""
    y, x = np.mgrid[0:64, 0:64] / 64
    waves = [np.stack([np.sin((3 + k) * x + k), np.cos((2 + k) * y), np.sin(5 * x * y + k)], -1) for k in range(4)]
    return [np.round(127.5 + 127.5 * wave).astype(np.uint8) for wave in waves]
