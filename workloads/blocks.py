"""Attention that looks at some keys alone: which ones, how many by tile of queries, and what choosing them takes.

A head's queries are cut into tiles; a tile meets the keys that any of its queries may see, as one dense product. So a
step whose attention is rewritten (`attended`) has products of kept keys alone, which any engine takes, and beside them
what the choice costs: no choice is free but one that everybody knows in advance.

As eager attention does, every head reads a copy of its keys and values, and vector work on scores is what was traced,
of kept scores alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import MISSING, Field, dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, assert_never, get_args

from pydantic import Discriminator

from .errors import InputError, nearest, require_int
from .gemm import MAX_DIM, Gemm
from .operand import DTYPE_BYTES, Role
from .resized import resized, thinned
from .step import MatrixOp, Op, VectorOp, Workload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]

__all__ = [
    "PROBES",
    "SELECT_PASSES",
    "BestBlocks",
    "Blocks",
    "Causal",
    "Pattern",
    "Routed",
    "Tile",
    "TopKeys",
    "VerticalSlash",
    "Window",
    "attended",
]

_STRICT = {"extra": "forbid"}
SELECT_PASSES = 4
"""Passes over 16-bit scores that find the k largest, four bits of them each (a radix select; assumed)."""
PROBES = 64
"""Last queries that vertical-slash is estimated by (MInference, arXiv 2407.02490: last_q = 64)."""
_INDEX_BYTES = 2


class Tile(NamedTuple):
    """``rows`` queries that meet ``keys`` keys."""

    rows: int
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Causal:
    """Every block up to a query's own."""

    __pydantic_config__ = _STRICT
    kind: Literal["causal"] = "causal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The last ``keys`` keys, a query's own among them, and the first ``sinks`` (arXiv 2309.17453)."""

    __pydantic_config__ = _STRICT
    kind: Literal["window"] = "window"
    keys: int
    sinks: int = 0

    def __post_init__(self) -> None:
        require_int("keys of a window", self.keys, 1, MAX_DIM)
        require_int("sinks of a window", self.sinks, 0, MAX_DIM)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestBlocks:
    """A tile's own block, and of those before it the ones whose pooled keys score highest, ``keep`` in all."""

    __pydantic_config__ = _STRICT
    kind: Literal["best-blocks"] = "best-blocks"
    keep: int

    def __post_init__(self) -> None:
        require_int("keep of best blocks", self.keep, 1, MAX_DIM)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerticalSlash:
    """Blocks of keys that all see, ``verticals``, and ``slashes``, as far behind every query, its own block one of them
    (arXiv 2407.02490). Where they stand is the data's; here both are spread evenly, which is assumed."""

    __pydantic_config__ = _STRICT
    kind: Literal["vertical-slash"] = "vertical-slash"
    verticals: int
    slashes: int

    def __post_init__(self) -> None:
        require_int("verticals", self.verticals, 0, MAX_DIM)
        require_int("slashes", self.slashes, 1, MAX_DIM)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopKeys:
    """For every query of its own the ``keep`` keys whose ``channels`` heaviest channels score highest (arXiv
    2408.07092); a tile is one query."""

    __pydantic_config__ = _STRICT
    kind: Literal["top-keys"] = "top-keys"
    keep: int
    channels: int

    def __post_init__(self) -> None:
        require_int("keep of top keys", self.keep, 1, MAX_DIM)
        require_int("channels of top keys", self.channels, 1, MAX_DIM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """Queries and keys in as many clusters of one size, each by itself (arXiv 2003.05997); causality halves nothing."""

    __pydantic_config__ = _STRICT
    kind: Literal["routed"] = "routed"
    clusters: int

    def __post_init__(self) -> None:
        require_int("clusters", self.clusters, 1, MAX_DIM)


_Pattern = Causal | Window | BestBlocks | VerticalSlash | TopKeys | Routed
Pattern = Annotated[_Pattern, Discriminator("kind")]
_BY_KIND = {str(fields(cls)[0].default): cls for cls in get_args(_Pattern)}
BLOCK = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A ``pattern`` of attention among tokens in blocks of ``block``, by which queries are tiled too."""

    __pydantic_config__ = _STRICT
    kind: ClassVar[Literal["blocks"]] = "blocks"
    pattern: Pattern
    block: int = BLOCK

    def __post_init__(self) -> None:
        require_int("block of attention", self.block, 1, 2**16)

    @classmethod
    def read(cls, text: str) -> Blocks:
        """Of ``causal``, ``window@4096:4/512`` and the like: a pattern, its numbers, tokens of a block; as ``str``."""
        form, slash, block = text.partition("/")
        kind, at, rest = form.partition("@")
        if kind not in _BY_KIND:
            raise InputError(f"attention {text!r}: pattern {kind!r} is unknown: {nearest(kind, ('full', *_BY_KIND))}")
        made = _BY_KIND[kind]
        takes = _numbers(made)
        numbers = rest.split(":") if at else []
        least = sum(of.default is MISSING for of in takes)
        if not least <= len(numbers) <= len(takes) or not all(map(_whole, (*numbers, *([block] if slash else ())))):
            asked = "".join(f"{':' if i else '@'}{of.name.upper()}" for i, of in enumerate(takes))
            raise InputError(f"attention {text!r} is not of the form {kind}{asked}/{BLOCK}, whole numbers all")
        named = {of.name: int(number) for of, number in zip(takes, numbers, strict=False)}
        return cls(pattern=made(**named), block=int(block) if slash else BLOCK)

    def tiles(self, queries: int, keys: int) -> dict[Tile, int]:
        """How many tiles of each kind a head has, whose ``queries`` are the last of ``keys`` tokens."""
        require_int("queries of attention", queries, 1, keys)
        first = keys - queries
        match self.pattern:
            case TopKeys(keep=keep):
                early = Counter(Tile(1, p + 1) for p in range(first, min(keep - 1, keys)))
                full = keys - max(first, keep - 1)
                return dict(early) | ({Tile(1, keep): full} if full > 0 else {})
            case Routed(clusters=clusters):
                # The queries of a cluster are its share of them, and one at least of those that there are.
                many = min(clusters, queries)
                split = Counter(Tile((queries + i) // many, -(-keys // clusters)) for i in range(many))
                return dict(split)
            case _:
                mask, sizes = self.mask(queries, keys), self._key_sizes(keys)
                rows = self._query_sizes(queries, keys)
                met = mask @ sizes
                return dict(Counter(Tile(int(r), int(c)) for r, c in zip(rows, met, strict=True)))

    def mask(self, queries: int, keys: int) -> Bools:
        """Blocks of keys that each tile meets, bool [tiles, blocks]; not of patterns that have no blocks. Which blocks
        are best is the data's: here they are the last ones, and only their number counts."""
        import numpy as np

        first, size = keys - queries, self.block
        blocks = -(-keys // size)
        t, j = np.arange(first // size, blocks)[:, None], np.arange(blocks)[None]
        before = j <= t
        match self.pattern:
            case Causal():
                return before
            case Window(keys=width, sinks=sinks):
                earliest = np.maximum(t * size, first) - width + 1
                return before & (((j + 1) * size > earliest) | (j * size < sinks))
            case BestBlocks(keep=keep):
                return before & (j > t - keep)
            case VerticalSlash(verticals=verticals, slashes=slashes):
                upright = np.isin(j, _spread(verticals, blocks))
                return before & (upright | np.isin(t - j, _spread(slashes, blocks)))
            case TopKeys() | Routed():
                raise InputError(f"attention by {self.pattern.kind} has no blocks, and so no mask of them")
            case _:
                assert_never(self.pattern)

    def _key_sizes(self, keys: int) -> npt.NDArray[np.int64]:
        import numpy as np

        starts = np.arange(0, keys, self.block)
        return np.minimum(starts + self.block, keys) - starts

    def _query_sizes(self, queries: int, keys: int) -> npt.NDArray[np.int64]:
        import numpy as np

        first = keys - queries
        starts = np.arange(first // self.block * self.block, keys, self.block)
        return np.minimum(starts + self.block, keys) - np.maximum(starts, first)

    def pairs(self, queries: int, keys: int) -> int:
        """Pairs of a query and a key that are multiplied, of a head."""
        return sum(tile.rows * tile.keys * count for tile, count in self.tiles(queries, keys).items())

    def index_bytes(self, queries: int, keys: int) -> int:
        """Of a head, what says which keys a tile meets: a number of two bytes a block, or a key; none where everybody
        knows."""
        met = sum(tile.keys * count for tile, count in self.tiles(queries, keys).items())
        match self.pattern:
            case Causal() | Window():
                return 0
            case BestBlocks():
                return _INDEX_BYTES * int(self.mask(queries, keys).sum())
            case VerticalSlash(verticals=verticals, slashes=slashes):
                return _INDEX_BYTES * (verticals + slashes)
            case TopKeys():
                return _INDEX_BYTES * met
            case Routed():
                return _INDEX_BYTES * (met + queries)
            case _:
                assert_never(self.pattern)

    def __str__(self) -> str:
        numbers = ":".join(str(getattr(self.pattern, of.name)) for of in _numbers(type(self.pattern)))
        return f"{self.pattern.kind}{'@' * bool(numbers)}{numbers}/{self.block}"


def _numbers(pattern: type[_Pattern]) -> list[Field[int]]:
    return [of for of in fields(pattern) if of.name != "kind"]


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _spread(count: int, blocks: int) -> list[int]:
    """``count`` of ``blocks``, evenly, the first among them."""
    return [i * blocks // count for i in range(min(count, blocks))] if count < blocks else list(range(blocks))


def attended(workload: Workload, blocks: Blocks) -> Workload:
    """A step of use, prefill or decode, with its attention by ``blocks``; refused where it has none."""
    phase = workload.phase
    keys, queries = phase.context + phase.tokens, phase.tokens
    if not phase.cached:
        raise InputError(
            f"{workload.model!r} keeps no keys and values, so it has no attention to be counted by blocks: trace it "
            "for prefill or decode"
        )
    scores = {op.name: op.gemm for op in workload.matrix_ops if _side(op, queries, keys) == "scores"}
    if not scores:
        raise InputError(f"no product of {workload.model!r} multiplies {queries} queries by {keys} keys")
    kept, pairs = blocks.pairs(queries, keys), queries * keys
    made: list[Op] = []
    for op in workload.ops:
        match op:
            case MatrixOp() if _side(op, queries, keys) is not None:
                if _side(op, queries, keys) == "scores":
                    made += _predictor(op, blocks, queries, keys)
                made += _products(op, blocks, queries, keys)
            case VectorOp() if op.name in scores and op.elements in _shrinking(scores[op.name]):
                made.append(thinned(op, kept, pairs))
            case _:
                made.append(op)
    return replace(
        workload,
        ops=tuple(made),
        after=(),
        tensors=(),
        input=", ".join(filter(None, (workload.input, f"attention {blocks}"))),
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


def _products(op: MatrixOp, blocks: Blocks, queries: int, keys: int) -> list[Op]:
    """The tiles of a product, of all heads; each reads its own keys or values."""
    g, scores = op.gemm, _side(op, queries, keys) == "scores"
    return [
        resized(op, Gemm(m=t.rows, k=g.k if scores else t.keys, n=t.keys if scores else g.n, groups=g.groups * count))
        for t, count in blocks.tiles(queries, keys).items()
    ]


def _predictor(op: MatrixOp, blocks: Blocks, queries: int, keys: int) -> list[Op]:
    """What choosing keys takes, before the scores ``op``: products of less, and the k largest of what they give; and
    what it chose, which scores and values both read."""
    heads, d, size = op.gemm.groups, op.gemm.k, DTYPE_BYTES[op.a.dtype]
    indices = heads * blocks.index_bytes(queries, keys)

    def vector(what: str, elements: int, read: int, write: int, chosen: tuple[int, int] = (0, 0)) -> VectorOp:
        return VectorOp(
            name=op.name,
            op=f"blocks.{what}",
            pass_=op.pass_,
            dtype=op.a.dtype,
            elements=elements,
            read_bytes=read * size + chosen[0],
            write_bytes=write * size + chosen[1],
        )

    def product(m: int, k: int, n: int) -> MatrixOp:
        made = resized(op, Gemm(m=m, k=k, n=n, groups=heads))
        return replace(made, op="blocks.scores", b=replace(made.b, role=Role.ACTIVATION))

    def select(scores: int) -> VectorOp:
        return vector("select", SELECT_PASSES * scores, SELECT_PASSES * scores, 0, (2 * indices, indices))

    many_q, many_k = -(-queries // blocks.block), -(-keys // blocks.block)
    match blocks.pattern:
        case Causal() | Window():
            return []
        case BestBlocks():
            # Of tokens that were there before pooled keys are kept, to the last of which new keys are added.
            pool = heads * d * (2 * queries if queries > 1 else 1)
            written = heads * d * (many_q + -(-queries // blocks.block) if queries > 1 else 1)
            pooled = vector("pool", pool, pool + (0 if queries > 1 else written), written)
            return [pooled, product(many_q, d, many_k), select(heads * many_q * many_k)]
        case VerticalSlash():
            if queries == 1:
                # As its prompt's last queries chose.
                return [vector("indices", indices // _INDEX_BYTES, 0, 0, (2 * indices, 0))]
            probes = min(PROBES, queries)
            seen = heads * probes * keys
            return [
                product(probes, d, keys),
                vector("softmax", seen, seen, seen),
                vector("sums", 2 * seen, 2 * seen, 2 * heads * keys),
                select(2 * heads * keys),
            ]
        case TopKeys(channels=channels):
            labels = 2 * heads * queries * channels
            return [
                vector("labels", labels, labels, labels),
                product(queries, channels, keys),
                select(heads * queries * keys),
            ]
        case Routed(clusters=clusters):
            tokens = 2 * queries  # queries and new keys
            return [product(tokens, d, clusters), select(heads * tokens * clusters)]
        case _:
            assert_never(blocks.pattern)
