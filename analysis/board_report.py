"""What a bitstream takes of its FPGA, block by block, beside what `weft area` estimates of the blocks that it knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..dataflow.accelerator import AcceleratorSpec
from ..hdl.flow.bitstream import BuiltBitstream, Module
from ..hdl.flow.devices import DEVICES, Resources
from .area_by_shape import items_within

__all__ = ["BoardRow", "board_document", "board_rows"]

_ESTIMATED = {
    "pe": (("stce", "pe"),),
    "stce_row": (("stce", "stce_row"),),
    "stce": (("stce", "edges"), ("stce", "control")),
    "wuve_lane": (("wuve", "wuve_lane"),),
    "xnor_pe": (("xnor_engine", "xnor_pe"),),
    "xnor_row": (("xnor_engine", "xnor_row"),),
}
"""Modules of the board that blocks of the area stand for, by block and module there; the rest it does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRow:
    """A module, ``depth`` modules deep: what it takes without and with those inside it, LUT sites as a ``share`` of the
    device, and the sites that `weft area` says of as many (None: it does not know the block)."""

    name: str
    depth: int
    count: int
    own: Resources
    whole: Resources
    sites: int
    share: float
    estimate: int | None


def board_rows(built: BuiltBitstream, spec: AcceleratorSpec) -> tuple[BoardRow, ...]:
    """The modules of ``built``, outer ones first."""
    device = DEVICES["ecp5"]
    sites = {(item.block, item.name): item.count * item.lut_sites for item in items_within(spec, "ecp5")}
    depth: dict[str, int] = {}
    rows = []
    for module in built.modules:
        depth[module.name] = depth.get(module.inside, -1) + 1
        whole = _whole(built.modules, module)
        named = _ESTIMATED.get(module.name, ())
        rows.append(
            BoardRow(
                name=module.name,
                depth=depth[module.name],
                count=module.count,
                own=module.all,
                whole=whole,
                sites=device.sites(module.all),
                share=device.sites(whole) / device.has.lut,
                estimate=sum(sites[name] for name in named) if named and sites.keys() >= {*named} else None,
            )
        )
    return tuple(rows)


def _whole(modules: tuple[Module, ...], module: Module) -> Resources:
    """With all inside it."""
    inside = (_whole(modules, other) for other in modules if other.inside == module.name)
    return sum(inside, module.all)


def board_document(built: BuiltBitstream, spec: AcceleratorSpec) -> dict[str, Any]:
    """All of it but the bitstream, for JSON."""
    return {
        "machine": spec.name,
        "board": built.board.name,
        "device": built.board.device,
        "tools": list(built.tools),
        "mark": "measured (yosys count; nextpnr's clock; nothing has run on a board)",
        "shape": asdict(built.shape),
        "modules": [asdict(row) for row in board_rows(built, spec)],
        "used": {kind: {"used": used, "of": of} for kind, (used, of) in built.used.items()},
        "asked_mhz": built.asked,
        "mhz": built.mhz,
        "closes": built.closes,
        "critical": asdict(built.critical),
        "files": sorted(built.files),
    }
