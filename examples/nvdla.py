"""NVDLA's published ResNet-50 frame rates at seven sizes beside ours, and what each assumption is worth.

Prints the tables of docs/results/nvdla.md. The published figures and their origin: tests/golden/nvdla_resnet50.csv.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import weft
from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec, DramSpec, SoreSpec, VectorSpec, WuveSpec
from weft.dataflow.engines import evaluate
from weft.dataflow.mapping import Mapping
from weft.dataflow.objective import Objective
from weft.dataflow.operand import FP16, FP32
from weft.dataflow.placement import Placement
from weft.dataflow.schedule import Schedule
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.simulator.result import SimResult
from weft.workloads.gemm import Pass
from weft.workloads.operand import DTYPE_BYTES
from weft.workloads.step import MatrixOp, Op, VectorOp, Workload

PUBLISHED = Path(__file__).parents[1] / "tests" / "golden" / "nvdla_resnet50.csv"
CLOCK_HZ = 10**9
"""Published with the frame rates."""
ENTRIES = 128
"""Accumulators a kernel. Published for 2,048 MACs (unit description: an assembly group of 128 entries x 32 kernels, a
delivery group of as many words); assumed for the other sizes."""
UNBOUND = 2**20
"""Entries of an accumulator that no macro-tile fills."""
MEASURED_NV_SMALL_CYCLES = 110_000_000
"""ResNet-50 on nv_small, measured on a ZCU102: 1.1 s at 100 MHz (arXiv 2508.16095, abstract; input size not in it)."""
MEASURED_RESNET18_CYCLES = 1_620_000
"""ResNet-18 there: 16.2 ms at 100 MHz, same source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One row of the published table."""

    macs: int
    buffer_kb: int
    gbps: float
    fps: float
    atomic_c: int
    atomic_k: int


def sizes() -> list[Size]:
    """The seven published sizes."""
    with PUBLISHED.open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [
            Size(
                macs=int(r["macs"]),
                buffer_kb=int(r["buffer_kb"]),
                gbps=float(r["gbps"]),
                fps=float(r["fps"]),
                atomic_c=int(r["atomic_c"]),
                atomic_k=int(r["atomic_k"]),
            )
            for r in rows
        ]


def nv_small_on_fpga() -> Size:
    """64 MACs with the bytes a cycle of nv_small's 64-bit port (nv_small.spec), the most that the board can give it."""
    small = next(size for size in sizes() if size.macs == 64)
    return replace(small, gbps=8.0)


def nvdla(size: Size, *, features: int = 8, entries: int = ENTRIES, held: int = 1) -> AcceleratorSpec:
    """A machine of ``size``: atomic-C rows by atomic-K columns, each PE one weight, a multiply and an add a cycle.

    ``features`` of 16 parts of the convolution buffer hold features, the rest weights, each double-buffered;
    ``held = 2`` lets all of it be in use at once, as in a ring. The results of a macro-tile stay in the ``entries`` of
    the accumulator, half of which collects while the other leaves. Operands have 8 bits there and 16 here, so buffer
    and bandwidth are twice as large and hold and move as many elements.
    """
    words = size.buffer_kb * 1024 * held
    part = words * FP16.bytes // 16
    return AcceleratorSpec(
        name=f"nvdla-{size.macs}",
        clock_hz=CLOCK_HZ,
        technology="28nm",
        array=ArraySpec(rows=size.atomic_c, cols=size.atomic_k),
        pe=PESpec(max_group=1, accumulators=1, dense_words=1, weight_pairs=1, multiply_latency=1, add_latency=1),
        buffers=BufferSpec(
            w2e_bytes=part * features,
            n2s_bytes=part * (16 - features),
            output_bytes=2 * entries * size.atomic_k * FP32.bytes,
        ),
        sore=SoreSpec(),
        wuve=WuveSpec(),
        vector=VectorSpec(lanes=65536),
        dram=DramSpec(kind="sdram", bytes_per_second=int(size.gbps * 10**9) * FP16.bytes),
    )


def inference(step: Workload) -> Workload:
    """What NVDLA moves and multiplies in a forward pass of ``step``.

    The products, and the second operand of every residual addition. Batch norm is folded into weights and bias; bias,
    ReLU, addition and pooling happen in SDP and PDP on the way to memory, at no time of their own.
    """
    ops: list[Op] = []
    for op in step.ops:
        if op.pass_ != Pass.FF:
            continue
        if isinstance(op, MatrixOp):
            ops.append(op)
        elif isinstance(op, VectorOp) and op.op == "aten.add_" and "float" in op.dtype:
            ops.append(replace(op, read_bytes=op.elements * DTYPE_BYTES[op.dtype], write_bytes=0))
    return replace(step, ops=tuple(ops), after=(), tensors=())


def extents(unit: int, size: int) -> list[int]:
    """Macro-tile sides: 1, 2, 3, 4, 6, 8, 12, ... units below ``size``, and ``size``."""
    steps = {unit * n << power for power in range(20) for n in (1, 3)}
    return sorted({step for step in steps if step < size} | {size})


def stationary_mappings(op: MatrixOp, spec: AcceleratorSpec) -> Iterator[Mapping]:
    """NVDLA's dataflow: a PE keeps a weight while the features of a macro-tile stream past it."""
    most = spec.buffers.output_bytes // 2 // FP32.bytes
    for rows in extents(1, op.gemm.m):
        for cols in extents(spec.array.cols, op.gemm.n):
            if rows * cols > most:
                break
            for resident, order in ((True, "mn"), (True, "nm"), (False, "mn")):
                yield Mapping(
                    array=ArrayMapping(dataflow=Dataflow.WS, pattern=DENSE, interleave=1),
                    gemm=op.gemm,
                    n2s="b",
                    tile_rows=rows,
                    tile_cols=cols,
                    resident=resident,
                    order=order,
                )


def best(op: MatrixOp, spec: AcceleratorSpec) -> Placement:
    """The fastest stationary mapping; of equals the one that moves least."""
    found: list[Placement] = []
    for mapping in stationary_mappings(op, spec):
        try:
            found.append(evaluate(op, spec, mapping))
        except weft.InputError:  # does not fit the buffers
            continue
    return min(found, key=lambda p: (p.cycles.total, p.counts.buffer_bytes))


def stationary(work: Workload, spec: AcceleratorSpec) -> Schedule:
    """``work`` with every product's weights stationary; layers of equal shape are searched once."""
    known: dict[tuple[object, ...], Placement] = {}
    placements: list[Placement | None] = []
    for op in work.ops:
        if not isinstance(op, MatrixOp):
            placements.append(None)
            continue
        key = (op.gemm, op.a.elements, op.b.elements, op.c.elements)
        if key not in known:
            known[key] = best(op, spec)
        placements.append(known[key])
    return Schedule(workload=work, spec=spec, objective=Objective.CYCLES, placements=tuple(placements))


def fps(result: SimResult) -> float:
    """Frames a second at batch 1."""
    return CLOCK_HZ / result.cycles.total


def megabytes(result: SimResult) -> float:
    """Bytes of a frame as NVDLA stores them: one an element."""
    return sum(op.counts.dram_read_bytes + op.counts.dram_write_bytes for op in result.ops) / FP16.bytes / 1e6


def run(work: Workload, size: Size, machine: Callable[[Size], AcceleratorSpec] = nvdla) -> SimResult:
    """``work`` on a machine of ``size``."""
    return weft.simulate(stationary(work, machine(size)))


def per_layer_split(work: Workload, size: Size) -> float:
    """Frame rate if every layer takes the best of five splits of the buffer."""
    runs = [run(work, size, partial(nvdla, features=part)) for part in (2, 5, 8, 11, 14)]
    return CLOCK_HZ / sum(min(layer) for layer in zip(*([op.cycles.total for op in r.ops] for r in runs), strict=True))


def main() -> None:
    work = inference(weft.trace("resnet50", batch=1))
    products = replace(work, ops=work.matrix_ops)
    macs = sum(op.macs for op in products.matrix_ops)
    least = sum(op.a.elements + op.b.elements + op.c.elements for op in products.matrix_ops) + sum(
        op.elements for op in work.ops if isinstance(op, VectorOp)
    )
    print("| MACs | KB | GB/s | published fps | ours | ratio | MAC bound | DRAM bound | MB moved | waits for DRAM |")
    print("|---" * 10 + "|")
    for size in sizes():
        result = run(work, size)
        waits = (result.cycles.dram_stall + result.cycles.vector) / result.cycles.total
        print(
            f"| {size.macs} | {size.buffer_kb} | {size.gbps:g} | {size.fps:g} | {fps(result):.1f} | "
            f"**{fps(result) / size.fps:.2f}** | {size.macs * CLOCK_HZ / macs:.1f} | {size.gbps * 1e9 / least:.1f} | "
            f"{megabytes(result):.0f} | {waits:.0%} |"
        )
    print(f"\n{macs / 1e9:.2f} GMACs and at least {least / 1e6:.1f} MB a frame.")
    cycles = run(work, nv_small_on_fpga()).cycles.total
    print(f"nv_small, measured: {MEASURED_NV_SMALL_CYCLES / 1e6:.0f} M cycles; ours: {cycles / 1e6:.1f} M.")
    small = sum(op.macs for op in inference(weft.trace("resnet18", batch=1)).matrix_ops)
    print(
        "Its input may not be 224 x 224: the ResNet-18 of the same source leaves time for "
        f"{64 * MEASURED_RESNET18_CYCLES / 1e6:.0f} M MACs, at 224 x 224 it has {small / 1e6:,.0f} M.\n"
    )

    variants: dict[str, Callable[[Size], float]] = {
        "as above": lambda s: fps(run(work, s)),
        "features in 4 of 16 parts of the buffer": lambda s: fps(run(work, s, partial(nvdla, features=4))),
        "in 12 of 16": lambda s: fps(run(work, s, partial(nvdla, features=12))),
        "every layer the best split": partial(per_layer_split, work),
        "buffer as a ring": lambda s: fps(run(work, s, partial(nvdla, held=2))),
        "64 accumulators a kernel": lambda s: fps(run(work, s, partial(nvdla, entries=64))),
        "unbound": lambda s: fps(run(work, s, partial(nvdla, entries=UNBOUND))),
        "second operand of additions for free": lambda s: fps(run(products, s)),
        "our scheduler, any dataflow, unbound": lambda s: fps(
            weft.simulate(weft.schedule(work, nvdla(s, entries=UNBOUND)))
        ),
    }
    print("| ratio to published, if | " + " | ".join(str(s.macs) for s in sizes()) + " |")
    print("|---" * 8 + "|")
    for name, rate in variants.items():
        print(f"| {name} | " + " | ".join(f"{rate(s) / s.fps:.2f}" for s in sizes()) + " |", flush=True)


if __name__ == "__main__":
    main()
