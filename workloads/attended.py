"""A step of use whose attention looks at some keys alone: products of kept keys, and what choosing them takes.

Products are those of the tiles of a pattern (`blocks.py`), which any engine takes, and beside them stands what the
choice costs: no choice is free but one that everybody knows in advance. As eager attention does, every head reads a
copy of its keys and values, and vector work on scores is what was traced, of kept scores alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, assert_never

from .beside_scores import Beside
from .blocks import INDEX_BYTES, BestBlocks, Blocks, Causal, Routed, SparkKeys, TopKeys, VerticalSlash, Window
from .errors import InputError
from .gemm import Gemm
from .low_rank_attention import LowRank
from .resized import resized, thinned
from .step import MatrixOp, Op, VectorOp, Workload

__all__ = ["CHOOSING", "PROBES", "SELECT_PASSES", "attended"]

CHOOSING: Final = "blocks"
"""What stands before the names of ops that choose keys."""

SELECT_PASSES: Final = 4
"""Passes over 16-bit scores that find the k largest, four bits of them each (a radix select; assumed)."""
PROBES: Final = 64
"""Last queries that vertical-slash is estimated by (MInference, arXiv 2407.02490: last_q = 64)."""


def attended(workload: Workload, blocks: Blocks) -> Workload:
    """A step of use, prefill or decode, with its attention by ``blocks``; refused where it has none."""
    phase = workload.phase
    keys, queries = phase.context + phase.tokens, phase.tokens
    if not phase.cached:
        raise InputError(
            f"{workload.model!r} keeps no keys and values, so it has no attention to be counted by blocks: trace it "
            "for prefill or decode"
        )
    scores = {op.name: op for op in workload.matrix_ops if _side(op, queries, keys) == "scores"}
    if not scores:
        raise InputError(f"no product of {workload.model!r} multiplies {queries} queries by {keys} keys")
    kept, pairs = blocks.pairs(queries, keys), queries * keys
    rest = LowRank(blocks, queries, keys) if blocks.features else None
    made: list[Op] = []
    for op in workload.ops:
        match op:
            case MatrixOp() if (side := _side(op, queries, keys)) is not None:
                if side == "scores":
                    made += [*_predictor(op, blocks, queries, keys), *_products(op, blocks, queries, keys)]
                elif rest is None:
                    made += _products(op, blocks, queries, keys)
                else:
                    made += rest.around(scores.get(op.name), op, _products(op, blocks, queries, keys))
            case VectorOp() if op.name in scores and op.elements in _shrinking(scores[op.name].gemm):
                made.append(thinned(op, kept, pairs))
            case _:
                made.append(op)
    return replace(
        workload,
        ops=tuple(made),
        after=(),
        tensors=(),
        input=", ".join(filter(None, (workload.input, f"attention {blocks}"))),
        phase=phase if rest is None else replace(phase, cached=(*phase.cached, *rest.cached(phase.cached))),
    )


def _shrinking(scores: Gemm) -> tuple[int, ...]:
    """Elements of what is there for kept pairs alone: scores, and behind one token the keys, or values, of all heads,
    which copy those that they look at."""
    g = scores
    return (g.groups * g.m * g.n, *((g.groups * g.k * g.n,) if g.m == 1 else ()))


def _side(op: Op, queries: int, keys: int) -> Literal["scores", "values"] | None:
    """Which of the two products of attention an op is."""
    if not isinstance(op, MatrixOp) or op.parameter is not None or op.convolution or op.gemm.m != queries:
        return None
    if op.gemm.n == op.gemm.k == keys:
        raise InputError(f"{op.name!r} has {op.gemm}: heads as wide as there are keys; choose another context")
    return "scores" if op.gemm.n == keys else "values" if op.gemm.k == keys else None


def _products(op: MatrixOp, blocks: Blocks, queries: int, keys: int) -> list[MatrixOp]:
    """The tiles of a product, of all heads; each reads its own keys or values."""
    g, scores = op.gemm, _side(op, queries, keys) == "scores"
    return [
        resized(op, Gemm(m=t.rows, k=g.k if scores else t.keys, n=t.keys if scores else g.n, groups=g.groups * count))
        for t, count in blocks.tiles(queries, keys).items()
    ]


def _predictor(op: MatrixOp, blocks: Blocks, queries: int, keys: int) -> list[Op]:
    """What choosing keys takes, before the scores ``op``: products of less, and the k largest of what they give; and
    what it chose, which scores and values both read."""
    heads, d = op.gemm.groups, op.gemm.k
    indices = heads * blocks.index_bytes(queries, keys)
    make = Beside(op, CHOOSING)

    def select(scores: int) -> VectorOp:
        return make.vector("select", SELECT_PASSES * scores, SELECT_PASSES * scores, 0, (2 * indices, indices))

    many_q, many_k = -(-queries // blocks.block), -(-keys // blocks.block)
    match blocks.pattern:
        case Causal() | Window():
            return []
        case BestBlocks():
            # Of tokens that were there before pooled keys are kept, to the last of which new keys are added.
            pool = heads * d * (2 * queries if queries > 1 else 1)
            written = heads * d * (2 * many_q if queries > 1 else 1)
            pooled = make.vector("pool", pool, pool + (0 if queries > 1 else written), written)
            return [pooled, make.product(many_q, d, many_k, heads), select(heads * many_q * many_k)]
        case VerticalSlash():
            if queries == 1:
                # As its prompt's last queries chose.
                return [make.vector("indices", indices // INDEX_BYTES, 0, 0, (2 * indices, 0))]
            probes = min(PROBES, queries)
            seen = heads * probes * keys
            return [
                make.product(probes, d, keys, heads),
                make.vector("softmax", seen, seen, seen),
                make.vector("sums", 2 * seen, 2 * seen, 2 * heads * keys),
                select(2 * heads * keys),
            ]
        case TopKeys(channels=channels):
            labels = 2 * heads * queries * channels
            return [
                make.vector("labels", labels, labels, labels),
                make.product(queries, channels, keys, heads),
                select(heads * queries * keys),
            ]
        case SparkKeys(channels=channels):
            # The first channels of a key lie side by side already.
            seen, limits = heads * queries * keys, heads * queries
            return [
                make.product(queries, channels, keys, heads),
                make.vector("mean and variance", 2 * seen, seen, limits),
                make.vector("above", seen, seen + limits, 0, (2 * indices, indices)),
            ]
        case Routed(clusters=clusters):
            tokens = 2 * queries  # queries and new keys
            return [make.product(tokens, d, clusters, heads), select(heads * tokens * clusters)]
        case _:
            assert_never(blocks.pattern)
