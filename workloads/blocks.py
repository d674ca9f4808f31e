"""Attention that looks at some keys alone: which ones, how many by tile of queries, and how a user asks for it.

A head's queries are cut into tiles; a tile meets the keys that any of its queries may see, as one dense product. What
that makes of a step is in `attended.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, NamedTuple, assert_never, get_args

from pydantic import Discriminator

from .errors import InputError, nearest, require_int
from .gemm import MAX_DIM

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]

__all__ = [
    "BestBlocks",
    "Blocks",
    "Causal",
    "Pattern",
    "Routed",
    "SparkKeys",
    "Tile",
    "TopKeys",
    "VerticalSlash",
    "Window",
]

_STRICT = {"extra": "forbid"}
INDEX_BYTES: Final = 2
"""Of a block, or a key, that is chosen."""
SCATTERBRAIN: Final = "scatterbrain"


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
class SparkKeys:
    """For every query those keys whose score by the first ``channels`` channels lies above a threshold of mean and
    deviation of all of its scores, at which normal ones would be ``keep`` (arXiv 2506.06644); a tile is one query. How
    many really are is the data's; here a query has as many as it asks for."""

    __pydantic_config__ = _STRICT
    kind: Literal["spark-keys"] = "spark-keys"
    keep: int
    channels: int

    def __post_init__(self) -> None:
        require_int("keep of spark keys", self.keep, 1, MAX_DIM)
        require_int("channels of spark keys", self.channels, 1, MAX_DIM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """Queries and keys in as many clusters of one size, each by itself (arXiv 2003.05997); causality halves nothing."""

    __pydantic_config__ = _STRICT
    kind: Literal["routed"] = "routed"
    clusters: int

    def __post_init__(self) -> None:
        require_int("clusters", self.clusters, 1, MAX_DIM)


_Pattern = Causal | Window | BestBlocks | VerticalSlash | TopKeys | SparkKeys | Routed
Pattern = Annotated[_Pattern, Discriminator("kind")]
_BY_KIND = {str(fields(cls)[0].default): cls for cls in get_args(_Pattern)}
BLOCK = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A ``pattern`` of attention among tokens in blocks of ``block``, by which queries are tiled too.

    ``features``: random features of a head, by which every query weighs the keys that the pattern leaves out
    (Scatterbrain, arXiv 2110.15343); 0 where nothing stands for them.
    """

    __pydantic_config__ = _STRICT
    kind: ClassVar[Literal["blocks"]] = "blocks"
    pattern: Pattern
    block: int = BLOCK
    features: int = 0

    def __post_init__(self) -> None:
        require_int("block of attention", self.block, 1, 2**16)
        require_int("features of attention", self.features, 0, MAX_DIM)

    @classmethod
    def read(cls, text: str) -> Blocks:
        """Of ``causal``, ``window@4096:4/512``, ``scatterbrain@64+window@4096:4/512`` and the like: random features if
        any, a pattern, its numbers, tokens of a block; as ``str``."""
        features, asked = _features(text)
        form, slash, block = asked.partition("/")
        kind, at, rest = form.partition("@")
        if kind not in _BY_KIND:
            known = nearest(kind, _BY_KIND if features else ("full", SCATTERBRAIN, *_BY_KIND))
            raise InputError(f"attention {text!r}: pattern {kind!r} is unknown: {known}")
        made = _BY_KIND[kind]
        takes = _numbers(made)
        numbers = rest.split(":") if at else []
        least = sum(of.default is MISSING for of in takes)
        if not least <= len(numbers) <= len(takes) or not all(map(_whole, (*numbers, *([block] if slash else ())))):
            numbered = "".join(f"{':' if i else '@'}{of.name.upper()}" for i, of in enumerate(takes))
            raise InputError(f"attention {text!r} is not of the form {kind}{numbered}/{BLOCK}, whole numbers all")
        named = {of.name: int(number) for of, number in zip(takes, numbers, strict=False)}
        return cls(pattern=made(**named), block=int(block) if slash else BLOCK, features=features)

    def tiles(self, queries: int, keys: int) -> dict[Tile, int]:
        """How many tiles of each kind a head has, whose ``queries`` are the last of ``keys`` tokens."""
        require_int("queries of attention", queries, 1, keys)
        first = keys - queries
        match self.pattern:
            case TopKeys(keep=keep) | SparkKeys(keep=keep):
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
            case TopKeys() | SparkKeys() | Routed():
                raise InputError(f"attention by {self.pattern.kind} has no blocks, and so no mask of them")
            case _:
                assert_never(self.pattern)

    def _key_sizes(self, keys: int) -> npt.NDArray[np.int64]:
        import numpy as np

        starts = np.arange(0, keys, self.block)
        return np.minimum(starts + self.block, keys) - starts

    @property
    def by_block(self) -> bool:
        """Whether a tile is a block of queries, which then meets its own block of keys."""
        return not isinstance(self.pattern, TopKeys | SparkKeys | Routed)

    def query_blocks(self, queries: int, keys: int) -> dict[int, int]:
        """How many blocks of so many queries there are."""
        return dict(Counter(self._query_sizes(queries, keys).tolist()))

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
                return INDEX_BYTES * int(self.mask(queries, keys).sum())
            case VerticalSlash(verticals=verticals, slashes=slashes):
                return INDEX_BYTES * (verticals + slashes)
            case TopKeys() | SparkKeys():
                return INDEX_BYTES * met
            case Routed():
                return INDEX_BYTES * (met + queries)
            case _:
                assert_never(self.pattern)

    def __str__(self) -> str:
        numbers = ":".join(str(getattr(self.pattern, of.name)) for of in _numbers(type(self.pattern)))
        features = f"{SCATTERBRAIN}@{self.features}+" if self.features else ""
        return f"{features}{self.pattern.kind}{'@' * bool(numbers)}{numbers}/{self.block}"


def _features(text: str) -> tuple[int, str]:
    """How many are asked for, 0 where none are, and the pattern beside them."""
    before, plus, pattern = text.partition("+")
    name, _, many = before.partition("@")
    if name != SCATTERBRAIN and not plus:
        return 0, text
    if name != SCATTERBRAIN or not plus or not _whole(many) or int(many) == 0:
        raise InputError(
            f"attention {text!r} is not of the form {SCATTERBRAIN}@FEATURES+PATTERN/{BLOCK}, FEATURES from 1 and "
            f"PATTERN one of {', '.join(_BY_KIND)} with its numbers"
        )
    return int(many), pattern


def _numbers(pattern: type[_Pattern]) -> list[Field[int]]:
    return [of for of in fields(pattern) if of.name != "kind"]


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _spread(count: int, blocks: int) -> list[int]:
    """``count`` of ``blocks``, evenly, the first among them."""
    return [i * blocks // count for i in range(min(count, blocks))] if count < blocks else list(range(blocks))
