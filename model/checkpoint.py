"""Checkpoints: one safetensors file, the configuration as JSON in its header. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .config import ModelConfig
from .pipeline import WaveletTriplaneDiffusion

_FORMAT = "wavelet-triplane-diffusion/1"


class CheckpointError(ValueError):
    """The file is missing, damaged, or no checkpoint of this project."""


def save_checkpoint(model: WaveletTriplaneDiffusion, path: Path, half: bool = False) -> None:
    """Writes the model and its notes, atomically; with `half` the weights as float16, the statistics as float32."""
    header = {"format": _FORMAT, "config": json.dumps(asdict(model.config)), "notes": json.dumps(model.notes)}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if half:
        weights |= {name: parameter.detach().cpu().half().contiguous() for name, parameter in model.named_parameters()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(weights, partial, metadata=header)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> WaveletTriplaneDiffusion:
    """Builds the model that the file describes, in evaluation mode, and loads its weights as float32."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors checkpoint ({error}).") from error
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of format {_FORMAT}, but {header.get('format', 'unmarked')}.")
    try:
        model = WaveletTriplaneDiffusion.from_config(ModelConfig(**json.loads(header["config"])))
        model.load_state_dict(weights)
        model.notes = dict(json.loads(header["notes"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the model that its header describes ({error}).") from error
    return model.eval()
