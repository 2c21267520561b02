// The input image's silhouette, which a mesh is held to: runtime/rendering/silhouette.py, whose look from the input camera
// is twice as fine. Here it is shared with the projection.

import { cameraRays, orbit, project } from "./cameras.js";

export const SIDE = 64, SAMPLES = 48;
const DEPTH = 3, MOST = 4, MOST_CUT = 64, SURFACE = 0.6, INSIDE = 0.95, COVERED = 0.5, FULL = 0.995, SOME = 0.05, LEAST = 1e-6;

/** Index and weight of the four pixels around a place in [-1, 1], the border repeated. */
export function corners(x, y, side, visit) {
  const u = ((x + 1) * side) / 2 - 0.5, v = ((y + 1) * side) / 2 - 0.5, left = Math.floor(u), top = Math.floor(v), a = u - left, b = v - top;
  const clip = (value) => Math.min(side - 1, Math.max(0, value));
  for (const [row, down] of [[clip(top), 1 - b], [clip(top + 1), b]])
    for (const [column, across] of [[clip(left), 1 - a], [clip(left + 1), a]]) visit(row * side + column, down * across);
}

/**
 * Looks at an object from the input camera.
 * @param ask points to { density }.
 * @returns {Promise<{camera, row, optical: Float32Array}>} `row(i, ray)` as `cameraRays` has them, and the optical depth of each sample, rays fastest.
 */
export async function lookFrom(ask) {
  const camera = orbit(0, 20), { origin, table } = cameraRays(camera, SIDE, SAMPLES), rays = SIDE * SIDE, points = new Float32Array(3 * rays * SAMPLES);
  const row = (index, ray) => table[index * rays + ray];
  for (let s = 0, at = 0; s < SAMPLES; s++)
    for (let ray = 0; ray < rays; ray++) {
      const distance = row(3, ray) + (s + 0.5) * row(4, ray);
      for (let c = 0; c < 3; c++) points[at++] = origin[c] + distance * row(c, ray);
    }
  const { density } = await ask(points);
  return { camera, row, optical: density.map((value, i) => value * row(4, i % rays)) };
}

/**
 * Factors of density for each pixel of the input image.
 * @param look as `lookFrom` gives it.
 * @param {{alpha: Float32Array, size: number}} image as `prepare` gives it; size a multiple of SIDE.
 * @param {number} surfaceDensity where meshes are cut.
 * @returns {{drawn: Float32Array, at}|null} what each ray of the look is multiplied by, and the mesh's factor at a point; null where there is no mask.
 */
export function silhouetteOf({ camera, row, optical }, { alpha: mask, size }, surfaceDensity) {
  if (mask.reduce((sum, value) => sum + (value > COVERED), 0) > FULL * mask.length) return null;
  const rays = SIDE * SIDE, total = new Float32Array(rays), peak = new Float32Array(rays);
  for (let i = 0; i < optical.length; i++) {
    const ray = i % rays;
    total[ray] += optical[i];
    peak[ray] = Math.max(peak[ray], optical[i] / Math.max(row(4, ray), LEAST));
  }
  // An object that is translucent all over, as glass is, is there all the same.
  const there = mask.filter((value) => value > SOME).sort(), middle = there.length >> 1;
  const usual = there.length ? (there.length % 2 ? there[middle] : (there[middle - 1] + there[middle]) / 2) : 1;
  const fine = size % (2 * SIDE) ? SIDE : 2 * SIDE, step = size / fine, cells = fine / SIDE, cut = new Float32Array(fine * fine), drawn = new Float32Array(rays);
  for (let y = 0; y < fine; y++)
    for (let x = 0; x < fine; x++) {
      let covered = 0;
      for (let j = 0; j < step; j++) for (let i = 0; i < step; i++) covered += Math.min(1, mask[(y * step + j) * size + x * step + i] / usual) / step ** 2;
      const ray = Math.floor(y / cells) * SIDE + Math.floor(x / cells), wanted = -Math.log1p(-Math.min(covered, 1 - Math.exp(-DEPTH)));
      let factor = Math.min(MOST, wanted / Math.max(total[ray], LEAST));
      if (covered > INSIDE) factor = Math.max(factor, 1);
      drawn[ray] += factor / cells ** 2;
      if (covered > COVERED) factor = Math.max(factor, 1, Math.min(MOST_CUT, surfaceDensity / (SURFACE * Math.max(peak[ray], LEAST))));
      cut[y * fine + x] = factor;
    }
  const at = (x, y, z) => {
    let factor = 0;
    corners(...project(camera, x, y, z), fine, (pixel, part) => { factor += part * cut[pixel]; });
    return factor;
  };
  return { drawn, at };
}
