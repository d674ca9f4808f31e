"""Decoding as a stream against the plain loop over its steps, each traced, scheduled and simulated by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.energy import energy
from weft.analysis.generation import decode_energy, generate
from weft.analysis.scheduling import scheduled
from weft.analysis.tariff import prices
from weft.dataflow.accelerator import BufferSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.fusion.fuse import fuse
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import schedule
from weft.simulator.decode import decode, overlapped
from weft.simulator.memory import memory_need
from weft.simulator.step import simulate
from weft.simulator.system import simulate_system
from weft.workloads.attended import attended
from weft.workloads.blocks import Blocks
from weft.workloads.catalog import open_model
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.growth import BITS, growth, rewritten
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.joined import Joined
from weft.workloads.operand import DTYPE_BYTES, Operand, Role
from weft.workloads.phase import Phase
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Op, VectorOp, Workload

from ..strategies import array_formats, specs

TINY = load_spec("tiny")
SMALL = """{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": %d, "vocab_size": 80,
"max_position_embeddings": 64}"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Configurations by their heads of keys and values."""
    found = {}
    for heads in (1, 4):
        file = tmp_path_factory.mktemp("small") / f"heads{heads}.json"
        file.write_text(SMALL % heads)
        found[heads] = str(file)
    return found


PIECES = {"elementwise": ([12], [False]), "full": ([5, 7], [False, True])}
"""Of twelve steps behind 58 tokens: how many each has, and whether it has masks of bits."""


def _step(model: str, context: int, scheme: str = "dense", batch: int | None = None) -> Workload:
    traced = open_model(model, use="decode", context=context, batch=batch)
    return annotate(traced, scheme, None if scheme == "dense" else NMPattern(keep=2, group=8))


@pytest.mark.parametrize(("heads", "scheme", "batch"), [(1, "dense", 2), (4, "bdwp", 1)])
def test_stream_equals_the_plain_loop(small: dict[int, str], heads: int, scheme: str, batch: int) -> None:
    steps = growth(13, 6, lambda context: _step(small[heads], context, scheme, batch))
    found = decode(steps, TINY)
    plain = [simulate(schedule(_step(small[heads], 13 + i, scheme, batch), TINY)) for i in range(6)]
    assert found.by_step == tuple(result.cycles.total for result in plain)
    assert found.dram_bytes == sum(result.counts.dram_bytes for result in plain)
    assert decode_energy(found).likely == sum(energy(result).zeptojoules for result in plain) / 10**21
    assert steps.at(3).ops == _step(small[heads], 16, scheme, batch).ops
    assert steps.last.phase == _step(small[heads], 18, scheme, batch).phase


def test_an_overlapped_stream_equals_the_plain_loop(small: dict[int, str]) -> None:
    """With the ops of every step overlapped: time, and joules, of which some are drawn as long as the step takes."""
    steps = growth(13, 3, lambda context: _step(small[4], context))
    machine = load_spec("sat-8x8")
    alone, found = decode(steps, machine), overlapped(steps, machine, lambda step: schedule(step, machine))
    plain = [simulate_system(schedule(_step(small[4], 13 + i), machine)) for i in range(3)]
    assert found.by_step == tuple(result.cycles for result in plain)
    assert found.by_step != alone.by_step
    assert decode_energy(found).likely == sum(energy(result).zeptojoules for result in plain) / 10**21
    told = generate(open_model(small[4], use="prefill", context=13), steps, machine, level="system")
    shaped = [simulate_system(scheduled(steps.at(i), machine, by_shape=True)) for i in range(3)]
    assert told.decoded.by_step == tuple(result.cycles for result in shaped)
    assert told.decoded.dram_bytes == sum(result.step.counts.dram_bytes for result in shaped)
    assert 0 < told.bandwidth_share <= 1


@pytest.mark.parametrize("fusion", ["elementwise", "full"])
def test_a_fused_stream_equals_the_plain_loop(tmp_path: Path, fusion: str) -> None:
    """From 64 elements on, the 64th token here, a mask is bits, which grow by a byte in eight tokens."""
    longer, wide = tmp_path / "longer.json", replace(TINY, buffers=replace(TINY.buffers, output_bytes=1 << 16))
    longer.write_text((SMALL % 4).replace('"max_position_embeddings": 64', '"max_position_embeddings": 96'))

    def fused(context: int) -> Workload:
        return fuse(_step(str(longer), context), fusion)

    steps = growth(58, 12, fused)
    found = decode(steps, wide)
    plain = [simulate(schedule(fused(58 + i), wide)) for i in range(12)]

    in_bits = [any(BITS in rates.values() for rates in piece.rates.values()) for piece in steps.pieces]
    assert ([piece.steps for piece in steps.pieces], in_bits) == PIECES[fusion]
    assert [steps.at(i).ops for i in range(12)] == [fused(58 + i).ops for i in range(12)]
    assert found.by_step == tuple(result.cycles.total for result in plain)
    assert found.dram_bytes == sum(result.counts.dram_bytes for result in plain)
    assert decode_energy(found).likely == sum(energy(result).zeptojoules for result in plain) / 10**21


LOOKS = {
    "causal/4": [9],
    "window@6/4": [2, 3, 4],
    "best-blocks@2/4": [4, 4, 1],
    "vertical-slash@1:2/4": [4, 4, 1],
    "top-keys@5:4": [9],
    "spark-keys@16:4": [9],
    "routed@3": [2, 2, 3, 2],
    "scatterbrain@6+window@6/4": [2, 3, 4],
}
"""Patterns of attention, and of nine steps behind 20 tokens how many grow evenly."""
_QUICK = ("best-blocks@2/4",)


@pytest.mark.parametrize(
    "pattern", [look if look in _QUICK else pytest.param(look, marks=pytest.mark.slow) for look in LOOKS]
)
def test_a_stream_that_looks_at_some_tokens_equals_the_plain_loop(small: dict[int, str], pattern: str) -> None:
    """Step by step, though numbers fall where a block begins."""
    blocks = Blocks.read(pattern)
    steps = rewritten(growth(20, 9, lambda context: _step(small[1], context)), lambda step: attended(step, blocks))
    found = decode(steps, TINY)

    plain = [attended(_step(small[1], 20 + i), blocks) for i in range(9)]
    assert [(steps.at(i).ops, steps.at(i).phase) for i in range(9)] == [(step.ops, step.phase) for step in plain]
    simulated = [simulate(schedule(step, TINY)) for step in plain]
    assert found.by_step == tuple(result.cycles.total for result in simulated)
    assert found.dram_bytes == sum(result.counts.dram_bytes for result in simulated)
    assert [piece.steps for piece in steps.pieces] == LOOKS[pattern]


@st.composite
def _streams(draw: st.DrawFn) -> Callable[[int], Workload]:
    """Steps of attention by the tokens before them, in which either dimension of a product grows, results are scaled
    beside it or in its wake, and a mask is bits from some size on."""
    dims = {name: draw(st.integers(1, 9)) for name in ("m", "k", "n", "groups")}
    grows = draw(st.sampled_from(tuple(dims)))
    each, shared, bits_from = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.sampled_from((1, 21, 99)))
    dtype, alone, layers = draw(st.sampled_from(("bfloat16", "float32"))), draw(st.booleans()), draw(st.integers(1, 2))
    scaled = draw(st.integers(0, 3))

    def step(context: int) -> Workload:
        size = {**dims, grows: dims[grows] + each * context, "groups": shared * dims["groups"]}
        if grows == "groups":
            size["groups"] = shared * (dims["groups"] + each * context)
        gemm = Gemm(**size)
        groups, results = gemm.groups, gemm.groups * gemm.m * gemm.n
        kept = groups * gemm.k * gemm.n // shared  # heads that share their keys read them once
        counted = {"dtype": dtype, "role": Role.ACTIVATION}
        width, mask = DTYPE_BYTES[dtype], context + 1
        ops: list[Op] = []
        for layer in map(str, range(layers)):
            joined = None if alone else Joined(name=layer, op="bmm", pass_=Pass.FF, read=0, write=0, lanes=results)
            at = {"name": layer, "pass_": Pass.FF, "dtype": dtype}
            a, b, c = (Operand(bytes=n * width, **counted) for n in (groups * gemm.m * gemm.k, kept, results))
            weight = Operand(role=Role.WEIGHT, dtype=dtype, bytes=48 * width)
            small = Operand(bytes=6 * width, **counted), weight, Operand(bytes=8 * width, **counted)
            # Truth values beside numbers: bytes that are not whole numbers of the machine's format.
            read, size_now = results * width + mask, results * width
            as_bits = mask >= bits_from
            ops += [
                MatrixOp(
                    name=layer,
                    op="mm",
                    pass_=Pass.FF,
                    gemm=Gemm(m=1, k=6, n=8),
                    **dict(zip("abc", small, strict=True)),
                    parameter=f"{layer}.weight",
                ),
                MatrixOp(name=layer, op="bmm", pass_=Pass.FF, gemm=gemm, a=a, b=b, c=c),
                *[VectorOp(op="mul", elements=results, read_bytes=read, write_bytes=size_now, **at)] * scaled,
                VectorOp(
                    op="add",
                    elements=results,
                    read_bytes=size_now,
                    write_bytes=0,
                    joined=joined and replace(joined, read=size_now),
                    **at,
                ),
                VectorOp(
                    op="where",
                    elements=mask,
                    read_bytes=4 + (0 if as_bits else mask),
                    write_bytes=2 * mask,
                    wide_read=-(-mask // 8) if as_bits else 0,
                    joined=joined and replace(joined, read=mask - -(-mask // 8) if as_bits else 0, lanes=mask),
                    **at,
                ),
                VectorOp(op="rope", elements=8, read_bytes=32, write_bytes=16, **at),
            ]
        return Workload(model="test", batch=1, ops=tuple(ops), phase=Phase(use="decode", context=context, tokens=1))

    return step


@given(st.data(), _streams(), st.integers(1, 40), st.integers(1, 12), st.sampled_from(tuple(Objective)))
def test_any_stream_equals_the_plain_loop(
    data: st.DataObject, step: Callable[[int], Workload], context: int, new: int, objective: Objective
) -> None:
    """Every product has the mapping, every op the cycles and bytes, and all of them the joules and their band; also
    where products are placed one by one, as those that `placed_sizes` does not take."""
    spec = data.draw(specs(data.draw(array_formats)))
    sizes = (2 ** data.draw(st.integers(6, 13)) for _ in range(3))
    spec = replace(
        spec,
        buffers=BufferSpec(**dict(zip(("w2e_bytes", "n2s_bytes", "output_bytes"), sizes, strict=True))),
        dram=replace(spec.dram, kind="lpddr4", bytes_per_second=10 ** data.draw(st.integers(7, 10))),
    )
    steps = growth(context, new, step)
    pay = prices(spec) if objective.priced else None
    try:
        plain = [simulate(schedule(step(at), spec, objective, pay)) for at in steps.contexts]
    except InputError as refused:
        with pytest.raises(InputError, match=re.escape(str(refused))):
            decode(steps, spec, objective, pay)
        return
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.integers(0, 4)) == 0:
            patch.setattr("weft.simulator.decode.placed_sizes", lambda *_: None)
        found = decode(steps, spec, objective, pay)

    assert [steps.at(i) for i in range(new)] == [step(at) for at in steps.contexts]
    assert found.by_step == tuple(result.cycles.total for result in plain)
    assert found.dram_bytes == sum(result.counts.dram_bytes for result in plain)
    likely, ends = zip(*((e.zeptojoules, e.band) for e in map(energy, plain)), strict=True)
    assert decode_energy(found).likely == sum(likely) / 10**21
    for end in ("low", "high"):
        assert getattr(decode_energy(found), end) == pytest.approx(sum(getattr(band, end) for band in ends), rel=1e-12)
    begin = 0
    for piece, growing in zip(steps.pieces, found.grown, strict=True):
        for grown in growing:
            own = [result.ops[piece.first.ops.index(grown.op)] for result in plain[begin : begin + piece.steps]]
            assert grown.cycles.tolist() == [r.cycles.total for r in own]
            if grown.sizes is not None:
                assert [grown.sizes.mapping(i) for i in range(piece.steps)] == [r.mapping for r in own]
        begin += piece.steps


@pytest.mark.parametrize("heads", [1, 4])
def test_cache_by_hand(small: dict[int, str], heads: int) -> None:
    step = _step(small[heads], 20, batch=3)
    # Two layers, keys and values, three samples, 21 tokens with the new one, 16 wide a head.
    assert sum(held.elements for held in step.phase.cached) == 2 * 2 * 3 * heads * 21 * 16
    assert memory_need(step, TINY).kv_cache == 2 * 2 * 2 * 3 * heads * 21 * 16
    assert {op.pass_ for op in step.ops} == {Pass.FF}
    assert loads_workload(dumps_workload(step)) == step


def test_a_cache_that_grows_in_place_is_there_once_and_the_last_step_knows_its_tensors(small: dict[int, str]) -> None:
    last = growth(20, 6, lambda context: _step(small[4], context)).last
    need = memory_need(last, TINY)

    assert need == memory_need(_step(small[4], 25), TINY)
    assert need.traced
    # What is written of keys and values is part of the cache: 26 tokens, 64 wide; a token's own results are less.
    assert 0 < need.activations < 2 * 26 * 64


def test_use_needs_weights_and_nothing_of_training(small: dict[int, str]) -> None:
    step, training = open_model(small[4], use="infer", batch=2, seq=16), open_model(small[4], batch=2, seq=16)
    need = memory_need(step, TINY)
    assert need.master_weights == need.optimizer_state == need.weight_gradients == need.gradients == need.kv_cache == 0
    assert sum(held.elements for held in step.frozen) == training.parameters + sum(
        held.elements for held in training.frozen
    )
    assert 0 < need.activations < memory_need(training, TINY).activations
    assert step.dense_macs[Pass.FF] == training.dense_macs[Pass.FF]


def test_compact_weights_replace_dense_ones(small: dict[int, str]) -> None:
    dense, sparse = (memory_need(_step(small[4], 8, scheme), TINY) for scheme in ("dense", "bdwp"))
    layers = 2 * (4 * 64 * 64 + 3 * 64 * 96) + 80 * 64  # and the head
    assert dense.frozen_weights - sparse.frozen_weights == 2 * layers
    # Two of eight are kept, 16 bits and an index of three each.
    assert sparse.weight_copies == layers // 4 * 19 // 8


@pytest.mark.slow
def test_llama_reads_its_weights_at_the_rate_of_memory() -> None:
    """The roofline by hand: bytes of weights over bytes a second, beyond which every product fills the array once."""
    spec = load_spec("hbm-u55c")
    first = simulate(schedule(open_model("llama2_7b", use="decode", context=512), spec))
    weights = [r for r in first.ops if isinstance(r.op, MatrixOp) and r.op.parameter is not None]
    took = sum(r.cycles.total for r in weights) / spec.clock_hz
    by_hand = 2 * (32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 4096 * 32000) / (460e9 * 0.92)
    fill = sum(r.cycles.fill_drain for r in weights) / spec.clock_hz
    assert by_hand <= took <= 1.03 * by_hand
    assert took - fill == pytest.approx(by_hand, rel=0.002)


def _uneven(context: int) -> Workload:
    """Of which every other token makes a number grow by two."""
    own = {"name": "x", "pass_": Pass.FF, "dtype": "bfloat16", "read_bytes": 2, "write_bytes": 2}
    ops = VectorOp(op="add", elements=context + context % 2, **own), VectorOp(op="mul", elements=7, **own)
    return Workload(model="uneven", batch=1, ops=ops, phase=Phase(use="decode", context=context, tokens=1))


def test_what_grows_unevenly_is_in_pieces_or_refused() -> None:
    steps = growth(4, 9, _uneven)
    assert [steps.at(i) for i in range(9)] == [_uneven(4 + i) for i in range(9)]
    assert len(steps.pieces) == 5 and steps.contexts == range(4, 13)
    with pytest.raises(InputError, match=r"'uneven' cannot be decoded as one stream: .* behind 20 tokens at last"):
        growth(4, 90, _uneven)
    with pytest.raises(InputError, match="step of decoding must be an integer from 0 to 8, not 9"):
        steps.at(9)


def test_what_does_not_fit_says_what_would(small: dict[int, str]) -> None:
    with pytest.raises(InputError, match=r"context 64 of model 'heads4' must be from 1 to 63, which leaves room"):
        _step(small[4], 64)
    with pytest.raises(InputError, match="9 new tokens behind 60 need more positions than there are"):
        growth(60, 9, lambda context: _step(small[4], context))
    with pytest.raises(InputError, match="keeps no keys and values"):
        open_model("resnet18@32", use="decode", context=8)
    with pytest.raises(InputError, match="freeze is for training"):
        open_model(small[4], use="infer", freeze=("*",))
    with pytest.raises(InputError, match="context 8 is for prefill and decode"):
        open_model(small[4], context=8)
    step = _step(small[4], 50)
    fixed = memory_need(step, TINY).total - memory_need(step, TINY).kv_cache
    cache = memory_need(step, TINY).kv_cache
    tight = replace(TINY, dram=replace(TINY.dram, capacity_bytes=fixed + cache // 51 * 30))
    with pytest.raises(InputError, match="at this batch the cache holds 30 of 51 tokens a sample"):
        decode(growth(50, 1, lambda context: _step(small[4], context)), tight)


def test_generation_says_its_figures(small: dict[int, str]) -> None:
    prompt = open_model(small[1], use="prefill", context=12)
    steps = growth(12, 4, lambda context: _step(small[1], context))
    frugal = generate(prompt, steps, TINY, "energy")
    plain = [simulate(scheduled(steps.at(i), TINY, "energy")) for i in range(4)]
    assert frugal.decoded.by_step == tuple(result.cycles.total for result in plain)
    with pytest.raises(InputError, match="objective edp needs the energy of each action"):
        decode(steps, TINY, "edp")
    found = generate(prompt, steps, TINY)
    assert found.first_token_seconds == found.prefill.cycles.total / TINY.clock_hz
    assert found.tokens_per_s == pytest.approx(4 * TINY.clock_hz / sum(found.decoded.by_step))
    assert found.tokens_per_s <= found.roof_tokens_per_s
    assert found.prefill_joules == energy(found.prefill).band
    head = [op for op in prompt.matrix_ops if op.gemm.n == 80]
    assert [op.gemm.m for op in head] == [1], "only the last token's scores are made"
