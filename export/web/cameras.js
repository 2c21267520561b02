// Cameras and rays: runtime/geometry has the conventions.

const DISTANCE = 3, FOV = 40;

/** A camera on a sphere around the origin, angles in degrees: its axes (right, up, backward) and its position. */
export function orbit(azimuth, elevation) {
  const a = (azimuth * Math.PI) / 180, e = (elevation * Math.PI) / 180;
  const backward = [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)], right = [Math.cos(a), 0, -Math.sin(a)];
  const up = [backward[1] * right[2] - backward[2] * right[1], backward[2] * right[0] - backward[0] * right[2], backward[0] * right[1] - backward[1] * right[0]];
  return { right, up, backward, position: backward.map((value) => DISTANCE * value) };
}

/** Where a point is in a square image: x to the right and y down, in [-1, 1]. */
export function project(camera, x, y, z) {
  const local = [x - camera.position[0], y - camera.position[1], z - camera.position[2]];
  const along = (axis) => local[0] * axis[0] + local[1] * axis[1] + local[2] * axis[2];
  const scale = -1 / (along(camera.backward) * Math.tan((FOV * Math.PI) / 360));
  return [along(camera.right) * scale, -along(camera.up) * scale];
}

/** Rays through the pixels of a square image, in rows: direction (3), start and length of the intervals, cosine. */
export function cameraRays(camera, size, samples) {
  const count = size * size, table = new Float32Array(6 * count), scale = Math.tan((FOV * Math.PI) / 360);
  for (let i = 0; i < count; i++) {
    const x = (((i % size) + 0.5) * 2 - size) / size * scale, y = (1 - ((Math.floor(i / size) + 0.5) * 2) / size) * scale;
    const cosine = 1 / Math.sqrt(x * x + y * y + 1);
    const direction = [0, 1, 2].map((c) => (camera.right[c] * x + camera.up[c] * y - camera.backward[c]) * cosine);
    let near = 0, far = Infinity;
    direction.forEach((value, c) => {
      const safe = Math.abs(value) < 1e-12 ? 1e-12 : value, lower = (-1 - camera.position[c]) / safe, upper = (1 - camera.position[c]) / safe;
      near = Math.max(near, Math.min(lower, upper));
      far = Math.min(far, Math.max(lower, upper));
    });
    if (!(far > near)) near = far = 0;
    const values = [...direction, near, Math.fround(Math.fround(far) - Math.fround(near)) / samples, cosine];
    values.forEach((value, row) => (table[row * count + i] = value));
  }
  return { origin: Float32Array.from(camera.position), table };
}
