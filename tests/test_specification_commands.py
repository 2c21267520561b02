"""The scripts that the specification names."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
FIGURES = (
    "wavelet_decomposition", "triplane_structure", "pipeline_outputs", "frequency_separation", "resolution_comparison",
)  # fmt: skip


def test_five_figures(tmp_path):
    script = ROOT / "visualize_wavelet_triplane.py"
    subprocess.run([sys.executable, script, "--out", tmp_path], check=True, cwd=ROOT)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(FIGURES)
    for name in FIGURES:
        with Image.open(tmp_path / f"{name}.png") as opened:
            assert min(opened.size) > 250
            assert len(opened.convert("RGB").getcolors(1 << 20)) > 200


@pytest.mark.parametrize("script", ["train_wavelet_triplane.py", "visualize_wavelet_triplane.py"])
def test_scripts_say_what_they_take(script):
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True)
    assert "--out" in done.stdout
