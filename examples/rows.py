"""A token of a 7B model that reads only the rows of its weights that tokens keep, beside N:M and groups, by batch.

Prints the tables of docs/rows.md and draws its picture: `examples/rows.py [OUT.png [MODEL MACHINE BATCH ..]]`. Ops are
overlapped and DRAM is timed by the shapes of its transfers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import matplotlib as mpl
from matplotlib.figure import Figure

import weft
from weft.analysis.energy import energy
from weft.analysis.level import seconds_of
from weft.analysis.scheduling import scheduled
from weft.analysis.theme import theme_of
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.gather.spec import GatherSpec
from weft.simulator.system import simulate_system
from weft.workloads.grouped import grouped
from weft.workloads.groups import Groups
from weft.workloads.row_forms import FORMS, AskedRows
from weft.workloads.rows import Alike
from weft.workloads.skip_rows import skip_rows
from weft.workloads.step import MatrixOp, Op, Workload

picture = sys.argv[1] if len(sys.argv) > 1 else None
model, machine = sys.argv[2:4] if len(sys.argv) > 3 else ("llama2_7b", "hbm-asic")
batches = tuple(map(int, sys.argv[4:])) or (1, 2, 4, 8, 16, 32, 64)
SPEC = weft.machine(machine)
CONTEXT = 32 if model == "characters" else 512

KEPT = {
    "teal": Alike(density=0.5, correlation=0.1),
    "relu": Alike(density=0.1, correlation=0.1),
    "lowrank": Alike(density=0.1, correlation=0.1),
    "spark": Alike(density=0.08, correlation=0.1),
}
"""What tokens keep: assumed of this model; correlations are of the order that `characters` has (docs/rows.md)."""
BANDS = ("teal", "spark")
"""Forms that are looked at with tokens that have nothing in common, and with tokens that are all alike."""
GROUPS = {"groups": 0, "4-bit groups": 4}
"""Half of the groups of 16 inputs of an output, of so many bits a value (0: FP16), put back on the way into the array:
what GQSA calls W4S50 (arXiv 2412.17560); 16 in a group is assumed."""
GATHERED = ("groups, gathered", "single weights, gathered")
"""The same groups in FP16, and half of the weights each by itself, where a PE a column gathers beside the array."""
COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#D55E00")


@dataclass(frozen=True)
class Point:
    """Of a step."""

    tokens_per_s: float
    joules: tuple[float, float, float]
    """A token: the least, the value, the most."""
    gigabytes: float


def gatherer(step: Workload) -> AcceleratorSpec:
    """The machine with a lane of one PE for each column, which holds as many lines as its adder takes cycles and has a
    copy of what a sample brings."""
    own = GatherSpec(lanes=SPEC.array.cols, width=1, interleave=SPEC.pe.add_latency)
    held = 2 * own.lanes * SPEC.pe.operand.size(max(op.gemm.k for op in step.matrix_ops))
    return replace(SPEC, gather=own, buffers=replace(SPEC.buffers, w2e_bytes=max(held, SPEC.buffers.w2e_bytes)))


def left_out(op: Op) -> Op:
    """Groups that the engine leaves out itself, and nobody puts back."""
    if isinstance(op, MatrixOp) and isinstance(op.sparse, Groups):
        return replace(op, sparse=replace(op.sparse, expanded=False))
    return op


def measured(name: str, step: Workload) -> Point:
    """A step with ops overlapped."""
    machine = gatherer(step) if name in GATHERED else SPEC
    found = simulate_system(scheduled(step, machine, by_shape=True))
    band, moved = energy(found).band, found.step.counts.dram_bytes
    low, value, high = (joules / step.batch for joules in band)
    return Point(step.batch / seconds_of(found), (low, value, high), moved / 1e9)


def steps(batch: int) -> dict[str, Workload]:
    """By name, dense first."""
    dense = weft.trace(model, use="decode", context=CONTEXT, batch=batch)
    found = {"dense": dense}
    found |= {f"bdwp {nm}": weft.sparsify(dense, "bdwp", nm) for nm in ("2:4", "2:8")}
    found |= {name: grouped(dense, "1x16", 0.5, bits) for name, bits in GROUPS.items()}
    whole = found["groups"]
    thinned = (replace(whole, ops=tuple(map(left_out, whole.ops))), weft.sparsify(dense, "erk", "2:4"))
    found |= dict(zip(GATHERED, thinned, strict=True))
    for name, alike in KEPT.items():
        for correlation in (alike.correlation, 0.0, 1.0) if name in BANDS else (alike.correlation,):
            kept = Alike(density=alike.density, correlation=correlation)
            found[f"{name} {correlation:g}"] = skip_rows(dense, AskedRows(form=FORMS[name], alike=kept))
    return found


def table(title: str, rows: dict[str, list[str]]) -> None:
    """Markdown."""
    print(f"\n| {title} | " + " | ".join(map(str, batches)) + " |\n" + "|---" * (1 + len(batches)) + "|")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def bands(joules: tuple[float, float, float]) -> str:
    """Millijoules and their band."""
    low, value, high = (1e3 * one for one in joules)
    return f"{value:.3g} ({low:.3g}-{high:.3g})"


def draw(found: dict[str, list[Point]], path: str) -> None:
    """Tokens a second over those of the dense step; bands from tokens that have nothing in common to those alike."""
    theme = theme_of("light")
    with mpl.rc_context(theme.rc):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.subplots()
        over = {
            name: [p.tokens_per_s / dense.tokens_per_s for p, dense in zip(points, found["dense"], strict=True)]
            for name, points in found.items()
        }
        for name, style in (("bdwp 2:8", "-"), ("bdwp 2:4", "--")):
            axes.plot(batches, over[name], style, color="#0072B2", label=name)
        for name, style in zip(GROUPS, (":", "-"), strict=True):
            axes.plot(batches, over[name], style, color="#56B4E9", label=f"{name}, density 0.5")
        for (name, alike), colour in zip(KEPT.items(), COLOURS, strict=True):
            if name in BANDS:
                axes.fill_between(batches, over[f"{name} 0"], over[f"{name} 1"], color=colour, alpha=0.15, linewidth=0)
            label = f"{name}, density {alike.density:g}"
            axes.plot(batches, over[f"{name} {alike.correlation:g}"], "o-", color=colour, markersize=3, label=label)
        axes.axhline(1, color=theme.muted, linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.set_xlabel("samples that are written at once")
        axes.set_ylabel("tokens/s over dense")
        axes.grid(color=theme.grid, linewidth=0.6)
        axes.legend(frameon=False, fontsize=8, ncols=2)
        figure.savefig(path, dpi=160)


found: dict[str, list[Point]] = {}
for batch in batches:
    for name, step in steps(batch).items():
        found.setdefault(name, []).append(measured(name, step))
    print(f"batch {batch} done", file=sys.stderr, flush=True)
shown = {f"{name} {alike.correlation:g}" for name, alike in KEPT.items()} | {"dense", "bdwp 2:4", "bdwp 2:8"}
shown |= {*GROUPS, *GATHERED}
named = {name: points for name, points in found.items() if name in shown}
table("tokens/s", {name: [f"{p.tokens_per_s:,.1f}" for p in points] for name, points in named.items()})
table("mJ a token", {name: [bands(p.joules) for p in points] for name, points in named.items()})
table("DRAM, GB a step", {name: [f"{p.gigabytes:.2f}" for p in points] for name, points in named.items()})
ends = {name: zip(found[f"{name} 0"], found[f"{name} 1"], strict=True) for name in BANDS}
spans = {name: [f"{a.tokens_per_s:,.1f} to {b.tokens_per_s:,.1f}" for a, b in pairs] for name, pairs in ends.items()}
table("tokens/s, alike in nothing to in all", spans)
if picture is not None:
    draw(found, picture)
