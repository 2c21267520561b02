// The runtime in this browser, for the page: nothing that is given to it leaves the machine.

let worker = null, number = 0;

function started() {
  return (worker ??= new Worker(new URL("./worker.js", import.meta.url), { type: "module" }));
}

/**
 * Reconstructs an object.
 * @param {Blob} image file. @param options background, seed, steps, mesh, view, triplane.
 * @param {(text: string) => void} tell of what is being done. @param {(blob: Blob) => void} show what the model sees.
 * @param {AbortSignal} [signal] stops the work.
 * @returns the worker's answer: seed, notes, times, glb, png.
 */
export function reconstruct(image, options, tell = () => {}, show = () => {}, signal = undefined) {
  const mine = started(), id = ++number;
  return new Promise((resolve, reject) => {
    const leave = () => { if (worker === mine) worker = null; mine.terminate(); };
    const finish = () => {
      mine.removeEventListener("message", listen);
      mine.removeEventListener("error", fail);
      signal?.removeEventListener("abort", stop);
    };
    const stop = () => mine.postMessage({ stop: id });
    const listen = ({ data }) => {
      if (data.id !== id) return;
      if (data.input) show(data.input);
      else if (data.text) tell(data.text);
      else {
        finish();
        if (data.broken) leave();
        if (data.done) resolve(data);
        else reject(data.stopped ? new DOMException("Stopped.", "AbortError") : new Error(data.error));
      }
    };
    const fail = () => { finish(); leave(); reject(new Error("The model's worker stopped: the browser may have no memory left. Try again.")); };
    mine.addEventListener("message", listen);
    mine.addEventListener("error", fail);
    signal?.addEventListener("abort", stop);
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
