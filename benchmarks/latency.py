"""How fast the runtime is, beside what a user would run instead: `python benchmarks/latency.py`, or `make bench`.

One run, same weights, image, settings and machine; every row once a round, in alternating order, after a warm-up. In
the quick cases (end_to_end, step, view_128) each timed call comes right after one that is not.

    end_to_end  an image on disk to the drawn view, shipped bundle, default settings; with its stages
    step        one denoising step of the medium preset (random weights: they do not change the time)
    view_128, view_256  the shipped object from one camera, 64 and 128 samples a ray; "new scene" pays for its grid
    mesh        a mesh of 128^3 of a scene that nothing has been drawn of
    asset       an image on disk to a GLB of 20,000 triangles with a texture of 1024: ours with the image's pixels on
                what it shows, the others by fast-simplification, xatlas and trimesh
    cold_start  a process from its start to the first image on disk

`ratios` are medians of PyTorch eager float32 over medians of our row on the CPU: default settings (for views, of
a scene whose grid is there; "new scene" is in the table), and for `step` that of OpenVINO in int8, whose parity the
export holds. The exporter leaves units out of the decoder that are zero; "narrower decoder" is PyTorch without them.
The fastest peer is said beside each. `goals` says which of the project's goals this run meets.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import typer
from rich.console import Console

import runtime
from benchmarks.baselines import Graphs, Ours, PyTorch, onnxruntime_engine, openvino_engine
from benchmarks.report import CASES, COMPILED, EAGER, GOALS, OURS, plot, ratios, regressions, show
from benchmarks.subprocess_runs import first_picture_ours, first_picture_pytorch, measured
from benchmarks.timing import by_turns, ceilings, gflop_of, machine, summary
from export.graphs import graph_definitions
from export.pruning import pruned
from export.to_onnx import export_bundle
from model import WaveletTriplaneDiffusion
from model.config import PRESETS
from runtime.backends.self_check import psnr
from runtime.bundle import load_bundle
from runtime.commands import one_sentence_errors
from runtime.profiling import record_times

_CHECKPOINT = Path("model/checkpoints/small.safetensors")
# Not beside onnxruntime-gpu: the extra brings ONNX Runtime for CPUs, which would overwrite it.
_OPENVINO = importlib.util.find_spec("openvino") is not None
_console = Console(stderr=True)
Calls = dict[str, Callable[[], object]]


class Bench:
    """The rows, built once, and the calls of each case."""

    def __init__(self, checkpoint: Path, bundle: Path, medium: Path, image: Path, compiled: bool) -> None:
        self.image, self.checkpoint, self.compiled = image, checkpoint, compiled
        self.bundle, self.medium = load_bundle(bundle), load_bundle(medium)
        self.steps = self.bundle.default_steps
        model = WaveletTriplaneDiffusion.load(checkpoint)
        # What the exporter leaves out of the decoder could be left out by hand.
        narrower = copy.deepcopy(model)
        narrower.renderer = pruned(model.renderer)
        self.rows: dict[str, Any] = {
            EAGER: PyTorch(model, self.bundle, bfloat16=False, compiled=False),
            "PyTorch eager float32, narrower decoder": PyTorch(narrower, self.bundle, bfloat16=False, compiled=False),
            "PyTorch eager bfloat16": PyTorch(model, self.bundle, bfloat16=True, compiled=False),
            "ONNX Runtime float32": Graphs(self.bundle, "float32", onnxruntime_engine),
            **({"OpenVINO, its best": Graphs(self.bundle, "float32", openvino_engine)} if _OPENVINO else {}),
            OURS: Ours(bundle, "cpu", "float32"),
        }
        if compiled:
            self.rows[COMPILED] = PyTorch(model, self.bundle, bfloat16=False, compiled=True)
            self.rows["torch.compile bfloat16"] = PyTorch(model, self.bundle, bfloat16=True, compiled=True)
        if torch.cuda.is_available():
            for bfloat16, name in ((False, "float32"), (True, "bfloat16")):
                self.rows[f"PyTorch eager {name}, CUDA"] = PyTorch(model, self.bundle, bfloat16, False, "cuda")
                if compiled:
                    self.rows[f"torch.compile {name}, CUDA"] = PyTorch(model, self.bundle, bfloat16, True, "cuda")
        for backend in ("cpu", "openvino", "cuda", "tensorrt"):
            for precision in self.bundle.precisions:
                name = f"ours, {backend} {precision}"
                try:
                    self.rows[name] = Ours(bundle, backend, precision)
                except runtime.BackendError as error:
                    _console.print(f"left out: {name}: {error.cause}", soft_wrap=True)
        self._opened: list[runtime.Runtime] = []
        self._triplanes = {name: row.triplane(image, self.steps) for name, row in self.rows.items()}

    def close(self) -> None:
        """Closes our runtimes."""
        for rt in self._opened:
            rt.close()
        for row in self.rows.values():
            if isinstance(row, Ours):
                row.runtime.close()

    def calls(self, case: str) -> Calls:
        """What is timed in a case, by row."""
        if case == "step":
            return self._step_calls()
        if case == "cold_start":
            framing = self.bundle.framing
            return {
                EAGER: lambda: first_picture_pytorch(self.image, self.checkpoint, self.steps, framing),
                OURS: lambda: first_picture_ours(self.image),
            }
        return {name: self._call(case, name) for name in self.rows} | self._fresh(case)

    def likeness(self) -> dict[str, float]:
        """PSNR in dB of our default view against PyTorch's dense one, by case."""
        sizes = {"view_128": (128, 64), "view_256": (256, 128)}
        return {
            case: psnr(*(self.rows[name].view(self._triplanes[name], *at) for name in (OURS, EAGER)), peak=1.0)
            for case, at in sizes.items()
        }

    def _call(self, case: str, name: str) -> Callable[[], object]:
        row, made = self.rows[name], self._triplanes[name]
        return {
            "end_to_end": lambda: row.view(row.triplane(self.image, self.steps), 128, 64),
            "view_128": lambda: row.view(made, 128, 64),
            "view_256": lambda: row.view(made, 256, 128),
            "mesh": lambda: row.mesh(made, 128),
            "asset": lambda: row.asset(self.image, self.steps),
        }[case]

    def _fresh(self, case: str) -> Calls:
        size, samples = {"view_128": (128, 64), "view_256": (256, 128)}.get(case, (0, 0))
        row, made = self.rows[OURS], self._triplanes[OURS]
        return {f"{OURS}, new scene": lambda: row.fresh_view(made, size, samples)} if size else {}

    def _step_calls(self) -> Calls:
        """The networks alone: what no step changes has been computed on every side."""
        torch.manual_seed(0)
        model = WaveletTriplaneDiffusion.from_config(PRESETS["medium"]).eval()
        definition = graph_definitions(model)["diffusion_step"]
        example = definition.example({"batch": 1})
        feeds = {spec.name: tensor.numpy() for spec, tensor in zip(definition.inputs, example, strict=True)}
        calls: Calls = {}
        torches = {EAGER: (False, False), "PyTorch eager bfloat16": (True, False)}
        if self.compiled:
            torches |= {COMPILED: (False, True), "torch.compile bfloat16": (True, True)}
        for name, (bfloat16, compiled) in torches.items():
            row = PyTorch(model, self.medium, bfloat16, compiled)
            calls[name] = lambda row=row: row.step(*example)  # type: ignore[misc]
        engines = {"ONNX Runtime": onnxruntime_engine} | ({"OpenVINO, its best": openvino_engine} if _OPENVINO else {})
        for name, engine in engines.items():
            for precision in ("float32", "int8"):
                run = engine(self.medium.graph(precision, "diffusion_step").data)
                calls[f"{name}, {precision} graph"] = lambda run=run: run(feeds)  # type: ignore[misc]
        for backend in ("cpu", "openvino") if _OPENVINO else ("cpu",):
            for precision in self.medium.precisions:
                rt = runtime.load(self.medium.path, backend=backend, precision=precision)
                self._opened.append(rt)
                network = rt.backend.networks["diffusion_step"]  # type: ignore[attr-defined]
                calls[f"ours, {backend} {precision}"] = lambda network=network: network(feeds)  # type: ignore[misc]
        return calls

    def operations(self) -> dict[str, float]:
        """Multiplications and additions in GFLOP of a medium step and of a small coarse stage, counted by PyTorch."""
        found = {}
        for preset, graph, name in (("medium", "diffusion_step", "step"), ("small", "coarse", "coarse")):
            definitions = graph_definitions(WaveletTriplaneDiffusion.from_config(PRESETS[preset]).eval())
            found[name] = gflop_of(definitions[graph])
        return found


def run(bench: Bench, cases: list[str], rows: str, rounds: int, slow_rounds: int) -> dict[str, Any]:
    """Measures; returns what the JSON file holds."""
    report: dict[str, Any] = {"machine": machine(), "rows": [], "ratios": {}, "memory": {}}
    with _console.status("timing") as status:
        for case in cases:
            calls = {name: call for name, call in bench.calls(case).items() if name == EAGER or re.search(rows, name)}
            slow = case in ("view_256", "mesh", "asset", "cold_start")
            many = slow_rounds if slow else rounds
            warmup = 3 if case == "step" else 1
            stages: dict[str, dict[str, list[float]]] = {}
            if case == "end_to_end":
                calls = {name: _staged(call, stages.setdefault(name, {})) for name, call in calls.items()}

            def tell(said: str, case: str = case) -> None:
                status.update(f"{case}: {said}")

            seconds = by_turns(calls, many, warmup, not slow, tell)
            for name, samples in seconds.items():
                # Of each turn's two calls the second is the one that counts.
                kept = {stage: summary(each[1::2][-many:]) for stage, each in stages.get(name, {}).items()}
                report["rows"].append({"case": case, "row": name, **summary(samples), "stages": kept})
        report["ratios"] = ratios(report["rows"])
        if "view_256" in cases or "view_128" in cases:
            report["psnr_to_eager_db"] = bench.likeness()
        status.update("memory and ceilings")
        for name, limit in (("default", None), ("half", 128 << 20)):
            found = measured(bench.image, size=256, samples=128, limit=limit)
            report["memory"][name] = {"limit": limit, **found}
        report["ceilings"], report["gflop"] = ceilings(), bench.operations()
    report["goals"] = {case: {"goal": GOALS[case], "met": r >= GOALS[case]} for case, r in report["ratios"].items()}
    return report


def _staged(call: Callable[[], object], times: dict[str, list[float]]) -> Callable[[], object]:
    def timed() -> None:
        with record_times() as recorded:
            call()
        for name, seconds in recorded.items():
            times.setdefault("loop" if name == "step" else name, []).append(sum(seconds))

    return timed


def _bundles(checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """The checkpoint and the medium preset in the precisions that are timed; kept from run to run."""
    precisions = ("float32", "float16", "int8", "int8-cpu")
    small, medium = folder / "small", folder / "medium"
    for path, model in (
        (small, lambda: WaveletTriplaneDiffusion.load(checkpoint).eval()),
        (medium, lambda: WaveletTriplaneDiffusion.from_config(PRESETS["medium"]).eval()),
    ):
        newer = not path.exists() or path.stat().st_mtime < checkpoint.stat().st_mtime
        if newer:
            torch.manual_seed(0)
            made = model()
            export_bundle(made, path, path.name, trained=True, notes=dict(made.notes), precisions=precisions)
    return small, medium


@one_sentence_errors()
def main(
    image: Annotated[Path, typer.Option(help="The picture.")] = Path("examples/chair.png"),
    checkpoint: Annotated[Path, typer.Option(help="What model.save() wrote, of the small preset.")] = _CHECKPOINT,
    case: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(CASES)}, again for more.")] = None,
    rows: Annotated[str, typer.Option(help="Regular expression of the rows to time beside eager.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds of quick cases.", min=1)] = 15,
    slow_rounds: Annotated[int, typer.Option(help="Rounds of view_256, mesh, asset and cold_start.", min=1)] = 5,
    compiled: Annotated[bool, typer.Option(help="Also torch.compile, which takes minutes to compile.")] = True,
    work: Annotated[Path | None, typer.Option(help="Folder that keeps the exported bundles.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Writes every row, with raw samples.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Writes a picture of the medians.")] = None,
    compare: Annotated[Path | None, typer.Option(help="An older --json: fails where ours became slower.")] = None,
) -> None:
    """Times the runtime beside PyTorch, torch.compile, ONNX Runtime and OpenVINO."""
    unknown = set(case or ()) - set(CASES)
    if unknown:
        raise typer.BadParameter(f"unknown case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    warnings.simplefilter("ignore", runtime.UntrainedWarning)
    with tempfile.TemporaryDirectory() as scratch:
        small, medium = _bundles(checkpoint, work or Path(scratch))
        bench = Bench(checkpoint, small, medium, image, compiled)
        report = run(bench, list(case or CASES), rows, rounds, slow_rounds)
        bench.close()
    show(report, Console())
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report, indent=1))
    if plot_file is not None:
        plot(report, plot_file)
    if compare is not None:
        slower = regressions(json.loads(compare.read_text()), report)
        for line in slower:
            typer.echo(f"slower: {line}", err=True)
        if slower:
            raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
