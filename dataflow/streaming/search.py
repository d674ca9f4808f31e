"""The cheapest legal folding at a rate, and the highest rate that fits: both exact."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import floor

import numpy as np

from ...workloads.errors import InputError, require_positive
from .engine import MOST_BRAM, MOST_LUT, Cost, Fabric, Folding, StreamingLayer, legal_foldings
from .pipeline import Pipeline

__all__ = ["UnreachableError", "at_rate", "cheapest", "fastest", "no_faster", "resolve"]


class UnreachableError(InputError):
    """No folding is as fast, or none that is as fast fits; the message says which, and what is the nearest."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """A folding with its figures; the order in which equals are taken is that of the fields after the share."""

    folding: Folding
    interval: int
    cost: Cost


@lru_cache(maxsize=1024)
def _choices(layer: StreamingLayer) -> tuple[_Choice, ...]:
    """Of a layer whatever its name; those that another beats in interval, LUTs and RAMB18 at once are left out."""
    each = [_Choice(f, layer.interval(f), layer.cost(f)) for f in legal_foldings(layer)]
    each.sort(key=lambda c: (c.interval, c.cost.lut, c.cost.bram, c.folding))
    kept: list[_Choice] = []
    for choice in each:
        if not any(k.cost.lut <= choice.cost.lut and k.cost.bram <= choice.cost.bram for k in kept):
            kept.append(choice)
    return tuple(kept)


def _of(layer: StreamingLayer) -> tuple[_Choice, ...]:
    return _choices(replace(layer, name=""))


def cheapest(layers: Sequence[StreamingLayer], limit: int, fabric: Fabric) -> Pipeline:
    """The folding of the least share of ``fabric`` whose layers take at most ``limit`` cycles a frame each.

    Shares add up, so every layer takes its own cheapest; where all of them together do not fit, what trades LUTs for
    RAMB18 at the least share does.
    """
    allowed = [[c for c in _of(layer) if c.interval <= limit] for layer in layers]
    for layer, left in zip(layers, allowed, strict=True):
        if not left:
            raise UnreachableError(
                f"layer {layer.name!r} takes {_of(layer)[0].interval} cycles a frame or more, whatever its folding"
            )
    best = [min(left, key=lambda c: (fabric.share(c.cost), c.interval, c.folding)) for left in allowed]
    if not fabric.holds(sum((c.cost for c in best), Cost())):
        traded = _within(allowed, fabric)
        if traded is None:
            raise UnreachableError(f"nothing at {limit} cycles a frame fits {fabric.name}")
        best = traded
    return Pipeline(layers=tuple(layers), foldings=tuple(c.folding for c in best))


def _within(allowed: Sequence[Sequence[_Choice]], fabric: Fabric) -> list[_Choice] | None:
    """Of all that fit the cheapest: the fewest LUTs of the layers so far for every exact number of RAMB18."""
    most = fabric.has.bram
    never = np.int64(2**62)
    fewest = np.full(most + 1, never)
    fewest[0] = 0
    taken = np.zeros((len(allowed), most + 1), np.int32)
    for layer, choices in enumerate(allowed):
        after = np.full(most + 1, never)
        for i, choice in enumerate(choices):
            lut, bram = choice.cost.lut, choice.cost.bram
            if bram > most or lut > fabric.has.lut:
                continue
            with_it = fewest[: most + 1 - bram] + lut
            better = with_it < after[bram:]
            after[bram:][better] = with_it[better]
            taken[layer, bram:][better] = i
        fewest = np.where(after > fabric.has.lut, never, after)
    fits = np.flatnonzero(fewest < never)
    if not len(fits):
        return None
    bram = min((int(b) for b in fits), key=lambda b: fabric.share(Cost(lut=int(fewest[b]), bram=b)))
    chosen: list[_Choice] = []
    for layer in reversed(range(len(allowed))):
        chosen.append(allowed[layer][taken[layer, bram]])
        bram -= chosen[-1].cost.bram
    return chosen[::-1]


def fastest(layers: Sequence[StreamingLayer], fabric: Fabric) -> Pipeline:
    """The cheapest folding at the highest rate that fits ``fabric``."""
    limits = _limits(layers)
    at = bisect_left(limits, True, key=lambda limit: _fits(layers, limit, fabric))
    if at == len(limits):
        least = cheapest(layers, limits[-1], _wide(fabric, lut=True, bram=True)).cost
        raise UnreachableError(
            f"no folding fits {fabric.has.lut:,} LUTs and {fabric.has.bram:,} RAMB18 of {fabric.name}, however slow; "
            f"the one of the least share of a large FPGA takes {least.lut:,} and {least.bram:,}"
        )
    return cheapest(layers, limits[at], fabric)


def at_rate(layers: Sequence[StreamingLayer], fps: float, clock_hz: int, fabric: Fabric) -> Pipeline:
    """The cheapest folding of ``fps`` frames a second or more; where there is none, what there is is named."""
    require_positive("target of frames a second", fps)
    limit = int(clock_hz / Fraction(fps))
    try:
        return cheapest(layers, limit, fabric)
    except UnreachableError:
        best = fastest(layers, fabric)
        raise UnreachableError(
            f"{fps:,.10g} frames/s at {clock_hz / 1e6:g} MHz leave {limit:,} cycles a frame; the highest rate is "
            f"{floor(10 * best.rate(clock_hz)) / 10:,.1f} frames/s, {best.interval:,} cycles: {no_faster(best, fabric)}"
        ) from None


def no_faster(best: Pipeline, fabric: Fabric) -> str:
    """Why the fastest pipeline that fits is not faster: a layer that cannot, or what the device lacks."""
    limits = _limits(best.layers)
    at = bisect_left(limits, best.interval)
    if at == 0:
        slow = max(best.layers, key=lambda layer: _of(layer)[0].interval)
        windows = slow.cycles(_of(slow)[0].folding) < limits[0]
        return f"layer {slow.name!r} takes no fewer, " + ("for its sliding window" if windows else "unfolded")
    lacks = {
        "LUTs": _fits(best.layers, limits[at - 1], _wide(fabric, lut=True)),
        "RAMB18": _fits(best.layers, limits[at - 1], _wide(fabric, bram=True)),
    }
    short = " or ".join(name for name, enough in lacks.items() if enough) or "LUTs and RAMB18"
    return f"{fabric.name} has too few {short} for {limits[at - 1]:,} cycles"


def _limits(layers: Sequence[StreamingLayer]) -> list[int]:
    """The cycles that matter, rising: intervals of layers that all layers reach. What fits one fits any larger one."""
    floor_ = max(_of(layer)[0].interval for layer in layers)
    return sorted({c.interval for layer in layers for c in _of(layer) if c.interval >= floor_})


def _fits(layers: Sequence[StreamingLayer], limit: int, fabric: Fabric) -> bool:
    try:
        cheapest(layers, limit, fabric)
    except UnreachableError:
        return False
    return True


def _wide(fabric: Fabric, *, lut: bool = False, bram: bool = False) -> Fabric:
    """With more LUTs, or RAMB18, than any FPGA has."""
    has = Cost(lut=MOST_LUT if lut else fabric.has.lut, bram=MOST_BRAM if bram else fabric.has.bram)
    return Fabric(name=fabric.name, has=has)


def resolve(layer: StreamingLayer, pe: int, simd: int, fabric: Fabric) -> Folding:
    """The folding with the memory of the smaller share of ``fabric`` for its weights."""
    both = (Folding(pe=pe, simd=simd), Folding(pe=pe, simd=simd, ram="distributed"))
    return min(both, key=lambda f: (fabric.share(layer.cost(f)), f))
