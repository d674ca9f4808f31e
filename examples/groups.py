"""Zeros anywhere, in groups, or N:M: a quarter of the weights on engines of the same LUTs.

Prints the tables of docs/results/groups.md and draws its picture: `examples/groups.py [OUT.png] [--epochs N]
[--seeds N] [--shapes N]`; ``--areas``: count the LUTs of the engines first (minutes of Yosys).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import weft
from weft.analysis.synthesised import counted_block
from weft.analysis.theme import theme_of
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.engines import engines_of, place
from weft.dataflow.gather.engine import Gather
from weft.dataflow.gather.mapping import GatherMapping
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.gather.time import slots_of_lines
from weft.dataflow.objective import Objective
from weft.hdl.registry import BLOCKS
from weft.simulator.gather import step_mask
from weft.workloads.groups import Groups, GroupShape, grouped_mask
from weft.workloads.operand import Gathered
from weft.workloads.resized import resized
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp
from weft.workloads.training import plan, train
from weft.workloads.training.recording import record, recorded_step
from weft.workloads.unstructured import Unstructured, counted_mask

Bools = npt.NDArray[np.bool_]
TINY = weft.machine(Path(__file__).with_name("tiny-gather.toml"))
LANES, BANKS = 8, 8
ARRAY = "STCE"
STCE = replace(
    TINY,
    gather=None,
    array=replace(TINY.array, rows=8, cols=8),
    buffers=replace(TINY.buffers, output_bytes=2**20),
    dram=replace(TINY.dram, bytes_per_second=10**13),
)
"""Memory never waits, and results of 2,048 lines find room: engines alone are compared."""
ONE_COPY = "one copy, 8 banks"
GATHERS = {
    "a copy a lane": replace(STCE, gather=GatherSpec(lanes=LANES, width=10, interleave=4)),
    ONE_COPY: replace(STCE, gather=GatherSpec(lanes=LANES, width=9, banks=BANKS, interleave=4)),
}
"""As wide as the LUTs of the 8 x 8 STCE allow (--areas)."""
QUARTER = NMPattern(keep=2, group=8)
LEVEL = "1x16, level"
FORMS = {"single weights": "", "1x16": "1x16", "16x1": "16x1", "4x4": "4x4", "kernel": "kernel", LEVEL: "1x16"}
SCHEMES = {
    "dense": "dense",
    "2:8": "srste",
    "single weights": "gmp",
    "1x16": "group-1x16",
    "16x1": "group-16x1",
    "4x4": "group-4x4",
    LEVEL: "group-level",
}
"""What trains each; `srste` thins out FF alone, as the others do in use. Kernels of one tap are single weights."""
LAYERS = ("1", "3")
"""Of `mlp`, those whose outputs and inputs are whole groups of all shapes."""


def areas() -> None:
    """Markdown: LUT sites of the engines on an XCVU9P, by Yosys."""
    print("| engine | PEs | a PE | LUT sites |\n|---|---|---|---|")
    for name, spec in {"STCE, 8 x 8": STCE, **GATHERS}.items():
        block, pe = ("stce", "pe") if spec.gather is None else ("gather_engine", "gather_pe")
        parts = {part.name: part for part in counted_block(spec, BLOCKS[block], "xcup").modules}
        total = sum(part.count * part.lut_sites for part in parts.values())
        print(f"| {name} | {parts[pe].count} | {parts[pe].lut_sites} | {total:,} |", flush=True)
    print()


def drawn(form: str, lines: int, k: int, run: int, random: np.random.Generator) -> Bools:
    """A mask [lines, k] of a quarter of what is kept whole, each by itself, or of every row as many."""
    if not FORMS[form]:
        return random.random((lines, k)) < QUARTER.density
    shape, taps = GroupShape.parse(FORMS[form]), k // run
    places = shape.places or taps
    score = random.random((lines // shape.lines, k // places))
    keep = score < QUARTER.density
    if form == LEVEL:
        keep = score.argsort(axis=1).argsort(axis=1) < round(QUARTER.density * score.shape[1])
    rows = keep.repeat(shape.lines, axis=0)
    return np.tile(rows, taps) if shape.places is None else rows.repeat(places, axis=1)


def operand(form: str, mask: Bools, run: int) -> Gathered:
    """How a mask [lines, k] is stored."""
    if not FORMS[form]:
        return Unstructured(operand="b", kept=counted_mask(mask.T, "b"), stored="bitmap")
    shape = GroupShape.parse(FORMS[form])
    found = grouped_mask(mask, shape, run)
    level = found.lines[-1][0] if form == LEVEL else 0
    return Groups(operand="b", shape=shape, kept=found, level=level)


def on_array(op: MatrixOp) -> int:
    """Cycles on the STCE, memory unlimited."""
    found = place(op, STCE, Objective.CYCLES).cycles
    return found.total - found.dram_stall


def gathered(op: MatrixOp, mask: Bools, spec: AcceleratorSpec) -> int:
    """Cycles of a mask [lines, k] on the gather engine of ``spec``, memory unlimited."""
    (engine,) = (engine for engine in engines_of(spec) if isinstance(engine, Gather))
    assert isinstance(op.sparse, Gathered)
    placement = engine.place(op, Objective.CYCLES)
    assert isinstance(placement.mapping.array, GatherMapping)
    found, interleave = placement.cycles, placement.mapping.array.interleave
    most = engine.slots(op, interleave).most
    stepped, _ = step_mask(engine.own, np.ascontiguousarray(mask.T), interleave)
    kept = np.count_nonzero(mask, axis=1).astype(np.int64)
    known = slots_of_lines(engine.own, kept, op.sparse.cell(op.gemm), interleave)
    assert known.least <= stepped.slots <= known.most
    # A placement takes the most slots that the counts allow, all of which take as long.
    each, rest = divmod(found.compute + found.interleave_stall, most)
    assert not rest
    return each * stepped.slots + found.fill_drain


@dataclass(frozen=True)
class Row:
    """Cycles by engine, and bytes of weights."""

    cycles: dict[str, int]
    stored: int


def rows_of(op: MatrixOp, thinned: MatrixOp, masks: dict[str, Bools]) -> dict[str, Row]:
    """Of a product, dense, ``thinned`` to 2:8, of a quarter of its outputs, and of every form."""
    g, dense = op.gemm, on_array(op)
    assert thinned.copy is not None
    fewer = resized(op, replace(g, n=g.n // 4))
    found = {
        "dense": Row({ARRAY: dense}, 2 * g.k * g.n),
        "2:8": Row({ARRAY: on_array(thinned)}, -(-thinned.copy.kept * (16 + QUARTER.index_bits) // 8)),
        "whole outputs": Row({ARRAY: on_array(fewer)}, 2 * g.k * (g.n // 4)),
    }
    for form, mask in masks.items():
        sparse = operand(form, mask, g.run)
        thin = replace(op, sparse=sparse, kept_dense="")
        cycles = {name: gathered(thin, mask, spec) for name, spec in GATHERS.items()}
        found[form] = Row({ARRAY: dense, **cycles}, sparse.bytes(g, 16))
    return found


def summed(parts: list[tuple[dict[str, Row], int]]) -> dict[str, Row]:
    """Of products that come so many times."""
    return {
        name: Row(
            {of: sum(times * rows[name].cycles[of] for rows, times in parts) for of in row.cycles},
            sum(times * rows[name].stored for rows, times in parts),
        )
        for name, row in parts[0][0].items()
    }


def resnet50(most: int | None) -> dict[str, Row]:
    """All products with weights of an image but the first convolution and the last layer, masks drawn."""
    step = weft.trace("resnet50", use="infer", batch=1)
    pairs = [
        (op, thinned)
        for op, thinned in zip(step.matrix_ops, weft.sparsify(step, "srste", str(QUARTER)).matrix_ops, strict=True)
        if op.convolution and thinned.sparse is not None
    ]
    times = Counter(op.gemm for op, _ in pairs)
    first = {op.gemm: (op, thinned) for op, thinned in reversed(pairs)}
    random, parts = np.random.default_rng(1), list[tuple[dict[str, Row], int]]()
    for gemm in list(times)[:most]:
        masks = {form: drawn(form, gemm.n, gemm.k, gemm.run, random) for form in FORMS}
        parts.append((rows_of(*first[gemm], masks), times[gemm]))
    return summed(parts)


class Score(NamedTuple):
    """Test accuracy over seeds, in percent."""

    mean: float
    spread: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} +- {self.spread:.1f}"


def trained(epochs: int, seeds: int) -> tuple[dict[str, Row], dict[str, Score]]:
    """`mlp` on the digits by scheme: cycles of two layers of 64 images under the masks of seed 0, test accuracy."""
    masks, scores = dict[str, dict[str, Bools]](), dict[str, Score]()
    for form, name in SCHEMES.items():
        pattern = None if name == "dense" else QUARTER
        specs = [plan("mlp", scheme=name, pattern=pattern, epochs=epochs, seed=seed) for seed in range(seeds)]
        if name == "dense":
            reached = [train(spec).accuracy for spec in specs]
        else:
            runs = [record(spec, tokens=1) for spec in specs]
            reached = [run.about.score for run in runs]
            masks[form] = runs[0].weights
            step = recorded_step(runs[0], 64)
        scores[form] = Score(100 * float(np.mean(reached)), 100 * float(np.std(reached)))
        print(f"{form} trained: {scores[form]}", file=sys.stderr, flush=True)
    thinned = {op.name: op for op in weft.sparsify(step, "srste", str(QUARTER)).matrix_ops}
    parts = [
        (rows_of(op, thinned[op.name], {form: masks[form][op.name] for form in FORMS if form in masks}), 1)
        for op in step.matrix_ops
        if op.name in LAYERS
    ]
    return summed(parts), scores


def table(title: str, found: dict[str, Row], scores: dict[str, Score]) -> None:
    """Markdown; cycles, and how many times as fast as dense on the STCE."""
    dense, engines = found["dense"].cycles[ARRAY], (ARRAY, *GATHERS)
    print(f"| {title} | {' | '.join(engines)} | weights, B |{' test, % |' if scores else ''}")
    print("|---" * (len(engines) + 2 + bool(scores)) + "|")
    for name, row in found.items():
        cells = [f"{row.cycles[of]:,} ({dense / row.cycles[of]:.2f})" if of in row.cycles else "-" for of in engines]
        cells += [f"{row.stored:,}", *([str(scores.get(name, "-"))] if scores else [])]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def draw(image: dict[str, Row], small: dict[str, Row], scores: dict[str, Score], path: str) -> None:
    """Left: times over dense on the STCE, of ResNet-50; right: of the trained network, against its accuracy."""
    theme = theme_of("light")
    colours = {ARRAY: "#0072B2", **dict(zip(GATHERS, ("#E69F00", "#009E73"), strict=True))}
    with mpl.rc_context(theme.rc):
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        bars, dots = figure.subplots(1, 2, width_ratios=(3, 2))
        names = [name for name in image if name not in ("dense", "whole outputs")]
        dense = image["dense"].cycles[ARRAY]
        for i, (engine, colour) in enumerate(colours.items()):
            shown = {n: dense / image[n].cycles[engine] for n in names if engine in image[n].cycles}
            at = [names.index(name) + (i - 1) * 0.27 for name in shown]
            bars.bar(at, list(shown.values()), 0.25, color=colour, label=engine)
        bars.axhline(1, color=theme.muted, linewidth=0.8)
        bars.set_xticks(range(len(names)), names, rotation=20)
        bars.set_ylabel("times dense on the STCE")
        bars.set_title("ResNet-50, one image, masks drawn", loc="left")
        bars.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
        bars.set_ylim(0, 1.25 * bars.get_ylim()[1])
        of_small = small["dense"].cycles[ARRAY]
        for name, score in scores.items():
            engine = ARRAY if name in ("dense", "2:8") else ONE_COPY
            at = of_small / small[name].cycles[engine]
            dots.errorbar(at, score.mean, score.spread, fmt="o", color=colours[engine], elinewidth=0.8)
            left = engine == ARRAY and name != "dense"
            dots.annotate(
                name,
                (at, score.mean),
                (-6 if left else 6, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                ha="right" if left else "left",
            )
        dots.set_xlim(right=1.3 * dots.get_xlim()[1])
        dots.set_xlabel("times dense on the STCE")
        dots.set_ylabel("test, %")
        dots.set_title("mlp on the digits, one copy", loc="left")
        for axes in (bars, dots):
            axes.grid(color=theme.grid, linewidth=0.6)
            axes.set_axisbelow(True)
        figure.savefig(path, dpi=160)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shapes", type=int)
    parser.add_argument("--areas", action="store_true")
    asked = parser.parse_args()
    if asked.areas:
        areas()
    of_image = resnet50(asked.shapes)
    table("ResNet-50, one image", of_image, {})
    of_small, reached = trained(asked.epochs, asked.seeds)
    table("`mlp`, 64 digits", of_small, reached)
    if asked.picture:
        draw(of_image, of_small, reached, asked.picture)
