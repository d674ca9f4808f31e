"""Models in use, and 2:4 training, as measured on GPUs by others, beside ours on machines of their peaks.

Prints the table of docs/results/gpus.md. The measured figures and their origin: tests/golden/gpus.csv.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import weft
from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec, DramSpec, SoreSpec, VectorSpec, WuveSpec
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.workloads.operand import DTYPE_BYTES
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp, Workload

MEASURED = Path(__file__).parents[1] / "tests" / "golden" / "gpus.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Published: clock at boost, tensor cores' peak in FP16, memory's peak, scalar cores, bytes of cache and shared
    memory. ``rows`` x ``cols`` multiply-accumulates a cycle make that peak."""

    clock_hz: int
    tflops: float
    rows: int
    cols: int
    bytes_per_second: int
    lanes: int
    on_chip: int


GPUS = {
    "a100": Gpu(
        clock_hz=1_410_000_000,
        tflops=312,
        rows=108,
        cols=1024,
        bytes_per_second=2_039_000_000_000,
        lanes=6912,
        on_chip=40 << 20,
    ),
    "v100": Gpu(
        clock_hz=1_530_000_000,
        tflops=125,
        rows=40,
        cols=1024,
        bytes_per_second=900_000_000_000,
        lanes=5120,
        on_chip=12 << 20,
    ),
    "t4": Gpu(
        clock_hz=1_590_000_000,
        tflops=65,
        rows=20,
        cols=1024,
        bytes_per_second=320_000_000_000,
        lanes=2560,
        on_chip=6 << 20,
    ),
}
"""NVIDIA's data sheets and white papers, by public pages that repeat them."""
REACHED = 83
"""Per cent of the memory's peak: gpt-fast's README, "empirically, seems like peak bandwidth is about 1700 GB/s" on its
A100 of 2,039; assumed for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measurement: seconds of a step, by ``figure`` in its ``unit``."""

    gpu: str
    model: str
    batch: int
    tokens: int
    scheme: str
    figure: float
    unit: str

    @property
    def seconds(self) -> float:
        """Of the step: of all of a batch."""
        return {"ms": self.figure * 1e-3, "us": self.figure * 1e-6, "1/s": self.batch / self.figure}[self.unit]


def rows() -> list[Row]:
    """What was measured."""
    with MEASURED.open() as file:
        table = csv.DictReader(line for line in file if not line.startswith("#"))
        return [
            Row(
                gpu=r["gpu"],
                model=r["model"],
                batch=int(r["batch"]),
                tokens=int(r["tokens"] or 0),
                scheme=r["scheme"],
                figure=float(r["figure"]),
                unit=r["unit"],
            )
            for r in table
        ]


def machine(name: str) -> AcceleratorSpec:
    """A machine of a GPU's peaks: one array instead of its tensor cores, so that a small product leaves most of it
    idle, low and wide, so that one row by all weights, for which a GPU has other cores, waits for memory alone; buffers
    of its caches' size, a vector unit of its scalar cores."""
    gpu = GPUS[name]
    return AcceleratorSpec(
        name=name,
        description="a machine of the peaks of a GPU",
        clock_hz=gpu.clock_hz,
        technology="asic-16nm",
        array=ArraySpec(rows=gpu.rows, cols=gpu.cols, w2e_words=4),
        pe=PESpec(max_group=4, accumulators=8, dense_words=32, weight_pairs=4, multiply_latency=2, add_latency=4),
        buffers=BufferSpec(
            w2e_bytes=gpu.on_chip // 3, n2s_bytes=gpu.on_chip // 3, output_bytes=gpu.on_chip - 2 * (gpu.on_chip // 3)
        ),
        sore=SoreSpec(lanes=4096, kind="network"),
        wuve=WuveSpec(lanes=4096),
        vector=VectorSpec(lanes=gpu.lanes),
        dram=DramSpec(kind="hbm2", bytes_per_second=gpu.bytes_per_second, efficiency_percent=REACHED),
    )


class Mlp(nn.Module):
    """What pytorch/ao's benchmark_semi_sparse.py times: its input wants a gradient too."""

    def __init__(self) -> None:
        super().__init__()
        self.given = nn.Parameter(torch.empty(44160, 1024))
        self.fc1, self.act, self.fc2 = nn.Linear(1024, 4096, bias=False), nn.GELU(), nn.Linear(4096, 1024, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.given)))


def bert(batch: int = 1, seq: int = 128) -> tuple[nn.Module, dict[str, Tensor]]:
    """BERT base without its head: what FasterTransformer times, and the embeddings, which it does not."""
    with torch.device("meta"):
        model = BertModel(BertConfig(attn_implementation="eager"), add_pooling_layer=False)
        return model, {"input_ids": torch.zeros(batch, seq, dtype=torch.long)}


def workload(row: Row) -> Workload:
    """The step that was timed."""
    match row.model:
        case "llama2_7b":
            return weft.trace("llama2_7b", batch=row.batch, use="decode", context=row.tokens)
        case "resnet50":
            return weft.trace("resnet50", batch=row.batch, use="infer")
        case "bert":
            return weft.trace(f"{__file__}:bert", batch=row.batch, seq=row.tokens, use="infer")
        case "mlp":
            with torch.device("meta"):
                step = weft.trace(Mlp(), torch.zeros(1), loss=lambda y: y.sum())
            return step if row.scheme == "dense" else weft.sparsify(step, row.scheme, "2:4")
        case _:
            raise ValueError(row.model)


def by_hand(step: Workload, spec: AcceleratorSpec) -> float:
    """Seconds of a roofline: every op at the peak of the array or of the memory, whatever takes longer; no update."""
    rate, peak = float(spec.dram_bytes_per_cycle), spec.macs_per_cycle
    cycles = 0.0
    for op in step.ops:
        match op:
            case MatrixOp(gemm=g):
                kept = 1.0 if op.sparse is None else op.sparse.pattern.density
                moved = sum(2 * x.elements for x in (op.a, op.b, op.c))
                cycles += max(g.groups * g.m * g.k * g.n * kept / peak, moved / rate)
            case VectorOp():
                moved = 2 * (op.read_bytes + op.write_bytes) / DTYPE_BYTES[op.dtype]
                cycles += max(op.elements / spec.vector.lanes, moved / rate)
            case UpdateOp():
                pass
    return cycles / spec.clock_hz


def ours(step: Workload, spec: AcceleratorSpec) -> float:
    """Seconds, simulated op after op, scheduled for time; without updates, which nobody timed."""
    done = weft.simulate(weft.schedule(step, spec, "cycles"))
    return sum(r.cycles.total for r in done.ops if not isinstance(r.op, UpdateOp)) / spec.clock_hz


def main() -> None:
    print(
        "| GPU | model, batch | scheme | roofline | Weft | measured | measured / Weft |\n|---|---|---|---|---|---|---|"
    )
    for row in rows():
        spec, step = machine(row.gpu), weft.fuse(workload(row), "full")
        seconds = ours(step, spec)
        what = f"{row.model}, {row.batch:,}" + (f", {row.tokens} tokens" if row.tokens else "")
        print(
            f"| {row.gpu} | {what} | {row.scheme} | {by_hand(step, spec) * 1e3:.3g} ms | {seconds * 1e3:.3g} ms | "
            f"{row.seconds * 1e3:.3g} ms | {row.seconds / seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
