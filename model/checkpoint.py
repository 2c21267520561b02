"""Checkpoints: one safetensors file, everything else as JSON in its header. Nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from runtime.errors import ProjectError
from runtime.file_kinds import format_name
from runtime.files import atomic_write


class CheckpointError(ProjectError, ValueError):
    """The file is missing, damaged, or no checkpoint of the kind that is asked for."""


def write_checkpoint(path: Path, kind: str, weights: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes weights, their kind and JSON values, atomically.

    Args:
        path: of the file; its folder is made.
        kind: name and version of what the weights are of.
        weights: tensors by name, of any dtype and on any device.
        header: JSON values by name.
    """
    texts = {"format": kind, **{name: json.dumps(value) for name, value in header.items()}}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata=texts)


def read_checkpoint(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write_checkpoint` wrote.

    Returns:
        The weights as float32, and the header's values.

    Raises:
        CheckpointError: the file cannot be read, or is of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            weights = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({error.strerror or error}).") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {_kind(path) or error}.") from error
    found = texts.pop("format", "unmarked")
    if found != kind:
        raise CheckpointError(f"{path} is no checkpoint of format {kind}, but {found}.")
    try:
        return weights, {name: json.loads(text) for name, text in texts.items()}
    except ValueError as error:
        raise CheckpointError(f"{path} has a damaged header ({error}).") from error


def _kind(path: Path) -> str | None:
    """What a file is instead, None where its beginning does not say."""
    with path.open("rb") as file:
        known = format_name(file.read(4096))
    return f"it is a {known}" if known else None
