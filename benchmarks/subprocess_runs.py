"""Whole processes: from start to the first image on disk, and the most memory that one takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

# What someone writes who has the checkpoint and PyTorch; weights, image and settings are those of the other side.
_PYTORCH = """
import sys
import numpy as np
import torch
from PIL import Image
from model import WaveletTriplaneDiffusion
from runtime.preprocessing import prepare_image
checkpoint, image, out, steps = sys.argv[1:]
model = WaveletTriplaneDiffusion.load(checkpoint).eval()
with torch.inference_mode():
    picture = torch.from_numpy(prepare_image(image, model.config.image_size, float(sys.stdin.read())))[None]
    ll, condition = model.predict_ll(picture)
    planes = model.reconstruct_planes(ll, model.sample_details(condition, int(steps)))
    drawn = model.renderer.render_volume(planes, 64, 128)[0].permute(1, 2, 0)
Image.fromarray((drawn.numpy() * 255).round().astype(np.uint8)).save(out + "/view.png")
"""
# Times a call in a process of its own, after one that warms up, and reports the most memory that the process took.
_MEASURED = """
import json, re, sys, time, warnings
warnings.simplefilter("ignore")
import runtime

def peak():
    # Not ru_maxrss: a new process starts with that of the one that it was forked from.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

bundle, image, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
batch, size, samples, steps, limit = (options[k] for k in ("batch", "size", "samples", "steps", "limit"))
start = time.perf_counter()
with runtime.load(bundle or None, backend="cpu", memory_limit=limit) as rt:
    load, loaded = time.perf_counter() - start, peak()
    seconds = {1: [], batch: []}
    for _ in range(options["runs"] + 1):
        for count, taken in seconds.items():
            start = time.perf_counter()
            rt.render([image] * count, None, size, samples, steps)
            taken.append(time.perf_counter() - start)
found = {"seconds": seconds[batch][1:], "single": seconds[1][1:], "first": seconds[1][0], "load": load}
found |= {"peak_mb": peak(), "loaded_mb": loaded}
print(json.dumps(found))
"""


def first_picture_ours(image: Path) -> NDArray[np.uint8]:
    """The command line with its default settings, one view at 128x128; returns that."""
    with tempfile.TemporaryDirectory() as out:
        # Without what the image adds: PyTorch does nothing of the kind.
        _run("-m", "runtime", "render", str(image), "--no-projected", "--no-silhouette", "--out", out)
        return _only_picture(out)


def first_picture_pytorch(image: Path, checkpoint: Path, steps: int, framing: float) -> NDArray[np.uint8]:
    """The same work in PyTorch."""
    with tempfile.TemporaryDirectory() as out:
        _run("-c", _PYTORCH, str(checkpoint), str(image), out, str(steps), stdin=str(framing))
        return _only_picture(out)


def measured(
    image: Path,
    bundle: Path | None = None,
    *,
    batch: int = 1,
    size: int = 128,
    samples: int = 64,
    steps: int | None = None,
    limit: int | None = None,
    runs: int = 3,
) -> dict[str, Any]:
    """Renders in a process of its own.

    Returns:
        seconds of each run, single of one image, timed by turns with them, first of the one before all, load of
        `runtime.load`; peak_mb and loaded_mb, resident memory in MiB, all in all and after loading.
    """
    options = {"batch": batch, "size": size, "samples": samples, "steps": steps, "limit": limit, "runs": runs}
    printed = _run("-c", _MEASURED, str(bundle or ""), str(image), json.dumps(options))
    found: dict[str, Any] = json.loads(printed)
    return found


def _only_picture(folder: str) -> NDArray[np.uint8]:
    (path,) = Path(folder).glob("*.png")
    return np.asarray(Image.open(path))


def _run(*arguments: str, stdin: str = "") -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"A measured process failed:\n{done.stderr}")
    return done.stdout
