"""Whether a machine closes its clock on an FPGA: what is known of it from blocks that were placed and routed.

Only what was routed is claimed: of UltraScale+ nothing was, and no whole machine on the ECP5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..dataflow.accelerator import AcceleratorSpec
from ..hdl.flow.devices import DEVICES
from ..workloads.mark import Mark
from ..workloads.strict import read_toml
from .area import blocks_of, require_target
from .synthesised import AreaTarget

__all__ = ["Closes", "Routed", "closes", "routed"]

_STRICT = {"extra": "forbid"}
_FILE = "routed.toml"
_SPREAD = 0.05
"""By which another seed or order of cells moves a clock (docs/results/synthesis.md)."""
_WITHIN = {"stce": ("pe",), "xnor_engine": ("xnor_pe",), "tree_unit": ("tree_lane",)}
"""Blocks that are part of another one, which is no faster than they are."""
_SIZES = ("array.rows", "array.cols", "xnor.rows", "xnor.cols", "sore.lanes", "wuve.lanes", "tree.lanes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """A block that was placed and routed: the clock that was asked for and the one it reached, MHz; ``of`` is what of a
    machine it was built of, by path."""

    __pydantic_config__ = _STRICT
    block: str
    asked_mhz: int
    mhz: float
    of: dict[str, int | str]
    mark: Mark
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    __pydantic_config__ = _STRICT
    name: str
    tools: str
    routed: tuple[Routed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closes:
    """Whether a clock is reached, None if nobody knows, and why."""

    verdict: bool | None
    reason: str


@cache
def routed() -> tuple[Routed, ...]:
    """Blocks that were placed and routed, all of them on the ECP5."""
    text = (resources.files(__package__) / "tables" / _FILE).read_text(encoding="utf-8")
    return read_toml(_Table, text, _FILE).routed


def closes(spec: AcceleratorSpec, target: AreaTarget) -> Closes:
    """Whether ``spec`` reaches its clock on ``target``, by blocks routed one by one.

    True: each of its blocks did, as it is. False: one did not, or a part or a smaller array of one, by more than runs
    differ. Otherwise None, with the slowest part that was routed.
    """
    require_target(target)
    if target != "ecp5":
        return Closes(verdict=None, reason=f"nothing was placed on {DEVICES[target].name}: its clocks are not known")
    found = [_block(spec, block.name) for block in blocks_of(spec)]
    for verdict in (False, None):
        reasons = [one.reason for one in found if one.verdict is verdict]
        if reasons:
            return Closes(verdict=verdict, reason="; ".join(reasons))
    return Closes(verdict=True, reason="; ".join(one.reason for one in found))


def _block(spec: AcceleratorSpec, block: str) -> Closes:
    fields, clock = _fields(spec), spec.clock_hz / 1e6
    own = [one for one in routed() if one.block == block and _same(one, fields)]
    for one in own:
        if one.mhz >= clock:
            return Closes(verdict=True, reason=f"{block} needs {clock:g} MHz, and {_said(one)}")
    inside = [one for one in routed() if one.block in (block, *_WITHIN.get(block, ())) and _part(one, fields)]
    # One that fell short of what was asked of it was as fast as the tools could make it.
    short = [one for one in inside if one.mhz < one.asked_mhz and one.mhz * (1 + _SPREAD) < clock]
    if short:
        slowest = min(short, key=lambda one: one.mhz)
        return Closes(verdict=False, reason=f"{block} needs {clock:g} MHz, and {_said(slowest)}")
    if not inside:
        return Closes(verdict=None, reason=f"neither {block} nor a part of it was placed and routed")
    slowest = min(inside, key=lambda one: one.mhz)
    return Closes(verdict=None, reason=f"{block} was not placed and routed as it is; {_said(slowest)}")


def _said(one: Routed) -> str:
    size = " x ".join(str(one.of[name]) for name in _SIZES if name in one.of)
    what = f"{size} of {one.block}" if size else f"one {one.block} alone"
    return f"{what} reached {one.mhz:g} MHz ({one.source})"


def _same(one: Routed, fields: Mapping[str, Any]) -> bool:
    return all(fields.get(name) == value for name, value in one.of.items())


def _part(one: Routed, fields: Mapping[str, Any]) -> bool:
    """Whether a block was built of what these fields are, or is smaller."""
    return all(
        name in fields and (fields[name] >= value if name in _SIZES else fields[name] == value)
        for name, value in one.of.items()
    )


def _fields(spec: AcceleratorSpec) -> dict[str, Any]:
    return {
        f"{part}.{name}": value
        for part, table in asdict(spec).items()
        if isinstance(table, dict)
        for name, value in table.items()
    }
