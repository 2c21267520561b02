// The page: an image in, an object back. Two engines do it: the server, and this browser where the site has the runtime
// in it (`export/to_web.py`). Errors are the engine's own words.
const $ = (selector) => document.querySelector(selector);
const form = $("#options"), drop = $("#drop"), viewer = $("#viewer"), message = $("#message");
const FORMATS = { glb: "GLB", usdz: "USDZ", obj: "OBJ", ply: "PLY", stl: "STL", webp: "Turntable", png: "View", npz: "Triplane" };
let image = null, running = null;
// What the object on the page was made of, with and by: downloads are of it, whatever the form says by then.
let shown = null;

function say(text, isError = false) {
  message.textContent = text;
  message.classList.toggle("error", isError);
}

async function ask({ image, options }, format, signal) {
  const headers = { "Content-Type": "application/octet-stream" }, token = form.elements.token.value;
  if (token) headers.Authorization = `Bearer ${token}`;
  const query = new URLSearchParams({ format, ...options });
  const answer = await fetch(`v1/reconstructions?${query}`, { method: "POST", body: image, headers, signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server does not answer.");
  });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({ detail: `The server answered ${answer.status}.` }));
    if (answer.status === 401) $("#token").hidden = false;
    throw new Error([problem.detail, problem.remedy].filter(Boolean).join(" "));
  }
  return answer;
}

const server = {
  where: "It is sent to this server and nowhere else.",
  formats: Object.keys(FORMATS),
  async make(what, signal, showInput) {
    say("Looking at the picture …");
    const input = await ask(what, "input", signal);
    what.options.seed = input.headers.get("X-Seed");
    const notes = input.headers.get("X-Notes");
    showInput(await input.blob());
    say("Making the object …");
    return { glb: await (await ask(what, "glb", signal)).blob(), notes };
  },
  async file(what, format) {
    const answer = await ask(what, format);
    return [await answer.blob(), /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))[1]];
  },
};

function deviceOf(runtime) {
  const optionsOf = ({ background, steps, seed }) => ({ background, ...(steps && { steps: Number(steps) }), ...(seed !== undefined && { seed: Number(seed) }) });
  return {
    where: "It does not leave this device.",
    formats: ["glb", "png"],
    async make(what, signal, showInput) {
      const tell = (text) => { if (!signal.aborted) say(text); };
      const show = (blob) => { if (!signal.aborted) showInput(blob); };
      const made = await runtime.reconstruct(what.image, optionsOf(what.options), tell, show, signal);
      signal.throwIfAborted();
      what.options.seed = made.seed;
      what.glb = made.glb;
      return made;
    },
    async file(what, format) {
      if (format === "glb") return [what.glb, "object.glb"];
      const made = await runtime.reconstruct(what.image, { ...optionsOf(what.options), mesh: false, view: { azimuth: 20, size: 256 } });
      return [made.png, "object.png"];
    },
  };
}

async function enginesThere() {
  if (!("device" in document.documentElement.dataset)) return { server };
  const runtime = await import("./device.js");
  await runtime.keepOffline();
  // This machine is the first choice where the site has the runtime in it: nobody's picture is sent who did not ask for it.
  const device = deviceOf(runtime), bundle = await fetch("v1/bundle").then((answer) => answer.status === 401 || answer.json()).catch(() => null);
  return bundle === true || bundle?.image_size ? { device, server } : { device };
}

const engines = enginesThere();

async function chosen() {
  const there = await engines;
  return (there.device && there.server && there[form.elements.where.value]) || Object.values(there)[0];
}

async function reconstruct() {
  if (image === null) return say("First give a picture.", true);
  running?.abort();
  const mine = (running = new AbortController()), begun = performance.now(), fields = new FormData(form);
  const names = ["background", "steps", "seed"].filter((name) => fields.get(name));
  const what = { image, options: Object.fromEntries(names.map((name) => [name, fields.get(name)])) };
  $("progress").hidden = false;
  $("#downloads").hidden = true;
  try {
    const engine = (what.engine = await chosen());
    const { glb, notes } = await engine.make(what, mine.signal, (blob) => {
      $("#input img").src = URL.createObjectURL(blob);
      $("#input").hidden = false;
    });
    mine.signal.throwIfAborted();
    URL.revokeObjectURL(viewer.src);
    viewer.src = URL.createObjectURL(glb);
    await new Promise((done, failed) => {
      viewer.addEventListener("load", done, { once: true });
      viewer.addEventListener("error", () => failed(new Error("This browser cannot show the object.")), { once: true });
    });
    mine.signal.throwIfAborted();
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    say(`Done in ${seconds} s, seed ${what.options.seed}. Drag to turn it. ${notes}`);
    shown = what;
    for (const button of $("#downloads").children) button.hidden = !engine.formats.includes(button.dataset.format);
    $("#downloads").hidden = false;
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
  if (running === mine) $("progress").hidden = true;
}

async function download(format) {
  $("progress").hidden = false;
  say(`Writing ${FORMATS[format]} …`);
  try {
    const [blob, name] = await shown.engine.file(shown, format), link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`${name} is among your downloads.`);
  } catch (error) {
    say(error.message, true);
  }
  $("progress").hidden = true;
}

function take(file) {
  if (!file || !form.reportValidity()) return;
  image = file;
  drop.querySelector("span").textContent = file.name ?? "A picture";
  reconstruct();
}

async function sayWhere() {
  $("#where-it-goes").textContent = (await chosen()).where;
}

for (const format of Object.keys(FORMATS)) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: FORMATS[format] });
  button.dataset.format = format;
  button.addEventListener("click", () => download(format));
  $("#downloads").append(button);
}
form.addEventListener("submit", (event) => { event.preventDefault(); reconstruct(); });
form.elements.where.addEventListener("change", sayWhere);
$("#file").addEventListener("change", (event) => take(event.target.files[0]));
drop.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") $("#file").click(); });
for (const name of ["dragenter", "dragover"])
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
for (const button of document.querySelectorAll("[data-example]"))
  button.addEventListener("click", async () => {
    const name = `${button.dataset.example}.png`;
    take(new File([await (await fetch(`examples/${name}`)).blob()], name, { type: "image/png" }));
  });
engines.then((there) => {
  $("#where").hidden = Object.keys(there).length < 2;
  sayWhere();
});
