"""One point of an exploration in full: its machine, its run at the system level, its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...simulator.shape_choice import chosen_by_shape
from ...simulator.step import simulate
from ...simulator.system import simulate_system
from ...workloads.errors import InputError, require_int
from ...workloads.files import write_atomically
from ..level import AnyResult
from ..report.folder import read_folder
from ..report.page import report_page
from ..save import save_run
from .overlapped import scheduled_at
from .parts import rows_of, values_of
from .saved import Explored

__all__ = ["report_point"]


def report_point(explored: Explored, point: int, command: str, progress: Callable[[int, int], None]) -> Path:
    """The page of a point, in ``reports/POINT`` of the exploration; its machine and its run lie beside it.

    It is run with ops overlapped, or op after op where DRAM cannot hold the step. Refuses a point that does not run.
    """
    plan = explored.plan()
    require_int("POINT", point, 0, plan.size - 1)
    chosen = scheduled_at(plan, values_of(plan, rows_of(plan, explored.folder, [point]))[0])
    result: AnyResult
    try:
        result = simulate_system(chosen_by_shape(chosen))
    except InputError:
        result = simulate(chosen)
    folder = explored.folder / "reports" / str(point)
    save_run(result, folder, command)
    page = folder / "report.html"
    title = f"Point {point:,} of {explored.folder.resolve().name}"
    write_atomically(page, report_page(read_folder(folder, progress), title).encode())
    return page
