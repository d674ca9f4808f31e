"""Sub-networks of a super-network by name: the share of channels and the depth of every stage, and the image side.

``supernet9:w0.5-0.5-1:d1-2-1@6`` has half of the channels in the first two stages, two convolutions in the second, and
sees images of side 6. Importing this costs nothing: torch loads only where a network is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from ..errors import InputError

__all__ = [
    "CHANNELS",
    "DEPTHS",
    "LARGEST",
    "SMALLEST",
    "SMALLEST_SIDE",
    "WIDTHS",
    "Subnetwork",
    "read_subnetwork",
    "require_side",
    "sides_of",
]

CHANNELS = (32, 64, 128)
"""Channels of the stages at full width; every share of them is a multiple of 8, so that N:M groups of up to 8 end where
the slice of a weight does."""

WIDTHS = (0.25, 0.5, 0.75, 1.0)
DEPTHS = (1, 2, 3)
"""Convolutions of a stage."""

_SIDES = (0.5, 0.75, 1.0)
SMALLEST_SIDE = 4
"""Two pools leave one pixel of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnetwork:
    """A path through a super-network: a share of `CHANNELS` and a number of convolutions for each stage."""

    widths: tuple[float, ...]
    depths: tuple[int, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage."""
        return tuple(round(width * most) for width, most in zip(self.widths, CHANNELS, strict=True))

    def named(self, supernet: str) -> str:
        """The name that it has as a model."""
        return f"{supernet}:w{'-'.join(f'{w:g}' for w in self.widths)}:d{'-'.join(map(str, self.depths))}"

    @classmethod
    def every(cls) -> Iterator[Subnetwork]:
        """Each one, once, the narrowest and shallowest first."""
        stages = len(CHANNELS)
        for widths in product(WIDTHS, repeat=stages):
            for depths in product(DEPTHS, repeat=stages):
                yield cls(widths=widths, depths=depths)


LARGEST = Subnetwork(widths=(WIDTHS[-1],) * len(CHANNELS), depths=(DEPTHS[-1],) * len(CHANNELS))
"""The one whose weights all others share."""
SMALLEST = Subnetwork(widths=(WIDTHS[0],) * len(CHANNELS), depths=(DEPTHS[0],) * len(CHANNELS))

_NUMBERS = re.compile(r"\d{1,6}(\.\d{1,6})?(-\d{1,6}(\.\d{1,6})?)*", re.ASCII)


def read_subnetwork(supernet: str, text: str) -> Subnetwork:
    """What stands behind ``supernet:`` in a name, ``w...``, ``d...`` or ``w...:d...``; what is left out is the largest.

    What is no such text, or names a choice that the super-network does not have, is an `InputError` with the nearest.
    """
    where, parts = f"model '{supernet}:{text}'", text.split(":")
    asked = {part[:1]: part[1:] for part in parts}
    formed = all(map(_NUMBERS.fullmatch, asked.values()))
    if len(asked) < len(parts) or not asked.keys() <= {"w", "d"} or not formed:
        raise InputError(
            f"{where} names no sub-network; the largest is {LARGEST.named(supernet)}: widths w from {_listed(WIDTHS)} "
            f"and depths d from {_listed(DEPTHS)}, one a stage"
        )
    widths = _numbers(where, "w", asked.get("w"), LARGEST.widths)
    depths = _numbers(where, "d", asked.get("d"), LARGEST.depths)
    near = Subnetwork(
        widths=tuple(_nearest(width, WIDTHS) for width in widths),
        depths=tuple(int(_nearest(depth, DEPTHS)) for depth in depths),
    )
    odd = [
        f"{what} {number:g} is none of {_listed(choices)}"
        for what, numbers, choices in (("width", widths, WIDTHS), ("depth", depths, DEPTHS))
        for number in numbers
        if number not in choices
    ]
    if odd:
        raise InputError(f"{where}: {odd[0]}; the nearest sub-network is {near.named(supernet)}")
    return near


def sides_of(side: int) -> tuple[int, ...]:
    """The image sides among which a super-network for images of ``side`` is trained: half, three quarters, all."""
    return tuple(sorted({max(int(share * side), SMALLEST_SIDE) for share in _SIDES}))


def require_side(side: int, sides: tuple[int, ...]) -> None:
    """Refuse an image side that is none of those that a super-network is trained at."""
    if side not in sides:
        near = min(sides, key=lambda other: abs(other - side))
        raise InputError(
            f"image side {side} is none that the super-network is trained at: {', '.join(map(str, sides))}; the "
            f"nearest is {near}"
        )


def _numbers(where: str, kind: str, text: str | None, largest: tuple[float, ...]) -> tuple[float, ...]:
    if text is None:
        return largest
    numbers = tuple(map(float, text.split("-")))
    if len(numbers) != len(CHANNELS):
        whole = "-".join(f"{number:g}" for number in largest)
        raise InputError(
            f"{where}: {kind}{text} has {len(numbers)} numbers; give {len(CHANNELS)}, one a stage, as {kind}{whole}"
        )
    return numbers


def _nearest(value: float, choices: tuple[float, ...]) -> float:
    return min(choices, key=lambda choice: abs(choice - value))


def _listed(choices: tuple[float, ...]) -> str:
    return ", ".join(f"{choice:g}" for choice in choices)
