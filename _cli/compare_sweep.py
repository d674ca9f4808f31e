"""`weft compare` of several patterns, machines or batches: every combination, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..workloads.errors import InputError, printable
from .console import bar, get_console, make_table, rate, si
from .inputs import require_once
from .outputs import print_json, require_writable_folder

if TYPE_CHECKING:
    from ..analysis.compare_sweep import Asked, Sweep, SweepRow
    from ..dataflow.accelerator import AcceleratorSpec
    from ..dataflow.constraint import MappingFile
    from ..workloads.step import Workload

__all__ = ["Places", "sweep_all"]

_WIDTH = 132
"""Characters that the table takes with usual names."""
_COLUMNS = (
    "machine",
    "batch",
    "scheme",
    "N:M",
    "step",
    "samples/s",
    "speed-up",
    "by MACs",
    "ideal",
    "utilis.",
    "energy",
    "above bound",
)


class Places(NamedTuple):
    """Where results go, and by which command they were made."""

    output: Path | None
    draw_all: bool
    as_json: bool
    command: str


def sweep_all(
    opened: Callable[[int | None], Workload],
    batches: Sequence[int],
    machines: Mapping[str, AcceleratorSpec],
    schemes: Sequence[str],
    patterns: Sequence[Asked],
    objective: str,
    mapping: MappingFile | None,
    places: Places,
) -> None:
    """Simulate every combination of the steps that ``opened`` gives by its batch, and show them."""
    from ..analysis.compare_sweep import sweep
    from ..analysis.compare_sweep_files import require_free_for_sweep, save_sweep, sweep_dict
    from ..workloads.schemes.scheme import scheme

    for name in schemes:
        scheme(name)
    require_once("--schemes", schemes)
    if places.output is not None:
        require_writable_folder(places.output)
        require_free_for_sweep(places.output, places.draw_all)
    steps = _steps(opened, batches)
    with bar("simulating") as progress:
        found = sweep(steps, machines, schemes, patterns, objective, mapping, progress)
    if places.output is not None:
        save_sweep(found, places.output, places.command, draw_all=places.draw_all)
    if places.as_json:
        print_json(sweep_dict(found, places.command))
        return
    _show(found)


def _steps(opened: Callable[[int | None], Workload], batches: Sequence[int]) -> dict[int, Workload | str]:
    """By batch, the step, each traced once, or why it cannot be traced."""
    if not batches:
        usual = opened(None)
        return {usual.batch: usual}
    found: dict[int, Workload | str] = {}
    for batch in batches:
        try:
            found[batch] = opened(batch)
        except InputError as refused:
            found[batch] = str(refused)
    return found


def _show(sweep: Sweep) -> None:
    """The table, and under it what cannot run, with the reason."""
    from ..analysis.compare_sweep_files import refusals, sweep_provenance

    console = get_console(_WIDTH)
    console.print(printable(sweep_provenance(sweep)), style="bold")
    rows = [_row(row, first=n == 0) for of in sweep.groups.values() for n, row in enumerate(of)]
    console.print(make_table("", _COLUMNS, rows, left=4, width=_WIDTH))
    for why, names in refusals(sweep).items():
        console.print(f"Cannot run: {printable('; '.join(names))}: {printable(why)}")
    console.print(
        "Speed-up and ideal: over dense on the same machine at the same batch. Above bound: what the step takes more "
        "than its products at the array's peak, or with every operand moved once."
    )


def _row(row: SweepRow, *, first: bool) -> tuple[str, ...]:
    at = (row.machine, str(row.batch)) if first else ("", "")
    if row.seconds is None or row.samples_per_s is None:
        return (*at, row.scheme, row.pattern or "", "cannot run", *(["-"] * 7))
    return (
        *at,
        row.scheme,
        row.pattern or "",
        si(row.seconds, "s"),
        rate(row.samples_per_s),
        "-" if row.speedup is None else f"{row.speedup:.3f}x",
        f"{row.mac_speedup:.2f}x",
        f"{row.ideal_speedup:.2f}x",
        f"{100 * (row.utilization or 0.0):.1f} %",
        si(row.energy_j or 0.0, "J"),
        "-" if row.gap is None else f"{100 * row.gap:.1f} %",
    )
