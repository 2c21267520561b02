"""What a request may ask for, and the limits of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from ..diffusion.samplers import SAMPLERS
from ..preprocessing import BACKGROUNDS

Format = Literal["png", "webp", "gif", "depth", "normals", "input", "glb", "obj", "ply", "stl", "usdz", "npz"]
Sampler = Literal["ddim", "dpmpp_2m", "euler", "ddpm"]
Background = Literal["auto", "keep", "plain", "rembg"]
# Literals are written out for the type checker and the API's schema.
assert set(get_args(Sampler)) == set(SAMPLERS)
assert set(get_args(Background)) == set(BACKGROUNDS)


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        body_bytes: of a request's body.
        pixels: of an image.
        waiting: requests that may wait beside the one that is worked on.
        seconds: from a request's arrival to its answer.
        receive_seconds: for a request's body to arrive.
    """

    body_bytes: int = 32 << 20
    pixels: int = 40_000_000
    waiting: int = 16
    seconds: float = 60.0
    receive_seconds: float = 20.0


class Options(BaseModel):
    """Query parameters of a reconstruction."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: list[Format] = Field(
        ["png"], description="What to answer with; several come as a zip.", max_length=len(get_args(Format))
    )
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Of the diffusion's noise; drawn if left out.")
    steps: int | None = Field(None, ge=1, le=50, description="Sampling steps; the bundle's default if left out.")
    sampler: Sampler | None = None
    background: Background = Field("auto", description="Of an opaque image.")
    projected: bool = Field(True, description="Give what the image shows the image's own pixels.")
    silhouette: bool = Field(True, description="Hold the object to the outline that the image shows.")
    azimuth: float = Field(0.0, ge=-360, le=360, description="Of the camera, degrees from +z towards +x.")
    elevation: float = Field(20.0, ge=-89, le=89, description="Of the camera, degrees above the ground.")
    size: int = Field(256, ge=16, le=1024, description="Side of views in pixels.")
    samples: int = Field(64, ge=1, le=256, description="Per ray.")
    transparent: bool = Field(False, description="Leave the background of PNG and WebP out.")
    frames: int = Field(36, ge=2, le=120, description="Of a turntable.")
    texture: int = Field(1024, ge=0, le=2048, description="Side of a mesh's texture; 0 for vertex colours.")
    faces: int = Field(20_000, ge=100, le=1_000_000, description="Of a mesh, at the most.")
    resolution: int = Field(128, ge=8, le=256, description="Samples along each axis that a mesh is cut from.")
    scale: float | None = Field(None, gt=0, le=1e6, description="Longest side of a mesh in metres.")
    ground: bool = Field(False, description="Put a mesh's lowest point at height 0.")
