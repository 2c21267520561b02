"""Records of arrays that can be compared: dataclasses alone would ask an array whether it is true."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np


class ArrayRecord:
    """Base of a frozen dataclass (with eq=False) whose fields are arrays, records or None: equal where all are."""

    def __eq__(self, other: object) -> Any:
        if type(other) is not type(self):
            return NotImplemented
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    def __hash__(self) -> int:
        return hash(tuple(np.shape(getattr(self, field.name)) for field in fields(self)))  # type: ignore[arg-type]
