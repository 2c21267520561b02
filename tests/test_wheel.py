"""The wheel, away from the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
USE = """
import sys
from pathlib import Path
import numpy as np
import runtime
assert Path(runtime.__file__).is_relative_to(sys.argv[1]), runtime.__file__
picture = np.full((40, 40, 4), 255, np.uint8)
picture[:10, :, 3] = 0
print(runtime.render(picture, image_size=8, num_samples=8, steps=1).shape)
"""


def test_the_wheel_renders_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "model/training/configs/tiny.toml" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "examples"))]
    place = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    code = f"import sys; sys.path.insert(0, {str(place)!r})\n{USE}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(place)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(8, 8, 3)" in done.stdout
