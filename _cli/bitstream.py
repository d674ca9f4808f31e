"""`weft bitstream`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..workloads.errors import InputError
from ..workloads.update_rule import SGD, UPDATE_RULES
from .console import announce, bar, get_console, make_table, name_of, percent
from .inputs import machine, parse_pattern, require_hdl
from .options import Arch, Json, Optimizer
from .outputs import print_json, require_writable_folder

if TYPE_CHECKING:
    from ..dataflow.program.spaces import Target
    from ..hdl.boards.core import CoreShape
    from ..hdl.flow.bitstream import BuiltBitstream

__all__ = ["bitstream"]

_REPORT = "bitstream.json"
_VIVADO = "vcu1525"
_DEFAULT_MHZ = 100
"""Of a machine on the VCU1525: a choice; nobody has timed one."""


def bitstream(
    board: Annotated[str, typer.Option(metavar="ulx3s|ecpix5|vcu1525", help="Board to build for.")],
    output: Annotated[Path, typer.Option("-o", metavar="DIR", help="Folder for the files.")],
    arch: Arch = "tiny-ecp5",
    optimizer: Optimizer = None,
    nm: Annotated[
        str | None,
        typer.Option(metavar="KEEP:GROUP", help="N:M pattern of the machine's SORE; without it there is none."),
    ] = None,
    program: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What `weft compile` wrote: refuse a board that it does not run on."),
    ] = None,
    mhz: Annotated[int | None, typer.Option(metavar="N", help="Clock of the machine; the board's by default.")] = None,
    baud: Annotated[int, typer.Option(metavar="N", help="Of the serial line.")] = 1_000_000,
    as_json: Json = False,
) -> None:
    """Build the bitstream of a whole machine with open tools; for the VCU1525, a Vivado project.

    An ECP5 takes tens of minutes to place and route; a machine that was built before comes from the cache.
    """
    require_writable_folder(output)
    require_hdl("bitstream")
    from ..analysis.board_report import board_document
    from ..analysis.publish import publish
    from ..dataflow.program.spaces import Target
    from ..hdl.boards.board import BOARDS, find_board
    from ..hdl.boards.vcu1525 import vivado_board_project
    from ..hdl.flow.bitstream import bitstream as build

    spec = machine(arch)
    pattern = None if nm is None else parse_pattern(nm)
    target = Target(spec=spec, rule=UPDATE_RULES[optimizer or SGD.name], pattern=pattern)
    if board == _VIVADO:
        if program is not None:
            _require_program(program, arch, target, None)
        made = vivado_board_project(target, _DEFAULT_MHZ if mhz is None else mhz)
        publish(output, "bitstream", {name: text.encode() for name, text in made.items()})
        if as_json:
            print_json({"machine": spec.name, "board": board, "files": sorted(made), "path": str(output)})
        else:
            get_console().print(f"A Vivado project in {output}, which nobody has run: {', '.join(sorted(made))}")
        return
    if board not in BOARDS:
        raise InputError(f"--board: there is no board {board!r}; take {', '.join([*BOARDS, _VIVADO])}")
    chosen = find_board(board)
    shape = chosen.shape(mhz, baud)
    if program is not None:
        _require_program(program, arch, target, shape)
    announce("Placing and routing takes tens of minutes; a machine that was built before comes from the cache.")
    with bar(f"building {name_of(spec.name)} for {board}") as progress:
        built = build(target, chosen, mhz, baud, progress)
    document = board_document(built, spec)
    publish(output, "bitstream", {**built.files, _REPORT: (json.dumps(document, indent=1) + "\n").encode()})
    print_json({**document, "path": str(output)}) if as_json else _show(built, target, output)


def _require_program(folder: Path, arch: str, target: Target, shape: CoreShape | None) -> None:
    """Refuse programs of another machine, and those that ask for more memory than the board has."""
    from ..dataflow.program.instruction import Go
    from ..dataflow.program.isa import Unit
    from ..dataflow.program.program import read_program
    from ..workloads.strict import read_file

    text = read_file(folder / "memory.json")
    try:
        said: dict[str, Any] = json.loads(text)
        window = int(said["window"])
        images = int(said.get("images", 0))
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{folder / 'memory.json'}: was not written by weft compile -o {folder}") from None
    programs = {path.stem: read_program(path) for path in sorted(folder.glob("*.weft"))}
    if not programs:
        raise InputError(f"{folder}: holds no programs; they are what weft compile -o {folder} writes")
    binary = any(isinstance(i, Go) and i.unit is Unit.XNOR for one in programs.values() for i in one.instructions)
    if binary and target.spec.xnor is None:
        raise InputError(
            f"{folder}: holds a binary network, for which {target.spec.name} has no XNOR engine; take the --arch that "
            f"it was compiled for, or a machine with a table [xnor], as examples/tiny-xnor.toml"
        )
    nm = "" if target.pattern is None else f" --nm {target.pattern}"
    for name, program in programs.items():
        if program.machine != target.hash:
            raise InputError(
                f"{folder / name}.weft is for machine {program.machine}, not for {target.spec.name} ({target.hash}); "
                f"compile it with --arch {arch} --optimizer {target.rule.name}{nm}"
            )
    if shape is None:
        return
    longest = max(len(program.instructions) for program in programs.values())
    for what, needs, has in (("bytes", window, shape.memory), ("instructions", longest, shape.instructions)):
        if needs > has:
            instead = "a network of fewer or narrower layers" if images == 1 else "a smaller batch"
            raise InputError(f"{folder}: needs memory for {needs:,} {what}, the board has {has:,}; take {instead}")


def _show(built: BuiltBitstream, target: Target, path: Path) -> None:
    from ..analysis.board_report import board_rows

    console = get_console()
    console.print(f"{name_of(target.spec.name)} ({target.hash}) on {built.board.title}", style="bold")
    rows = [
        (
            "  " * row.depth + row.name,
            f"{row.count:,}",
            f"{row.sites:,}",
            percent(row.share, 1.0),
            *(f"{getattr(row.own, name):,}" for name in ("ff", "dsp", "bram")),
            "" if row.estimate is None else f"{row.estimate:,}",
        )
        for row in board_rows(built, target.spec)
    ]
    head = ("module", "count", "LUT sites", "share with all inside", "ff", "dsp", "bram", "weft area")
    console.print(make_table("", head, rows, left=1))
    used = ", ".join(f"{kind} {count:,} of {of:,}" for kind, (count, of) in built.used.items())
    console.print(f"Placed: {used}")
    console.print(f"{built.mhz:.1f} MHz placed and routed, clocked at {built.asked:g} MHz", style="bold")
    critical = built.critical
    console.print(
        f"critical path {critical.ns:.1f} ns ({critical.logic_ns:.1f} logic, {critical.routing_ns:.1f} routing): "
        f"{critical.source} to {critical.sink}"
    )
    if not built.closes:
        console.print(f"It does not bear its clock: build it again with --mhz {int(built.mhz)} or less.", style="bold")
    console.print(f"{', '.join(sorted(built.files))} and {_REPORT} in {path}")
