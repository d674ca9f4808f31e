"""One HTML file about a folder of results, that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Sequence

from ..words import run_name, step_name
from .charts import overview_data, promise_data, run_data, study_data
from .data import RunData, names_of
from .folder import Contents
from .groups import Group, group_runs, kept_promises
from .sections import accuracy_section, comparison_section, runs_section, time_section, verdict_section
from .skeleton import Section, html_page, shipped
from .sources import sources_section

__all__ = ["page_title", "report_page"]

_MOST_SCHEMES = 4


def page_title(contents: Contents, otherwise: str) -> str:
    """Model, schemes and machine of the runs; ``otherwise`` where there are none."""
    if not contents.runs:
        return otherwise
    steps = dict.fromkeys(step_name(run.result.workload) for run in contents.runs)
    schemes = list(dict.fromkeys(run_name(run.result.workload) for run in contents.runs))
    machines = dict.fromkeys(run.result.spec.name for run in contents.runs)
    shown = ", ".join(schemes) if len(schemes) <= _MOST_SCHEMES else f"{len(schemes)} schemes"
    return f"{_some(list(steps), 'models')}: {shown} on {_some(list(machines), 'machines')}"


def _some(names: list[str], noun: str) -> str:
    return " and ".join(names) if len(names) <= 2 else f"{len(names)} {noun}"


def report_page(contents: Contents, title: str) -> str:
    """The whole page; equal contents give equal text."""
    groups = group_runs(contents.runs)
    names = names_of(contents.runs)
    datas = {id(run): RunData(run, names) for run in contents.runs}
    sections = _sections(contents, groups, datas)
    drawn = {
        "overview": overview_data(groups, datas),
        "promises": [promise_data(*one) for one in kept_promises(groups)],
        "runs": [run_data(datas[id(run)]) for run in contents.runs],
        "study": study_data(contents.study) if contents.study else [],
        "causes": [{"key": key, "name": name} for key, name in names.items()],
    }
    return html_page(
        title,
        _made_of(contents),
        sections,
        drawn,
        script=shipped(__package__, "report.js"),
        causes=names,
        made_by=_made_by(contents),
    )


def _sections(contents: Contents, groups: Sequence[Group], datas: dict[int, RunData]) -> list[Section]:
    """As far as there is something to show."""
    found = [
        ("verdict", "Verdict", verdict_section(groups, datas, contents.study)),
        *(
            (
                ("time", "Speed-up, and where the time goes", time_section(groups, datas)),
                ("runs", "Inside a run", runs_section(contents.runs, datas)),
                ("sources", "Assumptions and sources", sources_section(contents.runs)),
                ("comparison", "Runs side by side", comparison_section(groups)),
            )
            if groups
            else ()
        ),
        *((("accuracy", "Accuracy beside cost", accuracy_section(contents.study)),) if contents.study else ()),
    ]
    return [Section(*one) for one in found]


def _made_of(contents: Contents) -> str:
    parts = []
    if contents.runs:
        work = contents.runs[0].result.workload
        models = dict.fromkeys(step_name(run.result.workload) for run in contents.runs)
        named = next(iter(models)) if len(models) == 1 else f"{len(models)} steps, first {step_name(work)}"
        parts.append(f"{len(contents.runs)} run{'s' * (len(contents.runs) != 1)} of {named}")
    if contents.study is not None:
        parts.append(f"a study on {contents.study.data}, {contents.study.seeds} seeds, for {contents.study.machine}")
    return "; ".join(parts)


def _made_by(contents: Contents) -> str:
    versions = dict.fromkeys(run.weft_version for run in contents.runs)
    if contents.study is not None:
        versions.setdefault(contents.study.weft_version)
    return f"Weft {', '.join(versions)}"
