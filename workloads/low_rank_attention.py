"""What stands for the pairs that a pattern of attention leaves out: random features of the soft-max, Scatterbrain's.

Chen et al., arXiv 2110.15343, abstract read: sparse and low-rank attention at once. With positive features phi
(Performer's, from memory) exp(q k) is phi(q) phi(k) on average, so that a query needs of all keys behind it their sum
S = sum phi(k) [v, 1] alone, its normaliser in the last column; pairs that the pattern names are multiplied exactly, and
phi(q) phi(k) is taken away from them:

    [o, n] = phi(q) S + sum over kept pairs of (exp(q k) - phi(q) phi(k)) [v, 1],   the result o / n.

A prompt is summed up block by block: a block of queries reads the sum of the blocks before it, and its own block either
among its kept pairs, where the pattern has tiles of blocks, or by a product of its own. A token adds its key and value
to the sum and reads it once. As every head has a copy of its keys, it has features of its own; all heads of a layer
share their random directions. Sums are FP32, with a rounded copy for the array; normalisers are added up by the vector
unit, as another column of the products would often be another tile of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from .beside_scores import Beside
from .blocks import Blocks
from .errors import InputError
from .phase import Cached
from .step import MatrixOp, Op, VectorOp

__all__ = ["LOW_RANK", "LowRank"]

LOW_RANK: Final = "low-rank"
"""What stands before the names of its ops."""
_SUM_BYTES = 4


@dataclass(slots=True)
class LowRank:
    """Of all attention of a step, by its pattern and ``blocks.features``; ``queries`` are the last of ``keys``."""

    blocks: Blocks
    queries: int
    keys: int
    sizes: set[tuple[int, int]] = field(default_factory=set)
    """Channels of keys and of values of the heads that were seen."""

    def around(self, scores: MatrixOp | None, values: MatrixOp, kept: Sequence[MatrixOp]) -> list[Op]:
        """``kept``, the products of kept weights with values, between what makes their weights and the sum that stands
        for all others, and what adds and divides."""
        if scores is None or scores.gemm.groups != values.gemm.groups:
            raise InputError(
                f"{values.name!r} multiplies values by scores of another module, whose queries and keys are not known: "
                "random features need both; leave scatterbrain out"
            )
        work = _Work(scores, values, self.blocks)
        self.sizes.add((work.d, work.e))
        state = work.token() if self.queries == 1 else work.prompt(self.queries, self.keys)
        tiles = self.blocks.tiles(self.queries, self.keys)
        pairs = work.heads * self.blocks.pairs(self.queries, self.keys)
        exact = [work.product(t.rows, work.m, t.keys, work.heads * many) for t, many in tiles.items()]
        correct = work.vector("correct", 2 * pairs, 2 * pairs, pairs + work.heads * self.queries)
        sums = work.heads * self.queries * (work.e + 1)
        others = 1 + (self.queries > 1 and not self.blocks.by_block)
        return [
            *work.features(self.queries),
            *state,
            *exact,
            correct,
            *kept,
            work.vector("add", others * sums, (1 + others) * sums, sums),
            work.vector("divide", sums - work.heads * self.queries, sums, sums - work.heads * self.queries),
        ]

    def cached(self, held: Iterable[Cached]) -> list[Cached]:
        """What is kept beside keys and values: features of keys, and the sum of a head of keys and values."""
        found = []
        for one in held:
            layer, _, what = one.name.rpartition(".")
            if what != "keys":
                continue
            if len(self.sizes) != 1 or one.elements % (self.keys * min(self.sizes)[0]):
                raise InputError(
                    f"{one.name!r} holds {one.elements:,} elements of {self.keys:,} tokens, which are no keys of heads "
                    f"of {sorted(self.sizes)} channels: what features need is not known; leave scatterbrain out"
                )
            ((d, e),) = self.sizes
            heads, m = one.elements // (self.keys * d), self.blocks.features
            found.append(Cached(name=f"{layer}.features", dtype=one.dtype, elements=one.elements // d * m))
            found.append(Cached(name=f"{layer}.state", dtype="float32", elements=heads * m * (e + 1), grows=False))
        return found


class _Work:
    """Ops of one attention: ``heads`` of ``d`` channels of keys, ``e`` of values and ``m`` features."""

    def __init__(self, scores: MatrixOp, values: MatrixOp, blocks: Blocks) -> None:
        self.blocks = blocks
        self.product, self.vector = (of := Beside(scores, LOW_RANK)).product, of.vector
        self.heads, self.d, self.e, self.m = scores.gemm.groups, scores.gemm.k, values.gemm.n, blocks.features

    def features(self, queries: int) -> list[Op]:
        """Of new queries and keys: directions, half the squared lengths, and exponentials of the difference."""
        rows = 2 * self.heads * queries
        made = rows * self.m
        return [
            self.product(rows, self.d, self.m, 1),
            self.vector("lengths", rows * self.d, rows * self.d, rows),
            self.vector("exponentials", made, made + rows, made),
        ]

    def token(self) -> list[Op]:
        """The sum, to which a key and its value are added, and what the query reads of it."""
        size = self.heads * self.m * (self.e + 1)
        new = self.heads * (self.m + self.e)
        return [
            self.vector("sum", size, new, size, wide=(_SUM_BYTES * size, _SUM_BYTES * size)),
            self.product(1, self.m, self.e, self.heads),
            self.normaliser(1, 1),
        ]

    def prompt(self, queries: int, keys: int) -> list[Op]:
        """Sums of blocks, running sums of those before every block and behind the last, what queries read of them, and
        their own blocks where kept tiles have none."""
        blocks = self.blocks.query_blocks(queries, keys)
        many, features = sum(blocks.values()), self.heads * queries * self.m
        products, size = self.heads * self.m * self.e, self.heads * self.m * (self.e + 1)
        running = self.vector(
            "sum", features + many * size, features + many * products, many * size, wide=(0, _SUM_BYTES * size)
        )
        made: list[Op] = [
            *(self.product(self.m, rows, self.e, self.heads * of) for rows, of in blocks.items()),
            running,
            *(self.product(rows, self.m, self.e, self.heads * of) for rows, of in blocks.items()),
            self.normaliser(queries, many),
        ]
        for rows, of in () if self.blocks.by_block else blocks.items():
            groups = self.heads * of
            own = groups * rows * rows
            made += [
                self.product(rows, self.m, rows, groups),
                self.vector("own", 2 * own, own, own + groups * rows),
                self.product(rows, rows, self.e, groups),
            ]
        return made

    def normaliser(self, queries: int, sums: int) -> VectorOp:
        """Of what queries read, by the last column of so many sums."""
        features = self.heads * queries * self.m
        return self.vector("normaliser", features, features + sums * self.heads * self.m, self.heads * queries)
