"""`weft archs`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..workloads.errors import InputError, printable
from .console import get_console, make_table, si
from .options import Json
from .outputs import print_json

if TYPE_CHECKING:
    from ..dataflow.accelerator import AcceleratorSpec

__all__ = ["archs"]


def archs(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this machine as TOML.")] = None,
    as_fields: Annotated[
        bool, typer.Option("--fields", help="What the TOML of a machine holds, and in which ranges.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the machines that ship, or print one."""
    if as_fields:
        if name is not None:
            raise InputError("--fields is of every machine: leave out the name")
        _show_fields(as_json)
        return
    from ..dataflow.config_io import load_spec, preset_names, preset_text, spec_hash
    from ..workloads.strict import read_text

    if name is None:
        specs = [(spec, spec_hash(spec)) for spec in map(load_spec, preset_names())]
        if as_json:
            print_json({"archs": [{**asdict(spec), "hash": digest} for spec, digest in specs]})
            return
        _show(specs)
        return
    spec = load_spec(name)
    if as_json:
        print_json({**asdict(spec), "hash": spec_hash(spec)})
    else:
        text = read_text(Path(name)) if name.endswith(".toml") else preset_text(name)
        typer.echo(printable(text, lines=True), nl=not text.endswith("\n"))


def _show_fields(as_json: bool) -> None:
    from ..dataflow.accelerator import AcceleratorSpec
    from ..dataflow.ranges import field_rules

    columns = ("field", "values", "unit", "otherwise")
    rows = [(rule.path, rule.values, rule.unit, rule.otherwise) for rule in field_rules(AcceleratorSpec)]
    if as_json:
        print_json({"fields": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        get_console().print(make_table("", columns, rows, left=4))


def _show(specs: Iterable[tuple[AcceleratorSpec, str]]) -> None:
    rows = [
        (
            s.name,
            f"{s.array.rows} x {s.array.cols}",
            f"{s.clock_hz / 1e6:g} MHz",
            si(s.macs_per_cycle * s.clock_hz, "MAC/s"),
            f"{s.dram.bytes_per_second / 1e9:g} GB/s",
            digest,
        )
        for s, digest in specs
    ]
    console = get_console()
    console.print(make_table("", ("name", "array", "clock", "peak", "DRAM", "hash"), rows))
    console.print("`weft archs NAME` prints one as TOML, ready to be changed and given back as --arch file.toml.")
