"""Decoding as a stream against the plain loop over its steps, each traced, scheduled and simulated by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from weft.analysis.energy import energy
from weft.analysis.generation import decode_joules, generate
from weft.dataflow.config_io import load_spec
from weft.dataflow.fusion.fuse import fuse
from weft.dataflow.schedule import schedule
from weft.simulator.decode import decode
from weft.simulator.memory import memory_need
from weft.simulator.step import simulate
from weft.workloads.catalog import open_model
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.growth import BITS, growth
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Workload

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
    assert decode_joules(found) == sum(energy(result).zeptojoules for result in plain) / 10**21
    assert steps.at(3).ops == _step(small[heads], 16, scheme, batch).ops
    assert steps.last.phase == _step(small[heads], 18, scheme, batch).phase


@pytest.mark.parametrize("fusion", ["elementwise", "full"])
def test_a_fused_stream_equals_the_plain_loop(tmp_path: Path, fusion: str) -> None:
    """From 64 elements on a mask is bits, which grow by a byte in eight tokens."""
    longer, wide = tmp_path / "longer.json", replace(TINY, buffers=replace(TINY.buffers, output_bytes=1 << 16))
    longer.write_text((SMALL % 4).replace('"max_position_embeddings": 64', '"max_position_embeddings": 96'))

    def fused(context: int) -> Workload:
        return fuse(_step(str(longer), context), fusion)

    steps = growth(70, 12, fused)
    found = decode(steps, wide)
    plain = [simulate(schedule(fused(70 + i), wide)) for i in range(12)]

    assert (fusion == "full") is any(BITS in rates.values() for rates in steps.rates.values())
    assert [steps.at(i).ops for i in range(12)] == [fused(70 + i).ops for i in range(12)]
    assert found.by_step == tuple(result.cycles.total for result in plain)
    assert found.dram_bytes == sum(result.counts.dram_bytes for result in plain)
    assert decode_joules(found) == sum(energy(result).zeptojoules for result in plain) / 10**21


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
    found = generate(prompt, growth(12, 4, lambda context: _step(small[1], context)), TINY)
    assert found.first_token_seconds == found.prefill.cycles.total / TINY.clock_hz
    assert found.tokens_per_s == pytest.approx(4 * TINY.clock_hz / sum(found.decoded.by_step))
    assert found.tokens_per_s <= found.roof_tokens_per_s
    assert found.prefill_joules == energy(found.prefill).joules
    head = [op for op in prompt.matrix_ops if op.gemm.n == 80]
    assert [op.gemm.m for op in head] == [1], "only the last token's scores are made"
