// Whether this browser's GPU is taken: only where every graph gives what WebAssembly gives, and the planes come sooner.
// Asked once for each device and site.

import { Runtime } from "./pipeline.js";

const LEAST_PSNR = 45, VERDICTS = "wavelet-triplane gpu, all graphs", VIEW = { azimuth: 30, size: 32, samples: 32 }, POINTS = 256;
/** Execution providers of ONNX Runtime by engine, in order. */
export const PROVIDERS = { webgpu: ["webgpu", "wasm"], wasm: ["wasm"] };

/** The module of onnxruntime-web for "webgpu" or "wasm". */
export async function engineOf(name) {
  const ort = await import(`./ort/ort.${name}.min.mjs`);
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  // Threads need memory that they share, which a page has only with the two headers of cross-origin isolation.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
  return ort;
}

/** Describes the GPU that the browser would give, or null. */
export async function findGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter || adapter.isFallbackAdapter || adapter.info?.isFallbackAdapter) return null;
  return [adapter.info?.vendor, adapter.info?.architecture, adapter.info?.device].filter(Boolean).join("-") || "unknown";
}

/**
 * Compares the engines; the answer is kept.
 * @param {string} base of the bundle. @param {string} gpu its name.
 */
export async function isWorthTaking(base, gpu) {
  const manifest = await (await fetch(`${base}/manifest.json`)).json(), verdicts = await caches.open(VERDICTS);
  const key = `${base}/?${encodeURIComponent(`${gpu} ${manifest.sha256}`)}`, kept = await verdicts.match(key);
  if (kept) return (await kept.text()) === "yes";
  const { agreement, seconds } = await compareEngines(base);
  const taken = Object.values(agreement).every((found) => found >= LEAST_PSNR) && seconds.webgpu < seconds.wasm;
  await verdicts.put(key, new Response(taken ? "yes" : "no"));
  return taken;
}

/**
 * Runs all graphs on both engines, as the site runs them.
 * @returns {Promise<{agreement: Object<string, number>, seconds: Object<string, number>}>} PSNR in dB of what WebGPU gives
 * beside WebAssembly, and seconds of image to triplane by engine.
 */
export async function compareEngines(base) {
  const found = {}, seconds = {};
  let shared = null;
  for (const name of ["webgpu", "wasm"]) {
    const rt = await Runtime.load(await engineOf(name), base, PROVIDERS[name]), size = rt.manifest.image.size;
    try {
      const image = Float32Array.from({ length: 3 * size * size }, (_, i) => {
        const x = ((i % size) / size) * 2 - 1, y = ((Math.floor(i / size) % size) / size) * 2 - 1;
        return x * x + y * y < 0.4 ? 0.8 * x - 0.4 * y : 1;
      });
      await rt.reconstruct(image, { seed: 0 });
      const begun = performance.now(), planes = await rt.reconstruct(image, { seed: 0 });
      seconds[name] = (performance.now() - begun) / 1000;
      // The rest is compared on the same planes, so that each graph answers for itself.
      shared ??= planes;
      const width = 3 * rt.channels, decoded = await rt.run("decoder", { features: [shared.slice(0, POINTS * width), [1, POINTS, width]] });
      const { data: view } = await rt.view(shared, VIEW);
      found[name] = { planes, view, rgb: decoded.rgb, density: decoded.density };
    } finally {
      for (const session of Object.values(rt.sessions)) await session.release();
    }
  }
  const agreement = Object.fromEntries(Object.entries(found.webgpu).map(([key, ours]) => [key, decibels(ours, found.wasm[key])]));
  return { agreement, seconds };
}

function decibels(ours, expected) {
  let error = 0, low = Infinity, high = -Infinity;
  expected.forEach((value, i) => { error += (ours[i] - value) ** 2; low = Math.min(low, value); high = Math.max(high, value); });
  // Equal arrays may be constant.
  return error === 0 ? Infinity : 10 * Math.log10((high - low) ** 2 / (error / expected.length));
}
