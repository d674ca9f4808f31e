"""What random features cost: by hand, and by a run over one head that counts what it multiplies and is right."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import schedule
from weft.simulator.memory import memory_need
from weft.simulator.step import simulate
from weft.workloads.attended import attended
from weft.workloads.blocks import BestBlocks, Blocks, Causal, TopKeys, Window
from weft.workloads.errors import InputError
from weft.workloads.phase import Cached
from weft.workloads.step import MatrixOp, VectorOp, Workload

HEADS, WIDTH, TOKENS, BLOCK, FEATURES = 4, 8, 40, 8, 6


def of_first_layer(step: Workload, blocks: Blocks) -> tuple[Counter[str], dict[str, VectorOp]]:
    """Products without a weight, and vector work of random features."""
    ops = [op for op in attended(step, blocks).ops if ".layers.0." in op.name]
    work = {op.op: op for op in ops if isinstance(op, VectorOp) and op.op.startswith("low-rank.")}
    return Counter(str(op.gemm) for op in ops if isinstance(op, MatrixOp) and op.parameter is None), work


def test_a_prompt_by_hand(steps: Any) -> None:
    """A window of a block: the first tile meets itself, four others two blocks each."""
    products, work = of_first_layer(steps["prefill"], Blocks(pattern=Window(keys=8), block=8, features=6))
    assert products == Counter(
        [
            *("4 x 8 x 8 x 8", "16 x 8 x 8 x 16"),  # scores
            "320 x 8 x 6",  # directions of 4 x 40 queries and as many keys
            *("20 x 6 x 8 x 8", "20 x 8 x 6 x 8"),  # sums of 4 x 5 blocks, and what their queries read
            *("4 x 8 x 6 x 8", "16 x 8 x 6 x 16"),  # by features what is exact
            *("4 x 8 x 8 x 8", "16 x 8 x 16 x 8"),  # values
        ]
    )
    pairs, sums, results = 4 * (8 * 8 + 4 * 8 * 16), 4 * 6 * 9, 4 * 40 * 9
    assert {name: (op.elements, op.read_bytes, op.write_bytes) for name, op in work.items()} == {
        "low-rank.lengths": (320 * 8, 2 * 320 * 8, 2 * 320),
        "low-rank.exponentials": (320 * 6, 2 * 320 * 7, 2 * 320 * 6),
        # Of blocks, with the features of keys in a ninth column, which are added up as well.
        "low-rank.sum": (5 * sums + 160 * 6, 2 * (5 * 4 * 6 * 8 + 160 * 6), 2 * 5 * sums),
        "low-rank.normaliser": (160 * 6, 2 * (160 * 6 + 5 * 4 * 6), 2 * 160),
        # A difference of two, which is added up.
        "low-rank.correct": (2 * pairs, 4 * pairs, 2 * (pairs + 160)),
        "low-rank.add": (results, 4 * results, 2 * results),
        "low-rank.divide": (4 * 40 * 8, 2 * results, 2 * 4 * 40 * 8),
    }
    # The last sum is kept, in FP32.
    assert [(op.wide_read, op.wide_write) for op in work.values() if op.wide_write] == [(0, 4 * sums)]


def test_a_token_reads_a_sum_in_the_place_of_keys(steps: Any) -> None:
    products, work = of_first_layer(steps["decode"], Blocks(pattern=Window(keys=8), block=8, features=6))
    scores, values = "4 x 1 x 8 x 8", "4 x 1 x 8 x 8"
    assert products == Counter([scores, "8 x 8 x 6", "4 x 1 x 6 x 8", "4 x 1 x 6 x 8", values])
    sums = 4 * 6 * 9
    assert {name: (op.elements, op.moved) for name, op in work.items()} == {
        "low-rank.lengths": (8 * 8, 2 * (8 * 8 + 8)),
        "low-rank.exponentials": (8 * 6, 2 * (8 * 7 + 8 * 6)),
        # Features and a value of every head, the sum in FP32 read and written, and a copy of it for the array.
        "low-rank.sum": (sums, 2 * 4 * (6 + 8) + 2 * sums + 8 * sums),
        "low-rank.normaliser": (4 * 6, 2 * (2 * 4 * 6 + 4)),
        "low-rank.correct": (2 * 4 * 8, 6 * 4 * 8 + 2 * 4),
        "low-rank.add": (4 * 9, 6 * 4 * 9),
        "low-rank.divide": (4 * 8, 2 * 4 * 9 + 2 * 4 * 8),
    }


@dataclass
class Head:
    """One head of attention with random features, block by block, that counts what it multiplies."""

    q: Any
    k: Any
    v: Any
    along: Any
    seen: Any
    macs: int = 0

    def times(self, a: Any, b: Any) -> Any:
        self.macs += a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b

    def phi(self, x: Any) -> Any:
        return np.exp(self.times(x, self.along.T) - (x * x).sum(1, keepdims=True) / 2) / math.sqrt(len(self.along))

    def weighed(self, weights: Any, rows: Any) -> Any:
        """Sums of values, and of weights, which no product makes, in a last column."""
        return np.column_stack([self.times(weights, self.v[rows]), weights.sum(1)])

    def read(self, of_q: Any, total: Any) -> Any:
        return np.column_stack([self.times(of_q, total[:, :-1]), of_q @ total[:, -1]])

    def prompt(self, by_block: bool, tiles: list[tuple[list[int], list[int]]]) -> Any:
        of_q, of_k = self.phi(self.q), self.phi(self.k)
        made, total = np.zeros((TOKENS, WIDTH + 1)), np.zeros((len(self.along), WIDTH + 1))
        for start in range(0, TOKENS, BLOCK):
            rows = slice(start, start + BLOCK)
            made[rows] += self.read(of_q[rows], total)
            total = total + self.weighed(of_k[rows].T, rows)
            if not by_block:
                made[rows] += self.weighed(np.tril(self.times(of_q[rows], of_k[rows].T)), rows)
        for rows, keys in tiles:
            exact, rough = np.exp(self.times(self.q[rows], self.k[keys].T)), self.times(of_q[rows], of_k[keys].T)
            seen, i, j = self.seen[np.ix_(rows, keys)], np.array(rows)[:, None], np.array(keys)[None]
            in_sums = j // BLOCK < i // BLOCK if by_block else j <= i
            weights = np.where(seen, exact, np.where(j <= i, rough, 0)) - np.where(in_sums, rough, 0)
            made[rows] += self.weighed(weights, keys)
        return made[:, :-1] / made[:, -1:]

    def token(self, keys: list[int]) -> Any:
        last = slice(TOKENS - 1, None)
        all_keys = self.phi(self.k)
        before = self.weighed(all_keys[:-1].T, slice(TOKENS - 1))
        self.macs = 0
        of_q, of_new = self.phi(self.q[last]), self.phi(self.k[last])
        total = before + of_new.T * np.pad(self.v[last], ((0, 0), (0, 1)), constant_values=1.0)
        exact, rough = np.exp(self.times(self.q[last], self.k[keys].T)), self.times(of_q, all_keys[keys].T)
        made = self.read(of_q, total) + self.weighed(exact - rough, keys)
        return made[:, :-1] / made[:, -1:]

    def pair_by_pair(self, query: int) -> Any:
        weights = []
        for key in range(query + 1):
            if self.seen[query, key]:
                weights.append(math.exp(sum(self.q[query] * self.k[key])))
            else:
                both = [math.exp(sum(w * x) - sum(x * x) / 2) for w in self.along for x in (self.q[query], self.k[key])]
                weights.append(sum(a * b for a, b in zip(both[::2], both[1::2], strict=True)) / len(self.along))
        return sum(w * row for w, row in zip(weights, self.v, strict=False)) / sum(weights)


def head(blocks: Blocks, seed: int) -> tuple[Head, list[tuple[list[int], list[int]]]]:
    """Of 40 tokens, with the tiles of a pattern, queries and keys of each; keys of a query's own are drawn."""
    rng = np.random.default_rng(seed)
    q, k, v = 0.7 * rng.standard_normal((3, TOKENS, WIDTH))
    i, j = np.arange(TOKENS)[:, None], np.arange(TOKENS)[None]
    match blocks.pattern:
        case TopKeys(keep=keep):
            own = [sorted(rng.choice(t + 1, min(keep, t + 1), replace=False).tolist()) for t in range(TOKENS)]
            seen = np.array([[key in own[t] for key in range(TOKENS)] for t in range(TOKENS)])
            tiles = [([t], own[t]) for t in range(TOKENS)]
        case _:
            met = blocks.mask(TOKENS, TOKENS)
            seen = np.kron(met, np.ones((BLOCK, BLOCK), bool)) & (j <= i)
            if isinstance(blocks.pattern, Window):
                seen &= i - j < blocks.pattern.keys
            tiles = [
                (list(range(t * BLOCK, t * BLOCK + BLOCK)), [x for x in range(TOKENS) if row[x // BLOCK]])
                for t, row in enumerate(met)
            ]
    return Head(q=q, k=k, v=v, along=rng.standard_normal((FEATURES, WIDTH)), seen=seen), tiles


@pytest.mark.parametrize(
    "pattern", [Causal(), Window(keys=5), Window(keys=12), BestBlocks(keep=2), TopKeys(keep=6, channels=2)]
)
def test_a_run_that_counts_multiplies_what_the_step_is_charged_and_is_right(steps: Any, pattern: Any) -> None:
    blocks = Blocks(pattern=pattern, block=BLOCK, features=FEATURES)
    one, tiles = head(blocks, 1)
    result = one.prompt(blocks.by_block, tiles)
    for query in (0, 7, 8, 21, 39):
        assert result[query] == pytest.approx(one.pair_by_pair(query), rel=1e-9)
    assert charged(steps["prefill"], blocks) == HEADS * one.macs

    keys = next(keys for rows, keys in tiles if 39 in rows)
    behind = [key for key in keys if one.seen[39, key]]
    assert one.token(behind)[0] == pytest.approx(one.pair_by_pair(39), rel=1e-9)
    whole_blocks = Head(one.q, one.k, one.v, one.along, one.seen)
    whole_blocks.token([39] * blocks.pairs(1, 40))
    assert charged(steps["decode"], blocks) == HEADS * whole_blocks.macs


def charged(step: Workload, blocks: Blocks) -> int:
    """Multiply-accumulates of the first layer that have no weight, but for those that choose keys."""
    ops = [op for op in attended(step, blocks).matrix_ops if ".layers.0." in op.name and op.parameter is None]
    return sum(op.macs for op in ops if op.op != "blocks.product")


@pytest.mark.parametrize("use", ["prefill", "decode"])
def test_features_change_nothing_else(steps: Any, use: str) -> None:
    plain, found = (attended(steps[use], Blocks(pattern=Window(keys=8), block=8, features=m)) for m in (0, 6))
    rest = [op for op in found.ops if not isinstance(op, MatrixOp | VectorOp) or not op.op.startswith("low-rank.")]
    assert tuple(rest) == plain.ops
    simulate(schedule(found, load_spec("tiny"), Objective.CYCLES), witness=True)


def test_features_and_sums_are_kept_between_tokens(steps: Any) -> None:
    """Of two heads of keys, 40 tokens, two layers."""
    spec = load_spec("tiny")
    blocks = Blocks(pattern=Window(keys=8), block=8, features=6)
    found = attended(steps["decode"], blocks)
    more = memory_need(found, spec).kv_cache - memory_need(steps["decode"], spec).kv_cache
    assert more == 2 * (2 * 40 * 2 * 6 + 4 * 2 * 6 * 9)
    assert [c.grows for c in found.phase.cached if c.name.startswith("layers.0.")] == [True, True, True, False]


def test_attention_without_queries_and_keys_of_its_own_is_refused(steps: Any) -> None:
    blocks, step = Blocks(pattern=Causal(), features=6), steps["decode"]
    ops = tuple(
        replace(op, name="elsewhere") if isinstance(op, MatrixOp) and op.gemm.n == 40 and not op.parameter else op
        for op in step.ops
    )
    with pytest.raises(InputError, match="multiplies values by scores of another module"):
        attended(replace(step, ops=ops, after=(), tensors=()), blocks)
    odd = replace(step.phase, cached=(Cached(name="layers.0.keys", dtype="bfloat16", elements=41),))
    with pytest.raises(InputError, match=r"'layers.0.keys' holds 41 elements of 40 tokens, which are no keys of heads"):
        attended(replace(step, phase=odd), blocks)
