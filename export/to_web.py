"""Bundle to a static site: `python export/to_web.py --bundle DIR --out site [--serve]`.

The site reconstructs objects in the visitor's browser, by onnxruntime-web and the modules of `export/web`; its page is
the server's. Weights are stored in float16 and widened when they are loaded, where that keeps what a graph gives within
45 dB; computing is float32. Any host of static files will do. Threads want two headers, which `--serve` sends:

    Cross-Origin-Opener-Policy: same-origin
    Cross-Origin-Embedder-Policy: require-corp
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
import onnxruntime as ort
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.backends.self_check import example_images, psnr
from runtime.bundle import Bundle, Graph, default_bundle, load_bundle
from runtime.commands import one_sentence_errors, say
from runtime.errors import ProjectError
from runtime.machine import LOOPBACK

MODULES = Path(__file__).parent / "web"
PAGE = Path(__file__).resolve().parent.parent / "runtime" / "serving" / "page"
ONNXRUNTIME_WEB = "1.30.0"
GRAPHS = ("coarse", "diffusion_step", "decoder", "view")
# Of onnxruntime-web: for a GPU, and for WebAssembly alone.
ENGINES = (
    "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm", "ort-wasm-simd-threaded.asyncify.mjs",
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs",
)  # fmt: skip
# Weights smaller than this are not worth a node.
_LEAST_WEIGHTS = 256
_LEAST_PSNR = 45.0
# What tells a site from other folders.
_MARK = ".wavelet-triplane-site"
_HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class WebError(ProjectError, RuntimeError):
    """The site cannot be made; the message says why and what to do."""


def with_half_weights(data: bytes) -> bytes:
    """A float32 graph whose weights are stored in float16, each with a node that widens it.

    ONNX Runtime widens them once, when it loads the graph.
    """
    proto = onnx.load_from_string(data)
    graph, casts = proto.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _LEAST_WEIGHTS:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], f"widen_{name}", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def make_site(bundle: Bundle, out: Path, engines: Path, precision: str = "float16") -> dict[str, int]:
    """Writes a site.

    Args:
        bundle: verified, with float32 graphs.
        out: folder; files of another site there are replaced.
        engines: folder with `ENGINES`.
        precision: of the stored weights, "float16" or "float32".

    Returns:
        Bytes of each part: graphs by name, "engine" for WebAssembly, "engine, WebGPU", and "page".

    Raises:
        WebError: `out` holds something else, or an engine's file is missing.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARK).exists():
        raise WebError(f"{out} holds something else than a site: name another folder with --out.")
    if bundle.path.resolve().is_relative_to(out.resolve()):
        raise WebError(f"The bundle lies in {out}, which the site replaces: name another folder with --out.")
    missing = [name for name in ENGINES if not (engines / name).is_file()]
    if missing:
        raise WebError(f"{engines} lacks {', '.join(missing)}: give the `dist` folder of onnxruntime-web.")
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text("Made by export/to_web.py, which replaces what is here.\n")
    for name in ("bundle", "ort", "examples"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    sizes, graphs = {}, {}
    for name in GRAPHS:
        data = bundle.graph("float32", name).data
        if precision == "float16":
            smaller = with_half_weights(data)
            if agreement(bundle.graph("float32", name), smaller, bundle.image_size) >= _LEAST_PSNR:
                data = smaller
        (out / "bundle" / f"{name}.onnx").write_bytes(data)
        sizes[name] = len(data)
        graphs[name] = {"file": f"{name}.onnx", "bytes": len(data)}
    kept = ("sha256", "name", "trained", "model", "image", "renderer", "defaults", "schedule", "statistics")
    manifest = {key: value for key, value in bundle.manifest.items() if key in kept} | {"graphs": graphs}
    (out / "bundle" / "manifest.json").write_text(json.dumps(manifest))
    for name in ENGINES:
        shutil.copy(engines / name, out / "ort" / name)
    for source in (*MODULES.iterdir(), *(path for path in PAGE.iterdir() if path.is_file())):
        shutil.copy(source, out / source.name)
    for source in (PAGE / "examples").resolve().iterdir():
        if source.suffix == ".png":
            shutil.copy(source, out / "examples" / source.name)
    page = out / "index.html"
    page.write_text(page.read_text().replace('<html lang="en">', '<html lang="en" data-device>'))
    worker = out / "offline.js"
    files = [path.relative_to(out).as_posix() for path in (*out.iterdir(), *(out / "examples").iterdir())]
    kept_pages = json.dumps(["./", *sorted(name for name in files if name.endswith((".js", ".css", ".png")))])
    worker.write_text(worker.read_text().replace("VERSION", _digest(out)).replace('["FILES"]', kept_pages))
    webgpu = sum((out / "ort" / name).stat().st_size for name in ENGINES[:3])
    wasm = sum((out / "ort" / name).stat().st_size for name in ENGINES[3:])
    rest = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    return {**sizes, "engine": wasm, "engine, WebGPU": webgpu, "page": rest}


def agreement(graph: Graph, smaller: bytes, image_size: int) -> float:
    """Least PSNR in dB of what a graph and its smaller form give for the same inputs."""
    rng = np.random.default_rng(0)
    free = {"batch": 1, "points": 64, "rays": 64, "samples": 16}
    feeds: dict[str, NDArray[np.float32]] = {}
    for spec in graph.inputs:
        shape = [free[size] if isinstance(size, str) else size for size in spec.shape]
        feeds[spec.name] = rng.standard_normal(shape).astype(np.float32)
    if "image" in feeds:
        image = example_images(1, image_size)[0].transpose(2, 0, 1)[None]
        feeds["image"] = image.astype(np.float32) / np.float32(127.5) - 1
    if "rays" in feeds:
        feeds["rays"][3:] = np.array([[2.0], [0.03], [0.9]], np.float32)
        feeds["origin"] = np.array([0, 1, 2.8], np.float32)
        feeds["rays"][:3] = -feeds["origin"][:, None] / np.linalg.norm(feeds["origin"]) + 0.1 * feeds["rays"][:3]
    if "row" in feeds:
        feeds["row"] = np.array([500, 0.7, 0.7, 0, 1, 0, 0], np.float32)
    found = [
        ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)
        for data in (graph.data, smaller)
    ]
    return min(psnr(actual, expected) for expected, actual in zip(*found, strict=True))


@contextmanager
def npm_package() -> Iterator[Path]:
    """The `dist` folder of the pinned onnxruntime-web, fetched by npm, which checks its hash.

    Raises:
        WebError: npm is not there, or cannot fetch it.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise WebError("onnxruntime-web comes by npm, which is not installed: install Node.js, or give --engines.")
    with tempfile.TemporaryDirectory() as folder:
        package = f"onnxruntime-web@{ONNXRUNTIME_WEB}"
        done = subprocess.run([npm, "pack", package], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["npm failed"])[-1]
            raise WebError(f"npm could not fetch {package} ({said}): give --engines.")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as packed:
            packed.extractall(folder, filter="data")
        yield Path(folder) / "package" / "dist"


class _Handler(SimpleHTTPRequestHandler):
    def guess_type(self, path: str | os.PathLike[str]) -> str:
        # Systems differ in which of these they know.
        known = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}
        return known.get(Path(path).suffix) or super().guess_type(path)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def server_of(site: Path, port: int) -> ThreadingHTTPServer:
    """A server of a site on this machine alone, with the headers that threads want; `port` 0 for a free one."""
    return ThreadingHTTPServer((LOOPBACK[0], port), partial(_Handler, directory=str(site)))


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@one_sentence_errors()
def main(
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the site.")] = Path("out/site"),
    precision: Annotated[str, typer.Option(help="Of the stored weights: float16 or float32.")] = "float16",
    engines: Annotated[
        Path | None, typer.Option(help="The dist folder of onnxruntime-web; by npm if left out.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Then serve it on this machine.")] = False,
    port: Annotated[int, typer.Option(help="Of --serve.", min=0, max=65535)] = 8080,
) -> None:
    """Makes a static site that reconstructs objects in the browser."""
    if precision not in ("float16", "float32"):
        raise WebError(f"Weights are stored in float16 or float32, not {precision}.")
    loaded = load_bundle(default_bundle() if bundle is None else bundle)
    if engines is None:
        with npm_package() as found:
            sizes = make_site(loaded, out, found, precision)
    else:
        sizes = make_site(loaded, out, engines, precision)
    said = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.items())
    say(f"Wrote {out} (MB: {said}).")
    if serve:
        server = server_of(out, port)
        say(f"Serving on http://{LOOPBACK[0]}:{server.server_port}; Ctrl+C stops.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.server_close()


if __name__ == "__main__":
    typer.run(main)
