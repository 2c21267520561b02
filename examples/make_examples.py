"""Makes the pictures of this folder: procedural objects from seeds that no training uses, drawn by exact ray casting.

Run it from the root of the checkout: `python examples/make_examples.py`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from model.training.objects import make_objects
from model.training.views import render_views
from runtime import Camera

SEEDS = {"chair": 5, "table": 10, "lamp": 3, "mug": 4, "house": 1, "car": 1, "composition": 7}
SIZE = 384


def main() -> None:
    """Writes one RGBA picture for each family."""
    for family, seed in SEEDS.items():
        view = render_views(make_objects([seed], family), [Camera.orbit()], SIZE)[0, 0]
        pixels = np.round(view.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(Path(__file__).with_name(f"{family}.png"), optimize=True)


if __name__ == "__main__":
    main()
