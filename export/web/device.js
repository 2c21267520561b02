// The runtime in this browser, for the page: nothing that is given to it leaves the machine.

let worker = null, number = 0;

function started() {
  if (worker) return worker;
  worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  return worker;
}

/**
 * Reconstructs an object.
 * @param {Blob} image file. @param options background, seed, steps, mesh, view, triplane.
 * @param {(text: string) => void} tell of what is being done. @param {(blob: Blob) => void} show what the model sees.
 * @returns the worker's answer: seed, notes, times, glb, png.
 */
export function reconstruct(image, options, tell = () => {}, show = () => {}) {
  const mine = started(), id = ++number;
  return new Promise((resolve, reject) => {
    const finish = () => { mine.removeEventListener("message", listen); mine.removeEventListener("error", fail); };
    const listen = ({ data }) => {
      if (data.input) return show(data.input);
      if (data.id !== id) return;
      if (data.error) { finish(); reject(new Error(data.error)); }
      else if (data.done) { finish(); resolve(data); }
      else tell(data.text);
    };
    const fail = () => { finish(); worker = null; mine.terminate(); reject(new Error("The model's worker stopped: the browser may have no memory left. Try again.")); };
    mine.addEventListener("message", listen);
    mine.addEventListener("error", fail);
    mine.postMessage({ id, image, options });
  });
}

/** Has what is loaded from now on kept for visits without a network; waits until it is so, a few seconds at the most. */
export async function keepOffline() {
  const keeper = navigator.serviceWorker;
  if (!keeper) return;
  const controlled = keeper.controller ? null : new Promise((done) => keeper.addEventListener("controllerchange", done, { once: true }));
  try {
    await keeper.register(new URL("./offline.js", import.meta.url));
  } catch {
    return;
  }
  await Promise.race([controlled, new Promise((done) => setTimeout(done, 3000))]);
}
