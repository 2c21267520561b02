"""Checks for people who train: `python -m model.debug shapes|wavelet|gradients|memory|parity [--checkpoint FILE]`.

Each prints a table; what is wrong is one sentence, with the advice for it, and exit status 1. As functions they return
the table's rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from runtime.commands import one_sentence_errors, say
from runtime.errors import ProjectError

from .config import PRESETS
from .pipeline import WaveletTriplaneDiffusion
from .wavelet import WaveletTransform

Rows = list[tuple[str, str]]
NAN_ADVICE = (
    "Lower the learning rate, clip gradients (torch.nn.utils.clip_grad_norm_(parameters, 1.0)), and look for a "
    "division by 0 in what you draw."
)
MEMORY_ADVICE = "Take a smaller batch, fewer triplane_channels, gradient checkpointing, or bfloat16 autocast."
BANDS_ADVICE = "The four bands given to idwt2d must have one shape."
# Mean absolute error of a round trip of unit noise in float32.
_ROUND_TRIP = 1e-6


class DebugError(ProjectError, RuntimeError):
    """A check failed; the message says what to do."""


def shapes(model: WaveletTriplaneDiffusion, batch: int = 1) -> Rows:
    """Lists what the stages hand on for a batch of noise.

    Raises:
        DebugError: a value is not finite.
    """
    side = 4 * model.config.resolution
    with torch.no_grad():
        outputs = model(torch.rand(batch, 3, side, side) * 2 - 1, return_intermediate=True)
    for name, value in outputs.items():
        if not torch.isfinite(value).all():
            raise DebugError(f"{name} is not finite. {NAN_ADVICE}")
    return [
        (name, f"{tuple(value.shape)}  {value.min():+.3f} to {value.max():+.3f}") for name, value in outputs.items()
    ]


def wavelet(model: WaveletTriplaneDiffusion) -> Rows:
    """Measures the round trip of the wavelet transform, and whether it keeps energy.

    Raises:
        DebugError: it loses more than rounding does.
    """
    transform, side = WaveletTransform(), 2 * model.config.resolution
    x = torch.randn(1, model.config.triplane_channels, side, side)
    split = transform.dwt2d(x)
    error = (transform.idwt2d(*split) - x).abs().mean().item()
    energy = (sum(band.square().sum() for band in split) / x.square().sum()).item()
    if error > _ROUND_TRIP or abs(energy - 1) > 1e-4:
        raise DebugError(
            f"The round trip loses {error:.1e}, and energy changes by a factor of {energy:.5f}. {BANDS_ADVICE}"
        )
    return [("mean absolute error", f"{error:.1e}"), ("energy of the bands over that of the plane", f"{energy:.6f}")]


def gradients(model: WaveletTriplaneDiffusion) -> Rows:
    """Lists each part's gradient of a drawn image.

    Raises:
        DebugError: a parameter gets none, or one that is not finite.
    """
    side, was_training = 4 * model.config.resolution, model.training
    model.train().zero_grad()
    model(torch.rand(1, 3, side, side) * 2 - 1)["rendered_image"].square().mean().backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    wild = [name for name, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    rows = [
        (name, f"norm {_norm(part):.2e}")
        for name, part in model.named_children()
        if any(True for _ in part.parameters())
    ]
    model.zero_grad()
    model.train(was_training)
    if missing:
        raise DebugError(f"No gradient reaches {', '.join(missing)}. Is it detached, or not used?")
    if wild:
        raise DebugError(f"The gradient of {', '.join(wild)} is not finite. {NAN_ADVICE}")
    return rows


def memory(model: WaveletTriplaneDiffusion, batch: int = 2) -> Rows:
    """Measures what a training step keeps for its backward pass, beside the weights.

    Raises:
        DebugError: there is not enough memory.
    """
    kept, side = [0], 4 * model.config.resolution

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[0] += tensor.untyped_storage().nbytes()
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.rand(batch, 3, side, side) * 2 - 1)["rendered_image"].mean()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise DebugError(f"A batch of {batch} takes more memory than there is. {MEMORY_ADVICE}") from None
        raise
    weights = sum(p.nbytes for p in model.parameters())
    return [
        ("weights", _mib(weights)),
        ("gradients and Adam's two moments", _mib(3 * weights)),
        (f"kept for the backward pass, batch of {batch}, at the most", _mib(kept[0])),
    ]


def parity(model: WaveletTriplaneDiffusion) -> Rows:
    """Compares the runtime's inverse wavelet transform with PyTorch's; graphs and views are the exporter's to compare.

    Raises:
        DebugError: they differ by more than rounding.
    """
    from runtime.wavelet import idwt2d

    transform = WaveletTransform()
    split = [torch.randn(2, 4, 16, 16) for _ in range(4)]
    difference = abs(idwt2d(*(band.numpy() for band in split)) - transform.idwt2d(*split).numpy()).max()
    if difference > 1e-5:
        raise DebugError(f"The inverse wavelet transforms differ by {difference:.1e}. {BANDS_ADVICE}")
    return [("inverse wavelet transform, largest difference", f"{difference:.1e}"),
            ("graphs and views", "python export/to_onnx.py --checkpoint FILE compares them")]  # fmt: skip


CHECKS: dict[str, Callable[[WaveletTriplaneDiffusion], Rows]] = {
    "shapes": shapes, "wavelet": wavelet, "gradients": gradients, "memory": memory, "parity": parity,
}  # fmt: skip


def _norm(part: nn.Module) -> float:
    return float(sum(p.grad.square().sum() for p in part.parameters() if p.grad is not None)) ** 0.5


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


@one_sentence_errors()
def main(
    checks: Annotated[list[str], typer.Argument(help=f"{', '.join(CHECKS)}; all if none.", show_default=False)] = [],  # noqa: B006
    checkpoint: Annotated[Path | None, typer.Option(help="Weights; a fresh small model without.")] = None,
) -> None:
    """Checks a model before and during training."""
    for name in checks:
        if name not in CHECKS:
            raise DebugError(f"Unknown check {name!r}. There are {', '.join(CHECKS)}.")
    torch.manual_seed(0)
    fresh = checkpoint is None
    model = (
        WaveletTriplaneDiffusion.from_config(PRESETS["small"]) if fresh else WaveletTriplaneDiffusion.load(checkpoint)
    )
    for name in checks or CHECKS:
        say(name)
        rows = CHECKS[name](model)
        width = max(len(label) for label, _ in rows)
        for label, value in rows:
            say(f"  {label:{width}}  {value}")


if __name__ == "__main__":
    typer.run(main)
