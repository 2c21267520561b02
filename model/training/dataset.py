"""Data sets on disk: `python -m model.training.dataset make --out DIR`, and `sheet DIR --out FILE` to look at one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.progress import track

from runtime.cameras import Camera

from .objects import FAMILIES, make_objects
from .posed import DataError, PosedViews, object_folders, read_views, write_transforms
from .views import render_views

app = typer.Typer(add_completion=False, no_args_is_help=True)


def procedural_views(seed: int, views: int, size: int, family: str | None = None) -> PosedViews:
    """A procedural object from the canonical camera and from `views` - 1 others around it, at changing heights."""
    heights = np.random.default_rng(seed).uniform(-10, 60, views)
    others = [Camera.orbit(360 * index / views, heights[index]) for index in range(1, views)]
    cameras = [Camera.orbit(), *others]
    drawn = render_views(make_objects([seed], family), cameras, size)[0]
    return PosedViews((drawn.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8), tuple(cameras))


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="Folder of the data set; one folder per object is made in it.")],
    objects: Annotated[int, typer.Option(help="How many.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the first object.", min=0)] = 0,
    views: Annotated[int, typer.Option(help="Views of each, the canonical one first.", min=1)] = 12,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=16)] = 256,
    family: Annotated[str | None, typer.Option(help=", ".join(FAMILIES))] = None,
) -> None:
    """Draws procedural objects as posed RGBA views in the NeRF-synthetic layout."""
    if family is not None and family not in FAMILIES:
        raise typer.BadParameter(f"there are {', '.join(FAMILIES)}", param_hint="--family")
    for index in track(range(seed, seed + objects), "drawing objects", transient=True):
        write_transforms(out / f"{index:08d}", procedural_views(index, views, size, family))
    typer.echo(f"Wrote {objects} objects with {views} views each to {out}.")


@app.command()
def sheet(
    data: Annotated[Path | None, typer.Argument(help="A data set's folder; procedural objects if left out.")] = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("out/sheet.png"),
    rows: Annotated[int, typer.Option(help="Objects.", min=1)] = 8,
    columns: Annotated[int, typer.Option(help="Views of each.", min=1)] = 6,
    size: Annotated[int, typer.Option(help="Side of a tile in pixels.", min=16)] = 128,
) -> None:
    """Shows some views of some objects in one picture, over white."""
    try:
        if data is None:
            shown = [procedural_views(seed, columns, size).rgba for seed in range(rows)]
        else:
            shown = [read_views(folder).rgba[:columns] for folder in object_folders(data)[:rows]]
    except (DataError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    picture = Image.new("RGB", (columns * size, len(shown) * size), "white")
    for row, views in enumerate(shown):
        for column, pixels in enumerate(views):
            tile = Image.fromarray(pixels).resize((size, size))
            picture.paste(tile, (column * size, row * size), tile)
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    typer.echo(f"Wrote {out}.")


if __name__ == "__main__":
    app()
