"""Data sets on disk: `python -m model.training.dataset COMMAND`.

make         procedural objects as posed views
from-meshes  a folder of mesh files as posed views with depth, and as the training's teacher sees them
sheet        some views of a data set in one image
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.progress import track

from runtime.commands import one_sentence_errors
from runtime.geometry.cameras import Camera

from .data.drawing import render_views, to_bytes
from .data.posed import PosedViews, object_folders, read_views, write_transforms
from .procedural.objects import ALL_FAMILIES, make_objects

app = typer.Typer(add_completion=False, no_args_is_help=True)


def procedural_views(seed: int, views: int, size: int, family: str | None = None) -> PosedViews:
    """A procedural object from the canonical camera and from `views` - 1 others around it, at changing heights."""
    heights = np.random.default_rng(seed).uniform(-10, 60, views)
    others = [Camera.orbit(360 * index / views, heights[index]) for index in range(1, views)]
    cameras = [Camera.orbit(), *others]
    return PosedViews(to_bytes(render_views(make_objects([seed], family), cameras, size)[0]), tuple(cameras))


@app.command()
@one_sentence_errors()
def make(
    out: Annotated[Path, typer.Option(help="Folder of the data set; one folder per object is made in it.")],
    objects: Annotated[int, typer.Option(help="How many.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the first object.", min=0)] = 0,
    views: Annotated[int, typer.Option(help="Views of each, the canonical one first.", min=1)] = 12,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=16)] = 256,
    family: Annotated[str | None, typer.Option(help=", ".join(ALL_FAMILIES))] = None,
) -> None:
    """Draws procedural objects as posed RGBA views in the NeRF-synthetic layout."""
    if family is not None and family not in ALL_FAMILIES:
        raise typer.BadParameter(f"there are {', '.join(ALL_FAMILIES)}", param_hint="--family")
    for index in track(range(seed, seed + objects), "drawing objects", transient=True):
        write_transforms(out / f"{index:08d}", procedural_views(index, views, size, family))
    typer.echo(f"Wrote {objects} objects with {views} views each to {out}.")


@app.command()
@one_sentence_errors()
def from_meshes(
    source: Annotated[Path, typer.Argument(help="Folder of GLB, glTF, OBJ, PLY and STL files, at any depth.")],
    out: Annotated[Path, typer.Option(help="Folder of the data set; objects that are there already are kept.")],
    variants: Annotated[
        int,
        typer.Option(help="Of each mesh, turned at random; all but the first stretched, some mirrored or hued.", min=1),
    ] = 4,
    views: Annotated[int, typer.Option(help="Pictures of each, the input view first.", min=2)] = 6,
    around: Annotated[bool, typer.Option(help="The benchmark's eight cameras around instead of random ones.")] = False,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=16)] = 256,
    planes: Annotated[int, typer.Option(help="Side of the triplane's planes in texels.", min=16)] = 128,
    up: Annotated[str, typer.Option(help="The axis that points up in the files: y or z.")] = "y",
    validation: Annotated[float, typer.Option(help="Share of the files kept apart, by name.", min=0, max=0.9)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of turns, hues and cameras.", min=0)] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; as many as cores by default.", min=1)] = None,
) -> None:
    """Draws mesh files as posed RGBA views with depth, framed, turned and lit as procedural objects are."""
    # Ray casting is wanted here alone.
    from .data.from_meshes import DrawingPlan, contact_sheet, draw_meshes, mesh_files, write_report

    if up not in ("y", "z"):
        raise typer.BadParameter("y or z", param_hint="--up")
    plan = DrawingPlan(variants, 9 if around else views, around, size, planes, up, seed)
    started, outcomes = time.perf_counter(), []
    count = len(mesh_files(source))
    for outcome in track(draw_meshes(source, out, plan, validation, workers), "drawing meshes", total=count):
        outcomes.append(outcome)
    made = [folder for outcome in outcomes for folder in outcome.folders]
    seconds = time.perf_counter() - started
    typer.echo(f"{len(made)} objects of {count} files in {out}, {len(made) / seconds:.1f} a second.")
    for reason, number in Counter(o.reason.partition(":")[0] for o in outcomes if o.reason).most_common():
        typer.echo(f"left out, {reason}: {number}")
    typer.echo(f"Why each was left out: {write_report(outcomes, out)}.")
    if not made:
        typer.echo("error: nothing could be drawn.", err=True)
        raise typer.Exit(1)
    shown = [made[index] for index in np.linspace(0, len(made) - 1, min(60, len(made))).astype(int)]
    contact_sheet(shown).save(out / "sheet.png")
    typer.echo(f"A look at {len(shown)}: {out / 'sheet.png'}.")


@app.command()
@one_sentence_errors()
def sheet(
    data: Annotated[Path | None, typer.Argument(help="A data set's folder; procedural objects if left out.")] = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("out/sheet.png"),
    rows: Annotated[int, typer.Option(help="Objects.", min=1)] = 8,
    columns: Annotated[int, typer.Option(help="Views of each.", min=1)] = 6,
    size: Annotated[int, typer.Option(help="Side of a tile in pixels.", min=16)] = 128,
) -> None:
    """Shows some views of some objects in one image, over white."""
    if data is None:
        shown = [procedural_views(seed, columns, size).rgba for seed in range(rows)]
    else:
        shown = [read_views(folder).rgba[:columns] for folder in object_folders(data)[:rows]]
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
