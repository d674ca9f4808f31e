"""The one home of Hypothesis strategies: machines, patterns, mappings, product shapes, operand values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from weft.dataflow.accelerator import (
    AcceleratorSpec,
    ArraySpec,
    BufferSpec,
    DramSpec,
    PESpec,
    SoreSpec,
    VectorSpec,
    WuveSpec,
)
from weft.dataflow.mapping import ArrayMapping, Dataflow
from weft.simulator.compact import Compact, compress, from_mask
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

SPECIAL_BITS = (
    0x0000, 0x8000,  # zeros
    0x0001, 0x8001, 0x03FF,  # subnormals
    0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF,  # smallest normal, ones, largest
    0x7C00, 0xFC00,  # infinities
    0x7E00, 0xFE00, 0x7C01,  # NaNs: quiet, negative, signalling
)  # fmt: skip
"""FP16 words at which something changes."""


def make_spec(
    *,
    array: ArraySpec,
    pe: PESpec | None = None,
    sore: SoreSpec | None = None,
    wuve: WuveSpec | None = None,
) -> AcceleratorSpec:
    """A machine of which only array and engines matter."""
    return AcceleratorSpec(
        name="test",
        clock_hz=10**8,
        technology="asic-16nm",
        array=array,
        pe=pe or PESpec(),
        buffers=BufferSpec(w2e_bytes=2**16, n2s_bytes=2**16, output_bytes=2**16),
        sore=sore or SoreSpec(),
        wuve=wuve or WuveSpec(),
        vector=VectorSpec(),
        dram=DramSpec(kind="ddr4", bytes_per_second=10**9),
    )


@st.composite
def specs(draw: st.DrawFn) -> AcceleratorSpec:
    """Small machines in every proportion of ports, latencies and registers."""
    small = st.integers(1, 6)
    max_group = draw(st.sampled_from((1, 2, 4, 8, 16)))
    return make_spec(
        array=ArraySpec(rows=draw(small), cols=draw(small), w2e_words=draw(st.sampled_from((1, 1, 2, 3, 8)))),
        pe=PESpec(
            max_group=max_group,
            accumulators=draw(small),
            dense_words=draw(st.integers(max_group, 4 * max_group)),
            weight_pairs=draw(st.integers(1, 4)),
            multiply_latency=draw(st.integers(1, 4)),
            add_latency=draw(st.integers(1, 6)),
        ),
        sore=SoreSpec(lanes=draw(small), kind=draw(st.sampled_from(("serial", "network")))),
        wuve=WuveSpec(lanes=draw(small)),
    )


@st.composite
def patterns(draw: st.DrawFn, max_group: int = 16, max_keep: int = 16) -> NMPattern:
    """N:M patterns a machine with such registers can run, powers of two and others."""
    group = draw(st.integers(1, max_group))
    return NMPattern(keep=draw(st.integers(1, min(group, max_keep))), group=group)


@st.composite
def array_mappings(draw: st.DrawFn, spec: AcceleratorSpec) -> ArrayMapping:
    """Mappings that ``spec`` can run."""
    pe, dataflow = spec.pe, draw(st.sampled_from(Dataflow))
    weight_stationary = dataflow is Dataflow.WS
    pattern = draw(patterns(pe.max_group, pe.weight_pairs if weight_stationary else pe.max_group))
    held = pe.dense_words // pattern.group if weight_stationary else pe.accumulators
    return ArrayMapping(dataflow=dataflow, pattern=pattern, interleave=draw(st.integers(1, min(pe.accumulators, held))))


@st.composite
def gemms(draw: st.DrawFn, max_rows: int = 14, max_cols: int = 14) -> Gemm:
    """Small products, the contraction in one run or several."""
    run, runs = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    return Gemm(m=draw(st.integers(1, max_rows)), k=run * runs, n=draw(st.integers(1, max_cols)), run=run)


@st.composite
def halves(draw: st.DrawFn, *shape: int) -> npt.NDArray[np.float16]:
    """FP16 values of every kind; how many are special is drawn, so that most sums stay finite."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal(shape).astype(np.float16)
    kind = draw(st.sampled_from(("normal", "ties", "special", "bits")))
    if kind == "ties":
        return np.round(values).astype(np.float16)
    share = rng.random(shape) < draw(st.sampled_from((0.02, 0.3)))
    if kind == "special":
        values.view(np.uint16)[share] = rng.choice(np.array(SPECIAL_BITS, np.uint16), shape)[share]
    elif kind == "bits":
        values.view(np.uint16)[share] = rng.integers(0, 2**16, shape, np.uint16)[share]
    return values


@st.composite
def singles(draw: st.DrawFn, *shape: int) -> npt.NDArray[np.float32]:
    """FP32 values, some of them raw bits: subnormals, infinities, NaNs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal(shape).astype(np.float32)
    share = rng.random(shape) < draw(st.sampled_from((0.0, 0.1)))
    values.view(np.uint32)[share] = rng.integers(0, 2**32, shape, np.uint32)[share]
    return values


@st.composite
def compacts(draw: st.DrawFn, gemm: Gemm, pattern: NMPattern) -> Compact:
    """The N2S operand of ``gemm``: the largest of each group, or what a mask leaves, with bubbles."""
    b = draw(halves(gemm.k, gemm.n))
    compact = compress(b, pattern, gemm.run)
    if draw(st.booleans()):
        return compact
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    largest = np.zeros((gemm.k + 256, gemm.n), np.bool_)
    np.put_along_axis(largest, compact.cut.slot_base[:, None] + compact.indices, True, axis=0)
    return from_mask(b, largest[: gemm.k] & (rng.random(b.shape) < 0.6), pattern, gemm.run)
