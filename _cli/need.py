"""`weft need`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..workloads.errors import InputError
from .console import get_console, make_table, phases, si
from .inputs import asked_patterns, machine
from .options import (
    DEFAULT_ARCH,
    Arch,
    AttentionBy,
    Batch,
    Dims,
    DrawAll,
    Folder,
    Freeze,
    InputShape,
    Json,
    Model,
    Optimizer,
    Patterns,
    Pregenerate,
    Recompute,
    Scheme,
    Seq,
)
from .outputs import print_json, require_writable_folder
from .pipeline import check_step, open_workload, under

if TYPE_CHECKING:
    from ..analysis.grown import Point
    from ..analysis.need import Line, Need

__all__ = ["need"]

_ROWS = 9
"""Points of a line in its table, beside those of which something is said; files have all."""


def need(
    context: typer.Context,
    model: Model,
    dram: Annotated[bool, typer.Option("--dram", help="How much DRAM bandwidth.")] = False,
    buffers: Annotated[bool, typer.Option("--buffers", help="How many bytes of buffers.")] = False,
    array: Annotated[bool, typer.Option("--array", help="How many PEs, in which shape.")] = False,
    within: Annotated[
        str, typer.Option(metavar="PERCENT", help="How much longer a step may take than with any amount.")
    ] = "1%",
    batch: Batch = None,
    seq: Seq = None,
    arch: Arch = DEFAULT_ARCH,
    scheme: Scheme = None,
    nm: Patterns = None,
    objective: Annotated[
        Literal["cycles", "thrift"],
        typer.Option(help="cycles: the least time, and the answer exact; thrift, as weft run has it: on a grid."),
    ] = "cycles",
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    dims: Dims = None,
    recompute: Recompute = None,
    freeze: Freeze = None,
    attention: AttentionBy = "full",
    pregenerate: Pregenerate = None,
    output: Folder = None,
    draw_all: DrawAll = False,
    as_json: Json = False,
) -> None:
    """The least DRAM bandwidth, buffers or array with which a step is nearly as fast as with any amount."""
    from ..analysis.need import need as needed
    from ..analysis.need_files import needs_dict, require_free_for_needs, save_needs
    from ..analysis.resources import Resource

    asked = {Resource.DRAM: dram, Resource.BUFFERS: buffers, Resource.ARRAY: array}
    resources = [resource for resource, wanted in asked.items() if wanted]
    if not resources:
        raise InputError("nothing is asked for: give --dram, --buffers or --array, or several of them")
    share, spec = _share(within), machine(arch, pregenerate)
    if output is not None:
        require_writable_folder(output)
        require_free_for_needs(output, resources, draw_all)
    patterns = asked_patterns(scheme, nm, spec)
    traced = open_workload(model, batch, seq, optimizer, input_shape, recompute, freeze, attention, dims)
    workload = under(traced, scheme, patterns, spec)
    check_step([workload], spec)
    found = []
    for resource in resources:
        with phases(f"{model} by {resource.words}") as progress:
            found.append(needed(workload, spec, resource, share, objective, progress))
    if output is not None:
        save_needs(found, output, context.obj, draw_all)
    if as_json:
        print_json(needs_dict(found, context.obj))
        return
    for one in found:
        _show(one)


def _share(text: str) -> float:
    """A percentage; a bare number could be meant as a share."""
    read = re.fullmatch(r"(-?\d{1,9}(?:\.\d{1,9})?) ?%", text.strip(), re.ASCII)
    if read is None:
        raise InputError(f"--within {text!r} is not a percentage such as 1% or 0.5%")
    share = float(read[1])
    if not 0 < share <= 100:
        raise InputError(f"--within must be above 0% and at most 100%, not {text.strip()}; 1% is usual")
    return share / 100


def _show(found: Need) -> None:
    """The answer, and a table a line."""
    from ..analysis.need_words import needs_words

    console = get_console()
    first, *others = needs_words(found)
    console.print(first, style="bold")
    for sentence in others:
        console.print(sentence)
    for line in found.lines:
        console.print(_table(found, line))


def _table(found: Need, line: Line) -> object:
    from ..analysis.need_words import fields_of, marks, share_words

    said = marks(found, line)
    rows = [
        (
            said.get(point, ""),
            found.resource.amount(point.size),
            *fields_of(found.resource, point).values(),
            "does not run" if point.cycles is None else si(point.cycles / found.spec.clock_hz, "s"),
            "-" if (slower := found.slower(point, line)) is None else share_words(slower),
            "-" if point.dram_bytes is None else si(point.dram_bytes, "B"),
        )
        for point in _shown(found, line, list(said))
    ]
    columns = (line.name, found.resource.words, *fields_of(found.resource, line.least), "step", "longer", "moves")
    return make_table("", columns, rows)


def _shown(found: Need, line: Line, said: list[Point]) -> list[Point]:
    """Some points in even steps, and those of which something is said."""
    last = len(line.points) - 1
    some = {line.points[last * i // (_ROWS - 1)] for i in range(_ROWS)}
    return sorted(some.union(said), key=lambda point: point.size)
