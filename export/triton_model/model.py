"""The sampling loop as a model of Triton's Python backend: it calls the graphs beside it (business logic scripting).

Needs the package in the interpreter of Triton's Python backend, without extras.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from numpy.typing import NDArray

from runtime.arguments import whole_number
from runtime.diffusion.noise import seeds_of
from runtime.diffusion.plan import SamplingPlan, run_sampler
from runtime.errors import WaveletTriplaneError
from runtime.geometry.cameras import Camera
from runtime.geometry.rays import camera_rays
from runtime.preprocessing import prepare
from runtime.rendering.marching import ray_table
from runtime.wavelet import idwt2d

Array = NDArray[np.float32]
_RAYS_AT_ONCE, _LARGEST_VIEW = 4096, 1024


class TritonPythonModel:
    """Image to triplane and view."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads what the bundle's manifest says."""
        folder = Path(args["model_repository"]) / args["model_version"]
        manifest = json.loads((folder / "manifest.json").read_text())
        self._image, self._defaults = manifest["image"], manifest["defaults"]
        self._schedule = np.array(manifest["schedule"]["alpha"]), np.array(manifest["schedule"]["sigma"])
        self._mean, self._std = (
            np.array(manifest["statistics"][f"detail_{name}"], np.float32)[..., None, None] for name in ("mean", "std")
        )
        self._channels, self._side = (manifest["model"][name] for name in ("triplane_channels", "resolution"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers requests one by one; what cannot be done is an error of its request alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            # All is checked before any network runs.
            size = whole_number("SIZE", int(_one(given, "SIZE", 128)), 16, _LARGEST_VIEW)
            (seed,) = seeds_of(int(_one(given, "SEED", 0)), 1)
            camera = Camera.orbit(float(_one(given, "AZIMUTH", 0)), float(_one(given, "ELEVATION", 20)))
            triplane = self._reconstruct(bytes(given["IMAGE"].reshape(-1)[0]), seed, int(_one(given, "STEPS", 0)))
            view = self._view(triplane, camera, size)
        except (WaveletTriplaneError, pb_utils.TritonModelException, KeyError) as error:
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse([pb_utils.Tensor("TRIPLANE", triplane), pb_utils.Tensor("VIEW", view)])

    def _reconstruct(self, image: bytes, seed: int, steps: int) -> Array:
        prepared = prepare(image, self._image["size"], self._image["framing"]).pixels[None]
        ll, condition = _run("coarse", ("triplane_ll", "condition"), image=prepared)
        plan = SamplingPlan.make(
            self._defaults["sampler"], steps or self._defaults["steps"], self._schedule, self._channels, self._side
        )

        def step(noisy: Array, previous: Array, noise: Array, row: Array) -> tuple[Array, Array]:
            feeds = {"noisy": noisy, "condition": condition, "previous": previous, "noise": noise, "row": row}
            following, denoised = _run("diffusion_step", ("next", "denoised"), **feeds)
            return following, denoised

        details = run_sampler(plan.table.astype(np.float32), plan.noise([seed]), step) * self._std + self._mean
        return np.asarray(idwt2d(ll, *np.split(details, 3, axis=2))[0])

    def _view(self, triplane: Array, camera: Camera, size: int, samples: int = 64) -> NDArray[np.uint8]:
        rays = camera_rays(camera, size, size)
        table, middles = ray_table(rays, samples), np.arange(samples, dtype=np.float32) + np.float32(0.5)
        parts = []
        for start in range(0, size * size, _RAYS_AT_ONCE):
            some = np.ascontiguousarray(table[:, start : start + _RAYS_AT_ONCE])
            feeds = {"triplane": triplane, "origin": rays.origin, "rays": some, "samples": middles}
            parts.append(_run("view", ("drawn",), **feeds)[0])
        colour, alpha = np.split(np.concatenate(parts, axis=1)[:4], [3])
        over_white = np.clip(colour + (1 - alpha), 0, 1).T.reshape(size, size, 3)
        return np.round(over_white * 255).astype(np.uint8)


def _one(given: dict[str, NDArray[Any]], name: str, default: float) -> Any:
    return given[name].reshape(-1)[0] if name in given else default


def _run(model: str, outputs: tuple[str, ...], **feeds: Array) -> list[Array]:
    """Calls a graph."""
    tensors = [pb_utils.Tensor(name, np.ascontiguousarray(value, np.float32)) for name, value in feeds.items()]
    answer = pb_utils.InferenceRequest(model_name=model, requested_output_names=list(outputs), inputs=tensors).exec()
    if answer.has_error():
        raise pb_utils.TritonModelException(answer.error().message())
    return [pb_utils.get_output_tensor_by_name(answer, name).as_numpy() for name in outputs]
