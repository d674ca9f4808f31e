"""`weft explore show`: a folder of explored machines as one page and as figures."""

from __future__ import annotations

from pathlib import Path

from .console import bar, get_console
from .outputs import require_writable_file

__all__ = ["show"]


def show(folder: Path, output: Path | None) -> None:
    """Make one HTML page of explored machines, DIR/explore.html if no other, and figures for papers beside it."""
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
