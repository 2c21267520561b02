"""Checks of arguments that several calls share: numbers, image sizes, background colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

MAX_SIDE = 8192


def whole_number(name: str, value: Any, least: int, most: int | None = None, remedy: str | None = None) -> int:
    """Returns `value` as an int if it is a whole number in range; True and False are none.

    Args:
        name: of the argument, for the message.
        value: int or NumPy integer.
        least: smallest value allowed.
        most: largest value allowed; None for no limit.
        remedy: second half of the message; None for one that repeats the range.

    Raises:
        OptionError: of another type, or out of range.
    """
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not fits or value < least or (most is not None and value > most):
        allowed = f"of {least} or more" if most is None else f"from {least} to {most}"
        shown = repr(value)
        raise OptionError(
            f"{name} must be a whole number {allowed}, not {shown if len(shown) <= 80 else shown[:77] + '...'}.",
            remedy or f"Give a whole number {allowed}.",
        )
    return int(value)


def real_number(name: str, value: Any, above: float) -> float:
    """Returns `value` as a float if it is a finite number greater than `above`; True and False are none.

    Args:
        name: of the argument, for the message.
        value: int, float or NumPy number.
        above: the limit.

    Raises:
        OptionError: of another type, or out of range.
    """
    fits = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not fits or not np.isfinite(value) or value <= above:
        raise OptionError(f"{name} must be a number above {above:g}, not {value!r}.", f"Give a number above {above:g}.")
    return float(value)


def image_sides(image_size: Any) -> tuple[int, int]:
    """Returns (height, width) in pixels of a side or a pair of sides, each from 1 to 8192.

    Raises:
        OptionError: a side out of range.
    """
    pair = image_size if isinstance(image_size, tuple | list) and len(image_size) == 2 else (image_size, image_size)
    height, width = (whole_number("image_size", side, 1, MAX_SIDE) for side in pair)
    return height, width


def rgb_colour(background: Any) -> NDArray[np.float32]:
    """Returns an RGB colour (3,) in [0, 1].

    Raises:
        OptionError: not three numbers in [0, 1].
    """
    try:
        colour = np.asarray(background, np.float32)
    except (TypeError, ValueError):
        colour = np.empty(0, np.float32)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 1)).all():
        raise OptionError(f"A background is three numbers in [0, 1], not {background!r}.", "White is (1, 1, 1).")
    return colour
