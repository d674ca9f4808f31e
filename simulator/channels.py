"""Engines, channels and buffers of the system level: their numbers and their names.

Engines are numbered: those that work on products, in the order of the machine; the vector unit; WUVE; DRAM; SORE.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.engines import engines_of
from ..workloads.errors import InputError

__all__ = ["BESIDE", "SHARED", "Channel", "Names", "Purpose", "channels", "engine_names"]

BESIDE = ("vector", "WUVE")
"""What works on other ops than products."""
SHARED = ("DRAM", "SORE")
"""What serves all of them."""
_BUFFERS = ("W2E", "N2S", "output")


class Purpose(IntEnum):
    """What DRAM and SORE are asked for; the lowest goes first."""

    STORE = 0
    PHASE = 1
    NORTH = 2
    WEST = 3
    BESIDE = 4


class Channel(NamedTuple):
    """Who asks, and what for; of requests made at the same time the lowest channel is served first."""

    purpose: Purpose
    engine: int


@lru_cache
def channels(products: int) -> tuple[Channel, ...]:
    """Those of a machine with so many engines for products, in their order, which is their number."""
    of_products = [(purpose, e) for purpose in Purpose if purpose is not Purpose.BESIDE for e in range(products)]
    beside = [(Purpose.BESIDE, products + e) for e in range(len(BESIDE))]
    return tuple(Channel(*each) for each in (*of_products, *beside))


class Names(NamedTuple):
    """How results call what is numbered."""

    products: tuple[str, ...]

    @property
    def engines(self) -> tuple[str, ...]:
        """In the order of their numbers."""
        return (*self.products, *BESIDE, *SHARED)

    @property
    def buffers(self) -> tuple[str, ...]:
        """Engine by engine; the only one that has some is not named."""
        alone = len(self.products) == 1
        return tuple(name if alone else f"{engine} {name}" for engine in self.products for name in _BUFFERS)


def engine_names(spec: AcceleratorSpec) -> Names:
    """Those of a machine; InputError where two engines have one."""
    names = Names(tuple(engine.name for engine in engines_of(spec)))
    twice = sorted({name for name in names.engines if names.engines.count(name) > 1})
    if twice:
        raise InputError(
            f"{spec.name!r} has two engines that are called {twice[0]!r}, which results could not tell apart; give "
            f"each engine for products a name of its own, none of {', '.join((*BESIDE, *SHARED))}"
        )
    return names
