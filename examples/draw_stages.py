"""Draws what the four stages hand on for one image: `python examples/draw_stages.py [PICTURE] [OUT]`.

The runtime is asked for nothing that it does not have: the bands are split off its triplane by the forward transform.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import runtime
from runtime.preprocessing import prepare_image
from runtime.wavelet import dwt2d

SIDE, GAP, TITLE = 192, 16, 22
PLANE = 0


def as_picture(plane: NDArray[np.floating]) -> Image.Image:
    """The three strongest directions among a plane's channels as red, green and blue."""
    channels, height, width = plane.shape
    flat = plane.reshape(channels, -1) - plane.reshape(channels, -1).mean(1, keepdims=True)
    directions = np.linalg.eigh(flat @ flat.T)[1][:, -3:]
    colours = (directions.T @ flat).reshape(3, height, width)
    spread = np.quantile(np.abs(colours), 0.99, axis=(1, 2), keepdims=True)
    pixels = np.clip(colours / spread / 2 + 0.5, 0, 1).transpose(1, 2, 0) * 255
    return Image.fromarray(pixels.astype(np.uint8))


def main(picture: Path, out: Path) -> None:
    """Writes one strip of labelled images."""
    with runtime.load() as rt:
        prepared = prepare_image(picture, rt.bundle.image_size, rt.bundle.framing)
        scene = rt.reconstruct(picture)
        views = [scene.render(runtime.Camera.orbit(angle), SIDE, 96).to_uint8() for angle in (0, 60)]
    ll, *details = dwt2d(scene.triplane[PLANE])
    tiles = [
        ("input picture", Image.fromarray(((prepared.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8))),
        ("1 coarse: LL band", as_picture(ll)),
        ("2 diffusion: LH HL HH", as_picture(np.concatenate(details))),
        ("3 inverse wavelet", as_picture(scene.triplane[PLANE])),
        ("4 rendered, front", Image.fromarray(views[0])),
        ("4 rendered, 60 degrees", Image.fromarray(views[1])),
    ]
    sheet = Image.new("RGB", (len(tiles) * (SIDE + GAP) - GAP, SIDE + TITLE), "white")
    for index, (title, tile) in enumerate(tiles):
        left = index * (SIDE + GAP)
        sheet.paste(tile.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, TITLE))
        ImageDraw.Draw(sheet).text((left, 4), title, fill="black")
    sheet.save(out)


if __name__ == "__main__":
    here = Path(__file__).parent
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(*(arguments + [here / "chair.png", here.parent / "docs" / "stages.png"][len(arguments) :]))
