"""What no RTL can be made of, refused before anything is elaborated."""

from __future__ import annotations

from dataclasses import replace

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.pregenerate import tile_plan
from ...workloads.errors import InputError
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import SGD

__all__ = ["MAX_TILE_WORDS", "check_buildable"]

MAX_TILE_WORDS = 8192
"""Registers of 17 bits in a half of the tile buffer; more elaborate too slowly and their muxes outgrow SORE."""


def check_buildable(spec: AcceleratorSpec, pattern: NMPattern) -> None:
    """Refuse a machine whose RTL cannot be made for SORE in ``pattern``.

    The ranges that a specification checks itself are those of the RTL, whatever their combination and whether or not
    groups, lanes and registers are powers of two; how large an array can be is a matter of patience. What is left is
    the tile buffer between WUVE and SORE, whose tiles grow with the lanes that share no factor with the group.
    """
    spec.check_pattern(pattern)
    if not spec.wuve.pregenerate or _tile_words(spec, pattern) <= MAX_TILE_WORDS:
        return
    lanes = spec.sore.lanes
    fitting = (n for d in range(1, lanes) for n in (lanes - d, lanes + d) if _fits(spec, pattern, n))
    raise InputError(
        f"sore.lanes of {spec.name!r} is {lanes}: behind WUVE, groups of {pattern.group} need a tile of "
        f"{_tile_words(spec, pattern)} weights to fill whole rounds of so many lanes, but the tile buffer holds at "
        f"most {MAX_TILE_WORDS}; the nearest valid value is {next(fitting)}, or set wuve.pregenerate to false"
    )


def _tile_words(spec: AcceleratorSpec, pattern: NMPattern) -> int:
    return tile_plan(spec, SGD, pattern, 1).blocks * pattern.group**2


def _fits(spec: AcceleratorSpec, pattern: NMPattern, lanes: int) -> bool:
    return _tile_words(replace(spec, sore=replace(spec.sore, lanes=lanes)), pattern) <= MAX_TILE_WORDS
