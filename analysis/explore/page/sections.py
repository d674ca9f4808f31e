"""The sections of the page; of what is not there, why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from ....workloads.words import named
from ...report.markup import Html, element, joined
from ...report.parts import chart, data_table, legend, sortable
from ...words import percent, percents
from ..levels import LEFT_OUT, RUNS
from .cuts import Cuts
from .drawn import importance_rows
from .folder import Results
from .front_rows import MOST_SHOWN, front_table_rows, value_of
from .scales import Bins, Levels, label_of, short_label
from .summary import FILE, Objective, Summary

__all__ = [
    "STATUS_COLOURS",
    "axes_section",
    "front_section",
    "importances_section",
    "slices_section",
    "space_section",
    "verdict_section",
]

OBJECTIVE_COLOURS = ("compute", "interleave_stall", "wuve", "sore", "fill_drain", "port_stall")
STATUS_COLOURS = {RUNS: "compute", LEFT_OUT: "vector", "refused": "dram_stall"}
_DARKER = "scheduled; darker: more machines"
_ROW, _EDGES = 26, 60
_MOST_ADVICE = 12
"""Sentences of it on the page; the file has all."""
_AXIS_WIDTH = 5.6
"""Rem from one vertical axis to the next, so that names of fields and values stand beside each other."""


def verdict_section(results: Results, cuts: Cuts) -> Html:
    """How many points, how many of them are the front, the ends of it, and what the sweep advises."""
    summary, every = results.summary, cuts.points
    objectives = list(cuts.seen.objectives)
    parts: list[Html | None] = [_lead(results, cuts), element("p", _decided(cuts))]
    if summary.points is not None and summary.points != every:
        parts.append(element("p", f"The space has {summary.points:,} machines; {every:,} have been decided so far."))
    if results.front is not None and len(results.front):
        ends = [_end(results.front, one, cuts) for one in objectives if one.name in results.front.columns]
        parts.append(element("ul", *(element("li", *end) for end in ends)))
    if summary.advice:
        said = [element("li", sentence) for sentence in summary.advice[:_MOST_ADVICE]]
        more = len(summary.advice) - len(said)
        said += [element("li", f"{more} more in {FILE}.")] if more else []
        parts += [element("p", element("strong", "What would help")), element("ul", *said)]
    else:
        parts.append(_absent(f"No advice: {FILE} holds none."))
    if summary.command:
        parts.append(element("p", element("code", summary.command), class_="command"))
    notes = [element("li", f"Not drawn: {why}.") for why in cuts.seen.absent]
    return joined([*parts, element("ul", *notes, class_="muted") if notes else None])


def _lead(results: Results, cuts: Cuts) -> Html:
    summary, objectives = results.summary, list(cuts.seen.objectives)
    what = " and ".join(one.words for one in objectives) if len(objectives) < 3 else _listed(objectives)
    of = (f" for {named(summary.model)}" if summary.model else "") + (
        f", variants of {named(summary.machine)}" if summary.machine else ""
    )
    if results.front is None:
        return element("p", element("strong", f"{cuts.points:,} machines{of}"), ".", class_="lead")
    count = len(results.front)
    are = f"{count:,} of {cuts.points:,} machines {'is' if count == 1 else 'are'} the front{of}"
    why = f": no other is as good in {what}, and better in one of these." if objectives else "."
    return element("p", element("strong", are), why, class_="lead")


def _listed(objectives: Sequence[Objective]) -> str:
    return f"{', '.join(one.words for one in objectives[:-1])} and {objectives[-1].words}"


def _decided(cuts: Cuts) -> str:
    said = {
        RUNS: "were scheduled and run",
        LEFT_OUT: "were left out, since by its bound each is worse than another",
        "refused": "were refused",
    }
    statuses, share = cuts.seen.statuses, percents(cuts.seen.statuses.values())
    words = [
        f"{count:,} ({part} %) {said.get(name, f'are “{name}”')}"
        for (name, count), part in zip(statuses.items(), share, strict=True)
    ]
    return f"{'; '.join(words)}." if words else "There is no point."


def _end(front: pd.DataFrame, one: Objective, cuts: Cuts) -> list[Html | str]:
    """The best of the front in an objective, and the axes that it has."""
    column = front[one.name]
    row = int(column.argmin() if one.sign > 0 else column.argmax())
    best = one.with_unit(short_label(value_of(front, row, one.name)))
    varied = [c.name for c in cuts.columns if c.objective is None and c.name in front.columns]
    axes = ", ".join(f"{name} {short_label(value_of(front, row, name))}" for name in varied)
    least = "Least" if one.sign > 0 else "Most"
    return [element("strong", f"{least} {one.words}: {best}"), f", point {value_of(front, row, 'point')}: {axes}."]


def front_section(results: Results, cuts: Cuts, front: pd.DataFrame | None) -> Html:
    """Two objectives against each other, the point that is chosen, and a table of all that are shown."""
    objectives = list(cuts.seen.objectives)
    table = None if front is None else _front_table(front, cuts)
    if len(objectives) < 2:
        why = "A front needs two objectives"
        return joined([_absent(f"{why}: {FILE} and the points have {len(objectives)} in common."), table])
    alt = "; ".join(
        f"{one.words} {short_label(bins.low)} to {short_label(bins.high)}" for one, bins in cuts.seen.objectives.items()
    )
    above = joined([_menus(objectives), _front_legend(cuts), element("p", "", id="bound-said", class_="muted")])
    figure = chart("front", 0, "The front, and all machines", alt, height=520, above=above)
    panel = element("div", id="point", class_="point script-only", role="region", aria_label="Chosen point")
    absent = None if front is not None else _absent("No points to choose: the folder has no front.parquet.")
    return joined([figure, absent, panel if front is not None and len(front) else None, table])


def _menus(objectives: Sequence[Objective]) -> Html:
    def menu(name: str, key: str, chosen: int) -> Html:
        options = [element("option", o.words, value=str(i), selected=i == chosen) for i, o in enumerate(objectives)]
        return element("label", f"{name} ", element("select", *options, id=key))

    return element("p", menu("Across", "across", 0), " ", menu("Up", "up", 1), class_="script-only menus")


def _front_legend(cuts: Cuts) -> Html:
    entries = [(_DARKER, "swatch c-compute")]
    if any(pair.left_out.any() for pair in cuts.pairs):
        entries.append(("left out, at the best that the bound allows", "swatch c-muted"))
    entries += [("front of these two", "tick c-dram_stall"), ("front of all objectives", "dot c-dram_stall")]
    if any(pair.bound is not None for pair in cuts.pairs):
        entries.append(("ruled out by the bound: no machine that is allowed is here", "swatch hatched"))
    return _marks(entries)


def _marks(entries: Sequence[tuple[str, str]]) -> Html:
    """Names beside marks, which are classes of the style sheet."""
    items = [element("li", element("span", class_=kind), name) for name, kind in entries]
    return element("ul", *items, class_="legend")


def _front_table(front: pd.DataFrame, cuts: Cuts) -> Html:
    heads, rows, words = front_table_rows(front, cuts.columns)
    some = "the front" if len(front) < MOST_SHOWN else f"{len(front)} points of the front; all are in front.parquet"
    table = data_table(f"Points of {some}", heads, rows, text=1, class_="long")
    heading = element("h3", "Points of the front")
    return sortable("front-rows", heading, table, noun="points", words=words, hint="point or value")


def axes_section(cuts: Cuts, front: pd.DataFrame | None) -> Html:
    """Parallel coordinates: how many machines take which way, and the front's own ways."""
    if len(cuts.columns) < 2:
        return _absent("Nothing to draw: no two axes or objectives of the points take more than one value.")
    names = ", ".join(column.label for column in cuts.columns)
    lines = 0 if front is None else len(front)
    above = legend([(_DARKER, "compute"), ("the front", "dram_stall")])
    figure = chart(
        "parallel",
        0,
        "Every axis and objective side by side",
        f"{lines} points of the front over all that run. From left to right: {names}. See the table of the front.",
        height=460,
        above=above,
    )
    width = f"min-width:{_AXIS_WIDTH * len(cuts.columns):.0f}rem"
    inside = element("div", figure, style=width)
    return element("div", inside, class_="sideways", tabindex="0", role="group", aria_label="Parallel coordinates")


def importances_section(summary: Summary) -> Html:
    """Which axis decides each objective."""
    found = importance_rows(summary)
    if found is None:
        return _absent(f"Nothing to draw: {FILE} has no importances.")
    names, rows = found["objectives"], found["rows"]
    alt = ", ".join(f"{row['label']} {percent(max(row['shares']))}" for row in rows[:3])
    cells = [[row["label"], *(f"{100 * share:.1f}" for share in row["shares"])] for row in rows]
    return chart(
        "importances",
        0,
        "Share of the variance of each objective that an axis explains",
        f"Largest: {alt}",
        height=_EDGES + len(rows) * (10 + 16 * len(names)),
        twin=data_table("Share by axis, %", ["axis", *names], cells),
        above=legend(list(zip(names, _colours(len(names)), strict=True))),
    )


def _colours(count: int) -> list[str]:
    return [OBJECTIVE_COLOURS[i % len(OBJECTIVE_COLOURS)] for i in range(count)]


def slices_section(cuts: Cuts) -> Html:
    """An objective by the values of every axis: where the machines lie and the best of each value."""
    objectives = list(cuts.seen.objectives)
    if not objectives or not cuts.by_status:
        return _absent("Nothing to draw: there is no objective, or no axis that takes more than one value.")
    options = [element("option", one.words, value=str(i)) for i, one in enumerate(objectives)]
    menu = element("p", element("label", "Objective ", element("select", *options, id="sliced")), class_="script-only")
    marks = _marks([(_DARKER, "swatch c-compute"), ("best of each value", "tick c-dram_stall")])
    figures = [
        chart("slice", n, name, "See the table for the best of every value.", height=250, twin=_slice_table(name, cuts))
        for n, name in enumerate(cuts.by_status)
    ]
    return joined([menu, marks, element("div", *figures, class_="slices")])


def _slice_table(axis: str, cuts: Cuts) -> Html:
    scale, objectives = cuts.seen.axes[axis], list(cuts.seen.objectives)
    names = scale.labels if isinstance(scale, Levels) else _ranges(scale)
    best = [cuts.slices[axis, one].best for one in objectives]
    rows = [
        [name, *(f"{n:,}" for n in counts), *("" if b[i] != b[i] else label_of(float(f"{b[i]:.6g}")) for b in best)]
        for i, (name, counts) in enumerate(zip(names, cuts.by_status[axis].tolist(), strict=True))
    ]
    heads = [axis, *cuts.seen.statuses, *(f"best {one.label}" for one in objectives)]
    return data_table(f"Machines by {axis}", heads, rows)


def _ranges(bins: Bins) -> list[str]:
    words = [label_of(float(f"{edge:.4g}")) for edge in bins.edges]
    return [f"{low} to {high}" for low, high in pairwise(words)]


def space_section(results: Results, cuts: Cuts) -> Html:
    """What became of all points, and which constraint refused how many."""
    statuses, every = cuts.seen.statuses, cuts.points
    share = percents(statuses.values())
    words = [(name, f"{n:,}", part) for (name, n), part in zip(statuses.items(), share, strict=True)]
    alt = ", ".join(f"{name} {part} %" for name, _, part in words)
    entries = [(f"{name} {part} %", _status_colour(name)) for name, _, part in words]
    parts: list[Html] = [
        chart(
            "statuses",
            0,
            "What became of every machine",
            alt,
            height=_EDGES + 40,
            twin=data_table("Machines by what became of them", ("", "machines", "%"), words),
            above=legend(entries),
        )
    ]
    refused = results.summary.refused_by
    if refused is None:
        return joined([*parts, _absent(f"By constraint: {FILE} has no refused_by.")])
    if not refused:
        return joined([*parts, element("p", "No constraint refused a machine.")])
    rows = sorted(refused.items(), key=lambda entry: (-entry[1], entry[0]))
    cells = [(name, f"{n:,}", f"{100 * n / every:.1f}" if every else "") for name, n in rows]
    parts.append(
        chart(
            "refused",
            0,
            "Share of the space that each constraint refuses",
            ", ".join(f"{name} {part} %" for name, _, part in cells[:3]),
            height=_EDGES + _ROW * len(rows),
            twin=data_table("Machines refused by constraint", ("constraint", "machines", "% of the space"), cells),
        )
    )
    return joined(parts)


def _status_colour(name: str) -> str:
    return STATUS_COLOURS.get(name, "other")


def _absent(why: str) -> Html:
    return element("p", why, class_="muted absent")
