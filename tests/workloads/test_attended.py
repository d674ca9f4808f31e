"""A step whose attention is by blocks: its products, what choosing takes by hand, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import weft
from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.workloads.attended import SELECT_PASSES, attended
from weft.workloads.blocks import BestBlocks, Blocks, Causal, Routed, SparkKeys, TopKeys, VerticalSlash, Window
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.operand import Operand, Role
from weft.workloads.step import MatrixOp, VectorOp, Workload

ALL = (
    Causal(),
    Window(keys=8, sinks=2),
    BestBlocks(keep=2),
    VerticalSlash(verticals=2, slashes=2),
    TopKeys(keep=6, channels=2),
    SparkKeys(keep=6, channels=2),
    Routed(clusters=4),
)


@pytest.mark.parametrize("pattern", ALL, ids=lambda pattern: pattern.kind)
@pytest.mark.parametrize("use", ["prefill", "decode"])
def test_a_step_has_the_products_of_kept_pairs_and_all_else_as_it_was(steps: Any, use: str, pattern: Any) -> None:
    step, blocks = steps[use], Blocks(pattern=pattern, block=8)
    queries, heads, width, layers = (40 if use == "prefill" else 1), 4, 8, 2
    found = attended(step, blocks)
    pairs = blocks.pairs(queries, 40)

    kept = [op for op in found.matrix_ops if op.parameter is None and op.op != "blocks.product"]
    assert sum(op.macs for op in kept) == layers * 2 * heads * width * pairs
    weights = [[op for op in one.matrix_ops if op.parameter is not None] for one in (step, found)]
    assert weights[0] == weights[1]
    softmax = [
        sum(op.elements for op in one.ops if isinstance(op, VectorOp) and op.op == "aten._softmax")
        for one in (step, found)
    ]
    assert softmax == [layers * heads * queries * 40, layers * heads * pairs]
    simulate(schedule(found, load_spec("tiny"), Objective.CYCLES), witness=True)


def chosen(step: Workload, pattern: Any) -> tuple[list[str], int, int]:
    """What choosing takes in the first layer: products, elements and bytes of vector work."""
    ops = [op for op in attended(step, Blocks(pattern=pattern, block=8)).ops if "layers.0" in op.name]
    products = [str(op.gemm) for op in ops if isinstance(op, MatrixOp) and op.op == "blocks.product"]
    work = [op for op in ops if isinstance(op, VectorOp) and op.op.startswith("blocks.")]
    return products, sum(op.elements for op in work), sum(op.moved for op in work)


def test_choosing_is_not_free(steps: Any) -> None:
    """Four heads of 8 channels, 40 tokens in 5 blocks; words of two bytes, and three times the indices: written once,
    read by scores and values."""
    prompt, token, passes = steps["prefill"], steps["decode"], SELECT_PASSES
    assert chosen(prompt, Causal()) == chosen(prompt, Window(keys=8)) == ([], 0, 0)
    # All queries and keys are pooled; 5 x 5 scores; 1 + 4 x 2 blocks.
    pooled = 4 * 2 * 40 * 8
    scores = passes * 4 * 25
    moved = 2 * (pooled + 4 * 10 * 8 + scores) + 3 * 4 * 2 * 9
    assert chosen(prompt, BestBlocks(keep=2)) == (["4 x 5 x 8 x 5"], pooled + scores, moved)
    # One key is added to the pool of its block, which is read and written.
    moved = 2 * (3 * 4 * 8 + passes * 4 * 5) + 3 * 4 * 2 * 2
    assert chosen(token, BestBlocks(keep=2)) == (["4 x 1 x 8 x 5"], 4 * 8 + passes * 4 * 5, moved)
    # Labels of new queries and keys are copied; every score of a label is looked at.
    labels, scores = 2 * 4 * 2, passes * 4 * 40
    moved = 2 * (2 * labels + scores) + 3 * 4 * 2 * 6
    assert chosen(token, TopKeys(keep=6, channels=2)) == (["4 x 1 x 2 x 40"], labels + scores, moved)
    # Two looks for mean and deviation of every score, one at what lies above; a threshold a query, written and read.
    moved = 2 * (2 * 4 * 40 + 2 * 4) + 3 * 4 * 2 * 6
    assert chosen(token, SparkKeys(keep=6, channels=2)) == (["4 x 1 x 2 x 40"], 3 * 4 * 40, moved)
    # A token's query and key find their cluster.
    assert chosen(token, Routed(clusters=4))[:2] == (["4 x 2 x 8 x 4"], passes * 4 * 2 * 4)
    # Of vertical-slash the prompt's last 64 queries, here all, see all keys; a token reads what they chose.
    seen = 4 * 40 * 40
    products, elements, _ = chosen(prompt, VerticalSlash(verticals=2, slashes=2))
    assert (products, elements) == (["4 x 40 x 8 x 40"], 3 * seen + passes * 2 * 4 * 40)
    assert chosen(token, VerticalSlash(verticals=2, slashes=2)) == ([], 4 * 4, 2 * 4 * 2 * 4)


def test_a_threshold_costs_less_than_a_sort(steps: Any) -> None:
    """Of as many keys by as many channels nothing else differs."""
    for step in steps.values():
        (products, work, moved), (same, less, fewer) = (
            chosen(step, of(keep=6, channels=2)) for of in (TopKeys, SparkKeys)
        )
        assert same == products and less < work and fewer < moved


def test_a_window_as_long_as_all_tokens_is_causal(steps: Any) -> None:
    wide, all_ = (attended(steps["prefill"], Blocks(pattern=p, block=8)).ops for p in (Window(keys=40), Causal()))
    assert wide == all_


def test_a_run_has_the_attention_that_it_is_asked_for(gqa: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["run", str(gqa), "--for", "decode", "--context", "39", "--arch", "tiny", "--json"]
    cycles = []
    for attention in ("full", "best-blocks@2/8"):
        assert main([*asked, "--attention", attention]) == 0
        cycles.append(json.loads(capsys.readouterr().out)["cycles"])
    assert cycles[1] < cycles[0]


def of_size(elements: int) -> Operand:
    return Operand(role=Role.ACTIVATION, dtype="bfloat16", bytes=2 * elements)


@cache
def trained() -> Workload:
    return weft.trace("lfc", batch=4)


def test_what_has_no_such_attention_is_refused(steps: Any) -> None:
    products = [op for op in steps["prefill"].matrix_ops if op.parameter is None][:1]
    square = replace(products[0], gemm=Gemm(m=40, k=40, n=40), **{x: of_size(1600) for x in "abc"})
    eight = replace(steps["prefill"], ops=(square,), after=(), tensors=())
    with pytest.raises(InputError, match="'lfc' keeps no keys and values"):
        attended(trained(), Blocks(pattern=Causal()))
    with pytest.raises(InputError, match="block of attention must be"):
        Blocks(pattern=Causal(), block=0)
    with pytest.raises(InputError, match="attention by top-keys has no blocks"):
        Blocks(pattern=TopKeys(keep=1, channels=1)).mask(2, 2)
    with pytest.raises(InputError, match="queries of attention must be"):
        Blocks(pattern=Causal()).tiles(3, 2)
    with pytest.raises(InputError, match="heads as wide as there are keys; choose another context"):
        attended(eight, Blocks(pattern=Causal()))
    with pytest.raises(InputError, match="no product of 'llama' multiplies"):
        attended(attended(steps["prefill"], Blocks(pattern=Window(keys=1), block=1)), Blocks(pattern=Causal()))
