"""What published chips spend on a multiply-accumulate, beside our band at their node; the table of docs/validation.md.

Ours: one dense product on an array as large as theirs, at their clock and in their operands, all of the step but DRAM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import weft
from weft.analysis.bands import Joules
from weft.analysis.energy import energy
from weft.dataflow.actions import Component
from weft.dataflow.operand import FormatName
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import Operand, Role
from weft.workloads.step import MatrixOp, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """``teraops`` a second at ``watts``, two operations a multiply-accumulate; ``at_most``: watts are a limit."""

    name: str
    node: int
    format: FormatName
    rows: int
    cols: int
    clock_hz: int
    teraops: float
    watts: float
    at_most: bool
    counts: str
    source: str

    @property
    def pj(self) -> float:
        return 2 * self.watts / self.teraops


CHIPS = (
    # 58.5 GFLOP/s at 613 MHz and 99.4 % of it used are 48 multiply-accumulates a cycle.
    Chip(
        name="RedMulE's cluster, 613 MHz",
        node=22,
        format="fp16",
        rows=12,
        cols=4,
        clock_hz=613_000_000,
        teraops=0.0585,
        watts=0.060,
        at_most=True,
        counts="engine, memory and cores",
        source="published, arXiv 2301.03904: under 60 mW",
    ),
    Chip(
        name="RedMulE's cluster, 0.65 V",
        node=22,
        format="fp16",
        rows=12,
        cols=4,
        clock_hz=613_000_000,
        teraops=0.755,
        watts=1.0,
        at_most=False,
        counts="engine, memory and cores; our clock is that of the other row",
        source="published, arXiv 2301.03904: 755 GFLOP/s/W",
    ),
    Chip(
        name="SIGMA",
        node=28,
        format="bf16",
        rows=128,
        cols=128,
        clock_hz=500_000_000,
        teraops=10.8,
        watts=22.33,
        at_most=False,
        counts="the accelerator with its network for sparse operands, 66 % of its peak used",
        source="second-hand, HPCA 2020; array and clock recalled",
    ),
    Chip(
        name="TPU v4",
        node=7,
        format="bf16",
        rows=256,
        cols=512,
        clock_hz=1_050_000_000,
        teraops=275.0,
        watts=192.0,
        at_most=True,
        counts="the whole chip, its HBM too, at the most that it may take",
        source="published, the vendor; clock recalled",
    ),
    Chip(
        name="Voltra",
        node=16,
        format="int8",
        rows=16,
        cols=32,
        clock_hz=800_000_000,
        teraops=1.60,
        watts=1.0,
        at_most=False,
        counts="at its best voltage",
        source="published, arXiv 2602.11357: 1.60 TOPS/W; array and clock assumed",
    ),
    # 2,048 multiply-accumulates a cycle at 1 GHz are 4.096 TOPS.
    Chip(
        name="NVDLA, 2,048 MACs, peak",
        node=16,
        format="int8",
        rows=64,
        cols=32,
        clock_hz=1_000_000_000,
        teraops=4.096,
        watts=0.766,
        at_most=False,
        counts="the core with a buffer of 512 KB; watts at their peak, all MACs taken to be busy",
        source="published, the NVDLA Primer, which calls it an estimate",
    ),
    # 269 frames a second of 4.09 G multiply-accumulates, as the zoo counts ResNet-50.
    Chip(
        name="NVDLA, 2,048 MACs, ResNet-50",
        node=16,
        format="int8",
        rows=64,
        cols=32,
        clock_hz=1_000_000_000,
        teraops=2 * 269 * 4.09e-3,
        watts=0.291,
        at_most=False,
        counts="the same, watts on average at 269 frames/s, 54 % of its peak used",
        source="published, the NVDLA Primer, which calls it an estimate; operations a frame are ours",
    ),
    Chip(
        name="NVDLA, 64 MACs, peak",
        node=16,
        format="int8",
        rows=8,
        cols=8,
        clock_hz=1_000_000_000,
        teraops=0.128,
        watts=0.055,
        at_most=False,
        counts="the core with a buffer of 128 KB; watts at their peak, all MACs taken to be busy",
        source="published, the NVDLA Primer, which calls it an estimate",
    ),
)


def ours(chip: Chip) -> Joules:
    """Picojoules on chip of a multiply-accumulate, by the table of the node."""
    base = weft.machine("dense-32")
    spec = replace(
        base,
        name=chip.name,
        clock_hz=chip.clock_hz,
        technology=f"asic-{chip.node}nm",
        array=replace(base.array, rows=chip.rows, cols=chip.cols),
        pe=replace(base.pe, format=chip.format),
    )
    report = energy(weft.simulate(weft.schedule(_product(chip), spec, "cycles")))
    parts = [spent for part, spent in report.part_bands.items() if part != Component.DRAM]
    return Joules(*(sum(ends) * 1e12 / report.macs for ends in zip(*parts, strict=True)))


def _product(chip: Chip) -> Workload:
    """Eight tiles each way, deep enough that fill and drain do not count."""
    g, size = Gemm(m=8 * chip.rows, k=4096, n=8 * chip.cols), 1 if chip.format == "int8" else 2

    def operand(role: Role, elements: int) -> Operand:
        return Operand(role=role, dtype="int8" if size == 1 else "float16", bytes=size * elements)

    op = MatrixOp(
        name="product",
        op="aten.mm",
        pass_=Pass.FF,
        gemm=g,
        a=operand(Role.ACTIVATION, g.m * g.k),
        b=operand(Role.WEIGHT, g.k * g.n),
        c=operand(Role.ACTIVATION, g.m * g.n),
        parameter="product.weight",
    )
    return Workload(model="one product", batch=1, ops=(op,))


def place(chip: Chip, found: Joules) -> str:
    """Where the published figure lies."""
    if chip.pj > found.high:
        return f"{chip.pj / found.high:.2g} times our most"
    if chip.pj < found.low:
        return f"{found.low / chip.pj:.2g} times below our least"
    return "in our band"


def table() -> str:
    """As docs/validation.md has it."""
    rows = [
        "| chip | node, operands | theirs, pJ | ours, pJ | ours: least to most | theirs is | what theirs counts |",
        "|---|---|---|---|---|---|---|",
    ]
    for chip in CHIPS:
        found, limit = ours(chip), "at most " if chip.at_most else ""
        rows.append(
            f"| {chip.name} ({chip.source}) | {chip.node} nm, {chip.format.upper()} | {limit}{chip.pj:.2f} | "
            f"{found.likely:.2f} | {found.low:.2f}-{found.high:.2f} | {place(chip, found)} | {chip.counts} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
