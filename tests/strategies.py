"""The one home of Hypothesis strategies: machines, patterns, mappings, product shapes, operand values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec, DramSpec, SoreSpec, VectorSpec, WuveSpec
from weft.dataflow.operand import OPERAND_FORMATS, FormatName
from weft.dataflow.pregenerate import Copy, WeightShape
from weft.dataflow.stce.mapping import REGISTERS, ArrayMapping, Dataflow, holds_pairs
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.dataflow.streaming import StreamingLayer
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.spec import XnorSpec
from weft.simulator.compact import Compact, compress, from_mask
from weft.simulator.dram_spec import Controller, MemorySpec, Timing, load_memory
from weft.simulator.operand import OPERAND_TYPES, Half, bits_of, narrow
from weft.workloads.gemm import Gemm
from weft.workloads.im2col import Window
from weft.workloads.levels import Levels
from weft.workloads.sparsity import NMPattern

SPECIAL_BITS: dict[FormatName, tuple[int, ...]] = {
    "fp16": (
        0x0000,
        0x8000,  # zeros
        0x0001,
        0x8001,
        0x03FF,  # subnormals
        0x0400,
        0x3C00,
        0xBC00,
        0x7BFF,
        0xFBFF,  # smallest normal, ones, largest
        0x7C00,
        0xFC00,  # infinities
        0x7E00,
        0xFE00,
        0x7C01,  # NaNs: quiet, negative, signalling
    ),
    "bf16": (
        0x0000,
        0x8000,
        0x0001,
        0x8001,
        0x007F,
        0x0080,
        0x3F80,
        0xBF80,
        0x7F7F,
        0xFF7F,
        0x2000,
        0x1F81,
        0x9FFF,  # two of these make a product on either side of the smallest normal FP32
        0x7F80,
        0xFF80,
        0x7FC0,
        0xFFC0,
        0x7F81,
        0x7C01,  # the last one a NaN in FP16 only
    ),
}
"""Words at which something changes; of the formats of eight bits all 256 are drawn."""


def make_spec(
    *, array: ArraySpec, pe: PESpec | None = None, sore: SoreSpec | None = None, wuve: WuveSpec | None = None
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


formats: st.SearchStrategy[FormatName] = st.sampled_from(("fp16", "bf16"))
"""Of 16 bits, which whole steps run in."""
array_formats: st.SearchStrategy[FormatName] = st.sampled_from(tuple(OPERAND_FORMATS))
"""All that an array multiplies."""


@st.composite
def specs(draw: st.DrawFn, format: FormatName = "fp16") -> AcceleratorSpec:
    """Small machines in every proportion of ports, latencies and registers."""
    small = st.integers(1, 6)
    max_group = draw(st.sampled_from((1, 2, 4, 8, 16)))
    return make_spec(
        array=ArraySpec(
            rows=draw(small),
            cols=draw(small),
            w2e_words=draw(st.sampled_from((1, 1, 2, 3, 8))),
            read_latency=draw(st.sampled_from((1, 1, 2, 3, 4))),
        ),
        pe=PESpec(
            max_group=max_group,
            accumulators=draw(small),
            dense_words=draw(st.integers(max_group, 4 * max_group)),
            weight_pairs=draw(st.integers(1, 4)),
            multiply_latency=draw(st.integers(1, 4)),
            add_latency=draw(st.integers(1, 6)),
            format=format,
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
def array_mappings(
    draw: st.DrawFn, spec: AcceleratorSpec, dataflows: Sequence[Dataflow] = tuple(Dataflow)
) -> ArrayMapping:
    """Mappings that ``spec`` can run."""
    pe, dataflow = spec.pe, draw(st.sampled_from(dataflows))
    pattern = draw(patterns(pe.max_group, pe.weight_pairs if holds_pairs(dataflow) else pe.max_group))
    return ArrayMapping(
        dataflow=dataflow, pattern=pattern, interleave=draw(st.integers(1, most_interleave(spec, dataflow, pattern)))
    )


@st.composite
def xnor_specs(draw: st.DrawFn) -> AcceleratorSpec:
    """Machines with small XNOR engines."""
    own = XnorSpec(
        rows=draw(st.integers(1, 4)),
        cols=draw(st.integers(1, 4)),
        word_bits=8 * draw(st.integers(1, 10)),
        accumulators=draw(st.integers(1, 8)),
        dense_words=draw(st.integers(1, 32)),
        weight_words=draw(st.integers(1, 4)),
        popcount_latency=draw(st.integers(1, 5)),
    )
    return replace(draw(specs()), xnor=own)


@st.composite
def xnor_mappings(draw: st.DrawFn, spec: AcceleratorSpec) -> XnorMapping:
    """Any that the elements hold."""
    own = spec.xnor
    assert own is not None
    if draw(st.booleans()):
        return XnorMapping(dataflow=Dataflow.OS, interleave=draw(st.integers(1, own.accumulators)))
    group = draw(st.integers(1, min(own.weight_words, own.dense_words)))
    most = min(own.accumulators, own.dense_words // group)
    return XnorMapping(dataflow=Dataflow.WS, interleave=draw(st.integers(1, most)), group=group)


LEVELS = st.sampled_from(list(Levels))


@st.composite
def integers_of(draw: st.DrawFn, levels: Levels, *shape: int) -> npt.NDArray[np.int64]:
    """Values of ``levels``: of all of them, of the outermost alone, of one alone; where 0 is one, mostly that."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.array(list(levels.values))
    kind = draw(st.sampled_from(("any", "any", "outermost", "one", "rare")))
    if kind == "one":
        return np.full(shape, draw(st.sampled_from(list(levels.values))), np.int64)
    found: npt.NDArray[np.int64] = rng.choice(values[[0, -1]] if kind == "outermost" else values, shape)
    if kind == "rare" and 0 in levels.values:
        found = found * (rng.random(shape) < 0.03)
    return found


def most_interleave(spec: AcceleratorSpec, dataflow: Dataflow, pattern: NMPattern) -> int:
    """The largest that the registers of ``spec`` hold."""
    held = [
        i
        for i in range(1, spec.pe.accumulators + 1)
        if REGISTERS[dataflow](pattern.keep, pattern.group, i).dense_words <= spec.pe.dense_words
    ]
    return max(held)


@st.composite
def gemms(draw: st.DrawFn, max_rows: int = 14, max_cols: int = 14) -> Gemm:
    """Small products, the contraction in one run or several."""
    run, runs = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    return Gemm(m=draw(st.integers(1, max_rows)), k=run * runs, n=draw(st.integers(1, max_cols)), run=run)


@st.composite
def halves(draw: st.DrawFn, *shape: int, format: FormatName = "fp16") -> Half:
    """Operands of every kind; how many are special is drawn, so that most sums stay finite.

    Two that are ``tiny`` have a product around the end of the subnormals of their format, in BF16 of FP32 too. FP8 is
    drawn in either encoding.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if format in ("fp8", "int8"):
        return draw(_bytes(rng, *shape, format=format))
    normal, dtype = rng.standard_normal(shape), OPERAND_TYPES[format]
    values: Half = normal.astype(dtype)
    kind = draw(st.sampled_from(("normal", "ties", "tiny", "special", "bits")))
    if kind == "ties":
        return np.round(normal).astype(dtype)
    if kind == "tiny":
        return (normal * 2.0 ** (-12 if format == "fp16" else rng.integers(-75, -62, shape))).astype(dtype)
    share = rng.random(shape) < draw(st.sampled_from((0.02, 0.3)))
    if kind == "special":
        values.view(np.uint16)[share] = rng.choice(np.array(SPECIAL_BITS[format], np.uint16), shape)[share]
    elif kind == "bits":
        values.view(np.uint16)[share] = rng.integers(0, 2**16, shape, np.uint16)[share]
    return values


@st.composite
def _bytes(draw: st.DrawFn, rng: np.random.Generator, *shape: int, format: FormatName) -> Half:
    gradient = format == "fp8" and draw(st.booleans())
    scale = draw(st.sampled_from((1.0, 40.0) if format == "int8" else (1.0, 2.0**-8)))
    values = narrow((rng.standard_normal(shape) * scale).astype(np.float32), format, gradient=gradient)
    share = rng.random(shape) < draw(st.sampled_from((0.0, 0.02, 1.0)))
    bits_of(values)[share] = rng.integers(0, 256, shape, np.uint8)[share]
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
def compacts(draw: st.DrawFn, gemm: Gemm, pattern: NMPattern, format: FormatName = "fp16") -> Compact:
    """The N2S operand of ``gemm``: the largest of each group, or what a mask leaves, with bubbles."""
    b = draw(halves(gemm.k, gemm.n, format=format))
    compact = compress(b, pattern, gemm.run)
    if draw(st.booleans()):
        return compact
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    largest = np.zeros((gemm.k + 256, gemm.n), np.bool_)
    np.put_along_axis(largest, compact.cut.slot_base[:, None] + compact.indices, True, axis=0)
    return from_mask(b, largest[: gemm.k] & (rng.random(b.shape) < 0.6), pattern, gemm.run)


@st.composite
def weight_shapes(draw: st.DrawFn) -> WeightShape:
    """Small weights, ragged in both directions, of one tap or several."""
    return WeightShape(taps=draw(st.integers(1, 3)), inputs=draw(st.integers(1, 19)), outputs=draw(st.integers(1, 19)))


def copy_sets() -> st.SearchStrategy[tuple[Copy, ...]]:
    """What an update pre-generates."""
    return st.sampled_from((("ff",), ("bp",), ("ff", "bp")))


@st.composite
def holds(draw: st.DrawFn) -> npt.NDArray[np.bool_]:
    """When the array is held, bool [cycles]: never, for a while, at random, in bursts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cycles = draw(st.integers(0, 400))
    kind = draw(st.sampled_from(("never", "early", "random", "bursts")))
    if kind == "never":
        return np.zeros(cycles, np.bool_)
    if kind == "early":
        return np.arange(cycles) < rng.integers(0, cycles + 1)
    if kind == "bursts":
        period = int(rng.integers(2, 40))
        stands: npt.NDArray[np.bool_] = (np.arange(cycles) + rng.integers(0, 40)) % period < rng.integers(1, period)
        return stands
    return rng.random(cycles) < draw(st.sampled_from((0.05, 0.5, 0.9)))


@st.composite
def receivers(draw: st.DrawFn, cols: int) -> npt.NDArray[np.bool_]:
    """When a word is taken, bool [cycles, columns]: always, later, at random, at a column's own rate, in bursts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cycles = draw(st.integers(0, 400))
    kind = draw(st.sampled_from(("always", "late", "random", "rates", "bursts")))
    if kind == "always":
        return np.ones((cycles, cols), np.bool_)
    if kind == "late":
        return np.arange(cycles)[:, None] >= rng.integers(0, cycles + 1, cols)
    if kind == "bursts":
        period, phase = rng.integers(2, 40, cols), rng.integers(0, 40, cols)
        open_for = rng.integers(1, period)
        taking: npt.NDArray[np.bool_] = (np.arange(cycles)[:, None] + phase) % period < open_for
        return taking
    rates = rng.random(cols) if kind == "rates" else draw(st.sampled_from((0.1, 0.5, 0.95)))
    return rng.random((cycles, cols)) < rates


@st.composite
def memories(draw: st.DrawFn) -> MemorySpec:
    """Small DRAM channels with short timing, so that refresh, turns and full queues come in a few hundred cycles."""
    base = load_memory("ddr4-2400-x8")
    some = st.integers(1, 12)
    rp, ccd, wtr, rrd, cl = draw(some), draw(st.integers(1, 6)), draw(some), draw(some), draw(st.integers(4, 12))
    rfc, write = draw(st.integers(1, 60)), draw(st.integers(1, 8))
    timing = Timing(
        CL=cl,
        CWL=draw(st.integers(1, cl)),
        RCD=draw(some),
        RP=rp,
        RPA=rp + draw(st.integers(0, 3)),
        RAS=draw(st.integers(1, 30)),
        RRD_S=rrd,
        RRD_L=rrd + draw(st.integers(0, 4)),
        CCD_S=ccd,
        CCD_L=ccd + draw(st.integers(0, 4)),
        WTR_S=wtr,
        WTR_L=wtr + draw(st.integers(0, 6)),
        FAW=draw(st.integers(1, 50)),
        WR=draw(some),
        RTP=draw(some),
        RFC=rfc,
        REFI=rfc + draw(st.integers(200, 400)),
        RTW_GAP=draw(st.integers(1, 3)),
        RANK_GAP=draw(st.integers(1, 3)),
    )
    two = st.sampled_from([1, 2, 4])
    organization = replace(
        base.organization,
        ranks=draw(st.sampled_from([1, 2])),
        bank_groups=draw(two),
        banks=draw(two),
        burst_length=draw(st.sampled_from([4, 8])),
    )
    controller = Controller(
        read_queue=draw(st.integers(1, 12)),
        write_queue=write + 4,
        drain_from=draw(st.integers(write, write + 4)),
        drain_to=draw(st.integers(0, write - 1)),
        hit_limit=draw(st.integers(1, 6)),
    )
    return replace(base, organization=organization, timing=timing, controller=controller)


def small_layers() -> st.SearchStrategy[StreamingLayer]:
    """Engines whose foldings can all be tried, some behind a sliding window of 2 or 3 by as many."""

    def layer(mh: int, bits: tuple[int, int], sizes: tuple[int, int, int] | tuple[int, int]) -> StreamingLayer:
        if len(sizes) == 2:
            mw, vectors = sizes
            return StreamingLayer(name="fc", mw=mw, mh=mh, vectors=vectors, weight_bits=bits[0], input_bits=bits[1])
        kernel, channels, more = sizes
        window = Window(
            image=(kernel + more,) * 2, kernel=(kernel,) * 2, stride=(1, 1), padding=(0, 0), dilation=(1, 1)
        )
        return StreamingLayer(
            name="conv",
            mw=kernel * kernel * channels,
            mh=mh,
            vectors=(more + 1) ** 2,
            weight_bits=bits[0],
            input_bits=bits[1],
            window=window,
            channels=channels,
        )

    bits = st.tuples(st.integers(1, 3), st.integers(1, 8))
    linear = st.tuples(st.integers(1, 40), st.integers(1, 5))
    windows = st.tuples(st.integers(2, 3), st.integers(1, 8), st.integers(0, 4))
    return st.builds(layer, st.integers(1, 24), bits, linear | windows)
