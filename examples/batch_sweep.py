"""When does N:M stop helping? BDWP 2:8 against dense at batches 1 to 512, ops overlapped, DRAM by transfer shape.

Prints the tables of docs/results/batches.md and draws its picture: `examples/batch_sweep.py [OUT.png [BATCH ..]]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import matplotlib as mpl
from matplotlib.figure import Figure

import weft
from weft.analysis.theme import theme_of
from weft.dataflow.accelerator import AcceleratorSpec
from weft.simulator.system import step_time
from weft.simulator.transfers import Transfers, by_shape

MODELS = ("resnet9", "vit_s", "vgg19@32", "resnet18@64", "resnet50")
VARIED = "resnet18@64"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")

picture = sys.argv[1] if len(sys.argv) > 1 else None
batches = tuple(map(int, sys.argv[2:])) or (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def variants(machine: AcceleratorSpec) -> Iterator[tuple[str, AcceleratorSpec, Transfers]]:
    """One thing changed at a time."""
    dram, wuve, sore = machine.dram, machine.wuve, machine.sore
    faster = replace(machine, dram=replace(dram, bytes_per_second=4 * dram.bytes_per_second))
    wider = replace(machine, wuve=replace(wuve, lanes=4 * wuve.lanes), sore=replace(sore, lanes=4 * sore.lanes))
    late = replace(machine, wuve=replace(wuve, pregenerate=False))
    yield "as it is", machine, by_shape(machine)
    yield "4x DRAM", faster, by_shape(faster)
    yield "4x WUVE and SORE lanes", wider, by_shape(wider)
    yield "channels not hashed", machine, replace(by_shape(machine), order="bg-interleaved")
    yield "compact on every load", late, by_shape(late)


def times(model: str, batch: int, machine: AcceleratorSpec, transfers: Transfers) -> tuple[int, int]:
    """Cycles of a dense and of a BDWP step."""
    traced = weft.trace(model, batch=batch)
    dense, sparse = (
        step_time(weft.schedule(weft.sparsify(traced, scheme, "2:8"), machine), transfers=transfers)
        for scheme in ("dense", "bdwp")
    )
    return dense, sparse


def table(title: str, rows: dict[str, list[float]]) -> None:
    """Markdown."""
    print(f"| {title} | " + " | ".join(map(str, batches)) + " |\n" + "|---" * (1 + len(batches)) + "|")
    for name, speedups in rows.items():
        print(f"| {name} | " + " | ".join(f"{speedup:.2f}" for speedup in speedups) + " |")
    print()


def draw(panels: dict[str, dict[str, list[float]]], path: str) -> None:
    """Speed-up over batch, a panel a table; 1.0 is marked."""
    theme = theme_of("light")
    with mpl.rc_context(theme.rc):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        for ax, (title, rows) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
            ax.axhline(1, color=theme.muted, linewidth=1)
            for (name, speedups), colour in zip(rows.items(), COLOURS, strict=True):
                ax.plot(batches, speedups, "o-", color=colour, markersize=4, linewidth=1.8, label=name)
            ax.set_xscale("log", base=2)
            ax.set_xticks(batches, [str(batch) for batch in batches])
            ax.minorticks_off()
            ax.grid(axis="y", linewidth=0.6)
            ax.set_title(title, loc="left")
            ax.set_xlabel("samples in a step")
            ax.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 0.17))
        figure.axes[0].set_ylabel("speed-up of BDWP 2:8 over dense")
        figure.axes[0].set_ylim(bottom=0.8)
        figure.savefig(path)


machine = weft.machine("sat-vcu1525")
by_model: dict[str, list[float]] = {}
print("| workload | batch | dense ms | bdwp 2:8 ms | speed-up |\n" + "|---" * 5 + "|")
for model in MODELS:
    by_model[model] = []
    for batch in batches:
        dense, sparse = times(model, batch, machine, by_shape(machine))
        by_model[model].append(dense / sparse)
        ms = [f"{1e3 * cycles / machine.clock_hz:,.2f}" for cycles in (dense, sparse)]
        print(f"| {model} | {batch} | {ms[0]} | {ms[1]} | **{dense / sparse:.2f}x** |")
print()
by_variant = {
    name: [dense / sparse for dense, sparse in (times(VARIED, batch, *changed) for batch in batches)]
    for name, *changed in variants(machine)
}
table("speed-up at batch", by_model)
table(f"{VARIED}, speed-up at batch", by_variant)
if picture:
    draw({"Five workloads on sat-vcu1525": by_model, f"{VARIED}, one thing changed": by_variant}, picture)
