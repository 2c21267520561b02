"""Draws what an image adds to what the model makes of it: `python examples/draw_projection.py OUT IMAGE...`.

One row an image: the image as the model is given it, then for three cameras the view as the model has it, and the one
held to the image's silhouette with the image's own pixels.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import runtime

SIDE, SAMPLES, ANGLES = 224, 96, (0, 35, -60)


def row(rt: runtime.Runtime, image: Path) -> np.ndarray:
    """One strip (SIDE, 7 * SIDE, 3) uint8."""
    plain, held = (rt.reconstruct(image, silhouette=on) for on in (False, True))
    given = Image.fromarray(np.uint8(255 * held.source.detail())).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    tiles = [np.asarray(given)]
    for angle in ANGLES:
        camera = runtime.Camera.orbit(angle)
        tiles.append(plain.render(camera, SIDE, SAMPLES).to_uint8())
        tiles.append(held.render(camera, SIDE, SAMPLES, projected=True).to_uint8())
    return np.concatenate(tiles, axis=1)


def main(out: Path, images: list[Path]) -> None:
    """Writes the rows of all images."""
    with runtime.load() as rt:
        rows = [row(rt, image) for image in images]
    Image.fromarray(np.concatenate(rows)).save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
