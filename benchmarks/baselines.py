"""What a user would run instead: the same weights in PyTorch, in plain ONNX Runtime, in OpenVINO. And our runtime.

Each row does all stages with the same noise and the same sampler table, and hands back host memory. PyTorch, ONNX
Runtime and OpenVINO draw as their users would: every sample of every ray, in chunks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch
import trimesh
import xatlas
from fast_simplification import simplify
from PIL import Image
from skimage.measure import marching_cubes
from torch import Tensor, nn
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

import runtime
from model import WaveletTriplaneDiffusion
from runtime.array_types import Array
from runtime.bundle import Bundle
from runtime.diffusion.plan import SamplingPlan, run_sampler
from runtime.geometry.rays import camera_rays
from runtime.meshing.charts import rasterised
from runtime.meshing.writing import file_contents
from runtime.preprocessing import prepare_image
from runtime.profiling import stage
from runtime.rendering.marching import composite, midpoints
from runtime.rendering.occupancy import OUTSIDE_LOGIT

_POINTS = 1 << 18
# Of the mesh with a texture.
RESOLUTION, FACES, TEXTURE = 128, 20_000, 1024


class Row(Protocol):
    """One way to run the model."""

    def triplane(self, image: Path, steps: int) -> Any:
        """An image's triplane, wherever this row keeps it."""
        ...

    def view(self, triplane: Any, size: int, samples: int) -> Array:
        """(size, size, 3), the triplane from the canonical camera."""
        ...

    def mesh(self, triplane: Any, resolution: int) -> Any:
        """Vertices, faces and colours."""
        ...

    def asset(self, image: Path, steps: int) -> bytes:
        """An image as a GLB with a texture."""
        ...


class Ours:
    """The runtime of this project."""

    def __init__(self, bundle: Path, backend: str, precision: str) -> None:
        self.runtime = runtime.load(bundle, backend=backend, precision=precision)

    def triplane(self, image: Path, steps: int) -> runtime.Scene:
        return self.runtime.reconstruct(image, steps=steps)

    def view(self, triplane: runtime.Scene, size: int, samples: int) -> Array:
        return triplane.render(None, size, samples).rgb

    def fresh_view(self, triplane: runtime.Scene, size: int, samples: int) -> Array:
        """A view of a scene that nothing has been drawn of yet: its preparation is in the time."""
        return self.runtime.scene(triplane.triplane).render(None, size, samples).rgb

    def mesh(self, triplane: runtime.Scene, resolution: int) -> runtime.Mesh:
        return self.runtime.scene(triplane.triplane).mesh(resolution, clean=False)

    def asset(self, image: Path, steps: int) -> bytes:
        """The image's file to a GLB with a texture, with the image's own pixels on what it shows."""
        mesh = self.triplane(image, steps).mesh(RESOLUTION, projected=True, faces=FACES, texture=TEXTURE)
        return file_contents(mesh, Path("object.glb"))[Path("object.glb")]


class _Plain:
    """The stages of the other rows, around three calls of theirs."""

    bundle: Bundle

    def coarse(self, image: Array) -> tuple[Any, Any]:
        raise NotImplementedError

    def step(self, noisy: Any, condition: Any, previous: Any, noise: Any, row: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def assemble(self, ll: Any, details: Any) -> Any:
        raise NotImplementedError

    def mesh(self, triplane: Any, resolution: int) -> tuple[Array, Array, Array]:
        """Vertices in scene units, faces, colours of the vertices."""
        raise NotImplementedError

    def colours(self, triplane: Any, points: Array) -> Array:
        """Of points (N, 3), in [0, 1]."""
        raise NotImplementedError

    def asset(self, image: Path, steps: int) -> bytes:
        """The image's file to a GLB with a texture, by the libraries that others take for it."""
        triplane = self.triplane(image, steps)
        vertices, faces, _ = self.mesh(triplane, RESOLUTION)
        vertices, faces = simplify(vertices, faces.astype(np.int32), target_count=FACES)
        origin, faces, uv = xatlas.parametrize(vertices, faces)
        vertices = vertices[origin]
        # Rows count from the top as glTF's v does; trimesh counts from the bottom and turns it back.
        face, texel, shares = rasterised(uv[faces] * TEXTURE, TEXTURE)
        pixels = np.zeros((TEXTURE * TEXTURE, 3), np.uint8)
        points = np.einsum("kc,kcd->kd", shares, vertices[faces[face]]).astype(np.float32)
        pixels[texel] = np.round(np.clip(self.colours(triplane, points), 0, 1) * 255)
        picture = Image.fromarray(pixels.reshape(TEXTURE, TEXTURE, 3))
        uv[:, 1] = 1 - uv[:, 1]
        visual = TextureVisuals(uv, material=PBRMaterial(baseColorTexture=picture))
        return trimesh.Trimesh(vertices, faces, visual=visual, process=False).export(file_type="glb")

    def put(self, values: Array) -> Any:
        """Host memory to where this row computes."""
        return values

    def triplane(self, image: Path, steps: int) -> Any:
        bundle = self.bundle
        with stage("image"):
            prepared = self.put(prepare_image(image, bundle.image_size, bundle.framing)[None])
        plan = SamplingPlan.make(bundle.default_sampler, steps, bundle.schedule, bundle.channels, bundle.resolution)
        noise = self.put(plan.noise([0]))
        with stage("coarse"):
            ll, condition = self.coarse(prepared)

        def step(noisy: Any, previous: Any, fresh: Any, row: Array) -> tuple[Any, Any]:
            with stage("step"):
                return self.step(noisy, condition, previous, fresh, self.put(row))

        details = run_sampler(plan.table.astype(np.float32), noise, step)
        with stage("idwt"):
            return self.assemble(ll, details)


class PyTorch(_Plain):
    """PyTorch, eager or compiled; bfloat16 by autocast, as its users have it.

    Args:
        model: in evaluation.
        bundle: of its export, for its constants.
        bfloat16: matrix products in bfloat16; compiled: through torch.compile.
        device: "cpu" or "cuda".
    """

    def __init__(
        self, model: WaveletTriplaneDiffusion, bundle: Bundle, bfloat16: bool, compiled: bool, device: str = "cpu"
    ) -> None:
        self.bundle, self._device, self._bfloat16 = bundle, device, bfloat16
        self._model = copy.deepcopy(model).to(device).eval()
        if bfloat16:
            # Otherwise autocast would convert every weight again at each call.
            for layer in self._model.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    layer.to(torch.bfloat16)
        self._coarse: Callable[..., Any] = self._model.predict_ll
        self._step: Callable[..., Any] = self._model.step
        if compiled:
            # Weights become constants, which lets the compiler lay them out once; on a GPU launches are captured.
            torch._inductor.config.freezing = True
            mode = "max-autotune" if device == "cuda" else None
            self._coarse, self._step = (torch.compile(call, mode=mode) for call in (self._coarse, self._step))
            self._model.renderer.march = torch.compile(self._model.renderer.march, mode=mode)  # type: ignore[method-assign]

    def put(self, values: Array) -> Tensor:
        return torch.from_numpy(np.array(values)).to(self._device)

    def coarse(self, image: Tensor) -> tuple[Tensor, Tensor]:
        with self._inference():
            ll, condition = self._coarse(image)
            return ll.clone(), condition.clone()

    def step(self, noisy: Tensor, condition: Tensor, previous: Tensor, noise: Tensor, row: Tensor) -> tuple[Any, Any]:
        with self._inference():
            following, denoised = self._step(noisy, condition, previous, noise, row)
            return following.clone(), denoised.clone()

    def assemble(self, ll: Tensor, details: Tensor) -> Tensor:
        with torch.inference_mode():
            return self._model.reconstruct_planes(ll.float(), self._model.in_units(details.float()))

    def view(self, triplane: Tensor, size: int, samples: int) -> Array:
        with stage("render"), self._inference():
            drawn = self._model.renderer.render_volume(triplane, samples, size)
            return drawn[0].permute(1, 2, 0).float().cpu().numpy()

    def mesh(self, triplane: Tensor, resolution: int) -> tuple[Array, Array, Array]:
        renderer = self._model.renderer
        with self._inference():
            axis = torch.linspace(-1, 1, resolution, device=self._device)
            points = torch.cartesian_prod(axis, axis, axis)
            logits = torch.cat([renderer.logits(triplane, part[None])[1][0] for part in points.split(_POINTS)])
            cube = logits.reshape((resolution,) * 3).float().cpu().numpy()
            vertices, faces, _, _ = marching_cubes(
                np.pad(cube, 1, constant_values=OUTSIDE_LOGIT), self.bundle.surface_logit
            )
            places = torch.from_numpy((vertices - 1) * 2 / (resolution - 1) - 1).float().to(self._device)
            return places.cpu().numpy(), faces, renderer(triplane, places[None])[0][0].float().cpu().numpy()

    def colours(self, triplane: Tensor, points: Array) -> Array:
        with self._inference():
            parts = torch.from_numpy(points).to(self._device).split(_POINTS)
            return torch.cat([self._model.renderer(triplane, part[None])[0][0] for part in parts]).float().cpu().numpy()

    def _inference(self) -> Any:
        if self._bfloat16:
            return _Both(torch.inference_mode(), torch.autocast(self._device, torch.bfloat16))
        return torch.inference_mode()


class Graphs(_Plain):
    """The bundle's graphs in a general engine, the renderer asked for every sample.

    Args:
        bundle: verified.
        precision: one of its variants.
        engine: graph file's bytes to a function of inputs by name.
    """

    def __init__(
        self, bundle: Bundle, precision: str, engine: Callable[[bytes], Callable[[dict[str, Array]], list[Array]]]
    ) -> None:
        self.bundle = bundle
        self._run = {
            name: engine(bundle.graph(precision, name).data)
            for name in ("coarse", "diffusion_step", "assemble", "renderer")
        }

    def coarse(self, image: Array) -> tuple[Array, Array]:
        ll, condition = self._run["coarse"]({"image": image})
        return ll, condition

    def step(self, noisy: Array, condition: Array, previous: Array, noise: Array, row: Array) -> tuple[Array, Array]:
        feeds = {"noisy": noisy, "condition": condition, "previous": previous, "noise": noise, "row": row}
        following, denoised = self._run["diffusion_step"](feeds)
        return following, denoised

    def assemble(self, ll: Array, details: Array) -> Array:
        return self._run["assemble"]({"triplane_ll": ll, "details": details})[0]

    def view(self, triplane: Array, size: int, samples: int) -> Array:
        with stage("render"):
            rays = camera_rays(runtime.Camera.orbit(), size, size)
            picture = np.ones((size * size, 3), np.float32)
            each = max(1, _POINTS // samples)
            for start in range(0, size * size, each):
                some = rays.take(np.arange(start, min(start + each, size * size)))
                distances = midpoints(some, samples)
                points = some.origin + distances[..., None] * some.directions
                rgb, density = self._query(triplane, points.reshape(-1, 3))
                step = (some.far - some.near) / np.float32(samples)
                shape = distances.shape
                colour, alpha, _ = composite(
                    rgb.T.reshape(3, *shape), density.reshape(shape), distances, step, some.cosine
                )
                picture[start : start + each] = (colour + (1 - alpha)).T
            return picture.reshape(size, size, 3)

    def mesh(self, triplane: Array, resolution: int) -> tuple[Array, Array, Array]:
        axis = np.linspace(-1, 1, resolution, dtype=np.float32)
        points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        density = np.concatenate(
            [self._query(triplane, points[start : start + _POINTS])[1] for start in range(0, len(points), _POINTS)]
        )
        # Density without its last non-linearity: log(exp(d / scale) - 1).
        scale = self.bundle.density_scale
        logits = np.log(np.expm1(np.clip(density / scale, 1e-6, 20))).reshape((resolution,) * 3)
        vertices, faces, _, _ = marching_cubes(
            np.pad(logits, 1, constant_values=OUTSIDE_LOGIT), self.bundle.surface_logit
        )
        places = ((vertices - 1) * 2 / (resolution - 1) - 1).astype(np.float32)
        return places, faces, self._query(triplane, places)[0]

    def colours(self, triplane: Array, points: Array) -> Array:
        starts = range(0, len(points), _POINTS)
        return np.concatenate([self._query(triplane, points[start : start + _POINTS])[0] for start in starts])

    def _query(self, triplane: Array, points: Array) -> tuple[Array, Array]:
        rgb, density = self._run["renderer"]({"triplane": triplane, "points": points[None]})
        return rgb[0], density[0, :, 0]


def onnxruntime_engine(data: bytes) -> Callable[[dict[str, Array]], list[Array]]:
    """Plain ONNX Runtime as installed, on all cores."""
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in ort.get_available_providers()]
    session = ort.InferenceSession(data, providers=providers)
    return lambda feeds: session.run(None, feeds)


def openvino_engine(data: bytes) -> Callable[[dict[str, Array]], list[Array]]:
    """OpenVINO with its latency hint, and the precision that it finds best on this CPU."""
    import openvino

    core = openvino.Core()
    request = core.compile_model(core.read_model(data), "CPU", {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()

    def run(feeds: dict[str, Array]) -> list[Array]:
        found = request.infer(feeds)
        return [np.array(found[index]) for index in range(len(found))]

    return run


class _Both:
    """Two contexts as one."""

    def __init__(self, *contexts: Any) -> None:
        self._contexts = contexts

    def __enter__(self) -> None:
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: object) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*error)
