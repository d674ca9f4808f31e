"""`weft synth`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..hdl.registry import BLOCKS, find_block
from .console import bar, get_console, make_table, name_of
from .inputs import machine, require_hdl
from .options import DEFAULT_ARCH, Arch, Json
from .outputs import print_json, require_writable_folder, write_files

if TYPE_CHECKING:
    from ..dataflow.accelerator import AcceleratorSpec
    from ..hdl.flow.route import Routed
    from ..hdl.flow.synthesis import Synthesis

__all__ = ["synth"]

_SAID = ", ".join(f"{name}: {block.title}" for name, block in BLOCKS.items()) + "."
_COUNTED = ("lut", "memory_lut", "carry", "ff", "dsp", "bram", "uram")


def synth(
    arch: Arch = DEFAULT_ARCH,
    target: Annotated[
        Literal["ecp5", "ice40", "xcup"], typer.Option(help="LFE5U-85F, also placed and routed; iCE40UP5K; XCVU9P.")
    ] = "ecp5",
    block: Annotated[str, typer.Option(metavar="|".join(BLOCKS), help=_SAID)] = "stce",
    mhz: Annotated[
        int | None, typer.Option(metavar="N", help="Clock to aim at; that of the machine by default.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", metavar="DIR", help="Write synthesis.json there, and for xcup a Vivado project."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the LUTs, registers, DSPs and memories of a block; for ECP5 also its clock."""
    if output is not None:
        from ..analysis.publish import require_free

        require_writable_folder(output)
        require_free(output, ("synthesis.json", *((f"{block}.v",) if target == "xcup" else ())))
    require_hdl("synth")
    from ..analysis.synthesised import remember
    from ..hdl.flow.route import place_and_route
    from ..hdl.flow.synthesis import synthesize
    from ..hdl.flow.vivado import vivado_project

    spec, chosen = machine(arch), find_block(block)
    aim = mhz if mhz is not None else max(1, spec.clock_hz // 1_000_000)
    with bar(f"synthesizing {block} for {target}") as progress:
        made = synthesize(spec, chosen, target, aim, progress)
    remember(spec, chosen, made, aim)
    routed = None
    if target == "ecp5":
        with bar(f"placing and routing {block}") as progress:
            routed = place_and_route(spec, chosen, aim, progress)
    document = _document(spec.name, made, routed)
    if output is not None:
        files = vivado_project(spec, chosen, aim) if target == "xcup" else {}
        files["synthesis.json"] = json.dumps(document, indent=2) + "\n"
        write_files(output, "synthesis", files)
    print_json(document) if as_json else _show(spec, made, routed, output)


def _document(machine: str, made: Synthesis, routed: Routed | None) -> dict[str, Any]:
    from ..hdl.flow.devices import DEVICES

    device = DEVICES[made.target]
    return {
        "machine": machine,
        "block": made.block,
        "target": made.target,
        "device": device.name,
        "tools": made.tools,
        "mark": "measured (yosys count, not Vivado's)",
        "blocks": [{"name": b.name, "count": b.count, **asdict(b.each)} for b in made.parts],
        "total": asdict(made.total),
        "device_has": asdict(device.has),
        "lut_sites": device.sites(made.total),
        "cells": dict(made.cells),
        "routed": None if routed is None else asdict(routed),
    }


def _show(spec: AcceleratorSpec, made: Synthesis, routed: Routed | None, path: Path | None) -> None:
    from ..hdl.flow.devices import DEVICES

    device, total = DEVICES[made.target], made.total
    console = get_console()
    console.print(f"{made.block} of {name_of(spec.name)} on {device.name}, counted by {made.tools}", style="bold")
    rows = [(b.name, f"{b.count:,}", *(f"{getattr(b.each, name):,}" for name in _COUNTED)) for b in made.parts]
    rows.append(("all", "", *(f"{getattr(total, name):,}" for name in _COUNTED)))
    console.print(make_table("", ("each", "count", *(name.replace("_", " ") for name in _COUNTED)), rows))
    sites = device.sites(total)
    console.print(f"{sites:,} of {device.has.lut:,} LUT sites ({100 * sites / device.has.lut:.1f} %)")
    if routed is not None:
        critical = routed.critical
        console.print(f"{routed.mhz:.1f} MHz placed and routed (asked for {routed.asked_mhz})", style="bold")
        console.print(
            f"critical path {critical.ns:.1f} ns ({critical.logic_ns:.1f} logic, {critical.routing_ns:.1f} routing): "
            f"{critical.source} to {critical.sink}"
        )
        if critical.through:
            console.print(f"  by way of {', '.join(critical.through)}")
        harness = routed.harness
        console.print(
            f"The registers that stand for its surroundings take {harness.lut:,} LUT and {harness.ff:,} FF more."
        )
    if path is not None:
        console.print(f"Written to {path}")
