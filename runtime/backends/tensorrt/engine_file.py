"""Engines on disk: each in one file with the key that it was built for, never read under another.

A file is a line of magic, the header's length, the sha256 of what follows, the header (the key as JSON) and the plan.
It is written beside and renamed, so that a build that is killed leaves what was there before.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...bundle import ENGINES, Bundle
from ...files import atomic_write, temporary_names

_MAGIC = b"wavelet-triplane-diffusion engine 2\n"
_LENGTH, _DIGEST = 8, 32
Profile = Mapping[str, Sequence[Sequence[int]]]


class EngineMiss(Exception):
    """There is no engine for a key; the message says in words what is there instead, or what changed."""


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on. One built for another key is never used.

    Attributes:
        graph: sha256 of the ONNX file.
        flavour: "tensorrt" or "rtx".
        version: its full version.
        device: the GPU's name and compute capability, or the targets that RTX built for.
        profile: for each input its least, best and largest shape.
        options: of the builder, such as the workspace.
    """

    graph: str
    flavour: str
    version: str
    device: str
    profile: Profile
    options: Mapping[str, Any]

    def differences(self, old: Mapping[str, Any]) -> list[str]:
        """In words, what `old`, a key as JSON, has otherwise."""
        new = json.loads(json.dumps(asdict(self)))
        said = []
        if old.get("graph") != new["graph"]:
            said.append("the graph is another one")
        if old.get("flavour") != new["flavour"]:
            said.append(f"it is for the flavour {old.get('flavour')}, not {new['flavour']}")
        elif old.get("version") != new["version"]:
            said.append(f"it was built by version {old.get('version')}, {new['version']} is installed")
        if old.get("device") != new["device"]:
            said.append(f"it is for {old.get('device')}, not {new['device']}")
        said += _other_profile(old.get("profile"), new["profile"])
        if old.get("options") != new["options"]:
            said.append(f"its options are {old.get('options')}, not {new['options']}")
        return said


def read_engine(path: Path, key: EngineKey) -> bytes:
    """The plan in a file, if it was built for `key` and every byte of it is there.

    Raises:
        EngineMiss: there is none, it is damaged, or it is for another key.
    """
    old, plan = open_engine(path)
    differences = key.differences(old)
    if differences:
        raise EngineMiss("; ".join(differences))
    return plan


def find_engine(path: Path, graph: str, flavour: str, version: str, gpu: str) -> bytes:
    """The plan in a file, if it is of this graph and runs on this GPU; profile and options are those that it has.

    Args:
        path: of the engine.
        graph: sha256 of the ONNX file.
        flavour: "tensorrt" or "rtx".
        version: of what is installed.
        gpu: name and compute capability, as "NVIDIA L4, sm89".

    Raises:
        EngineMiss: there is none, it is damaged, or it is for something else.
    """
    old, plan = open_engine(path)
    device = str(old.get("device"))
    # RTX builds for compute capabilities, not for one GPU.
    fits = flavour == "rtx" and gpu.split(", ")[-1] in device.split(", ")
    key = EngineKey(graph, flavour, version, device if fits else gpu, old.get("profile", {}), old.get("options", {}))
    differences = key.differences(old)
    if differences:
        raise EngineMiss("; ".join(differences))
    return plan


def built_by(path: Path) -> str:
    """The flavour that an engine was built by; "auto" where its file does not say."""
    try:
        flavour = open_engine(path)[0].get("flavour")
    except EngineMiss:
        return "auto"
    return flavour if flavour in ("tensorrt", "rtx") else "auto"


def open_engine(path: Path) -> tuple[dict[str, Any], bytes]:
    """Reads the key and the plan of a file, every byte of it checked. Raises `EngineMiss`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise EngineMiss("there is none yet") from None
    except OSError as error:
        raise EngineMiss(f"it cannot be read ({error.strerror})") from None
    start = len(_MAGIC) + _LENGTH + _DIGEST
    if not raw.startswith(_MAGIC) or len(raw) < start:
        raise EngineMiss("the file is damaged, or no engine of this project")
    length, digest = raw[len(_MAGIC) : start - _DIGEST], raw[start - _DIGEST : start]
    if hashlib.sha256(length + raw[start:]).digest() != digest:
        raise EngineMiss("the file is damaged: it does not match its sha256")
    plan_start = start + int.from_bytes(length, "little")
    key: dict[str, Any] = json.loads(raw[start:plan_start])
    return key, raw[plan_start:]


def write_engine(path: Path, key: EngineKey, plan: bytes) -> None:
    """Writes a plan and its key, atomically; one build of an engine at a time."""
    header = json.dumps(asdict(key)).encode()
    length = len(header).to_bytes(_LENGTH, "little")
    for left in path.parent.glob(temporary_names(path.name)):  # Of builds that were killed.
        left.unlink(missing_ok=True)
    with atomic_write(path) as partial, partial.open("wb") as file:
        file.write(_MAGIC + length + hashlib.sha256(length + header + plan).digest() + header + plan)
        file.flush()
        os.fsync(file.fileno())


def engine_folder(bundle: Bundle) -> Path:
    """Where the engines of a bundle lie: beside its graphs, so that both are moved together."""
    return bundle.path / ENGINES


def build_hint(bundle: Bundle, precision: str) -> str:
    """The command that builds a variant's engines."""
    return f"Run `python export/to_tensorrt.py --bundle {bundle.path} --precision {precision}`."


def engine_path(folder: Path, precision: str, graph: str) -> Path:
    """Where the engine of one graph lies."""
    return folder / precision / f"{graph}.engine"


def _other_profile(old: Any, new: dict[str, Any]) -> list[str]:
    if old == new:
        return []
    if not isinstance(old, dict) or set(old) != set(new):
        return ["its profile is of other inputs"]
    return [
        f"its profile of {name} is {_shapes(old[name])}, not {_shapes(new[name])}"
        for name in new
        if old[name] != new[name]
    ]


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return " / ".join("x".join(map(str, shape)) for shape in shapes)
