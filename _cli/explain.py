"""`weft explain`: a reported number taken apart."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..workloads.errors import InputError
from .console import bar, get_console, heading, make_table, name_of, percent, si
from .inputs import asked_patterns, machine, mapping_rules
from .options import (
    DEFAULT_ARCH,
    DEFAULT_OBJECTIVE,
    Batch,
    Dims,
    InputShape,
    Json,
    MappingRules,
    Optimizer,
    Patterns,
    Pregenerate,
    Scheme,
    Seq,
)
from .outputs import print_json
from .pipeline import check_prices, check_step, open_workload, simulate_step, under

if TYPE_CHECKING:
    from rich.table import Table

    from ..analysis.energy import EnergyReport
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
    nm: Patterns = None,
    objective: Annotated[
        Literal["thrift", "cycles", "energy", "edp"] | None,
        typer.Option(help=f"That of DIR, {DEFAULT_OBJECTIVE} if none."),
    ] = None,
    mapping: MappingRules = None,
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    dims: Dims = None,
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
    from ..analysis.explain import explain_energy as taken_apart
    from ..analysis.explain import table_of
    from ..analysis.saved import saved_run

    saved = saved_run(Path(model)) if Path(model).is_dir() else None
    if saved is not None:
        given = {"batch": batch, "seq": seq, "scheme": scheme, "nm": nm, "optimizer": optimizer, "objective": objective}
        _refuse_given(model, {**given, "input": input_shape, "dim": dims, "mapping": mapping})
    if saved is not None and arch is None and pregenerate is None:
        spec = saved.machine()
    else:
        spec = machine(arch or (DEFAULT_ARCH if saved is None else saved.spec), pregenerate)
    table = table_of(technology or spec.technology, bank)
    check_prices(spec, table)
    if saved is not None:
        with bar(f"simulating {model}") as progress:
            result = saved.simulated_on(spec, progress)
    else:
        asked, rules = asked_patterns(scheme, nm, spec), mapping_rules(mapping)
        workload = under(open_workload(model, batch, seq, optimizer, input_shape, dims=dims), scheme, asked, spec)
        check_step([workload], spec)
        result = simulate_step(workload, spec, objective or DEFAULT_OBJECTIVE, rules)
    found = taken_apart(result, table, op, None if saved is None else saved.joules)
    if as_json:
        print_json(found.document())
        return
    _show(found)


def _refuse_given(folder: str, options: dict[str, object]) -> None:
    named = ", ".join(f"--{name}" for name, value in options.items() if value is not None)
    if named:
        raise InputError(f"{folder}: a folder of results brings its own step; leave out {named}")


def _show(found: EnergyExplanation) -> None:
    """Every kind of action by its share, the sources under the table, and what rests on which mark."""
    from ..analysis.bands import band_words
    from ..analysis.level import level_words, seconds_of, step_of
    from ..analysis.words import percents, percents_of

    console, report, step = get_console(), found.report, step_of(found.result)
    of = f", {found.op}: {percent(report.joules, found.step_joules)} of the step" if found.op else ""
    console.print(f"{band_words(report.band)} a step{of}", style="bold")
    console.print(heading(step.workload))
    took = f"{si(seconds_of(found.result), 's')} {level_words(found.result)}"
    table = f"table {name_of(report.table.name)}: {name_of(report.table.title)}"
    console.print(f"on {name_of(step.spec.name)}, {took}, {table}\n")
    console.print(_parts(report))
    shares = percents(row.zeptojoules for row in found.rows)
    rows = [
        (str(i), str(row.action), band_words(row.band), f"{share} %", str(row.mark))
        for i, (row, share) in enumerate(zip(found.rows, shares, strict=True), 1)
    ]
    console.print(make_table("By action", ("", "action", "energy", "share", "mark"), rows, left=2))
    console.print("Count x constant x scaling, and the source of the constant", style="bold")
    bands: dict[str, list[str]] = defaultdict(list)
    known: dict[str, int] = {}
    for i, row in enumerate(found.rows, 1):
        scaled = "" if row.scaling == 1 else f" x {row.scaling:.4g}"
        first = known.setdefault(row.source, i)
        source = row.source if first == i else f"as {first}"
        console.print(f"  {i}: {row.count:,} x {row.constant_pj:.4g} pJ{scaled}: {source}")
        bands[f"{row.band_source} ({row.band_mark})"].append(str(i))
    console.print("Bands", style="bold")
    for origin, numbers in bands.items():
        console.print(f"  {', '.join(numbers)}: {origin}")
    marked = {m: j for m, j in report.by_mark.items() if j}
    marks = [(str(m), si(marked[m], "J"), f"{share} %") for m, share in percents_of(marked).items()]
    console.print(make_table("Rests on figures that are", ("mark", "energy", "share"), marks))
    console.print(f"Sum of the rows: {report.zeptojoules:,} zJ, to the last one the energy reported.")
    for note in found.notes:
        console.print(f"  {note}")


def _parts(report: EnergyReport) -> Table:
    """By part of the machine, with its band and what its likely figures are."""
    from ..analysis.bands import band_words
    from ..analysis.words import percents_of

    found = dict(sorted(report.by_component.items(), key=lambda item: -item[1]))
    shares = percents_of({part: joules for part, joules in found.items() if joules})
    rows = []
    for part, share in shares.items():
        marks = dict.fromkeys(str(row.mark) for row in report.rows if row.component == part)
        rows.append((str(part), band_words(report.part_bands[part]), f"{share} %", ", ".join(marks)))
    return make_table("By part of the machine", ("part", "energy", "share", "figures are"), rows)
