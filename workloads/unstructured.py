"""Zeros without a pattern: which lines of an operand keep how many elements, and how it is stored.

A line is what one sum contracts: a row of A, a column of B. An engine that gathers takes a line's kept elements one by
one, so their numbers by line are all that a product costs by, not where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt, lgamma, log, log1p
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, assert_never, get_args

from pydantic import Discriminator, Field

from .errors import InputError, require_choice, require_int
from .gemm import MAX_DIM, Gemm
from .mark import Mark

if TYPE_CHECKING:
    # Only what counts lines needs it, and `weft --help` must not load it.
    import numpy as np
    import numpy.typing as npt

    Int64 = npt.NDArray[np.int64]

__all__ = [
    "POINTER_BYTES",
    "SINGLE",
    "Cell",
    "Counted",
    "Distribution",
    "Drawn",
    "Histogram",
    "Kept",
    "Storage",
    "Unstructured",
    "counted_mask",
    "counted_runs",
]

_STRICT = {"extra": "forbid"}
_BYTE = 8
POINTER_BYTES = 4
"""Of where a line begins, in CSR."""
_MOST_BINOMIAL = 2**24
"""Longest line whose binomial distribution is worked out; its logarithms keep ten digits there."""
_SIGMAS = 12
"""Beyond so many standard deviations no line of 2^53 elements is expected."""

Storage = Literal["bitmap", "csr", "runs"]
Distribution = Literal["balanced", "binomial"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """``lines[i]`` lines keep ``kept[i]`` elements each; int64, ``kept`` ascending without repetition."""

    kept: Int64
    lines: Int64

    @property
    def total(self) -> int:
        """Kept elements of all lines."""
        return int(self.kept @ self.lines)


class Cell(NamedTuple):
    """What of a mask is kept alike: ``lines`` and ``places`` of them side by side, from multiples of as many on."""

    lines: int
    places: int


SINGLE = Cell(1, 1)
"""Every element by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Lines by how many elements they keep: pairs (kept, lines) in ascending order, of a mask that somebody has."""

    __pydantic_config__ = _STRICT

    kind: Literal["counted"] = "counted"
    lines: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        before = -1
        for kept, lines in self.lines:
            require_int("kept elements of a line", kept, before + 1, MAX_DIM)
            require_int(f"lines that keep {kept} elements", lines, 1, MAX_DIM)
            before = kept
        if before < 1:
            raise InputError("a mask must keep one element at least, in some line: density is above 0")

    def of(self, lines: int, k: int) -> Histogram:
        """The counts, once it is sure that they are of ``lines`` lines of ``k`` elements."""
        import numpy as np

        kept, many = np.array(self.lines, np.int64).T
        if many.sum() != lines:
            raise InputError(f"a mask has counts of {many.sum()} lines, but its operand has {lines}")
        if kept[-1] > k:
            raise InputError(f"a mask keeps {kept[-1]} elements of a line, but a line of its operand has {k}")
        return Histogram(kept, many)

    def __str__(self) -> str:
        return f"{sum(kept * lines for kept, lines in self.lines)} kept of {sum(n for _, n in self.lines)} lines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A density and how it is spread over the lines, where nobody has a mask: `mark` says how far to trust it.

    ``balanced``: every line keeps its share, the first few lines one element more. ``binomial``: each element is kept
    by itself; the lines have the quantiles (2 i + 1) / 2 lines of that, so that two readers find the same counts.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["drawn"] = "drawn"
    density: float
    distribution: Distribution

    def __post_init__(self) -> None:
        if isinstance(self.density, bool) or not isinstance(self.density, int | float) or not 0 < self.density <= 1:
            raise InputError(f"density of a mask must be above 0 to 1, not {self.density!r}")
        require_choice("distribution of a mask", self.distribution, get_args(Distribution))

    @property
    def mark(self) -> Mark:
        """Nobody's mask."""
        return Mark.ASSUMED

    def of(self, lines: int, k: int) -> Histogram:
        """The counts of ``lines`` lines of ``k`` elements; at least one element is kept."""
        return _drawn(self, lines, k)

    def __str__(self) -> str:
        return f"density {self.density:.4g}, {self.distribution}, {self.mark}"


@lru_cache(maxsize=4096)
def _drawn(asked: Drawn, lines: int, k: int) -> Histogram:
    import numpy as np

    if asked.density == 1:
        return Histogram(np.array([k]), np.array([lines]))
    match asked.distribution:
        case "balanced":
            each, more = divmod(max(round(Fraction(asked.density) * lines * k), 1), lines)
            found = {each: lines - more, each + 1: more}
        case "binomial":
            found = _binomial(lines, k, float(asked.density))
        case _:
            assert_never(asked.distribution)
    if list(found) == [0]:
        found = {0: lines - 1, 1: 1}
    made = [(kept, many) for kept, many in sorted(found.items()) if many]
    return Histogram(*np.array(made, np.int64).T)


def _binomial(lines: int, k: int, density: float) -> dict[int, int]:
    import numpy as np

    if k > _MOST_BINOMIAL:
        raise InputError(
            f"a binomial mask has lines of at most {_MOST_BINOMIAL} elements, not {k}; use the distribution balanced"
        )
    mean, spread = k * density, _SIGMAS * (isqrt(round(k * density * (1 - density))) + 1)
    low, high = max(int(mean) - spread, 0), min(int(mean) + spread, k)
    fixed = lgamma(k + 1)
    weight = np.exp(
        [
            fixed - lgamma(c + 1) - lgamma(k - c + 1) + c * log(density) + (k - c) * log1p(-density)
            for c in range(low, high + 1)
        ]
    )
    below = np.cumsum(weight)
    upto = np.floor(lines * (below / below[-1]) + 0.5).astype(np.int64)
    many = np.diff(upto, prepend=0)
    return {low + int(i): int(many[i]) for i in np.flatnonzero(many)}


Kept = Annotated[Counted | Drawn, Discriminator("kind")]
"""What is known of a mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unstructured:
    """An operand of which single elements are kept, wherever they stand.

    ``stored``: a bit an element with the kept values behind them (``bitmap``), or the kept values with their places in
    a line and where each line begins (``csr``), or with the first place and the length of each stretch of them side by
    side, of which all lines have ``runs``, and where each line begins (``runs``). ``online``: its zeros are known only
    in this very step, so it comes from memory dense; else it is stored so in advance.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["unstructured"] = "unstructured"
    operand: Literal["a", "b"]
    kept: Kept
    stored: Storage
    online: bool = False
    runs: Annotated[int, Field(exclude_if=lambda runs: not runs)] = 0

    def __post_init__(self) -> None:
        require_choice("operand of a mask", self.operand, ("a", "b"))
        require_choice("storage of a mask", self.stored, get_args(Storage))
        require_int("runs of a mask", self.runs, 0, 2**53)
        if (self.stored == "runs") != bool(self.runs):
            raise InputError(
                f"a mask stored as {self.stored!r} has {self.runs} runs: say how many with storage 'runs', 1 at least, "
                "and with no other"
            )

    def check(self, gemm: Gemm) -> None:
        """Refuse counts of another operand, and runs that its lines cannot have."""
        found = self.histogram(gemm)
        if self.runs:
            # One at least in each line that keeps any, and in none more than its elements, or the gaps between, allow.
            least = int(found.lines[found.kept > 0].sum())
            most = int((found.kept.clip(max=gemm.k + 1 - found.kept) * found.lines).sum())
            if not least <= self.runs <= most:
                raise InputError(f"a mask of these counts has from {least} to {most} runs, not {self.runs}")

    def histogram(self, gemm: Gemm) -> Histogram:
        """Kept elements by line, of all groups."""
        return self.kept.of(self.lines(gemm), gemm.k)

    def lines(self, gemm: Gemm) -> int:
        """How many there are."""
        return gemm.groups * (gemm.n if self.operand == "b" else gemm.m)

    def cell(self, gemm: Gemm) -> Cell:
        """Every element is kept by itself."""
        return SINGLE

    def macs(self, gemm: Gemm) -> int:
        """Multiply-accumulates of kept elements."""
        return self.histogram(gemm).total * (gemm.m if self.operand == "b" else gemm.n)

    def index_bits(self, gemm: Gemm) -> int:
        """Read with a kept element: its place in the line, or its share of the bitmap or of runs, rounded up."""
        match self.stored:
            case "bitmap":
                return -(-self.lines(gemm) * _BYTE * _bitmap_bytes(gemm.k) // self.histogram(gemm).total)
            case "csr":
                return _BYTE * _place_bytes(gemm.k)
            case "runs":
                return -(-self.runs * 2 * _BYTE * _place_bytes(gemm.k) // self.histogram(gemm).total)
            case _:
                assert_never(self.stored)

    def bytes(self, gemm: Gemm, value_bits: int) -> int:
        """Of memory, indices and all: values packed; a line's bits, or its pointer, whole bytes."""
        lines, k, total = self.lines(gemm), gemm.k, self.histogram(gemm).total
        values = -(-total * value_bits // _BYTE)
        match self.stored:
            case "bitmap":
                return values + lines * _bitmap_bytes(k)
            case "csr":
                return values + total * _place_bytes(k) + POINTER_BYTES * (lines + 1)
            case "runs":
                return values + self.runs * 2 * _place_bytes(k) + POINTER_BYTES * (lines + 1)
            case _:
                assert_never(self.stored)

    def __str__(self) -> str:
        return f"unstructured ({self.kept}, {self.stored})"


def _bitmap_bytes(k: int) -> int:
    return -(-k // _BYTE)


def _place_bytes(k: int) -> int:
    return -(-(k - 1).bit_length() // _BYTE)


def counted_mask(mask: npt.NDArray[Any], operand: Literal["a", "b"]) -> Counted:
    """The counts of a ``mask``, bool [m, k] of operand a or [k, n] of b."""
    import numpy as np

    _require_matrix(mask)
    many = np.bincount(np.count_nonzero(mask, axis=1 if operand == "a" else 0))
    return Counted(lines=tuple((int(kept), int(many[kept])) for kept in np.flatnonzero(many)))


def counted_runs(mask: npt.NDArray[Any], operand: Literal["a", "b"]) -> int:
    """Stretches of kept elements side by side in the lines of a ``mask``, bool [m, k] of operand a or [k, n] of b."""
    _require_matrix(mask)
    lines = mask if operand == "a" else mask.T
    return int(lines[:, 0].sum()) + int((lines[:, 1:] & ~lines[:, :-1]).sum())


def _require_matrix(mask: npt.NDArray[Any]) -> None:
    if mask.ndim != 2 or mask.dtype != bool or not mask.size:
        raise InputError(f"a mask must be a bool matrix, not {mask.dtype} {list(mask.shape)}")
