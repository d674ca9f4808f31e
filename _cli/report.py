"""`weft report`: a folder of results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import bar, get_console
from .options import Json
from .outputs import print_json, require_writable_file

__all__ = ["report"]


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What `weft run`, `compare` or `study` wrote with -o; or several.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE.html", help="The page; DIR/report.html if none.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page; model, schemes and machine if none.")] = None,
    as_json: Json = False,
) -> None:
    """Make one HTML page of results: verdict, charts, schedules, sources; it needs a browser and nothing else."""
    path = folder / "report.html" if output is None else output
    require_writable_file(path)
    from ..analysis.report.folder import read_folder
    from ..analysis.report.page import page_title, report_page
    from ..workloads.files import write_atomically

    with bar(f"simulating {folder}") as progress:
        contents = read_folder(folder, progress)
    page = report_page(contents, title or page_title(contents, f"Weft report: {folder.resolve().name}")).encode()
    write_atomically(path, page)
    if as_json:
        rows = 0 if contents.study is None else len(contents.study.rows)
        print_json({"path": str(path), "bytes": len(page), "runs": len(contents.runs), "study_rows": rows})
        return
    get_console().print(f"{path}: {len(page) / 1e6:.1f} MB; open it in a browser")
