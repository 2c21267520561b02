"""A reconstructed object: its triplane, and images of it from any camera."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .arguments import MAX_SIDE, image_sides, rgb_colour, whole_number
from .array_record import ArrayRecord
from .array_types import Array
from .backends.base import Backend
from .errors import CameraError, OptionError
from .geometry.cameras import DISTANCE, ELEVATION, FOV, Camera
from .geometry.rays import Rays, camera_rays
from .meshing.mesh import Mesh
from .preprocessing import PreparedImage
from .processes import check_process
from .profiling import stage
from .rendering.field import DrawingField, Field
from .rendering.marching import SAMPLES_AT_ONCE, march, march_dense, row_costs
from .rendering.occupancy import OccupancyGrid
from .rendering.parallel import WorkerPool

if TYPE_CHECKING:
    from .rendering.projection import Projection

# Rays to colour (R, 3) premultiplied, alpha and depth (R,), as `marching.march` has them.
Shade = Callable[[Rays], tuple[Array, Array, Array]]

MAX_SAMPLES, MAX_FRAMES = 4096, 100_000
# Scene units to both sides over which a normal is found: a texel and a half of 128.
_NORMAL_STEP = np.float32(0.024)
# From so many samples on, in all and of a ray, a finer grid spares a view about what it costs, and the next ones more.
_MANY_SAMPLES, _FINE_SAMPLES = 1 << 22, 96


@dataclass(frozen=True, eq=False)
class Frame(ArrayRecord):
    """A drawn view.

    Attributes:
        rgb: (H, W, 3) float32 in [0, 1], over the background.
        alpha: (H, W) float32 in [0, 1].
        depth: (H, W) float32, mean distance along the viewing axis in scene units of what was hit; 0 where nothing was.
        background: (3,) float32, what `rgb` lies over.
        normals: (H, W, 3) float32 unit vectors in the scene's axes, outward; 0 where nothing was hit. None if not
            asked for.
    """

    rgb: Array
    alpha: Array
    depth: Array
    background: Array
    normals: Array | None = None

    def to_uint8(self, transparent: bool = False) -> NDArray[np.uint8]:
        """Returns colours, rounded.

        Args:
            transparent: leaves the background out.

        Returns:
            (H, W, 3) uint8; or (H, W, 4) with alpha, by which colours are not multiplied (as PNG wants it).
        """
        if not transparent:
            return np.round(self.rgb * 255).astype(np.uint8)
        alpha = self.alpha[..., None]
        colour = (self.rgb - (1 - alpha) * self.background) / np.maximum(alpha, np.float32(1e-6))
        rgba = np.concatenate([np.clip(colour, 0, 1), alpha], axis=-1)
        return np.round(rgba * (alpha > 0) * 255).astype(np.uint8)


class Scene:
    """One object. Made by `Runtime.reconstruct`; paid for once, then drawn as often as wanted.

    Attributes:
        triplane: (3, C, 2R, 2R) float32, read-only.
        source: what the model was given; None where the triplane comes from elsewhere.
    """

    def __init__(
        self,
        backend: Backend,
        triplane: Array,
        memory_limit: int,
        density_scale: float,
        sensitivity: Sequence[float],
        key: int | None = None,
        source: PreparedImage | None = None,
        surface_logit: float = 0.0,
        silhouette: bool = False,
    ) -> None:
        self.source, self._process = source, os.getpid()
        self.triplane, self._sensitivity = triplane, sensitivity
        self._field, self._density_scale = backend.field(triplane, key), density_scale
        self._surface_logit = surface_logit
        # The mask that the object is still to be held to.
        self._mask = source.alpha if silhouette and source is not None and source.has_silhouette else None
        # What meshes are cut from, where that is not what is drawn.
        self._for_mesh: tuple[Field, OccupancyGrid] | None = None
        self._pool = WorkerPool.within(memory_limit, triplane.shape[1], backend.workers, backend.threads)
        self._grid: OccupancyGrid | None = None
        self._fine: OccupancyGrid | None = None
        self._projection: Projection | None = None
        self._lock = threading.Lock()

    def render(
        self,
        camera: Camera | None = None,
        image_size: int | tuple[int, int] = 128,
        num_samples: int = 64,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
        exact: bool = False,
        projected: bool = False,
        normals: bool = False,
    ) -> Frame:
        """Draws the object.

        Args:
            camera: None for the canonical one, from where the image was taken.
            image_size: side of a square image, or (height, width), in pixels.
            num_samples: samples per ray, spread evenly over the ray's stay in the cube.
            background: RGB in [0, 1].
            exact: queries every sample of every ray, many times slower; else what is empty is left out, which changes
                no pixel by more than about 1/255.
            projected: gives what the input image shows the image's own pixels; alpha and depth stay as they are.
            normals: finds the surface's normals as well.

        Raises:
            OptionError, CameraError: an argument out of range, or there is no input image to project.
        """
        check_process(self._process)
        height, width = image_sides(image_size)
        whole_number("num_samples", num_samples, 1, MAX_SAMPLES)
        if camera is not None and not isinstance(camera, Camera):
            raise CameraError(
                f"A {type(camera).__name__} is no camera.",
                "Give runtime.Camera(pose) or runtime.Camera.orbit(azimuth=30).",
            )
        behind = rgb_colour(background)
        with stage("render"):
            rgb = np.broadcast_to(behind, (height * width, 3)).copy()
            alpha, depth = np.zeros(height * width, np.float32), np.zeros(height * width, np.float32)
            outward = np.zeros((height * width, 3), np.float32) if normals else None
            seen_from = camera or Camera.orbit()
            shade, costs = self._shading(seen_from, height, width, num_samples, exact)
            projection = self._projected() if projected else None

            def draw(part: slice) -> None:
                rays = camera_rays(seen_from, height, width, range(part.start, part.stop))
                hits = np.flatnonzero(rays.hits)
                if hits.size:
                    hitting = rays.take(hits)
                    colour, opacity, distance = shade(hitting)
                    if projection is not None:
                        colour = projection.blend(colour, opacity, distance, hitting)
                    hits += part.start
                    rgb[hits] = np.clip(colour + (1 - opacity[:, None]) * behind, 0, 1)
                    alpha[hits], depth[hits] = opacity, distance
                    if outward is not None:
                        outward[hits] = self._normals(hitting, opacity, distance)

            # A ray of very many samples takes more for its blocks than for the samples of one.
            self._pool.run(draw, height * width, max(SAMPLES_AT_ONCE, num_samples // 32), costs)
            return Frame(
                rgb.reshape(height, width, 3), alpha.reshape(height, width), depth.reshape(height, width), behind,
                None if outward is None else outward.reshape(height, width, 3),
            )  # fmt: skip

    def orbit(
        self,
        frames: int = 60,
        elevation: float = ELEVATION,
        distance: float = DISTANCE,
        fov: float = FOV,
        image_size: int | tuple[int, int] = 128,
        num_samples: int = 64,
        projected: bool = False,
        normals: bool = False,
    ) -> Iterator[Frame]:
        """Draws the object from `frames` cameras evenly around it, from azimuth 0 towards +x, one at a time."""
        whole_number("frames", frames, 1, MAX_FRAMES)
        cameras = [Camera.orbit(360 * i / frames, elevation, distance, fov) for i in range(frames)]
        return (
            self.render(camera, image_size, num_samples, projected=projected, normals=normals) for camera in cameras
        )

    def mesh(
        self,
        resolution: int = 128,
        projected: bool = False,
        clean: bool = True,
        faces: int | None = None,
        texture: int | None = None,
    ) -> Mesh:
        """Cuts the surface out; `mesh.save("chair.glb")` writes it.

        Args:
            resolution: samples along each axis of the cube, 8 to 512.
            projected: gives vertices that the input image shows the image's colours.
            clean: drops parts of less than a hundredth of the largest one's volume, and smooths the ripple of texels.
            faces: triangles at the most, 100 or more; None for as many as the resolution gives. Thin parts may get
                holes.
            texture: side of a texture in texels, 64 to 8192; None for colours at vertices alone.

        Raises:
            OptionError: out of range, no surface, no input image, or the extra [mesh] is not installed.
        """
        check_process(self._process)
        whole_number("resolution", resolution, 8, 512, "The default is 128.")
        if faces is not None:
            whole_number("faces", faces, 100)
        if texture is not None:
            whole_number("texture", texture, 64, MAX_SIDE)
        # What not every view needs takes time to import, here and below.
        from .meshing.surface import extract_mesh

        with stage("mesh"):
            projection, grid = self._projected() if projected else None, self._prepared()
            field, grid = self._for_mesh or (self._field, grid)
            return extract_mesh(
                field, grid, resolution, self._density_scale, self._pool, projection, clean, faces, texture
            )

    def _shading(self, camera: Camera, height: int, width: int, num_samples: int, exact: bool) -> tuple[Shade, Array]:
        """Returns the ray shader, and the relative cost of each of some bands of rows."""
        if self._mask is not None:
            self._prepared()
        field = self._field
        if exact:
            return lambda rays: march_dense(field, rays, num_samples), np.ones(1, np.float32)
        if isinstance(field, DrawingField) and num_samples <= field.most_samples:
            return lambda rays: field.draw(rays, num_samples), np.ones(1, np.float32)
        many = num_samples >= _FINE_SAMPLES and height * width * num_samples >= _MANY_SAMPLES
        grid = self._prepared(fine=many)
        alone = self._pool.threads == 1
        costs = np.ones(1, np.float32) if alone else row_costs(grid, camera, height, width, num_samples)
        return lambda rays: march(field, grid, rays, num_samples), costs

    def _normals(self, rays: Rays, alpha: Array, depth: Array) -> Array:
        """(R, 3) unit vectors along which the density falls where rays hit something, else 0."""
        normals, hit = np.zeros((len(alpha), 3), np.float32), np.flatnonzero(alpha > 0)
        if hit.size:
            points = rays.origin + rays.directions[hit] * (depth[hit] / rays.cosine[hit])[:, None]
            steps = np.eye(3, dtype=np.float32) * _NORMAL_STEP
            fall = [self._field(points - step)[1] - self._field(points + step)[1] for step in steps]
            slope = np.stack(fall, axis=1)
            normals[hit] = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)
        return normals

    def _projected(self) -> Projection:
        """Returns the input image's projection, which the first view that asks for it makes."""
        if self.source is None:
            raise OptionError(
                "This scene was made of a triplane: there is no input image to project.", "Reconstruct one."
            )
        from .rendering.projection import Projection

        grid = self._prepared()
        with self._lock:
            if self._projection is None:
                self._projection = Projection.make(
                    self._field, grid, self._pool, Camera.orbit(), self.source.detail(), self.source.alpha
                )
            return self._projection

    def _prepared(self, fine: bool = False) -> OccupancyGrid:
        """Returns the occupancy grid, which the first view makes; large views share a finer one."""
        with self._lock:
            if self._grid is None:
                self._grid = self._first_grid()
            if not fine:
                return self._grid
            if self._fine is None:
                self._fine = self._grid.refined(self._field, self._pool)
            return self._fine

    def _first_grid(self) -> OccupancyGrid:
        """Makes the occupancy grid, and holds field and grid to the mask where that is wanted."""
        field = self._field
        grid = OccupancyGrid.of(
            field, self.triplane, self._density_scale, self._sensitivity, self._pool, self._surface_logit
        )
        if self._mask is None:
            return grid
        from .rendering.silhouette import find_silhouettes

        density = self._density_scale * np.logaddexp(0, self._surface_logit)
        drawn, cut = find_silhouettes(field, grid, self._pool, Camera.orbit(), self._mask, density)
        self._for_mesh, held = (cut.held(field), cut.held_grid(grid)), drawn.held_grid(grid)
        self._field, self._mask = drawn.held(field), None
        return held
