"""How far the mean speed-up of BDWP 2:8 moves with adder, DRAM, array, SORE and fusion, at strictly least cycles.

Prints the table of docs/results/sensitivity.md and draws its picture: `sensitivity.py [OUT.png [MODEL@BATCH ..]]`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from statistics import mean

import matplotlib as mpl
from bdwp_table import WORKLOADS
from matplotlib.figure import Figure

import weft
from weft.analysis.theme import theme_of
from weft.dataflow.accelerator import AcceleratorSpec
from weft.simulator.result import SimResult
from weft.workloads.step import Workload

BASE = weft.machine("sat-vcu1525")
CHANNELS = 4
"""Of the machine as it is."""
PAPER = 1.75
"""SAT's mean at 2:8, over models, batches and a machine that are not public to us (docs/validation.md)."""


def latency(cycles: int, spec: AcceleratorSpec = BASE) -> AcceleratorSpec:
    return replace(spec, pe=replace(spec.pe, add_latency=cycles))


def channels(count: int, spec: AcceleratorSpec = BASE) -> AcceleratorSpec:
    rate = spec.dram.bytes_per_second * count // CHANNELS
    return replace(spec, dram=replace(spec.dram, bytes_per_second=rate))


def array(size: int) -> AcceleratorSpec:
    return replace(BASE, array=replace(BASE.array, rows=size, cols=size))


def sore(lanes: int) -> AcceleratorSpec:
    return replace(BASE, sore=replace(BASE.sore, lanes=lanes))


SWEEPS = {
    "adder latency": {n: latency(n) for n in (1, 2, 3, 4, 6, 8, 10, 12)},
    "DRAM channels": {n: channels(n) for n in (1, 2, 4, 8)},
    "array rows and columns": {n: array(n) for n in (16, 32, 64)},
    "SORE lanes": {n: sore(n) for n in (8, 16, 32, 64, 128)},
}
BOTH = "adder latency 8 and 1 DRAM channel", channels(1, latency(8))
FUSED = "vector work fused away, a bound"
SCHEMES = ("dense", "bdwp", "bdwp-x")

Times = tuple[dict[str, int], ...]
"""Cycles by scheme, a step a workload."""


def run(workload: Workload, machine: AcceleratorSpec) -> dict[str, SimResult]:
    """A step under every scheme."""
    return {
        scheme: weft.simulate(weft.schedule(weft.sparsify(workload, scheme, "2:8"), machine, "cycles"))
        for scheme in SCHEMES
    }


def speedups(times: Times, scheme: str = "bdwp") -> list[float]:
    """Over dense, a workload each."""
    return [cycles["dense"] / cycles[scheme] for cycles in times]


def row(name: str, times: Times) -> str:
    """Markdown: the means, and of every workload the speed-up with the dense milliseconds that it is taken from."""
    mine = speedups(times)
    cells = [f"**{mean(mine):.2f}**", f"{min(mine):.2f}-{max(mine):.2f}", f"{mean(speedups(times, 'bdwp-x')):.2f}"]
    cells += [f"{s:.2f} of {1e3 * t['dense'] / BASE.clock_hz:,.0f}" for s, t in zip(mine, times, strict=True)]
    return f"| {name} | " + " | ".join(cells) + " |"


def draw(found: dict[str, dict[int, Times]], path: str) -> None:
    """Mean speed-up of BDWP and its range over the workloads, a panel a sweep; a ring is the machine as it is."""
    theme = theme_of("light")
    blue, orange = "#0072B2", "#D55E00"
    with mpl.rc_context(theme.rc):
        figure = Figure(figsize=(10.5, 3.6), layout="constrained")
        for ax, (title, sweep) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
            at = range(len(sweep))
            mine = [speedups(times) for times in sweep.values()]
            ax.fill_between(at, [min(s) for s in mine], [max(s) for s in mine], color=blue, alpha=0.15, linewidth=0)
            ax.plot(at, [mean(s) for s in mine], "o-", color=blue, markersize=4, linewidth=1.8)
            ax.axhline(PAPER, color=orange, linewidth=1.2, linestyle="--")
            now = next(i for i, n in enumerate(sweep) if SWEEPS[title][n] == BASE)
            ax.plot(
                now, mean(mine[now]), "o", color=theme.background, markeredgecolor=blue, markersize=8, markeredgewidth=2
            )
            ax.set_xticks(at, [str(n) for n in sweep])
            ax.grid(axis="y", linewidth=0.6)
            ax.set_title(title, loc="left")
        first = figure.axes[0]
        first.set_ylabel("speed-up of BDWP 2:8 over dense")
        first.text(0, PAPER, "the paper's 1.75x", color=orange, fontsize=9, va="bottom")
        figure.savefig(path)


def main(picture: str | None, names: list[str]) -> None:
    chosen = [name.rpartition("@")[::2] for name in names] or WORKLOADS
    workloads = [weft.trace(name, batch=int(batch)) for name, batch in chosen]

    def under(machine: AcceleratorSpec) -> Times:
        return tuple({s: r.cycles.total for s, r in run(w, machine).items()} for w in workloads)

    print("| changed | mean | range | BDWP-X | " + " | ".join(f"{name}, {batch}" for name, batch in chosen) + " |")
    print("|---" * (4 + len(chosen)) + "|")
    print(row("nothing", under(BASE)))
    found: dict[str, dict[int, Times]] = {}
    for title, sweep in SWEEPS.items():
        found[title] = {n: under(machine) for n, machine in sweep.items()}
        for n, times in found[title].items():
            if sweep[n] != BASE:
                print(row(f"{title} {n}", times))
    print(row(BOTH[0], under(BOTH[1])))
    bare = tuple({s: r.cycles.total - r.cycles.vector for s, r in run(w, BASE).items()} for w in workloads)
    print(row(FUSED, bare))
    if picture is not None:
        draw(found, picture)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None, sys.argv[2:])
