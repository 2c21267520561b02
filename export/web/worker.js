// Where all work is done, so that the page stays live. Messages are { id, image, options }; answers { id, ... } or { id, error }.

import { findGpu, isWorthTaking } from "./gpu.js";
import { Runtime } from "./pipeline.js";
import { decode, prepare } from "./preparation.js";
import { glb } from "./glb.js";

const MESH = 96;
let loading = null;

async function load(tell) {
  const gpu = await findGpu(), base = new URL("./bundle", import.meta.url).href;
  const ort = await import(gpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  // Threads need memory that they share, which a page has only with the two headers of cross-origin isolation.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
  const { image } = await (await fetch(`${base}/manifest.json`)).json();
  const taken = gpu && (await isWorthTaking(ort, `${base}/coarse.onnx`, image.size, gpu).catch(() => false));
  return Runtime.load(ort, base, taken ? ["webgpu", "wasm"] : ["wasm"], tell);
}

async function answer({ image, options }, tell) {
  loading ??= load((share) => tell(`Loading the model: ${Math.round(100 * share)} % …`)).catch((error) => { loading = null; throw error; });
  const rt = await loading, { size, framing } = rt.manifest.image, times = {};
  const timed = async (name, work) => { const begun = performance.now(), result = await work(); times[name] = performance.now() - begun; return result; };
  tell("Looking at the picture …");
  const prepared = await timed("image", async () => prepare(await decode(image), size, framing, options.background ?? "auto"));
  const { pixels, notes } = prepared;
  const input = await png(new ImageData(Uint8ClampedArray.from({ length: 4 * size * size }, (_, i) => (i % 4 === 3 ? 255 : Math.round((pixels[(i % 4) * size * size + (i >> 2)] + 1) * 127.5))), size));
  self.postMessage({ input });
  tell("Making the object …");
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  const triplane = await timed("triplane", () => rt.reconstruct(pixels, { seed, steps: options.steps, sampler: options.sampler }));
  const result = { seed, notes: notes.join(" "), times };
  if (options.triplane) result.triplane = triplane;
  if (options.view) result.png = await timed("view", async () => png(await rt.view(triplane, options.view)));
  if (options.mesh !== false) result.glb = await timed("mesh", async () => new Blob([glb(await rt.mesh(triplane, options.resolution ?? MESH, options.projected === false ? null : prepared))], { type: "model/gltf-binary" }));
  return result;
}

async function png(pixels) {
  const canvas = new OffscreenCanvas(pixels.width, pixels.height);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

self.addEventListener("message", async ({ data }) => {
  try {
    self.postMessage({ id: data.id, ...(await answer(data, (text) => self.postMessage({ id: data.id, text }))), done: true });
  } catch (error) {
    const memory = /memory|allocat|bad_alloc|RangeError/i.test(`${error.name} ${error.message ?? error}`);
    self.postMessage({ id: data.id, error: memory ? "The browser has no memory left for this. Close other tabs and try again." : String(error.message ?? error) });
  }
});
