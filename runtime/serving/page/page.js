// The page at `/`: an image to the server, an object back. Errors are the server's own words.
const $ = (selector) => document.querySelector(selector);
const form = $("#options"), drop = $("#drop"), viewer = $("#viewer"), message = $("#message");
const FORMATS = { glb: "GLB", usdz: "USDZ", obj: "OBJ", ply: "PLY", stl: "STL", webp: "Turntable", png: "View", npz: "Triplane" };
let image = null, running = null;
// What the object on the page was made of and with: downloads are of it, whatever the form says by then.
let shown = null;

function say(text, isError = false) {
  message.textContent = text;
  message.classList.toggle("error", isError);
}

function wanted() {
  const fields = new FormData(form), names = ["background", "steps", "seed"].filter((name) => fields.get(name));
  return { image, options: Object.fromEntries(names.map((name) => [name, fields.get(name)])) };
}

async function ask({ image, options }, format, signal) {
  const headers = { "Content-Type": "application/octet-stream" }, token = form.elements.token.value;
  if (token) headers.Authorization = `Bearer ${token}`;
  const query = new URLSearchParams({ format, ...options });
  const answer = await fetch(`v1/reconstructions?${query}`, { method: "POST", body: image, headers, signal });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({ detail: `The server answered ${answer.status}.` }));
    if (answer.status === 401) $("#token").hidden = false;
    throw new Error([problem.detail, problem.remedy].filter(Boolean).join(" "));
  }
  return answer;
}

async function reconstruct() {
  if (image === null) return say("First give a picture.", true);
  running?.abort();
  const mine = (running = new AbortController()), begun = performance.now(), what = wanted();
  $("progress").hidden = false;
  $("#downloads").hidden = true;
  say("Looking at the picture …");
  try {
    const input = await ask(what, "input", mine.signal);
    what.options.seed = input.headers.get("X-Seed");
    const notes = input.headers.get("X-Notes");
    $("#input img").src = URL.createObjectURL(await input.blob());
    $("#input").hidden = false;
    say("Making the object …");
    const answer = await ask(what, "glb", mine.signal);
    viewer.src = URL.createObjectURL(await answer.blob());
    await new Promise((done, failed) => {
      viewer.addEventListener("load", done, { once: true });
      viewer.addEventListener("error", () => failed(new Error("This browser cannot show the object.")), { once: true });
    });
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    say(`Done in ${seconds} s, seed ${what.options.seed}. Drag to turn it. ${notes}`);
    shown = what;
    $("#downloads").hidden = false;
  } catch (error) {
    if (error.name !== "AbortError") say(error instanceof TypeError ? "The server does not answer." : error.message, true);
  }
  if (running === mine) $("progress").hidden = true;
}

async function download(format) {
  $("progress").hidden = false;
  say(`Writing ${FORMATS[format]} …`);
  try {
    const answer = await ask(shown, format), link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))[1];
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`${link.download} is among your downloads.`);
  } catch (error) {
    say(error.message, true);
  }
  $("progress").hidden = true;
}

function take(file) {
  if (!file) return;
  image = file;
  drop.querySelector("span").textContent = file.name ?? "A picture";
  reconstruct();
}

for (const format of Object.keys(FORMATS)) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: FORMATS[format] });
  button.addEventListener("click", () => download(format));
  $("#downloads").append(button);
}
form.addEventListener("submit", (event) => { event.preventDefault(); reconstruct(); });
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
