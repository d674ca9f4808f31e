"""`weft explain`: a reported number taken apart."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..workloads.errors import InputError
from .console import bar, get_console, heading, make_table, percent, si
from .inputs import asked_pattern, machine
from .options import (
    DEFAULT_ARCH,
    DEFAULT_OBJECTIVE,
    Batch,
    InputShape,
    Json,
    Optimizer,
    Pattern,
    Pregenerate,
    Scheme,
    Seq,
)
from .outputs import print_json
from .pipeline import check_capacity, open_workload, simulate_step, under

if TYPE_CHECKING:
    from ..analysis.explain import EnergyExplanation

__all__ = ["energy"]


def energy(
    model: Annotated[
        str, typer.Argument(metavar="DIR|MODEL", help="Folder of `weft run -o`, or a model as in `weft run`.")
    ],
    batch: Batch = None,
    seq: Seq = None,
    arch: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help=f"Machine; that of DIR, {DEFAULT_ARCH} if none.")
    ] = None,
    scheme: Scheme = None,
    nm: Pattern = None,
    objective: Annotated[
        Literal["thrift", "cycles", "energy", "edp"] | None,
        typer.Option(help=f"That of DIR, {DEFAULT_OBJECTIVE} if none."),
    ] = None,
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    pregenerate: Pregenerate = None,
    op: Annotated[str | None, typer.Option(metavar="NAME", help="One op or layer alone.")] = None,
    technology: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.toml", help="Cost with this table: asic-45nm to asic-7nm, fpga-..., a file."),
    ] = None,
    bank: Annotated[
        int | None, typer.Option(metavar="KIB", help="Buffers of banks of this size; 64 KiB if none. ASIC only.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Every joule of a step as count x constant x scaling, with its source and how far to trust it."""
    from ..analysis.energy_table import FpgaTable
    from ..analysis.explain import explain_energy as taken_apart
    from ..analysis.explain import table_of
    from ..analysis.saved import saved_run

    saved = saved_run(Path(model)) if Path(model).is_dir() else None
    given = {"--batch": batch, "--seq": seq, "--scheme": scheme, "--nm": nm, "--optimizer": optimizer}
    given |= {"--objective": objective, "--input": input_shape}
    if saved is not None and any(value is not None for value in given.values()):
        named = ", ".join(name for name, value in given.items() if value is not None)
        raise InputError(f"{model}: a folder of results brings its own step; leave out {named}")
    if saved is not None and arch is None and pregenerate is None:
        spec = saved.machine()
    else:
        spec = machine(arch or (DEFAULT_ARCH if saved is None else saved.spec), pregenerate)
    table = table_of(technology or spec.technology, bank)
    if isinstance(table, FpgaTable):
        from ..analysis.area import machine_area

        with bar("synthesizing") as progress:
            machine_area(spec, "xcup", progress)
    if saved is not None:
        saved.require(spec)
        result = simulate_step(saved.workload, spec, saved.objective)
    else:
        pattern = asked_pattern(scheme, nm, spec)
        workload = under(open_workload(model, batch, seq, optimizer, input_shape), scheme, pattern, spec)
        check_capacity([workload], spec, "step")
        result = simulate_step(workload, spec, objective or DEFAULT_OBJECTIVE)
    found = taken_apart(result, table, op, None if saved is None else saved.joules)
    if as_json:
        print_json(found.document())
        return
    _show(found)


def _show(found: EnergyExplanation) -> None:
    """Every kind of action by its share, the sources under the table, and what rests on which mark."""
    console, report = get_console(), found.report
    of = f", {found.op}: {percent(report.joules, found.step_joules)} of the step" if found.op else ""
    console.print(f"{si(report.joules, 'J')} a step{of}", style="bold")
    console.print(heading(found.result.workload))
    console.print(f"on {found.result.spec.name}, table {report.table.name}: {report.table.title}\n")
    rows = [
        (
            str(i), str(row.component), str(row.action), f"{row.count:,}", f"{row.constant_pj:.4g}",
            "" if row.scaling == 1 else f"{row.scaling:.4g}", si(row.joules, "J"),
            percent(row.joules, report.joules), str(row.mark),
        )
        for i, row in enumerate(found.rows, 1)
    ]  # fmt: skip
    names = ("", "part", "action", "count", "pJ", "x", "energy", "share", "mark")
    console.print(make_table("Count x constant x scaling", names, rows, left=3))
    sources: dict[str, list[str]] = defaultdict(list)
    for i, row in enumerate(found.rows, 1):
        sources[row.source].append(str(i))
    console.print("Sources", style="bold")
    for source, numbers in sources.items():
        console.print(f"  {', '.join(numbers)}: {source}")
    marks = [(str(m), si(j, "J"), percent(j, report.joules)) for m, j in report.by_mark.items() if j]
    console.print(make_table("Rests on figures that are", ("mark", "energy", "share"), marks))
    console.print(f"Sum of the rows: {report.zeptojoules:,} zJ, to the last one the energy reported.")
    for note in found.notes:
        console.print(f"  {note}")
