"""Models in use against rooflines by hand: from the models' published shapes and two numbers of the machine.

Nothing of a trace, a schedule or a cost is asked for what stands on the right side.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

import weft
from weft.simulator.system import step_time
from weft.simulator.transfers import OneRate
from weft.workloads.step import MatrixOp

LLAMA = 32 * (4 * 4096**2 + 3 * 4096 * 11008), 32_000 * 4096
"""Weights of the layers, and of the head (arXiv 2307.09288)."""
BERT = 12 * 12 * 768**2, 768**2 + 768 * 30_522
"""Of layers of 12 x 768^2; transform and vocabulary of the masked language model's head."""
GPT2 = 12 * 12 * 768**2, 768 * 50_257


def _products(name: str, use: str, machine: str, batch: int, **length: int) -> tuple[int, int]:
    """Cycles of the products with weights, and how many they are."""
    step, spec = weft.trace(name, batch=batch, use=use, **length), weft.machine(machine)
    done = [r for r in weft.simulate(weft.schedule(step, spec)).ops if isinstance(r.op, MatrixOp) and r.op.parameter]
    return sum(r.cycles.total for r in done), len(done)


@pytest.mark.slow
def test_a_token_of_llama_takes_its_weights_bytes_at_the_memorys_rate():
    """460 GB/s, 92 % reached; each product waits once until 1,024 columns are filled, at 300 MHz."""
    cycles, products = _products("llama2_7b", "decode", "hbm-u55c", 1, context=512)
    by_hand = 2 * sum(LLAMA) / (460e9 * 0.92) * 300e6

    assert products == 32 * 7 + 1
    assert by_hand <= cycles <= 1.026 * by_hand
    assert cycles <= 1.002 * (by_hand + 1024 * products)


@pytest.mark.slow
def test_a_prompt_of_llama_takes_its_products_at_the_arrays_peak():
    """4 x 1,024 multiply-accumulates a cycle; the head makes the last token's scores alone."""
    layers, head = LLAMA
    cycles, _ = _products("llama2_7b", "prefill", "hbm-u55c", 1, context=512)

    assert 1 <= cycles / (512 * layers / 4096 + 2 * head / (460e9 * 0.92) * 300e6) <= 1.02


def test_a_prompt_of_gpt2_takes_its_products_at_the_arrays_peak():
    """32 x 32 multiply-accumulates a cycle; the head makes the last token's scores alone."""
    layers, _ = GPT2
    cycles, _ = _products("gpt2", "prefill", "sat-vcu1525", 8, context=512)

    assert 1 <= cycles / (8 * 512 * layers / 1024) <= 1.02


def test_tokens_of_gpt2_for_32_take_their_products_at_the_arrays_peak():
    """As many rows as the array has; at batch 1 the array, not the memory, is what a token waits for."""
    cycles, _ = _products("gpt2", "decode", "sat-vcu1525", 32, context=512)

    assert 1 <= cycles / (32 * sum(GPT2) / 1024) <= 1.02


def test_bert_takes_its_products_at_the_arrays_peak():
    cycles, _ = _products("bert_base", "infer", "sat-vcu1525", 1)

    assert 1 <= cycles / (512 * sum(BERT) / 1024) <= 1.02


def test_resnet50_takes_its_products_at_the_arrays_peak():
    """4.09 G multiply-accumulates an image at 224 x 224 (4.09 by torchvision's page of the model)."""
    cycles, _ = _products("resnet50", "infer", "sat-vcu1525", 16)

    assert cycles / (16 * 4.0892e9 / 1024) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_a_tokens_products_wait_for_the_memory_alone_where_the_next_weight_comes_ahead():
    """The machine's one rate, products one after the other: what a product's drain hides is no longer waited for."""
    step, spec = weft.trace("llama2_7b", batch=1, use="decode", context=512), weft.machine("hbm-u55c")
    products = tuple(op for op in step.ops if isinstance(op, MatrixOp) and op.parameter)
    chain = tuple((i - 1,) if i else () for i in range(len(products)))
    plan = weft.schedule(replace(step, ops=products, after=chain, tensors=()), spec)
    by_hand = 2 * sum(LLAMA) / (460e9 * 0.92) * 300e6

    assert by_hand <= step_time(plan, transfers=OneRate()) <= 1.001 * by_hand
