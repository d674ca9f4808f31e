"""The first word on which two sides differ, and how far apart two results are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "Distance", "Signal", "distance", "earliest", "first_bits", "first_of", "first_word", "ulps"]

Signal = tuple[str, npt.NDArray[Any], npt.NDArray[Any]]
"""Name, what is expected, what was found, in bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """``what`` was compared, where, and both values; ``cycle`` is that in which the word was to leave, if words leave.

    ``what`` alone where one side let go too many words or too few.
    """

    what: str
    index: tuple[int, ...] = ()
    cycle: int | None = None
    expected: str = ""
    found: str = ""

    @property
    def where(self) -> str:
        """``what`` with its index."""
        return f"{self.what}[{', '.join(map(str, self.index))}]" if self.index else self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far two results are apart in units in the last place (ULP): of ``words``, how many are ``exact``."""

    words: int
    exact: int
    mean: float
    most: int


def first_word(want_left: npt.NDArray[Any], got_left: npt.NDArray[Any], *signals: Signal) -> Difference | None:
    """The earliest word, by ``want_left``, that leaves in another cycle or with other bits.

    Cycles are int64; all arrays have any shape, the same one, and signals bits of any unsigned dtype.
    """
    found: list[Difference] = []
    for name, want, got in (*signals, ("", want_left, got_left)):
        wrong = np.argwhere(want != got)
        if not len(wrong):
            continue
        at = min(map(tuple, wrong), key=lambda place: int(want_left[place]))
        digits = 2 * want.itemsize
        expected, other = (f"{int(x):0{digits}x}" if name else f"leaves in cycle {int(x)}" for x in (want[at], got[at]))
        found.append(
            Difference(
                what=name or signals[0][0],
                index=tuple(int(i) for i in at),
                cycle=int(want_left[at]),
                expected=expected,
                found=other,
            )
        )
    return earliest(found)


def earliest(differences: Sequence[Difference | None]) -> Difference | None:
    """The first in time of those that there are."""
    return min((found for found in differences if found is not None), key=_when, default=None)


def _when(difference: Difference) -> int:
    assert difference.cycle is not None, "words that were compared have a cycle"
    return difference.cycle


def first_bits(what: str, want: npt.NDArray[Any], got: npt.NDArray[Any]) -> Difference | None:
    """The first word whose bits differ; ``want`` and ``got`` have any shape and dtype, the same."""
    word = np.dtype(f"u{want.itemsize}")
    wrong = np.ascontiguousarray(want).view(word) != np.ascontiguousarray(got).view(word)
    return first_of(what, want, got, wrong)


def first_of(
    what: str, want: npt.NDArray[Any], got: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]
) -> Difference | None:
    """The first word that is ``wrong``, bool of any shape, which is that of ``want`` and ``got``."""
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    expected, found = (_shown(np.ascontiguousarray(side)[at]) for side in (want, got))
    return Difference(what=what, index=at, expected=expected, found=found)


def _shown(word: Any) -> str:
    if not isinstance(word, np.floating):
        return str(word)
    bits = int(word.view(f"u{word.itemsize}"))
    return f"{bits:0{2 * word.itemsize}x} ({word:.9g})"


def ulps(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Floating-point numbers of their type that lie between ``a`` and ``b``, both zeros one; 0 between two NaN.

    Both have any shape, the same, and one floating-point dtype.
    """

    def ordered(x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        bits = x.view(np.dtype(f"i{x.itemsize}")).astype(np.int64)
        magnitude = bits & np.int64(2 ** (8 * x.itemsize - 1) - 1)
        return np.where(bits < 0, -magnitude, magnitude)

    return np.where(np.isnan(a) & np.isnan(b), 0, np.abs(ordered(a) - ordered(b)))


def distance(want: npt.NDArray[Any], got: npt.NDArray[Any]) -> Distance:
    """How far ``got`` is from ``want``, both of any shape, the same, and one floating-point dtype."""
    apart = ulps(np.ascontiguousarray(want), np.ascontiguousarray(got))
    return Distance(
        words=apart.size, exact=int(np.count_nonzero(apart == 0)), mean=float(apart.mean()), most=int(apart.max())
    )
