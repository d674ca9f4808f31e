"""`weft explore`: a space of machines evaluated, shown, and one of its points in full."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..workloads.errors import printable
from .clusters import executor_at
from .console import bar, get_console, make_table, name_of, percent
from .options import Cluster, FuseBy, Insecure, Json
from .outputs import print_json, require_writable_file, require_writable_folder
from .pipeline import users_code

if TYPE_CHECKING:
    from ..analysis.explore.saved import Explored

__all__ = ["explore_app"]

_SHOWN = 20
"""Rows of a front in the terminal; the file has all."""
_MATTERED, _ADVICE = 4, 8
_WIDTH = 145
_GAP = 3
"""Between columns of a table."""


class _RunIsUsual(TyperGroup):
    """``weft explore SPACE`` is ``weft explore run SPACE``."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        first = next((arg for arg in args if not arg.startswith("-")), None)
        if args and args[0] not in ("-h", "--help") and first not in self.commands:
            args = ["run", *args]
        found: list[str] = super().parse_args(context, args)
        return found


explore_app = typer.Typer(
    cls=_RunIsUsual,
    help="Evaluate a space of machines: `weft explore SPACE.toml`; then `show` its page, or `report` a point in full.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Of an exploration.")]


def run(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="A .toml file or file.py:function; docs/explore.md.")],
    output: Annotated[
        Path | None, typer.Option("-o", metavar="DIR", help="Keep points here; out/explore/NAME of the space if none.")
    ] = None,
    cluster: Cluster = None,
    insecure: Insecure = False,
    fusion: FuseBy = "none",
    as_json: Json = False,
) -> None:
    """Evaluate every point of a space, or go on where it was ended, and find its front."""
    from ..analysis.explore.saved import read_explored
    from ..analysis.explore.space import read_space
    from ..analysis.explore.sweep import sweep

    with users_code(space):
        read = read_space(space)
    if fusion != "none":
        read = replace(read, fusion=fusion)
    name = Path(space.partition(".py:")[0]).name.removesuffix(".toml").removesuffix(".py")
    folder = output or Path("out") / "explore" / name
    require_writable_folder(folder)
    try:
        with users_code(space), bar("exploring") as progress, executor_at(cluster, insecure) as executor:
            sweep(read, folder, executor, lambda what, done, total: progress(done, total))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {folder}") from None
    found = read_explored(folder)
    if as_json:
        print_json(found.summary)
        return
    _show(found)


def _show(found: Explored) -> None:
    """What came out, and the front."""
    console, summary = get_console(_WIDTH), found.summary
    console.print(printable(str(found)), style="bold")
    points = summary["points"]
    for status, count in summary["statuses"].items():
        console.print(f"  {status}: {count:,} ({percent(count, points)})")
    for what, count in summary["refused_by"].items():
        console.print(f"    by {name_of(what)}: {count:,} ({percent(count, points)})")
    front = found.front()
    if not len(front):
        console.print("\n".join(["No point runs and holds all constraints.", *summary["advice"]]))
        return
    objectives = [o["name"] for o in summary["objectives"]]
    front = front.sort_values(objectives[0], ascending=summary["objectives"][0]["direction"] == "min")
    axes = [*summary["axes"], *summary["tied"]]
    same = [name for name in axes if front[name].nunique() == 1]
    differ = [name for name in axes if name not in same]
    others = [*(name for name in objectives if name not in differ), "system_seconds", "system_gap"]
    shown = front.head(_SHOWN)
    cells = {name: [_cell(name, value) for value in shown[name]] for name in ("point", *differ, *others)}
    columns = _fitting(cells, differ)
    rows = zip(*(cells[name] for name in columns), strict=True)
    console.print(make_table("The front", tuple(columns), rows, width=_WIDTH))
    hidden = [name for name in differ if name not in columns]
    if hidden:
        console.print(f"No room for {', '.join(hidden)}, which {found.folder / 'front.parquet'} has")
    if same:
        console.print(f"All with {', '.join(f'{name} {_cell(name, front[name].iloc[0])}' for name in same)}")
    if len(front) > _SHOWN:
        console.print(f"{len(front) - _SHOWN:,} more in {found.folder / 'front.parquet'}")
    for name, shares in summary["importances"].items():
        most = ", ".join(f"{share['axis']} {100 * share['share']:.1f} %" for share in shares[:_MATTERED])
        console.print(f"What moved {name}: {most} ({summary['importance_methods'][name][0]})")
    for name in summary["importance_methods"].keys() - summary["importances"].keys():
        console.print(f"What moved {name}: {summary['importance_methods'][name][0]}")
    console.print("\n".join(summary["advice"][:_ADVICE]))
    console.print(f"Points: {found.folder / 'points'}; a page of all: weft explore show {found.folder}")


def _fitting(cells: dict[str, list[str]], axes: list[str]) -> list[str]:
    """Columns of a table that lose no digit: without the last of ``axes`` where all are wider than it may be."""
    wide = {name: _GAP + max(map(len, (name, *of))) for name, of in cells.items()}
    kept = [*axes]
    while kept and sum(wide[name] for name in cells if name in kept or name not in axes) > _WIDTH:
        kept.pop()
    return [name for name in cells if name in kept or name not in axes]


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return name_of(value)
    if name == "system_gap":
        return f"{100 * value:+.2f} %"
    return f"{value:,}" if isinstance(value, int) or float(value).is_integer() else f"{value:.6g}"


def show(
    folder: Folder,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE.html", help="The page; DIR/explore.html if none.")
    ] = None,
) -> None:
    """Make one HTML page of an exploration, and figures for papers beside it."""
    path = folder / "explore.html" if output is None else output
    require_writable_file(path)
    from ..analysis.explore.page.cuts import cut
    from ..analysis.explore.page.figures import explored_pictures
    from ..analysis.explore.page.folder import read_results
    from ..analysis.explore.page.page import explore_page
    from ..workloads.files import write_atomically

    results = read_results(folder, path)
    with bar(f"reading {folder}") as progress:
        cuts = cut(results.points, results.summary, progress)
    page = explore_page(results, cuts, f"Explored machines: {folder.resolve().name}").encode()
    figures = explored_pictures(results, cuts, path.stem)
    for name, data in figures.items():
        write_atomically(path.parent / name, data)
    write_atomically(path, page)
    get_console().print(f"{path}: {cuts.points:,} machines, {len(page) / 1e6:.1f} MB; open it in a browser")
    if figures:
        get_console().print(f"{path.with_suffix('')}-*: {len(figures)} figures, PNG and PDF")


def report(
    context: typer.Context, folder: Folder, point: Annotated[int, typer.Argument(metavar="POINT", help="Its number.")]
) -> None:
    """Simulate a point again, with ops overlapped, and make its page."""
    from ..analysis.explore.point_report import report_point
    from ..analysis.explore.saved import read_explored

    with bar(f"point {point}") as progress:
        page = report_point(read_explored(folder), point, context.obj, progress)
    get_console().print(f"{page}: open it in a browser; the machine: {page.with_name('machine.toml')}")
