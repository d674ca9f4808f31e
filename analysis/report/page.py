"""One HTML file about a folder of results, that needs nothing but a browser."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Sequence
from importlib import resources

from ..theme import OTHER, THEMES, Theme
from ..words import step_name
from .charts import overview_data, run_data, study_data
from .data import RunData, names_of
from .folder import Contents
from .groups import Group, group_runs
from .markup import Html, element, embedded_json
from .sections import accuracy_section, comparison_section, runs_section, sources_section, time_section, verdict_section

__all__ = ["report_page"]

# The page may run its own script and style and load nothing at all, whatever a name in it says.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def report_page(contents: Contents, title: str) -> str:
    """The whole page; equal contents give equal text."""
    groups = group_runs(contents.runs)
    names = names_of(contents.runs)
    datas = {id(run): RunData(run, names) for run in contents.runs}
    sections = _sections(contents, groups, datas)
    drawn = {
        "overview": overview_data(groups, datas),
        "runs": [run_data(datas[id(run)]) for run in contents.runs],
        "study": study_data(contents.study) if contents.study else [],
        "causes": [{"key": key, "name": name} for key, name in names.items()],
    }
    body = element(
        "body",
        element("a", "Skip to the verdict", href="#verdict", class_="skip"),
        element(
            "header",
            element("h1", title),
            element("p", _made_of(contents), class_="muted"),
            element("button", "Dark colours", type="button", id="theme", class_="script-only"),
        ),
        element(
            "nav",
            element("ul", *(element("li", element("a", name, href=f"#{key}")) for key, name, _ in sections)),
            aria_label="Sections",
        ),
        element(
            "main",
            element("noscript", element("p", "Charts need JavaScript; their figures are in the table under each.")),
            *(
                element("section", element("h2", name, id=f"{key}-title"), made, id=key, aria_labelledby=f"{key}-title")
                for key, name, made in sections
            ),
        ),
        element("footer", element("p", _footer(contents))),
        element("script", embedded_json(drawn), type="application/json", id="data"),
        element("script", _plotly(), type="text/plain", id="plotly"),
        element("script", _shipped("report.js")),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Html(_colours(names) + _shipped("report.css"))),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"


def _sections(contents: Contents, groups: Sequence[Group], datas: dict[int, RunData]) -> list[tuple[str, str, Html]]:
    """Key, heading and content of each section, as far as there is something to show."""
    return [
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


def _shipped(name: str) -> Html:
    return Html((resources.files(__package__) / name).read_text(encoding="utf-8"))


def _plotly() -> Html:
    """Plotly's script, packed: 4.8 MB become 1.9 MB of text."""
    script = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return Html(base64.b64encode(gzip.compress(script, mtime=0)).decode())


def _colours(causes: Iterable[str]) -> str:
    """Variables of both themes, and a class for each of them that a swatch is coloured by."""
    light, dark = (_variables(THEMES[name], causes) for name in ("light", "dark"))
    known = [key for key in _keys(THEMES["light"], causes) if key != "ground"]
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
        + "".join(f".c-{key}{{--colour:var(--{key.replace('_', '-')})}}" for key in known)
        + "\n"
    )


def _variables(theme: Theme, causes: Iterable[str]) -> str:
    values = _keys(theme, causes)
    return "".join(f"--{name.replace('_', '-')}:{value};" for name, value in values.items())


def _keys(theme: Theme, causes: Iterable[str]) -> dict[str, str]:
    """Colours of a theme by the names that swatches and charts call them by."""
    return {
        "ground": theme.background,
        "ink": theme.text,
        "muted": theme.muted,
        "grid": theme.grid,
        "other": OTHER[0],
        **theme.colours(dict.fromkeys((*theme.causes, *causes))),
    }


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


def _footer(contents: Contents) -> str:
    versions = dict.fromkeys(run.weft_version for run in contents.runs)
    if contents.study is not None:
        versions.setdefault(contents.study.weft_version)
    return f"Weft {', '.join(versions)}. The file stands alone: it loads nothing."
