"""LUTs for bits or for FP16: a training step on machines of the same LUTs, from a large XNOR engine to none.

The LUTs are those of the STCE and the XNOR engine of `bnn-vu9p`. Prints the tables of docs/binary.md:
python examples/same_luts.py [MODEL BATCH SCHEME [SEQ]]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import weft
from weft.analysis.area import machine_area
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.dataflow.accelerator import AcceleratorSpec
from weft.workloads.gemm import Pass
from weft.workloads.step import Workload

BASE, LARGE = weft.machine("bnn-vu9p"), weft.machine("sat-vcu1525")
CHIP = load_table("asic-16nm")
"""Joules are a chip's: those of an FPGA follow the time."""
SIDES = (24, 16, 12, 8, 4, 0)
"""Of a square XNOR engine; what it leaves goes to the STCE."""
ROWS = (24, 28, 32, 36, 40)
"""Of an STCE, besides the square: channels come in powers of two, so the best array is not always the largest."""
STEPS = (("resnet18", 64, "bireal", None), ("llama2_7b", 1, "bitnet", 2048))


@dataclass(frozen=True)
class Modules:
    """LUTs of an array by its parts; edges are taken to grow with the columns."""

    element: int
    row: int
    column: float
    control: int

    @classmethod
    def of(cls, block: str, element: str, row: str, cols: int) -> Modules:
        each = {item.name: item.lut_sites for item in machine_area(BASE, "xcup").items if item.block == block}
        return cls(each[element], each[row], each["edges"] / cols, each["control"])

    def luts(self, rows: int, cols: int) -> float:
        return self.element * rows * cols + self.row * rows + self.column * cols + self.control if rows else 0

    def shapes(self, luts: float) -> list[tuple[int, int]]:
        """Rows and columns that fill ``luts``: the largest square, and some of other proportions."""
        most = range(1, 1024)
        square = max(n for n in most if self.luts(n, n) <= luts)
        return [(rows, max(n for n in most if self.luts(rows, n) <= luts)) for rows in (square, *ROWS)]


STCE = Modules.of("stce", "pe", "stce_row", BASE.array.cols)
XNOR = Modules.of("xnor_engine", "xnor_pe", "xnor_row", BASE.xnor.cols)
LUTS = STCE.luts(BASE.array.rows, BASE.array.cols) + XNOR.luts(BASE.xnor.rows, BASE.xnor.cols)


def machines(side: int) -> list[AcceleratorSpec]:
    """With an XNOR engine of ``side`` x ``side``; without one, the array has its buffers as well."""
    if side == BASE.xnor.rows:
        return [BASE]
    arrays = [replace(BASE.array, rows=r, cols=c) for r, c in STCE.shapes(LUTS - XNOR.luts(side, side))]
    if side:
        own = replace(BASE.xnor, rows=side, cols=side)
        return [replace(BASE, array=array, xnor=own) for array in arrays]
    sizes = {f"{name}_bytes": 2 * getattr(BASE.buffers, f"{name}_bytes") for name in ("w2e", "n2s", "output")}
    buffers = replace(BASE.buffers, **sizes)
    return [replace(BASE, array=array, xnor=None, buffers=buffers) for array in arrays]


def row(step: Workload, scheme: str, side: int) -> str:
    """Markdown: the machine of least seconds times joules, its LUTs and multipliers, both of the step and of its FF."""
    annotated = weft.sparsify(step, scheme)
    runs = [weft.simulate(weft.schedule(annotated, spec)) for spec in machines(side)]
    found = min(runs, key=lambda run: run.cycles.total * energy(run, CHIP).joules)
    spec, joules = found.spec, energy(found, CHIP)
    ff = sum(op.cycles.total for op in found.ops if op.op.pass_ is Pass.FF)
    luts = STCE.luts(spec.array.rows, spec.array.cols) + XNOR.luts(side, side)
    cells = (
        f"{spec.array.rows} x {spec.array.cols}",
        f"{side} x {side}" if side else "-",
        "FP16" if scheme == "dense" else f"`{scheme}`",
        f"{luts:,.0f}",
        f"{spec.array.pes:,}",
        f"{found.cycles.total / spec.clock_hz:.3f}",
        f"{joules.joules:.3f}",
        f"{ff / spec.clock_hz:.3f}",
        f"{joules.by_pass[Pass.FF]:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def main(steps: tuple[tuple[str, int, str, int | None], ...]) -> None:
    counted = sum(i.lut_sites * i.count for i in machine_area(LARGE, "xcup").items if i.block == "stce")
    rows, cols = LARGE.array.rows, LARGE.array.cols
    made = STCE.luts(rows, cols)
    print(f"{rows} x {cols} PEs take {made:,.0f} LUTs by the parts of {BASE.name}, {counted:,} synthesised")
    for model, batch, scheme, seq in steps:
        step = weft.trace(model, batch=batch, seq=seq)
        print(f"\n{model}, batch {batch}" + (f", {seq} tokens" if seq else ""))
        print("| STCE | XNOR | step | LUTs | multipliers | s | J | FF s | FF J |\n" + "|---" * 9 + "|")
        for side in SIDES:
            print(row(step, scheme, side))
        for side in (0, SIDES[0]):
            print(row(step, "dense", side))


if __name__ == "__main__":
    asked = sys.argv[1:]
    main(((asked[0], int(asked[1]), asked[2], int(asked[3]) if asked[3:] else None),) if asked else STEPS)
