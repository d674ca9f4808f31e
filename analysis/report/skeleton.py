"""A page that is one HTML file and needs nothing but a browser: its head, its order, its colours, Plotly inside."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple

from ..theme import OTHER, THEMES, Theme, part_key
from .markup import Html, element, embedded_json

__all__ = ["Section", "html_page", "shipped"]

# The page may run its own script and style and load nothing at all, whatever a name in it says.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


class Section(NamedTuple):
    """A part of a page: ``key`` is its anchor."""

    key: str
    heading: str
    content: Html


def html_page(
    title: str,
    about: str,
    sections: Sequence[Section],
    drawn: dict[str, Any],
    *,
    script: Html,
    style: Html | None = None,
    causes: Iterable[str] = (),
    made_by: str,
) -> str:
    """The whole page; ``script`` draws what ``drawn`` holds.

    ``about``: a line below the title; ``causes``: what has a colour besides the causes that ship; ``made_by``: of the
    footer.
    """
    first = sections[0]
    body = element(
        "body",
        element("a", f"Skip to the {first.heading.lower()}", href=f"#{first.key}", class_="skip"),
        element(
            "header",
            element("h1", title),
            element("p", about, class_="muted"),
            element("button", "Dark colours", type="button", id="theme", class_="script-only"),
        ),
        element(
            "nav",
            element("ul", *(element("li", element("a", one.heading, href=f"#{one.key}")) for one in sections)),
            aria_label="Sections",
        ),
        element(
            "main",
            element("noscript", element("p", "Charts need JavaScript; their figures are in the table under each.")),
            *map(_section, sections),
        ),
        element("footer", element("p", f"{made_by}. The file stands alone: it loads nothing.")),
        element("script", embedded_json(drawn), type="application/json", id="data"),
        element("script", _plotly(), type="text/plain", id="plotly"),
        element("script", Html(shipped(__package__, "page.js") + script)),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Html(_colours(causes) + shipped(__package__, "page.css") + (style or ""))),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"


def _section(one: Section) -> Html:
    heading = element("h2", one.heading, id=f"{one.key}-title")
    return element("section", heading, one.content, id=one.key, aria_labelledby=f"{one.key}-title")


def shipped(package: str, name: str) -> Html:
    """A style or a script that ``package`` brings along."""
    return Html((resources.files(package) / name).read_text(encoding="utf-8"))


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
        **{str(p).lower(): colour for p, colour in theme.passes.items()},
        **{part_key(part): colour for part, colour in theme.parts.items()},
    }
