"""The requests of a step to DRAM, as `weft run --dram-trace` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..workloads.errors import InputError, require_int
from .console import bar, get_console, name_of, si
from .outputs import require_writable_file

if TYPE_CHECKING:
    from ..dataflow.schedule import Schedule
    from ..simulator.dram_traces import Form
    from ..simulator.regions import Region
    from ..simulator.result import SimResult

__all__ = ["AskedTrace", "DramForm", "DramTrace", "Limit", "asked_trace", "show_requests", "write_requests"]

_LIMIT = 10_000_000
_MOST = 10**10
"""Some 300 GB."""


DramTrace = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write every request of the step to DRAM, beside FILE where tensors lie."),
]
DramForm = Annotated[
    Literal["dramsim3", "ramulator", "csv"] | None,
    typer.Option(help="Of --dram-trace: dramsim3 by default; ramulator's LD and ST have no cycles."),
]
Limit = Annotated[int | None, typer.Option(help=f"Most requests of --dram-trace; {_LIMIT:,} by default.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTrace:
    """A trace to write."""

    path: Path
    form: Form
    limit: int

    @property
    def layout(self) -> Path:
        """Where its tensors are listed."""
        return self.path.with_name(f"{self.path.name}.layout.csv")


def asked_trace(path: Path | None, form: Form | None, limit: int | None, level: str | None) -> AskedTrace | None:
    """What the options ask for, refused before the work where it cannot be."""
    if path is None:
        if form is not None or limit is not None:
            raise InputError("--dram-form and --limit are of a trace: name its file with --dram-trace")
        return None
    if level == "system":
        raise InputError(
            "--dram-trace is of the step level, where ops run one after the other: leave out --level system"
        )
    require_int("--limit", _LIMIT if limit is None else limit, 1, _MOST)
    asked = AskedTrace(path=path, form=form or "dramsim3", limit=limit or _LIMIT)
    require_writable_file(asked.path, "--dram-trace")
    require_writable_file(asked.layout, "--dram-trace")
    return asked


def write_requests(asked: AskedTrace, chosen: Schedule, result: SimResult) -> dict[str, Any]:
    """Write the trace and its layout; what is in them."""
    from ..simulator.dram_traces import write_trace
    from ..simulator.step_requests import step_requests
    from ..workloads.files import write_atomically

    with bar(f"writing {asked.path}") as progress:
        found = step_requests(chosen, result, progress)
        if found.at_least > asked.limit:
            raise InputError(
                f"{asked.path}: would hold {found.at_least:,} requests or more, and --limit is {asked.limit:,}: raise "
                f"it (some {si(28.0 * found.at_least, 'B')} of text), or use a smaller batch"
            )
        written = write_trace(asked.path, found.parts, found.memory, asked.form, asked.limit)
    write_atomically(asked.layout, _layout(found.regions).encode())
    o = found.memory.organization
    return {
        "file": str(asked.path),
        "form": asked.form,
        "layout": str(asked.layout),
        "memory": found.memory.name,
        "channels": o.channels,
        "clock_hz": o.clock_hz,
        "line_bytes": o.line_bytes,
        "reads": written.reads,
        "writes": written.writes,
        "last_cycle": written.last,
        "bytes_of_tensors": max(region.address + region.size for region in found.regions),
    }


def _layout(regions: tuple[Region, ...]) -> str:
    import csv
    import io

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("address", "bytes", "tensor", "from_op", "to_op"))
    for region in sorted(regions, key=lambda r: (r.address, r.first)):
        rows.writerow((f"{region.address:#x}", region.size, region.name, region.first, region.last))
    return text.getvalue()


def show_requests(written: dict[str, Any]) -> None:
    """What was written, and with what it can be read."""
    console, clock = get_console(), si(written["clock_hz"], "Hz")
    console.print("\nRequests to DRAM", style="bold")
    console.print(
        f"  {name_of(written['file'])}: {written['reads']:,} reads, {written['writes']:,} writes of "
        f"{written['line_bytes']} bytes, to cycle {written['last_cycle']:,} of {clock}; {written['form']}"
    )
    console.print(
        f"  {written['channels']} channels of {written['memory']}; {si(written['bytes_of_tensors'], 'B')} of tensors, "
        f"where they lie: {name_of(written['layout'])}"
    )
