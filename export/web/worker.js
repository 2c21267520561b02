// Where all work is done, so that the page stays live. Messages are { id, image, options }, or { stop: id }; answers are
// { id, text }, { id, input }, { id, ..., done } or { id, error, broken }.

import { engineOf, findGpu, isWorthTaking, PROVIDERS } from "./gpu.js";
import { Runtime } from "./pipeline.js";
import { decode, prepare } from "./preparation.js";
import { glb } from "./glb.js";

const MESH = 96, MOST_STEPS = 50;
const stopped = new Set();
let loading = null, last = Promise.resolve();
// Who is told how far the download is: the latest request.
let tellLoading = () => {};

async function load() {
  const gpu = await findGpu(), base = new URL("./bundle", import.meta.url).href;
  const tell = (share) => tellLoading(`Loading the model: ${Math.round(100 * share)} % …`);
  const engine = gpu && (await isWorthTaking(base, gpu).catch(() => false)) ? "webgpu" : "wasm";
  return Runtime.load(await engineOf(engine), base, PROVIDERS[engine], tell);
}

class Stopped extends Error {}

async function answer({ id, image, options }) {
  const tell = (text) => self.postMessage({ id, text }), goOn = () => { if (stopped.has(id)) throw new Stopped("Stopped."); };
  goOn();
  if (options.steps !== undefined && !(Number.isInteger(options.steps) && options.steps >= 1 && options.steps <= MOST_STEPS))
    throw new Error(`Steps are whole, 1 to ${MOST_STEPS}, not ${options.steps}.`);
  loading ??= load();
  const rt = await loading, { size, framing } = rt.manifest.image, times = {};
  const timed = async (name, work) => { goOn(); const begun = performance.now(), result = await work(); times[name] = performance.now() - begun; return result; };
  tell("Looking at the picture …");
  const prepared = await timed("image", async () => prepare(await decode(image), size, framing, options.background ?? "auto"));
  const { pixels, notes } = prepared;
  const shown = Uint8ClampedArray.from({ length: 4 * size * size }, (_, i) => (i % 4 === 3 ? 255 : Math.round((pixels[(i % 4) * size * size + (i >> 2)] + 1) * 127.5)));
  self.postMessage({ id, input: await png(new ImageData(shown, size)) });
  tell("Making the object …");
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  const triplane = await timed("triplane", () => rt.reconstruct(pixels, { seed, steps: options.steps, sampler: options.sampler }));
  const result = { seed, notes: notes.join(" "), times };
  if (options.triplane) result.triplane = triplane;
  if (options.view) result.png = await timed("view", async () => png(await rt.view(triplane, options.view)));
  if (options.mesh !== false) {
    const wanted = { projected: options.projected !== false, silhouette: options.silhouette !== false };
    result.glb = await timed("mesh", async () => new Blob([glb(await rt.mesh(triplane, options.resolution ?? MESH, prepared, wanted))], { type: "model/gltf-binary" }));
  }
  return result;
}

async function png(pixels) {
  const canvas = new OffscreenCanvas(pixels.width, pixels.height);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

async function handle(data) {
  try {
    self.postMessage({ id: data.id, ...(await answer(data)), done: true });
  } catch (error) {
    const text = String(error.message ?? error), memory = error instanceof RangeError || /out of memory|bad_alloc|allocation/i.test(text);
    // An engine that failed to start, or lost its memory, stays so: the page starts another worker.
    const broken = memory || (await Promise.race([loading?.then(() => false, () => true), false]));
    if (broken) loading = null;
    const said = memory ? "The browser has no memory left for this. Close other tabs and try again." : text;
    self.postMessage({ id: data.id, error: said, broken, stopped: error instanceof Stopped });
  }
  stopped.delete(data.id);
}

self.addEventListener("message", ({ data }) => {
  if (data.stop !== undefined) return stopped.add(data.stop);
  tellLoading = (text) => self.postMessage({ id: data.id, text });
  // One at a time: the engine uses all cores for one picture, and a GPU's takes no second call.
  last = last.then(() => handle(data));
});
