"""One HTML file about explored machines, whose size does not depend on how many there are."""

from __future__ import annotations

from ...report.skeleton import Section, html_page, shipped
from .cuts import Cuts
from .drawn import drawn_data
from .folder import Results
from .front_rows import shown_rows
from .sections import axes_section, front_section, importances_section, slices_section, space_section, verdict_section

__all__ = ["explore_page"]


def explore_page(results: Results, cuts: Cuts, title: str) -> str:
    """The whole page; equal results give equal text. ``cuts``: what `cut` makes of the points and the summary."""
    front = None if results.front is None else shown_rows(results.front, list(cuts.seen.objectives))
    sections = [
        Section("verdict", "Verdict", verdict_section(results, cuts)),
        Section("front", "The front", front_section(results, cuts, front)),
        Section("axes", "All axes at once", axes_section(cuts, front)),
        Section("importances", "What decides", importances_section(results.summary)),
        Section("slices", "Axis by axis", slices_section(cuts)),
        Section("space", "What runs and what does not", space_section(results, cuts)),
    ]
    summary = results.summary
    about = [f"{cuts.points:,} machines", summary.model, summary.machine]
    return html_page(
        title,
        ", ".join(part for part in about if part),
        sections,
        drawn_data(results, cuts, front),
        script=shipped(__package__, "explore.js"),
        style=shipped(__package__, "explore.css"),
        made_by=f"Weft {summary.weft_version}" if summary.weft_version else "Weft",
    )
