"""Attention by blocks: tiles against a walk over tokens, bytes and predictors by hand, and a step that is rewritten."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.workloads.blocks import (
    SELECT_PASSES,
    BestBlocks,
    Blocks,
    Causal,
    Routed,
    Tile,
    TopKeys,
    VerticalSlash,
    Window,
    attended,
)
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.operand import Operand, Role
from weft.workloads.step import MatrixOp, VectorOp, Workload

from ..examples_drawn import examples

GQA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "vocab_size": 64,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workload]:
    """A prompt of 40 tokens, and a token behind 39 others."""
    folder: Path = tmp_path_factory.mktemp("gqa")
    (folder / "config.json").write_text(json.dumps(GQA))
    return {
        "prefill": weft.trace(folder / "config.json", use="prefill", context=40),
        "decode": weft.trace(folder / "config.json", use="decode", context=39),
    }


def sees(pattern: Any, query: int, key: int, block: int, blocks: int) -> bool:
    """Whether a token may look at another, or whether its whole block may, token by token."""
    t, j = query // block, key // block
    match pattern:
        case Causal():
            return True
        case Window(keys=width, sinks=sinks):
            return query - key < width or key < sinks
        case BestBlocks(keep=keep):
            return t - j < keep
        case VerticalSlash(verticals=verticals, slashes=slashes):
            upright = {i * blocks // verticals for i in range(verticals)}
            return j in upright or t - j in {i * blocks // slashes for i in range(slashes)}
    raise AssertionError(pattern)


PATTERNS = st.one_of(
    st.just(Causal()),
    st.builds(Window, keys=st.integers(1, 12), sinks=st.integers(0, 5)),
    st.builds(BestBlocks, keep=st.integers(1, 5)),
    st.builds(VerticalSlash, verticals=st.integers(0, 8), slashes=st.integers(1, 8)),
)


@settings(deadline=None, max_examples=examples(150))
@given(PATTERNS, st.integers(1, 7), st.integers(1, 30), st.data())
def test_tiles_are_those_of_a_walk_over_tokens(pattern: Any, block: int, keys: int, data: st.DataObject) -> None:
    """A tile meets every block of which any of its queries sees a key not behind it."""
    queries = data.draw(st.sampled_from((1, keys)))
    blocks = Blocks(pattern=pattern, block=block)
    met: dict[int, set[int]] = {}
    for query in range(keys - queries, keys):
        for key in range(query + 1):
            if sees(pattern, query, key, block, -(-keys // block)):
                met.setdefault(query // block, set()).add(key // block)
    walked: Counter[Tile] = Counter()
    for t, found in met.items():
        rows = sum(t == query // block for query in range(keys - queries, keys))
        walked[Tile(rows, sum(key // block in found for key in range(keys)))] += 1

    assert blocks.tiles(queries, keys) == dict(walked)


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(1, 12), st.integers(1, 30), st.data())
def test_every_query_has_its_own_keys(keep: int, keys: int, data: st.DataObject) -> None:
    queries = data.draw(st.integers(1, keys))
    one_by_one = Counter(Tile(1, min(keep, query + 1)) for query in range(keys - queries, keys))

    assert Blocks(pattern=TopKeys(keep=keep, channels=2)).tiles(queries, keys) == dict(one_by_one)


def test_pairs_of_tokens_and_bytes_of_indices_by_hand() -> None:
    assert Blocks(pattern=Causal(), block=1).pairs(10, 10) == 55
    assert Blocks(pattern=Causal(), block=4).pairs(10, 10) == 4 * 4 + 4 * 8 + 2 * 10
    assert Blocks(pattern=Window(keys=3, sinks=1), block=1).pairs(6, 6) == 1 + 2 + 3 + 4 + 4 + 4
    assert Blocks(pattern=TopKeys(keep=3, channels=2)).pairs(5, 5) == 1 + 2 + 3 + 3 + 3
    assert Blocks(pattern=Routed(clusters=3)).tiles(10, 10) == {Tile(3, 4): 2, Tile(4, 4): 1}
    # A number of two bytes for each kept block of 1, 2 and 2; for each kept key; for each vertical and slash.
    assert Blocks(pattern=BestBlocks(keep=2), block=4).index_bytes(10, 10) == 2 * (1 + 2 + 2)
    assert Blocks(pattern=TopKeys(keep=3, channels=2)).index_bytes(5, 5) == 2 * 12
    assert Blocks(pattern=VerticalSlash(verticals=2, slashes=3), block=4).index_bytes(10, 10) == 2 * 5
    assert Blocks(pattern=Causal()).index_bytes(10, 10) == Blocks(pattern=Window(keys=2)).index_bytes(10, 10) == 0


ALL = (
    Causal(),
    Window(keys=8, sinks=2),
    BestBlocks(keep=2),
    VerticalSlash(verticals=2, slashes=2),
    TopKeys(keep=6, channels=2),
    Routed(clusters=4),
)


@pytest.mark.parametrize("pattern", ALL, ids=lambda pattern: pattern.kind)
@pytest.mark.parametrize("use", ["prefill", "decode"])
def test_a_step_has_the_products_of_kept_pairs_and_all_else_as_it_was(steps: Any, use: str, pattern: Any) -> None:
    step, blocks = steps[use], Blocks(pattern=pattern, block=8)
    queries, heads, width, layers = (40 if use == "prefill" else 1), 4, 8, 2
    found = attended(step, blocks)
    pairs = blocks.pairs(queries, 40)

    kept = [op for op in found.matrix_ops if op.parameter is None and op.op != "blocks.scores"]
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
    products = [str(op.gemm) for op in ops if isinstance(op, MatrixOp) and op.op == "blocks.scores"]
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
    # A token's query and key find their cluster.
    assert chosen(token, Routed(clusters=4))[:2] == (["4 x 2 x 8 x 4"], passes * 4 * 2 * 4)
    # Of vertical-slash the prompt's last 64 queries, here all, see all keys; a token reads what they chose.
    seen = 4 * 40 * 40
    products, elements, _ = chosen(prompt, VerticalSlash(verticals=2, slashes=2))
    assert (products, elements) == (["4 x 40 x 8 x 40"], 3 * seen + passes * 2 * 4 * 40)
    assert chosen(token, VerticalSlash(verticals=2, slashes=2)) == ([], 4 * 4, 2 * 4 * 2 * 4)


def test_a_window_as_long_as_all_tokens_is_causal(steps: Any) -> None:
    wide, all_ = (attended(steps["prefill"], Blocks(pattern=p, block=8)).ops for p in (Window(keys=40), Causal()))
    assert wide == all_


@given(st.one_of(PATTERNS, st.sampled_from((TopKeys(keep=6, channels=2), Routed(clusters=4)))), st.integers(1, 512))
def test_a_pattern_is_read_as_it_is_written(pattern: Any, block: int) -> None:
    blocks = Blocks(pattern=pattern, block=block)
    assert Blocks.read(str(blocks)) == blocks


def test_what_may_be_left_out_of_a_pattern_and_what_is_none() -> None:
    assert Blocks.read("window@9") == Blocks(pattern=Window(keys=9, sinks=0), block=128)
    for text, problem in (
        ("windw@3", "pattern 'windw' is unknown: did you mean 'window'"),
        ("window", "is not of the form window@KEYS:SINKS/128, whole numbers all"),
        ("top-keys@3", "is not of the form top-keys@KEEP:CHANNELS/128"),
        ("causal@3", "is not of the form causal/128"),
        ("routed@a", "is not of the form routed@CLUSTERS/128"),
        ("routed@2/", "is not of the form routed@CLUSTERS/128"),
        ("best-blocks@0", "keep of best blocks must be"),
    ):
        with pytest.raises(InputError, match=re.escape(problem)):
            Blocks.read(text)


def test_a_run_has_the_attention_that_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GQA))
    asked = ["run", str(tmp_path / "config.json"), "--for", "decode", "--context", "39", "--arch", "tiny", "--json"]
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
