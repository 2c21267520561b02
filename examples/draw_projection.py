"""Draws images with and without their own pixels projected: `python examples/draw_projection.py OUT IMAGE...`.

One row an image: the image as the model is given it, then for three cameras the drawn view and the projected one.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import runtime

SIDE, SAMPLES, ANGLES = 224, 96, (0, 35, -60)


def row(rt: runtime.Runtime, image: Path) -> np.ndarray:
    """One strip (SIDE, 7 * SIDE, 3) uint8."""
    scene = rt.reconstruct(image)
    given = Image.fromarray(np.uint8(255 * scene.source.detail())).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    tiles = [np.asarray(given)]
    for angle in ANGLES:
        camera = runtime.Camera.orbit(angle)
        tiles += [scene.render(camera, SIDE, SAMPLES, projected=on).to_uint8() for on in (False, True)]
    return np.concatenate(tiles, axis=1)


def main(out: Path, images: list[Path]) -> None:
    """Writes the rows of all images."""
    with runtime.load() as rt:
        rows = [row(rt, image) for image in images]
    Image.fromarray(np.concatenate(rows)).save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
