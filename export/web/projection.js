// The input image's own pixels on what it shows: runtime/rendering/projection.py, for the vertices of a mesh.

import { project } from "./cameras.js";
import { blurred } from "./regions.js";
import { corners, SAMPLES, SIDE } from "./silhouette.js";

const MARGIN = 0.05, AROUND = 1;
const SEEN = [0.1, 0.4], FACING = [0.2, 0.5], INSIDE = [0.8, 1];

const ramp = (value, [low, high]) => {
  const t = Math.min(1, Math.max(0, (value - low) / (high - low)));
  return t * t * (3 - 2 * t);
};

/**
 * Gives vertices that the input image shows the image's colours.
 * @param {{vertices, normals, colours}} mesh whose colours are replaced.
 * @param {{pixels: Float32Array, alpha: Float32Array, size: number}} image as `prepare` gives it.
 * @param look as `lookFrom` gives it.
 * @param {Float32Array|null} factors what the density along each of its rays is multiplied by.
 */
export function projectOnto(mesh, image, { camera, row, optical }, factors = null) {
  const rays = SIDE * SIDE, passed = new Float32Array((SAMPLES + 1) * rays), alpha = new Float32Array(rays), depth = new Float32Array(rays);
  for (let ray = 0; ray < rays; ray++) {
    let through = 1, weighted = 0;
    for (let s = 0; s < SAMPLES; s++) {
      const taken = optical[s * rays + ray] * (factors ? factors[ray] : 1), share = through * (1 - Math.exp(-taken));
      passed[(s + 1) * rays + ray] = passed[s * rays + ray] + taken;
      weighted += share * (row(3, ray) + (s + 0.5) * row(4, ray));
      through *= Math.exp(-taken);
    }
    alpha[ray] = 1 - through;
    depth[ray] = alpha[ray] > 1e-6 ? (row(5, ray) * weighted) / alpha[ray] : 0;
  }
  const trusted = trust(alpha, depth, image), { vertices, normals, colours } = mesh, { pixels, size } = image;
  for (let v = 0; v < vertices.length; v += 3) {
    const place = project(camera, vertices[v], vertices[v + 1], vertices[v + 2]);
    if (Math.abs(place[0]) >= 1 || Math.abs(place[1]) >= 1) continue;
    const toward = [0, 1, 2].map((c) => camera.position[c] - vertices[v + c]), length = Math.hypot(...toward);
    const facing = toward.reduce((sum, value, c) => sum + (value / length) * normals[v + c], 0);
    if (facing <= FACING[0]) continue;
    const away = Math.hypot(...[0, 1, 2].map((c) => vertices[v + c] + MARGIN * normals[v + c] - camera.position[c])) - MARGIN;
    let seen = 0, weight = 0;
    corners(place[0], place[1], SIDE, (ray, part) => {
      const at = Math.min(SAMPLES, Math.max(0, (away - row(3, ray)) / Math.max(row(4, ray), 1e-6))), before = Math.min(Math.floor(at), SAMPLES - 1);
      const low = passed[before * rays + ray], high = passed[(before + 1) * rays + ray];
      seen += part * Math.exp(-(low + (at - before) * (high - low)));
      weight += part * trusted[ray];
    });
    const share = ramp(seen, SEEN) * weight * ramp(facing, FACING), shown = [0, 0, 0];
    corners(place[0], place[1], size, (pixel, part) => { for (let c = 0; c < 3; c++) shown[c] += part * (pixels[c * size * size + pixel] + 1) / 2; });
    for (let c = 0; c < 3; c++) colours[v + c] += share * (shown[c] - colours[v + c]);
  }
}

/** How much each of SIDE x SIDE pixels is to be trusted: away from the mask's edge, where the surface faces the camera. */
function trust(alpha, depth, { alpha: mask, size }) {
  const blur = (values) => blurred(values, SIDE, SIDE, 1), solid = alpha.map((value) => (value > 0.5 ? value : 0));
  const near = blur(solid), sums = blur(solid.map((value, i) => value * depth[i]));
  const smooth = near.map((value, i) => (value > 0.05 ? sums[i] / value : 0)), scale = 2 * Math.tan((20 * Math.PI) / 180);
  const gradient = (i, at, step) => {
    if (at === 0) return smooth[i + step] - smooth[i];
    return at === SIDE - 1 ? smooth[i] - smooth[i - step] : (smooth[i + step] - smooth[i - step]) / 2;
  };
  const cells = size / SIDE, kept = mask.every((value) => value > 0.5), small = new Float32Array(SIDE * SIDE);
  for (let i = 0; i < small.length; i++) {
    if (kept) { small[i] = alpha[i] > 0.5 ? 1 : 0; continue; }
    for (let y = 0; y < cells; y++)
      for (let x = 0; x < cells; x++) small[i] += mask[(Math.floor(i / SIDE) * cells + y) * size + (i % SIDE) * cells + x] / cells ** 2;
  }
  const inside = blurred(small, SIDE, SIDE, AROUND);
  return blur(Float32Array.from(small, (_, i) => {
    const slope = Math.hypot(gradient(i, Math.floor(i / SIDE), SIDE), gradient(i, i % SIDE, 1)) / ((scale * Math.max(smooth[i], 0.1)) / SIDE);
    return near[i] > 0.05 ? ramp(1 / Math.hypot(1, slope), FACING) * ramp(inside[i], INSIDE) : 0;
  }));
}
