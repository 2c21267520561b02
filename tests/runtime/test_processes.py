"""Forks, pickled errors, an empty home, and printing after the work."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import runtime
from runtime.errors import AbsentError, WaveletTriplaneError

ROOT = Path(__file__).parents[2]
FORKED = """
import os, sys, runtime
rt = runtime.load({bundle!r})
scene = rt.reconstruct({image!r}, background="keep")
scene.render(image_size=8)
runtime.render({image!r}, image_size=8, background="keep")
child = os.fork()
if child == 0:
    for work in (lambda: rt.render({image!r}), scene.render, scene.mesh):
        try:
            work()
        except runtime.ClosedError as error:
            print(error.cause)
    rt.close()
    print(runtime.render({image!r}, image_size=8, background="keep").shape)
    sys.exit(7)
print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(scene.render(image_size=8).rgb.shape)
"""


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120, **options
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")
def test_a_forked_child_gets_an_error_at_once_and_may_load_anew(tiny_bundle):
    image = str(ROOT / "examples" / "mug.png")
    done = run(FORKED.format(bundle=str(tiny_bundle), image=image))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("does not work in its fork" in line for line in lines) == 3
    assert lines[3:] == ["(8, 8, 3)", "status 7", "(8, 8, 3)"]


def subclasses(kind):
    for sub in kind.__subclasses__():
        yield sub
        yield from subclasses(sub)


@pytest.mark.parametrize(
    "kind", [WaveletTriplaneError, *subclasses(WaveletTriplaneError)], ids=lambda kind: kind.__name__
)
def test_every_error_survives_pickling(kind):
    error = kind("It is wrong.", "Mend it.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.cause, again.remedy, str(again)) == (error.cause, error.remedy, str(error))
    assert issubclass(AbsentError, runtime.BackendError)


def test_a_render_in_an_empty_home_leaves_it_empty(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))} | {"HOME": str(home)}
    image = ROOT / "examples" / "mug.png"
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "render", image, "--out", tmp_path / "out", "--size", "8"],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "| true", ">/dev/full", "2>/dev/full"])
def test_printing_after_the_work_does_not_fail_it(streams, tmp_path):
    if "/dev/full" in streams and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    out = tmp_path / "out"
    image = ROOT / "examples" / "mug.png"
    command = f"set -o pipefail; {sys.executable} -m runtime render {image} --out {out} --size 8 --times {streams}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "mug.png").is_file()


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path):
    odd = tmp_path / "caf\u00e9 \u2603.png"
    odd.write_bytes((ROOT / "examples" / "mug.png").read_bytes())
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "render", odd, "--out", tmp_path / "out", "--size", "8"],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert r"caf\xe9 \u2603" in done.stdout
