// Whether this browser's GPU is taken: only where it gives what WebAssembly gives, and sooner. Asked once for each device
// and site.

const LEAST_PSNR = 45, VERDICTS = "wavelet-triplane gpu";

/** Describes the GPU that the browser would give, or null. */
export async function findGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter || adapter.isFallbackAdapter || adapter.info?.isFallbackAdapter) return null;
  return [adapter.info?.vendor, adapter.info?.architecture, adapter.info?.device].filter(Boolean).join("-") || "unknown";
}

/**
 * Compares the two networks on both engines.
 * @param engineOf gives the module of "webgpu" or "wasm". @param {string} base of the bundle. @param {string} gpu its name.
 */
export async function isWorthTaking(engineOf, base, gpu) {
  const manifest = await (await fetch(`${base}/manifest.json`)).json(), size = manifest.image.size;
  const side = manifest.model.resolution, verdicts = await caches.open(VERDICTS);
  const key = `${base}/?${encodeURIComponent(`${gpu} ${manifest.sha256}`)}`, kept = await verdicts.match(key);
  if (kept) return (await kept.text()) === "yes";
  const image = Float32Array.from({ length: 3 * size * size }, (_, i) => {
    const x = ((i % size) / size) * 2 - 1, y = ((Math.floor(i / size) % size) / size) * 2 - 1;
    return x * x + y * y < 0.4 ? 0.8 * x - 0.4 * y : 1;
  });
  const found = [], seconds = [];
  for (const name of ["webgpu", "wasm"]) {
    const ort = await engineOf(name), of = (data, shape) => new ort.Tensor("float32", data, shape);
    const open = async (graph) => ort.InferenceSession.create(new Uint8Array(await (await fetch(`${base}/${manifest.graphs[graph].file}`)).arrayBuffer()), { executionProviders: [name] });
    const coarse = await open("coarse"), step = await open("diffusion_step");
    const run = async () => {
      const { triplane_ll: ll, condition } = await coarse.run({ image: of(image, [1, 3, size, size]) });
      const shape = [1, 3, 3 * manifest.model.triplane_channels, side, side], state = of(Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i)), shape);
      const { denoised } = await step.run({ noisy: state, condition, previous: state, noise: state, row: of(Float32Array.from([500, 0.7, 0.7, 0, 1, 0, 0]), [7]) });
      return [ll.data, denoised.data];
    };
    await run();
    const begun = performance.now();
    found.push(await run());
    seconds.push(performance.now() - begun);
    await coarse.release();
    await step.release();
  }
  const taken = found[0].every((ours, i) => decibels(ours, found[1][i]) >= LEAST_PSNR) && seconds[0] < seconds[1];
  await verdicts.put(key, new Response(taken ? "yes" : "no"));
  return taken;
}

function decibels(ours, expected) {
  let error = 0, low = Infinity, high = -Infinity;
  expected.forEach((value, i) => { error += (ours[i] - value) ** 2; low = Math.min(low, value); high = Math.max(high, value); });
  return 10 * Math.log10((high - low) ** 2 / (error / expected.length));
}
