"""Results as a notebook shows them: the presenter that the front door names (`simulator/shown.py`).

The table, the figure and the words are those of folders and reports. The page of a result loads nothing, runs no
script and brings no style sheet: a notebook has its own, and takes both away from what it does not trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from ..simulator.result import SimResult
from ..simulator.system_result import SystemResult
from ..workloads.errors import InputError
from .compare import Comparison, compare, run_labels
from .level import AnyResult, step_of
from .need import Need
from .need_words import needs_words
from .report.data import RunData, names_of
from .report.folder import Run
from .report.groups import Group
from .report.markup import Html, element, joined
from .report.verdict import findings, study_verdict
from .study import Study
from .theme import theme_of
from .words import percents_of, run_name, seconds

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Presented", "frame", "html", "plot"]

Presented = SimResult | SystemResult | Comparison | Study | Need


def frame(result: Presented) -> pd.DataFrame:
    """The table of a result: of a step one row an op, of a need one row a machine, else one row a run."""
    from .frames import comparison_frame, ops_frame, spans_frame
    from .need_files import need_frame
    from .study_files import study_frame

    match result:
        case SimResult():
            return ops_frame(result)
        case SystemResult():
            return ops_frame(result).join(spans_frame(result))
        case Comparison():
            return comparison_frame(result)
        case Study():
            return study_frame(result)
        case Need():
            return need_frame(result)
        case _:
            assert_never(result)


def plot(result: Presented, theme: str) -> Figure:
    """The figure of a result."""
    from .figures import comparison_figure, layers_figure, need_figure, study_figure

    match result:
        case SimResult() | SystemResult():
            return layers_figure(result, theme)
        case Comparison():
            return comparison_figure(result, theme)
        case Study():
            return study_figure(result, theme)
        case Need():
            return need_figure(result, theme)
        case _:
            assert_never(result)


def html(result: Presented) -> str:
    """The verdict and a bar by cause of every run, for any HTML page to hold."""
    match result:
        case SimResult() | SystemResult():
            step = step_of(result)
            runs = [_run(result, run_name(step.workload))]
            return _page(result, _verdict(runs), _bars(runs))
        case Comparison():
            runs = [_run(one, name) for one, name in zip(result.results, run_labels(result), strict=True)]
            return _page(result, _verdict(runs, result), _bars(runs))
        case Study():
            return _page(result, study_verdict(result.rows))
        case Need():
            return _page(result, element("p", " ".join(needs_words(result))))
        case _:
            assert_never(result)


def _page(result: Presented, *parts: Html) -> str:
    return element("div", element("p", element("code", repr(result))), *parts, style="max-width:60em")


def _run(result: AnyResult, name: str) -> Run:
    overlapped = result if isinstance(result, SystemResult) else None
    return Run(place="", label=name, name=name, result=step_of(result), system=overlapped, command="", weft_version="")


def _verdict(runs: Sequence[Run], comparison: Comparison | None = None) -> Html:
    """Of a step without work, or one that its table cannot price, why there is none."""
    try:
        beside = comparison or compare([run.result for run in runs])
        group = Group(runs=tuple(runs), comparison=beside, overlapped=runs[0].system is not None)
        return findings(group, RunData(group.fastest))
    except InputError as error:
        return element("p", f"No verdict: {error}")


def _bars(runs: Sequence[Run]) -> Html:
    """Time by cause of every run, ops one after the other, all on one scale."""
    names, colours = names_of(runs), theme_of("light").colours(names_of(runs))
    datas = [RunData(run, names) for run in runs]
    alone = [sum(data.causes.values()) / run.result.spec.clock_hz for run, data in zip(runs, datas, strict=True)]
    longest = max(alone) or 1.0
    rows = [
        joined([_label(run, took), _bar(data, names, colours, took / longest)])
        for run, data, took in zip(runs, datas, alone, strict=True)
    ]
    shares = percents_of(datas[0].causes)
    legend = [
        element("span", _swatch(colours[cause]), names[cause] + (f" {shares[cause]} %" if len(runs) == 1 else ""))
        for cause in names
        if any(data.causes[cause] for data in datas)
    ]
    return joined([*rows, element("div", *legend, style="display:flex;flex-wrap:wrap;gap:0 1.2em;font-size:90%")])


def _label(run: Run, took: float) -> Html:
    overlapped = "" if run.system is None else f", {seconds(run.seconds)} with ops overlapped"
    return element("div", element("strong", run.name), f" {seconds(took)} op after op{overlapped}")


def _bar(data: RunData, names: dict[str, str], colours: dict[str, str], share: float) -> Html:
    """A bar as long as ``share`` of the width; its parts say what they are where one points at them, and to readers."""
    every, written = sum(data.causes.values()), percents_of(data.causes)
    shown = [cause for cause in names if data.causes[cause]]
    parts = [
        element(
            "span",
            title=f"{names[cause]} {written[cause]} %",
            style=f"background-color:{colours[cause]};width:{100 * data.causes[cause] / every:.4f}%",
        )
        for cause in shown
    ]
    return element(
        "div",
        *parts,
        role="img",
        aria_label=", ".join(f"{names[cause]} {written[cause]} %" for cause in shown),
        style=f"display:flex;height:1.3em;margin:0.2em 0 0.6em;width:{100 * share:.2f}%",
    )


def _swatch(colour: str) -> Html:
    return element(
        "span", style=f"background-color:{colour};display:inline-block;width:0.8em;height:0.8em;margin-right:0.3em"
    )
