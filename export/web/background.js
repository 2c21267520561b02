// Cutting an object out from a background that is even or changes smoothly: runtime/preprocessing/background.py, where
// each step has its reason.

import { blurred, components, dilated, eroded, inverted, touchingBorder } from "./regions.js";
import { resize } from "./resize.js";
import { rounded } from "./framing.js";

const SIDE = 512, RING = 0.04, DIFFERENT = 0.012, TIMES_NOISE = 2, DARKEST = 0.4, HUE = 0.02, SHARP = 0.003, STEEP = 0.012;
const GAP = 2, ISLAND = 0.02, HOLE = 4e-4, UNEVEN = 0.06, EXPLAINED = 0.6, LEAST_OBJECT = 0.004, MOST_OBJECT = 0.85;
const TO_CONES = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]];
const TO_OKLAB = [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099], [0.0259040371, 0.7827717662, -0.8086757660]];

const times = (matrix, vector) => matrix.map((row) => row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2]);
const toLinear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const lengthOf = (planes, i) => Math.hypot(planes[0][i], planes[1][i], planes[2][i]);
const clip = (value) => Math.min(1, Math.max(0, value));

function percentile(values, share) {
  if (!values.length) return null;
  const sorted = Float32Array.from(values).sort(), place = (sorted.length - 1) * share, below = Math.floor(place);
  return sorted[below] + (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]) * (place - below);
}

/**
 * Cuts an object out.
 * @param image planes of red, green and blue in [0, 1], sRGB.
 * @returns the image with a fourth plane, alpha, and how sure the cut is, 0 to 1.
 */
export function cutOut(image) {
  const shrink = Math.min(1, SIDE / Math.max(image.height, image.width));
  const height = Math.max(8, rounded(image.height * shrink)), width = Math.max(8, rounded(image.width * shrink));
  const filter = height < image.height ? "box" : "bilinear", count = height * width;
  const small = resize({ ...image, planes: image.planes.slice(0, 3) }, height, width, undefined, filter).planes;
  const lab = [0, 1, 2].map(() => new Float32Array(count));
  for (let i = 0; i < count; i++) {
    const cones = times(TO_CONES, small.map((plane) => toLinear(clip(plane[i]))));
    times(TO_OKLAB, cones.map(Math.cbrt)).forEach((value, c) => (lab[c][i] = value));
  }
  const { difference, ring, spread } = fromBorder(lab, height, width);
  const inlier = [];
  for (let i = 0; i < count; i++) if (ring[i] && lengthOf(difference, i) < 4 * spread) inlier.push(i);
  const smooth = difference.map((plane) => blurred(plane, height, width, 1));
  const distance = Float32Array.from({ length: count }, (_, i) => lengthOf(smooth, i));
  const of = (values) => percentile(inlier.map((i) => values[i]), 0.95);
  const noise = of(distance) ?? 1, different = Math.max(DIFFERENT, TIMES_NOISE * noise);
  const shadow = mayBeShadow(difference, height, width, of, noise);
  const free = distance.map((value, i) => (value < different || shadow[i] ? 1 : 0));
  const reached = dilated(touchingBorder(eroded(Uint8Array.from(free), height, width, GAP), height, width), height, width, GAP);
  const background = Uint8Array.from(reached, (value, i) => (value && free[i] ? 1 : 0));
  addHoles(background, difference, distance, height, width, noise, different);
  const inside = withoutIslands(inverted(background), height, width);
  const { alpha, colour } = edge(small, inside, height, width);
  const confidence = confidenceOf(background, ring, inside, different);
  const back = image.height < height ? "box" : "bilinear";
  const full = resize({ planes: [...colour, alpha], height, width }, image.height, image.width, undefined, back);
  const planes = full.planes.map((plane) => plane.map(clip));
  for (let c = 0; c < 3; c++) for (let i = 0; i < planes[3].length; i++) if (planes[3][i] >= 0.98) planes[c][i] = image.planes[c][i];
  return { image: { planes, height: image.height, width: image.width }, confidence };
}

/** Difference from the quadratic surface that fits the border, the border's ring, and its robust deviation. */
function fromBorder(lab, height, width) {
  const count = height * width, edgeWidth = Math.max(2, rounded(RING * Math.max(height, width)));
  const terms = (i) => {
    const y = ((Math.floor(i / width)) / height) * 2 - 1, x = ((i % width) / width) * 2 - 1;
    return [1, x, y, x * x, y * y, x * y];
  };
  const ring = new Uint8Array(count), places = [];
  for (let i = 0; i < count; i++) {
    const row = Math.floor(i / width), column = i % width;
    if (row < edgeWidth || row >= height - edgeWidth || column < edgeWidth || column >= width - edgeWidth) { ring[i] = 1; places.push(i); }
  }
  const basis = places.map(terms);
  let weights = new Float64Array(places.length).fill(1), surface = [], spread = 0;
  for (let round = 0; round < 12; round++) {
    surface = leastSquares(basis, places.map((i) => lab.map((plane) => plane[i])), weights);
    const residual = places.map((i, k) => Math.hypot(...lab.map((plane, c) => plane[i] - basis[k].reduce((sum, t, j) => sum + t * surface[j][c], 0))));
    spread = Math.max(1.4826 * median(residual), 2e-3);
    weights = residual.map((r) => 1 / (1 + (r / (2 * spread)) ** 2));
  }
  const difference = lab.map((plane) => Float32Array.from(plane));
  for (let i = 0; i < count; i++) {
    const t = terms(i);
    for (let c = 0; c < 3; c++) difference[c][i] -= t.reduce((sum, value, j) => sum + value * surface[j][c], 0);
  }
  return { difference, ring, spread };
}

function median(values) {
  const sorted = Float64Array.from(values).sort(), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** (6, 3) coefficients of weighted least squares, by the normal equations: six terms of one size, well conditioned. */
function leastSquares(basis, colours, weights) {
  const system = Array.from({ length: 6 }, () => new Float64Array(9));
  basis.forEach((t, k) => {
    const w = weights[k] * weights[k];
    for (let i = 0; i < 6; i++) {
      for (let j = 0; j < 6; j++) system[i][j] += w * t[i] * t[j];
      for (let c = 0; c < 3; c++) system[i][6 + c] += w * t[i] * colours[k][c];
    }
  });
  for (let column = 0; column < 6; column++) {
    let pivot = column;
    for (let row = column + 1; row < 6; row++) if (Math.abs(system[row][column]) > Math.abs(system[pivot][column])) pivot = row;
    [system[column], system[pivot]] = [system[pivot], system[column]];
    for (let row = 0; row < 6; row++) {
      if (row === column) continue;
      const factor = system[row][column] / system[column][column];
      for (let j = column; j < 9; j++) system[row][j] -= factor * system[column][j];
    }
  }
  return system.map((row, i) => [6, 7, 8].map((j) => row[j] / row[i]));
}

function mayBeShadow(difference, height, width, of, noise) {
  const light = difference[0], once = blurred(light, height, width, 1), twice = blurred(light, height, width, 1, 2);
  const broad = blurred(light, height, width, 2, 2), sharp = once.map((value, i) => Math.abs(value - broad[i]));
  const gradient = (i, at, length, step) => {
    if (at === 0) return twice[i + step] - twice[i];
    if (at === length - 1) return twice[i] - twice[i - step];
    return (twice[i + step] - twice[i - step]) / 2;
  };
  const steep = twice.map((_, i) => Math.hypot(gradient(i, Math.floor(i / width), height, width), gradient(i, i % width, width, 1)));
  const a = blurred(difference[1], height, width, 2), b = blurred(difference[2], height, width, 2);
  const mostHue = Math.max(HUE, 2 * noise), mostSharp = Math.max(SHARP, 2.5 * (of(sharp) ?? 0)), mostSteep = Math.max(STEEP, 3 * (of(steep) ?? 0));
  return twice.map((value, i) => (value < 0 && value > -DARKEST && Math.hypot(a[i], b[i]) < mostHue && sharp[i] < mostSharp && steep[i] < mostSteep ? 1 : 0));
}

function addHoles(background, difference, distance, height, width, noise, different) {
  const most = Math.max(0.5 * different, 1.2 * noise);
  const alike = Uint8Array.from(distance, (value, i) => (value < most && !background[i] ? 1 : 0));
  const { labels, counts } = components(eroded(alike, height, width, 1), height, width);
  counts.forEach((count, label) => {
    if (count <= Math.max(12, HOLE * labels.length)) return;
    const sums = [0, 0, 0], region = Uint8Array.from(labels, (value, i) => {
      if (value !== label) return 0;
      for (let c = 0; c < 3; c++) sums[c] += difference[c][i];
      return 1;
    });
    if (Math.hypot(...sums.map((sum) => sum / count)) >= Math.max(DIFFERENT / 3, 0.5 * noise)) return;
    dilated(region, height, width, GAP).forEach((value, i) => { if (value && distance[i] < different) background[i] = 1; });
  });
}

function withoutIslands(inside, height, width) {
  const { labels, counts } = components(inside, height, width), most = Math.max(0, ...counts);
  return Uint8Array.from(labels, (label) => (label >= 0 && counts[label] >= ISLAND * most ? 1 : 0));
}

/** Alpha, and the object's own colours: near the outline a pixel is a mixture of what is near by on either side. */
function edge(small, inside, height, width) {
  const core = eroded(inside, height, width, 3), beyond = eroded(inverted(inside), height, width, 2);
  const blur = (values, radius) => blurred(values, height, width, radius, 2);
  const coreWeight = blur(Float32Array.from(core), 4), beyondWeight = blur(Float32Array.from(beyond), 6);
  const meanOf = (mask, weight, radius) => small.map((plane) => blur(plane.map((v, i) => v * mask[i]), radius).map((v, i) => v / Math.max(weight[i], 1e-6)));
  const own = meanOf(core, coreWeight, 4), behind = meanOf(beyond, beyondWeight, 6), near = dilated(inside, height, width, 2);
  const alpha = Float32Array.from(inside), colour = small.map((plane) => Float32Array.from(plane));
  for (let i = 0; i < alpha.length; i++) {
    const line = [0, 1, 2].map((c) => own[c][i] - behind[c][i]), length = line[0] ** 2 + line[1] ** 2 + line[2] ** 2;
    const known = coreWeight[i] > 1e-3 && beyondWeight[i] > 1e-3 && length > 0.01;
    const band = near[i] && !core[i] && known;
    if (band) alpha[i] = clip([0, 1, 2].reduce((sum, c) => sum + (small[c][i] - behind[c][i]) * line[c], 0) / Math.max(length, 1e-4));
    for (let c = 0; c < 3; c++) {
      if (!inside[i] && coreWeight[i] > 1e-3) colour[c][i] = own[c][i];
      else if (band && alpha[i] < 0.98)
        colour[c][i] = clip(alpha[i] > 0.3 ? (small[c][i] - (1 - alpha[i]) * behind[c][i]) / Math.max(alpha[i], 0.1) : own[c][i]);
    }
  }
  return { alpha, colour };
}

function confidenceOf(background, ring, inside, different) {
  const share = inside.reduce((sum, value) => sum + value, 0) / inside.length;
  if (different > UNEVEN || !(share > LEAST_OBJECT && share < MOST_OBJECT)) return 0;
  let border = 0, explained = 0;
  ring.forEach((value, i) => { border += value; explained += value & background[i]; });
  return clip((explained / border - (1 - EXPLAINED)) / EXPLAINED);
}
