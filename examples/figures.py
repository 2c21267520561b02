"""Five figures of what happens to one image: `python visualize_wavelet_triplane.py [IMAGE] [--out DIR]`.

wavelet_decomposition.png   a plane and its four bands, with their energies
triplane_structure.png      the three planes in their place in space
pipeline_outputs.png        all four stages
frequency_separation.png    what each band contributes to the drawn view, and the spectrum of the planes
resolution_comparison.png   the LL band alone, smoothly upsampled, and with its details, beside the image itself

Channels are shown as colours: the three directions in which a plane varies most are red, green and blue.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

import runtime
from runtime.backends.self_check import psnr
from runtime.commands import one_sentence_errors, say
from runtime.geometry.triplane import PLANE_AXES
from runtime.wavelet import dwt2d, idwt2d

Array = NDArray[np.floating]
PLANES, BANDS = ("XY", "XZ", "YZ"), ("LL", "LH", "HL", "HH")
SIDE, SAMPLES = 256, 96


def as_colours(plane: Array, directions: Array | None = None) -> Array:
    """(H, W, 3) in [0, 1] of a plane (C, H, W)."""
    flat = plane.reshape(len(plane), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    if directions is None:
        directions = np.linalg.eigh(flat @ flat.T)[1][:, -3:]
    colours = (directions.T @ flat).reshape(3, *plane.shape[1:])
    spread = np.maximum(np.quantile(np.abs(colours), 0.99, axis=(1, 2), keepdims=True), 1e-9)
    return np.clip(colours / spread / 2 + 0.5, 0, 1).transpose(1, 2, 0)


def smooth(ll: Array) -> Array:
    """The triplane (3, C, 2R, 2R) that bilinear upsampling makes of its LL band (3, C, R, R)."""
    size = (2 * ll.shape[-1], 2 * ll.shape[-2])
    rows = [
        np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BILINEAR)) for p in ll.reshape(-1, *ll.shape[2:])
    ]
    # An orthonormal Haar transform's LL band is twice the mean of four texels.
    return np.stack(rows).reshape(*ll.shape[:2], *size[::-1]) / 2


def wavelet_decomposition(triplane: Array) -> Any:
    """A plane beside its four bands."""
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.6))
    plane, bands = triplane[0], dwt2d(triplane[0])
    _show(axes[0], as_colours(plane), f"XY plane, {plane.shape[-1]}x{plane.shape[-1]}")
    total = np.square(plane).sum()
    for axis, name, band in zip(axes[1:], BANDS, bands, strict=True):
        _show(axis, as_colours(band), f"{name}, {100 * np.square(band).sum() / total:.2f} % of the energy")
    figure.suptitle("One level of the Haar wavelet transform (bands in colours of their own)")
    return figure


def triplane_structure(triplane: Array) -> Any:
    """The planes where they are in space."""
    figure = plt.figure(figsize=(7, 6.5))
    axis: Any = figure.add_subplot(projection="3d")
    step = max(1, triplane.shape[-1] // 64)
    for name, plane, (column, row, sign) in zip(PLANES, triplane, PLANE_AXES, strict=True):
        colours = as_colours(plane)[::step, ::step]
        edges = np.linspace(-1, 1, len(colours) + 1)
        u, v = np.meshgrid(edges, edges)
        scene = [np.zeros_like(u)] * 3
        scene[column], scene[row] = u, sign * v
        x, y, z = scene
        # Matplotlib's third axis points up, the scene's second does.
        axis.plot_surface(x, -z, y, facecolors=colours, rstride=1, cstride=1, shade=False, alpha=0.75)
        corner = [0.0, 0.0, 0.0]
        corner[column], corner[row] = 0.85, -1.12 * sign
        axis.text(corner[0], -corner[2], corner[1], name)
    axis.set(xlabel="x", ylabel="-z (front is near)", zlabel="y", title="Three planes: a point reads all of them")
    axis.set_box_aspect((1, 1, 1))
    return figure


def pipeline_outputs(scene: runtime.Scene) -> Any:
    """What each stage hands on."""
    figure, axes = plt.subplots(3, 6, figsize=(15, 7.6))
    assert scene.source is not None
    views = [scene.render(runtime.Camera.orbit(angle), SIDE, SAMPLES).rgb for angle in (0, 60, 180)]
    for row, (plane, name) in enumerate(zip(scene.triplane, PLANES, strict=True)):
        ll, *details = dwt2d(plane)
        _show(axes[row, 1], as_colours(ll), f"1 coarse: LL, {name}")
        _show(axes[row, 2], as_colours(np.concatenate(details)), f"2 diffusion: LH HL HH, {name}")
        _show(axes[row, 3], as_colours(plane), f"3 inverse wavelet, {name}")
        _show(axes[row, 4], views[row], f"4 drawn at {(0, 60, 180)[row]}°")
        depth = scene.render(runtime.Camera.orbit((0, 60, 180)[row]), SIDE, SAMPLES)
        _show(axes[row, 5], np.where(depth.alpha > 0.5, depth.depth, np.nan), "its depth", cmap="viridis")
        axes[row, 0].axis("off")
    _show(axes[0, 0], scene.source.to_uint8(), "input image")
    return figure


def frequency_separation(rt: runtime.Runtime, triplane: Array) -> Any:
    """What a band adds to the drawn view, and how energy falls with frequency."""
    figure, axes = plt.subplots(1, 6, figsize=(17, 3.3), width_ratios=(1, 1, 1, 1, 1, 1.3))
    bands = [np.stack(band) for band in zip(*(dwt2d(plane) for plane in triplane), strict=True)]
    full = rt.scene(triplane).render(image_size=SIDE, num_samples=SAMPLES).rgb
    _show(axes[0], full, "all bands")
    for axis, name, index in zip(axes[1:5], BANDS, range(4), strict=True):
        kept = [np.zeros_like(band) if i == index else band for i, band in enumerate(bands)]
        without = rt.scene(idwt2d(*kept)).render(image_size=SIDE, num_samples=SAMPLES).rgb
        change = np.abs(full - without).mean(axis=2)
        _show(axis, change, f"change without {name}\nmean {255 * change.mean():.2f} of 255", cmap="magma")
    spectrum = np.square(np.abs(np.fft.fftshift(np.fft.fft2(triplane), axes=(-2, -1)))).mean(axis=(0, 1))
    middle = len(spectrum) // 2
    radius = np.hypot(*(np.indices(spectrum.shape) - middle)).astype(int)
    power = np.bincount(radius.ravel(), spectrum.ravel()) / np.bincount(radius.ravel())
    axes[5].loglog(np.arange(1, middle), power[1:middle])
    axes[5].axvline(middle / 2, linestyle="--", color="grey")
    axes[5].set(title="power of the planes", xlabel="cycles a plane; the line: end of LL")
    return figure


def resolution_comparison(rt: runtime.Runtime, scene: runtime.Scene) -> Any:
    """The three ways to a triplane from the same LL band, drawn from where the image was taken."""
    assert scene.source is not None
    truth = np.asarray(Image.fromarray(scene.source.to_uint8()).resize((SIDE, SIDE)), np.float32) / 255
    ll = np.stack([dwt2d(plane)[0] for plane in scene.triplane])
    zero = np.zeros_like(ll)
    rows = {"LL alone": idwt2d(ll, zero, zero, zero), "LL, bilinear": smooth(ll), "with its details": scene.triplane}
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.8))
    for axis, (name, triplane) in zip(axes, rows.items(), strict=False):
        drawn = rt.scene(triplane).render(image_size=SIDE, num_samples=SAMPLES).rgb
        _show(axis, drawn, f"{name}\n{psnr(drawn, truth, 1.0):.2f} dB to the image")
    _show(axes[3], truth, "the image itself")
    return figure


def _show(axis: Any, pixels: Array, title: str, **options: Any) -> None:
    axis.imshow(pixels, **options)
    axis.set_title(title, fontsize=10)
    axis.axis("off")


@one_sentence_errors()
def main(
    image: Annotated[Path, typer.Argument(help="Image of one object.")] = Path(__file__).parent / "mug.png",
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("out/figures"),
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")] = None,
) -> None:
    """Draws five figures of what happens to an image."""
    with runtime.load(bundle) as rt:
        scene = rt.reconstruct(image)
        figures = {
            "wavelet_decomposition": wavelet_decomposition(scene.triplane),
            "triplane_structure": triplane_structure(scene.triplane),
            "pipeline_outputs": pipeline_outputs(scene),
            "frequency_separation": frequency_separation(rt, scene.triplane),
            "resolution_comparison": resolution_comparison(rt, scene),
        }
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=110, bbox_inches="tight")
        plt.close(figure)
        say(f"Wrote {out / name}.png.")
