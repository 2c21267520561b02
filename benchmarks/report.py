"""What the latency benchmark's figures say: ratios, tables, a plot, and whether something became slower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

EAGER, COMPILED = "PyTorch eager float32", "torch.compile float32"
OURS, OURS_FAST = "ours, default", "ours, openvino int8"
GOALS = {
    "step": 3.3, "view_256": 20.0, "view_128": 10.0, "end_to_end": 4.5, "cold_start": 5.0, "mesh": 10.0, "asset": 3.0,
}  # fmt: skip
CASES = tuple(GOALS)


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Medians of PyTorch eager float32 over ours, by case."""
    found = {(row["case"], row["row"]): row["p50_ms"] for row in rows}
    mine = {case: OURS_FAST if case == "step" else OURS for case in CASES}
    return {c: found[c, EAGER] / found[c, mine[c]] for c in CASES if (c, EAGER) in found and (c, mine[c]) in found}


def regressions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Our rows that are slower than in an older run by more than both runs' spread and a tenth, relative to eager."""
    said = []
    before = {(row["case"], row["row"]): row for row in old["rows"]}
    now = {(row["case"], row["row"]): row for row in new["rows"]}
    for (case, name), row in now.items():
        earlier, eager = before.get((case, name)), (before.get((case, EAGER)), now.get((case, EAGER)))
        if not name.startswith("ours") or earlier is None or None in eager:
            continue
        # Relative to PyTorch in the same run, so that a slower machine is no regression.
        then, today = earlier["p50_ms"] / eager[0]["p50_ms"], row["p50_ms"] / eager[1]["p50_ms"]  # type: ignore[index]
        noise = 0.1 + max(_spread(each) for each in (earlier, row, *eager))  # type: ignore[arg-type]
        if today > then * (1 + noise):
            said.append(f"{case}, {name}: {today / then:.2f} times as slow as before; noise is {100 * noise:.0f} %")
    return said


def show(report: Mapping[str, Any], console: Console) -> None:
    """Prints a table for each case, and the ratios beside their goals."""
    for case in dict.fromkeys(row["case"] for row in report["rows"]):
        rows = sorted((row for row in report["rows"] if row["case"] == case), key=lambda row: row["p50_ms"])
        table = Table("row", "p50 (ms)", "p90", "p99", "n", "eager / row", title=case, title_justify="left")
        eager = next((row["p50_ms"] for row in rows if row["row"] == EAGER), float("nan"))
        for row in rows:
            figures = (f"{row[key]:.1f}" for key in ("p50_ms", "p90_ms", "p99_ms"))
            table.add_row(row["row"], *figures, str(row["n"]), f"{eager / row['p50_ms']:.2f}")
        console.print(table)
        staged = [row for row in rows if row["stages"]]
        if staged:
            names = list(staged[0]["stages"])
            table = Table("p50 (ms) of stages", *names)
            for row in staged:
                table.add_row(row["row"], *(f"{row['stages'].get(n, {}).get('p50_ms', 0):.1f}" for n in names))
            console.print(table)
    for case, ratio in report["ratios"].items():
        beside = {row["row"]: row["p50_ms"] for row in report["rows"] if row["case"] == case}
        peers = {name: ms for name, ms in beside.items() if not name.startswith("ours")}
        best = min(peers, key=peers.__getitem__)
        mine = beside[OURS_FAST if case == "step" else OURS]
        met = "met" if report["goals"][case]["met"] else "MISSED"
        said = f"{ratio:.1f} times PyTorch eager float32 (goal {GOALS[case]:g}: {met})"
        console.print(f"{case}: {said}, {peers[best] / mine:.2f} times {best}", highlight=False, soft_wrap=True)
    _show_machine(report, console)


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Medians of every row, a panel for each case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys(row["case"] for row in report["rows"]))
    counts = [sum(row["case"] == case for row in report["rows"]) for case in cases]
    figure, panels = plt.subplots(
        len(cases), 1, figsize=(8, 0.32 * sum(counts) + 0.9 * len(cases)), height_ratios=counts, squeeze=False
    )
    for case, panel in zip(cases, panels[:, 0], strict=True):
        rows = sorted((row for row in report["rows"] if row["case"] == case), key=lambda row: -row["p50_ms"])
        colours = ["tab:orange" if row["row"].startswith("ours") else "tab:gray" for row in rows]
        panel.barh([row["row"] for row in rows], [row["p50_ms"] for row in rows], color=colours)
        panel.set_title(f"{case}, p50 in ms", loc="left", fontsize=10)
        panel.tick_params(labelsize=8)
        panel.bar_label(panel.containers[0], fmt="%.0f", fontsize=7, padding=2)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _show_machine(report: Mapping[str, Any], console: Console) -> None:
    """Memory, loading and the share of what the machine can do at the most."""
    for name, found in report["memory"].items():
        limit = "default memory_limit" if found["limit"] is None else f"memory_limit {found['limit'] >> 20} MiB"
        console.print(
            f"a 256x256 view in a process of its own, {limit}: peak {found['peak_mb']:.0f} MiB ({name}), "
            f"load {found['load']:.2f} s, first call {found['first']:.2f} s, then {np.median(found['seconds']):.2f} s",
            highlight=False,
            soft_wrap=True,
        )
    rates = report["ceilings"]
    said = ", ".join(f"{key.replace('_', ' ')} {value:.0f}" for key, value in rates.items())
    console.print(f"this machine's best in this run: {said}", highlight=False, soft_wrap=True)
    for row in report["rows"]:
        if row["case"] == "step":
            reached = report["gflop"]["step"] / row["p50_ms"] * 1e3
            shares = (100 * reached / rates[f"matmul_{dtype}_gflops"] for dtype in ("float32", "bfloat16"))
            said = "{:.0f} % of the float32 and {:.0f} % of the bfloat16 matrix product".format(*shares)
            console.print(f"step, {row['row']}: {reached:.0f} GFLOP/s, {said}", highlight=False, soft_wrap=True)


def _spread(row: Mapping[str, Any]) -> float:
    low, middle, high = np.percentile(row["samples_ms"], (25, 50, 75))
    return float((high - low) / middle)
