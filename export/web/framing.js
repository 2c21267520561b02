// Where the object is in an image, and the square that is cut out around it: runtime/preprocessing/framing.py.

import { components, dilated, inverted, touchingBorder } from "./regions.js";
import { resize } from "./resize.js";

const FAINT = 0.5, FAINTEST = 0.1, PLAIN = 0.5, ISLAND = 0.01, VISIBLE = 0.05, LEAST_OBJECT = 8, GRID = 96, NOTICEABLE = 0.05;

/** Half to even, as Python rounds. */
export function rounded(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/**
 * Frames what carries the mask's weight.
 * @returns the window (left, top, side), alpha with what is left out at 0, and a note or "".
 */
export function objectWindow(alpha, height, width, ratio) {
  const visible = alpha.map((value) => (value > VISIBLE ? 1 : 0)), outer = boxOf(visible, height, width);
  if (!outer) throw new Error("The image is fully transparent: there is no object in it.");
  let squares = 0, cubes = 0;
  for (const value of alpha) { squares += value * value; cubes += value * value * value; }
  const solid = Math.min(Math.max((FAINT * cubes) / squares, FAINTEST), PLAIN);
  const kept = withoutIslands(Uint8Array.from(alpha, (value) => (value > solid ? 1 : 0)), alpha, height, width);
  const [top, bottom, left, right] = boxOf(kept, height, width) ?? [0, 0, 0, 0];
  const longest = Math.max(bottom - top, right - left);
  if (longest < LEAST_OBJECT) throw new Error(`The visible part of the image is only ${right - left}x${bottom - top} pixels.`);
  let note = "";
  if (Math.max(outer[1] - outer[0], outer[3] - outer[2]) > (1 + NOTICEABLE) * longest)
    note = "Faint or small parts of the image away from the object were left out of the frame.";
  const side = longest / ratio;
  const far = inverted(dilated(kept, height, width, Math.max(2, rounded(0.02 * longest))));
  if (alpha.some((value, i) => far[i] && value > 0)) {
    const gone = touchingBorder(far, height, width);
    alpha = alpha.map((value, i) => (gone[i] ? 0 : value));
  }
  return { window: [(left + right - side) / 2, (top + bottom - side) / 2, side], alpha, note };
}

/** Cuts a square window out of an image, or beyond it, and resamples it with an antialiasing filter. */
export function resample(image, [left, top, side], size) {
  const { height, width } = image;
  if (left === 0 && top === 0 && side === size && height === size && width === size) return image;
  const x = Math.max(0, Math.floor(left)), y = Math.max(0, Math.floor(top));
  let seen = part(image, y, Math.min(height, Math.ceil(top + side)), x, Math.min(width, Math.ceil(left + side)));
  const { height: rows, width: columns } = seen;
  const shrink = Math.min(1, (2 * size) / side);
  const newRows = Math.max(1, rounded(rows * shrink)), newColumns = Math.max(1, rounded(columns * shrink));
  if (shrink < 1) seen = resize(seen, newRows, newColumns);
  const across = newColumns / columns, down = newRows / rows;
  const area = [(left - x) * across, (top - y) * down, (left - x + side) * across, (top - y + side) * down];
  const beforeX = Math.max(0, Math.ceil(-area[0])), beforeY = Math.max(0, Math.ceil(-area[1]));
  const afterX = Math.max(0, Math.ceil(area[2]) - newColumns), afterY = Math.max(0, Math.ceil(area[3]) - newRows);
  const large = padded(seen, beforeY, afterY, beforeX, afterX);
  const moved = [area[0] + beforeX, area[1] + beforeY, area[2] + beforeX, area[3] + beforeY];
  const result = resize(large, size, size, moved);
  for (const plane of result.planes) for (let i = 0; i < plane.length; i++) plane[i] = Math.min(1, Math.max(0, plane[i]));
  return result;
}

function part({ planes, width }, top, bottom, left, right) {
  const rows = bottom - top, columns = right - left;
  const cut = planes.map((plane) => {
    const result = new Float32Array(rows * columns);
    for (let row = 0; row < rows; row++)
      result.set(plane.subarray((top + row) * width + left, (top + row) * width + right), row * columns);
    return result;
  });
  return { planes: cut, height: rows, width: columns };
}

function padded({ planes, height, width }, above, below, before, after) {
  const rows = height + above + below, columns = width + before + after;
  const larger = planes.map((plane) => {
    const result = new Float32Array(rows * columns);
    for (let row = 0; row < height; row++)
      result.set(plane.subarray(row * width, (row + 1) * width), (row + above) * columns + before);
    return result;
  });
  return { planes: larger, height: rows, width: columns };
}

function withoutIslands(solid, alpha, height, width) {
  const cell = Math.max(1, Math.ceil(Math.max(height, width) / GRID));
  const rows = Math.ceil(height / cell), columns = Math.ceil(width / cell);
  const coarse = new Uint8Array(rows * columns), weights = new Float64Array(rows * columns);
  const cellOf = (at) => Math.floor(Math.floor(at / width) / cell) * columns + Math.floor((at % width) / cell);
  for (let at = 0; at < solid.length; at++)
    if (solid[at]) { coarse[cellOf(at)] = 1; weights[cellOf(at)] += alpha[at]; }
  const { labels, counts } = components(coarse, rows, columns), totals = new Float64Array(counts.length);
  labels.forEach((label, at) => { if (label >= 0) totals[label] += weights[at]; });
  const least = ISLAND * Math.max(0, ...totals);
  return solid.map((value, at) => {
    if (!value) return 0;
    const label = labels[cellOf(at)];
    return label >= 0 && totals[label] >= least ? 1 : 0;
  });
}

/** Top, bottom, left and right of what is 1; null where nothing is. */
function boxOf(mask, height, width) {
  let top = height, bottom = 0, left = width, right = 0;
  for (let at = 0; at < mask.length; at++)
    if (mask[at]) {
      const row = Math.floor(at / width), column = at % width;
      top = Math.min(top, row); bottom = Math.max(bottom, row + 1);
      left = Math.min(left, column); right = Math.max(right, column + 1);
    }
  return bottom ? [top, bottom, left, right] : null;
}
