// A surface cut out of the density: a coarse lattice says where it is, a fine one is asked there alone, and surface nets
// (Gibson 1998) make a closed mesh of it.

import { projectOnto } from "./projection.js";
import { lookFrom, silhouetteOf } from "./silhouette.js";

const COARSE = 48, OUTSIDE = -15, CRUMB = 0.01, AT_ONCE = 1 << 14;
// Axes of columns and rows of the planes XY, XZ and YZ, and the sign of the row.
const PLANES = [[0, 1, -1], [0, 2, 1], [2, 1, -1]];

/**
 * @param {Float32Array} triplane 3 x C x S x S. @param {number} channels C. @param {number} side S.
 * @param decode features (N x 3C) and N to { rgb, density }.
 * @param renderer of the manifest: density = density_scale softplus(logit), and the surface is at surface_logit.
 * @param {number} resolution samples along each axis of the cube.
 * @param image as `prepare` gives it; null for none.
 * @param {{projected: boolean, silhouette: boolean}} wanted whether vertices take the image's own pixels, and whether the mesh is held to its outline.
 */
export async function meshOf(triplane, channels, side, decode, renderer, resolution, image, wanted) {
  const planes = interleaved(triplane, channels, side);
  const level = renderer.surface_logit ?? 0;
  const ask = async (points) => asked(planes, channels, side, decode, points);
  const logitsOf = (density) => density.map((value) => { const d = value / renderer.density_scale; return (d > 20 ? d : Math.max(OUTSIDE, Math.log(Math.expm1(Math.max(d, 1e-7))))) - level; });
  const look = image && (wanted.projected || wanted.silhouette) ? await lookFrom(ask) : null;
  const held = look && wanted.silhouette ? silhouetteOf(look, image, renderer.density_scale * Math.log1p(Math.exp(level))) : null;
  const densities = async (points) => {
    const { density } = await ask(points);
    return held ? density.map((value, i) => value * held.at(points[3 * i], points[3 * i + 1], points[3 * i + 2])) : density;
  };
  const coarse = logitsOf(await densities(lattice(COARSE))), n = resolution, place = (i) => -1 + (2 * i) / (n - 1);
  const cells = crossed(coarse, COARSE), logits = new Float32Array(n ** 3).fill(OUTSIDE), fine = [], points = [];
  // Where the surface is not near, the coarse lattice's sign is all that counts.
  for (let x = 0, at = 0; x < n; x++)
    for (let y = 0; y < n; y++)
      for (let z = 0; z < n; z++, at++) {
        if (x === 0 || y === 0 || z === 0 || x === n - 1 || y === n - 1 || z === n - 1) continue;
        const cell = [x, y, z].map((i) => Math.min(COARSE - 2, Math.floor((i * (COARSE - 1)) / (n - 1)))), index = (cell[0] * COARSE + cell[1]) * COARSE + cell[2];
        if (cells[index]) { fine.push(at); points.push(place(x), place(y), place(z)); }
        else logits[at] = coarse[index];
      }
  const found = logitsOf(await densities(Float32Array.from(points)));
  fine.forEach((at, i) => (logits[at] = found[i]));
  const { vertices, faces } = withoutCrumbs(surfaceNets(logits, n));
  if (!faces.length) throw new Error("The object has no surface: its density is nowhere that of a solid. Try another image.");
  const { rgb } = await ask(vertices), mesh = { vertices, faces, colours: rgb, normals: normalsOf(vertices, faces) };
  if (look && wanted.projected) projectOnto(mesh, image, look, held?.drawn);
  return mesh;
}

/** Planes with the channels of a texel side by side. */
function interleaved(triplane, channels, side) {
  const size = side * side, result = new Float32Array(triplane.length);
  for (let p = 0; p < 3; p++)
    for (let c = 0; c < channels; c++)
      for (let i = 0; i < size; i++) result[(p * size + i) * channels + c] = triplane[(p * channels + c) * size + i];
  return result;
}

async function asked(planes, channels, side, decode, points) {
  const count = points.length / 3, rgb = new Float32Array(3 * count), density = new Float32Array(count), width = 3 * channels;
  for (let start = 0; start < count; start += AT_ONCE) {
    const number = Math.min(AT_ONCE, count - start), features = new Float32Array(number * width);
    for (let i = 0; i < number; i++) read(planes, channels, side, points, 3 * (start + i), features, i * width);
    const found = await decode(features, number);
    rgb.set(found.rgb, 3 * start);
    density.set(found.density, start);
  }
  return { rgb, density };
}

/** Bilinear, texel centres at halves, the border continued. */
function read(planes, channels, side, points, from, into, at) {
  for (let p = 0; p < 3; p++) {
    const [column, row, sign] = PLANES[p];
    const u = Math.min(side - 1, Math.max(0, ((points[from + column] + 1) * side - 1) / 2));
    const v = Math.min(side - 1, Math.max(0, ((sign * points[from + row] + 1) * side - 1) / 2));
    const left = Math.min(side - 2, Math.floor(u)), top = Math.min(side - 2, Math.floor(v)), a = u - left, b = v - top;
    const base = (p * side * side + top * side + left) * channels, below = base + side * channels;
    const w00 = (1 - a) * (1 - b), w10 = a * (1 - b), w01 = (1 - a) * b, w11 = a * b;
    for (let c = 0; c < channels; c++)
      into[at + p * channels + c] = w00 * planes[base + c] + w10 * planes[base + channels + c] + w01 * planes[below + c] + w11 * planes[below + channels + c];
  }
}

function lattice(n) {
  const points = new Float32Array(3 * n ** 3);
  for (let x = 0, at = 0; x < n; x++)
    for (let y = 0; y < n; y++)
      for (let z = 0; z < n; z++) for (const i of [x, y, z]) points[at++] = -1 + (2 * i) / (n - 1);
  return points;
}

/** Which cells of a lattice the surface may pass through: those with corners on both sides, and their neighbours. */
function crossed(logits, n) {
  const mixed = new Uint8Array(n ** 3), near = new Uint8Array(n ** 3), corners = [0, 1, n, n + 1, n * n, n * n + 1, n * n + n, n * n + n + 1];
  const all = (visit) => { for (let x = 0; x < n - 1; x++) for (let y = 0; y < n - 1; y++) for (let z = 0; z < n - 1; z++) visit(x, y, z, (x * n + y) * n + z); };
  all((x, y, z, at) => { const inside = corners.reduce((sum, offset) => sum + (logits[at + offset] > 0), 0); mixed[at] = inside > 0 && inside < 8 ? 1 : 0; });
  all((x, y, z, at) => {
    if (!mixed[at]) return;
    for (let i = Math.max(0, x - 1); i <= Math.min(n - 2, x + 1); i++)
      for (let j = Math.max(0, y - 1); j <= Math.min(n - 2, y + 1); j++)
        for (let k = Math.max(0, z - 1); k <= Math.min(n - 2, z + 1); k++) near[(i * n + j) * n + k] = 1;
  });
  return near;
}

/** A vertex in each cell that the surface crosses, at the mean of its crossings; a quad around each edge that it crosses. */
function surfaceNets(logits, n) {
  const index = new Int32Array(n ** 3).fill(-1), vertices = [], faces = [], steps = [n * n, n, 1];
  const edges = [];
  for (let axis = 0; axis < 3; axis++)
    for (const [i, j] of [[0, 0], [1, 0], [0, 1], [1, 1]]) edges.push([axis, i * steps[(axis + 1) % 3] + j * steps[(axis + 2) % 3], [(axis + 1) % 3, i], [(axis + 2) % 3, j]]);
  for (let x = 0; x < n - 1; x++)
    for (let y = 0; y < n - 1; y++)
      for (let z = 0; z < n - 1; z++) {
        const at = (x * n + y) * n + z, sums = [0, 0, 0];
        let count = 0;
        for (const [axis, offset, one, other] of edges) {
          const a = logits[at + offset], b = logits[at + offset + steps[axis]];
          if (a > 0 === b > 0) continue;
          sums[axis] += a / (a - b);
          sums[one[0]] += one[1];
          sums[other[0]] += other[1];
          count++;
        }
        if (!count) continue;
        index[at] = vertices.length / 3;
        [x, y, z].forEach((i, c) => vertices.push(-1 + (2 * (i + sums[c] / count)) / (n - 1)));
      }
  for (let x = 1; x < n - 1; x++)
    for (let y = 1; y < n - 1; y++)
      for (let z = 1; z < n - 1; z++) {
        const at = (x * n + y) * n + z;
        for (let axis = 0; axis < 3; axis++) {
          const inside = logits[at] > 0;
          if (inside === logits[at + steps[axis]] > 0) continue;
          const u = steps[(axis + 1) % 3], v = steps[(axis + 2) % 3];
          const [a, b, c, d] = [index[at - u - v], index[at - v], index[at], index[at - u]];
          // Counterclockwise from outside, which is along the axis where this end is inside.
          if (inside) faces.push(a, b, c, a, c, d);
          else faces.push(a, c, b, a, d, c);
        }
      }
  return { vertices: Float32Array.from(vertices), faces: Uint32Array.from(faces) };
}

/** Drops closed parts that enclose less than a hundredth of the largest one's volume. */
function withoutCrumbs({ vertices, faces }) {
  const parent = Int32Array.from({ length: vertices.length / 3 }, (_, i) => i);
  const root = (i) => { while (parent[i] !== i) i = parent[i] = parent[parent[i]]; return i; };
  for (let f = 0; f < faces.length; f += 3) { parent[root(faces[f])] = root(faces[f + 1]); parent[root(faces[f + 1])] = root(faces[f + 2]); }
  const volumes = new Float64Array(parent.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
    // Signed tetrahedra with the origin.
    volumes[root(faces[f])] += vertices[a] * (vertices[b + 1] * vertices[c + 2] - vertices[b + 2] * vertices[c + 1])
      + vertices[a + 1] * (vertices[b + 2] * vertices[c] - vertices[b] * vertices[c + 2])
      + vertices[a + 2] * (vertices[b] * vertices[c + 1] - vertices[b + 1] * vertices[c]);
  }
  const least = CRUMB * volumes.reduce((most, value) => Math.max(most, Math.abs(value)), 0), index = new Int32Array(parent.length).fill(-1);
  const places = [], kept = [];
  for (let f = 0; f < faces.length; f += 3) {
    if (Math.abs(volumes[root(faces[f])]) < least) continue;
    for (let k = 0; k < 3; k++) {
      const v = faces[f + k];
      if (index[v] < 0) { index[v] = places.length / 3; places.push(vertices[3 * v], vertices[3 * v + 1], vertices[3 * v + 2]); }
      kept.push(index[v]);
    }
  }
  return { vertices: Float32Array.from(places), faces: Uint32Array.from(kept) };
}

function normalsOf(vertices, faces) {
  const normals = new Float32Array(vertices.length), corner = (i) => vertices.subarray(3 * i, 3 * i + 3);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [corner(faces[f]), corner(faces[f + 1]), corner(faces[f + 2])];
    const p = [b[0] - a[0], b[1] - a[1], b[2] - a[2]], q = [c[0] - a[0], c[1] - a[1], c[2] - a[2]];
    const across = [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
    for (let k = 0; k < 3; k++) for (let i = 0; i < 3; i++) normals[3 * faces[f + k] + i] += across[i];
  }
  for (let v = 0; v < normals.length; v += 3) {
    const length = Math.hypot(normals[v], normals[v + 1], normals[v + 2]) || 1;
    for (let i = 0; i < 3; i++) normals[v + i] /= length;
  }
  return normals;
}
