"""Makes the images of this folder: procedural objects from seeds that no training uses, drawn by exact ray casting.

Run it from the root of the checkout: `python examples/make_examples.py`.
"""

from pathlib import Path

from PIL import Image

from model.training.data.drawing import render_views, to_bytes
from model.training.procedural.objects import make_objects
from runtime import Camera

SEEDS = {"chair": 5, "table": 10, "lamp": 3, "mug": 4, "house": 1, "car": 1, "composition": 7}
SIZE = 384


def main() -> None:
    """Writes one RGBA image for each family."""
    for family, seed in SEEDS.items():
        view = render_views(make_objects([seed], family), [Camera.orbit()], SIZE)[0, 0]
        Image.fromarray(to_bytes(view)).save(Path(__file__).with_name(f"{family}.png"), optimize=True)


if __name__ == "__main__":
    main()
