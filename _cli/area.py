"""`weft area`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import bar, get_console, make_table, percent
from .inputs import machine
from .options import DEFAULT_ARCH, Arch, Json
from .outputs import print_json

if TYPE_CHECKING:
    from ..analysis.area import Area

__all__ = ["area"]


def area(
    arch: Arch = DEFAULT_ARCH,
    target: Annotated[Literal["ecp5", "xcup"], typer.Option(help="LFE5U-85F or XCVU9P.")] = "xcup",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Run no tool: modules not counted are inferred from those of others.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What a whole machine takes of an FPGA, from measured synthesis of its blocks."""
    from ..analysis.area import machine_area
    from ..analysis.area_by_shape import area_of_shape

    spec = machine(arch)
    if estimate:
        found = area_of_shape(spec, target)
    else:
        with bar("synthesizing") as progress:
            found = machine_area(spec, target, progress)
    if as_json:
        print_json(found.document())
        return
    _show(found)


def _show(area: Area) -> None:
    console = get_console()
    console.print(f"{area.machine} on {area.device}, counted by {area.tools}", style="bold")
    names = tuple(area.has)
    rows = [
        (item.block, item.name, f"{item.count:,}", *(f"{getattr(item, name):,}" for name in names))
        for item in area.items
    ]
    rows.append(("all", "", "", *(f"{area.total[name]:,}" for name in names)))
    rows.append((area.device, "", "", *(f"{area.has[name]:,}" for name in names)))
    rows.append(("share", "", "", *(percent(area.total[name], area.has[name]) for name in names)))
    if area.inferred:
        of = ", ".join(f"{item.block} {item.name}" for item in area.inferred)
        console.print(f"Inferred from modules of other machines, not counted: {of}. `weft area` counts them.")
    console.print(make_table("", ("block", "each", "count", *(name.replace("_", " ") for name in names)), rows, left=2))
    console.print(
        "Yosys' counts, not Vivado's; buffers by capacity; DMA, memory controller and vector unit are not there."
    )
