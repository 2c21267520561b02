// The bundle's graphs and what runs between them: image to triplane, triplane to view and mesh.

import { normals } from "./noise.js";
import { samplerTable } from "./samplers.js";
import { idwt2d } from "./wavelet.js";
import { meshOf } from "./surface.js";
import { cameraRays, orbit } from "./cameras.js";

const RAYS_AT_ONCE = 4096;

/** A bundle in a browser. Made by `Runtime.load`. */
export class Runtime {
  /**
   * @param ort the module of onnxruntime-web. @param {string} base address of the bundle's folder.
   * @param {string[]} providers of ONNX Runtime, in order. @param {(share: number) => void} progress of the download.
   */
  static async load(ort, base, providers, progress = () => {}) {
    const answer = await fetch(`${base}/manifest.json`).catch(() => null);
    if (!answer?.ok) throw new Error(`There is no bundle at ${base}${answer ? `: ${answer.status}` : ", or no network"}.`);
    const manifest = await answer.json(), graphs = manifest.graphs;
    const total = Object.values(graphs).reduce((sum, graph) => sum + graph.bytes, 0);
    let received = 0;
    const sessions = {};
    for (const [name, graph] of Object.entries(graphs)) {
      const data = await download(`${base}/${graph.file}`, (bytes) => progress((received += bytes) / total));
      sessions[name] = await ort.InferenceSession.create(data, { executionProviders: providers, graphOptimizationLevel: "all" });
    }
    return new Runtime(ort, manifest, sessions);
  }

  constructor(ort, manifest, sessions) {
    this.ort = ort;
    this.manifest = manifest;
    this.sessions = sessions;
    this.channels = manifest.model.triplane_channels;
    this.side = manifest.model.resolution;
  }

  /** Runs a graph. @param {Object<string, [Float32Array, number[]]>} feeds by name. @returns arrays by name. */
  async run(name, feeds) {
    const tensors = Object.fromEntries(Object.entries(feeds).map(([key, [data, shape]]) => [key, new this.ort.Tensor("float32", data, shape)]));
    const found = await this.sessions[name].run(tensors);
    const arrays = Object.fromEntries(Object.entries(found).map(([key, tensor]) => [key, tensor.data]));
    for (const tensor of Object.values(found)) if (tensor.location !== "cpu") throw new Error("A result is not in memory.");
    return arrays;
  }

  /**
   * Coarse stage, diffusion and inverse wavelet transform.
   * @param {Float32Array} pixels 3 x S x S in [-1, 1]. @param {{seed: number, steps?: number, sampler?: string}} options
   * @returns {Promise<Float32Array>} triplane, 3 x C x 2R x 2R.
   */
  async reconstruct(pixels, { seed, steps, sampler }) {
    const { channels: c, side, manifest } = this, size = manifest.image.size, plane = side * side;
    const { triplane_ll: ll, condition } = await this.run("coarse", { image: [pixels, [1, 3, size, size]] });
    const table = samplerTable(sampler ?? manifest.defaults.sampler, manifest.schedule, steps ?? manifest.defaults.steps);
    const count = 9 * c * plane, shape = [1, 3, 3 * c, side, side], conditionShape = [1, 3, condition.length / 3 / plane, side, side];
    const draws = table.some((row) => row[6] !== 0) ? 1 + table.length : 1, noise = normals(seed, draws * count);
    let state = noise.slice(0, count), previous = state;
    for (const [index, row] of table.entries()) {
      const drawn = Math.min(index + 1, draws - 1);
      const found = await this.run("diffusion_step", {
        noisy: [state, shape], condition: [condition, conditionShape], previous: [previous, shape],
        noise: [noise.slice(drawn * count, (drawn + 1) * count), shape], row: [Float32Array.from(row), [7]],
      });
      state = found.next;
      previous = found.denoised;
    }
    return this.joined(ll, state);
  }

  joined(ll, standard) {
    const { channels: c, side } = this, { detail_mean: mean, detail_std: std } = this.manifest.statistics, plane = side * side;
    const triplane = new Float32Array(12 * c * plane), bands = [0, 1, 2].map(() => new Float32Array(plane));
    for (let p = 0; p < 3; p++)
      for (let channel = 0; channel < c; channel++) {
        bands.forEach((band, b) => {
          const row = b * c + channel, start = (p * 3 * c + row) * plane;
          for (let i = 0; i < plane; i++) band[i] = Math.fround(standard[start + i] * Math.fround(std[p][row])) + Math.fround(mean[p][row]);
        });
        const at = p * c + channel;
        idwt2d(ll.subarray(at * plane, (at + 1) * plane), ...bands, side, triplane.subarray(4 * at * plane, 4 * (at + 1) * plane));
      }
    return triplane;
  }

  /** Draws a triplane over white. @returns {Promise<ImageData>} */
  async view(triplane, { azimuth = 0, elevation = 20, size = 256, samples = 64 } = {}) {
    const { origin, table } = cameraRays(orbit(azimuth, elevation), size, samples), rays = size * size;
    const middles = Float32Array.from({ length: samples }, (_, i) => i + 0.5), image = new ImageData(size, size);
    const shape = [3, this.channels, 2 * this.side, 2 * this.side];
    for (let start = 0; start < rays; start += RAYS_AT_ONCE) {
      const number = Math.min(RAYS_AT_ONCE, rays - start), some = new Float32Array(6 * number);
      for (let row = 0; row < 6; row++) some.set(table.subarray(row * rays + start, row * rays + start + number), row * number);
      const { drawn } = await this.run("view", { triplane: [triplane, shape], origin: [origin, [3]], rays: [some, [6, number]], samples: [middles, [samples]] });
      for (let i = 0; i < number; i++) {
        const behind = 1 - drawn[3 * number + i];
        for (let c = 0; c < 3; c++) image.data[4 * (start + i) + c] = Math.round(255 * Math.min(1, Math.max(0, drawn[c * number + i] + behind)));
        image.data[4 * (start + i) + 3] = 255;
      }
    }
    return image;
  }

  /** Cuts the surface out; `image` and `wanted` as for `meshOf`. @returns {Promise<{vertices, faces, colours, normals}>} typed arrays. */
  mesh(triplane, resolution, image = null, wanted = { projected: true, silhouette: true }) {
    const decode = async (features, count) => {
      const { rgb, density } = await this.run("decoder", { features: [features, [1, count, 3 * this.channels]] });
      return { rgb, density };
    };
    return meshOf(triplane, this.channels, 2 * this.side, decode, this.manifest.renderer, resolution, image, wanted);
  }
}

async function download(address, tell) {
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) throw new Error(`${address} cannot be had${answer ? `: ${answer.status}` : ": there is no network"}.`);
  const parts = [], reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    tell(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
