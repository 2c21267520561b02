// The page at `/`: an image to the server, an object back. Errors are the server's own words.
const $ = (selector) => document.querySelector(selector);
const form = $("#options"), drop = $("#drop"), viewer = $("#viewer"), message = $("#message");
const FORMATS = { glb: "GLB", usdz: "USDZ", obj: "OBJ", ply: "PLY", stl: "STL", webp: "Turntable", png: "View", npz: "Triplane" };
let image = null, seed = null, running = null;

function say(text, isError = false) {
  message.textContent = text;
  message.classList.toggle("error", isError);
}

async function ask(format, signal) {
  const fields = new FormData(form), query = new URLSearchParams({ format });
  for (const name of ["background", "steps"]) if (fields.get(name)) query.set(name, fields.get(name));
  if (seed !== null) query.set("seed", seed);
  const headers = { "Content-Type": "application/octet-stream" };
  if (fields.get("token")) headers.Authorization = `Bearer ${fields.get("token")}`;
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
  const mine = (running = new AbortController()), begun = performance.now();
  seed = form.elements.seed.value === "" ? null : form.elements.seed.value;
  $("progress").hidden = false;
  $("#downloads").hidden = true;
  say("Looking at the picture …");
  try {
    const input = await ask("input", mine.signal);
    seed = input.headers.get("X-Seed");
    const notes = input.headers.get("X-Notes");
    $("#input img").src = URL.createObjectURL(await input.blob());
    $("#input").hidden = false;
    say("Making the object …");
    const answer = await ask("glb", mine.signal);
    viewer.src = URL.createObjectURL(await answer.blob());
    await new Promise((done, failed) => {
      viewer.addEventListener("load", done, { once: true });
      viewer.addEventListener("error", () => failed(new Error("This browser cannot show the object.")), { once: true });
    });
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    say(`Done in ${seconds} s, seed ${seed}. Drag to turn it. ${notes}`);
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
    const answer = await ask(format), link = document.createElement("a");
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
