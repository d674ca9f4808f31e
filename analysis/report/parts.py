"""What every page is put together from: a chart with its figures beside it, a legend, tables short and long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .markup import Html, element

__all__ = ["chart", "data_table", "legend", "sortable"]


def legend(entries: Sequence[tuple[str, str]]) -> Html:
    """Names beside swatches of the theme's colours."""
    items = [element("li", element("span", class_=f"swatch c-{colour}"), name) for name, colour in entries]
    return element("ul", *items, class_="legend")


def chart(
    kind: str, number: int, title: str, alt: str, *, height: int, twin: Html | None = None, above: Html | None = None
) -> Html:
    """A figure: title, place to draw in, what it says in words, and its figures as a table."""
    drawn = element(
        "div",
        class_="plot",
        role="img",
        aria_label=f"{title}. {alt}",
        data_kind=kind,
        data_number=str(number),
        style=f"height:{height}px",
    )
    table = None if twin is None else element("details", element("summary", f"As a table: {title}"), twin)
    return element("figure", element("figcaption", title), above, drawn, table)


def data_table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1, class_: str | None = None
) -> Html:
    """A table that scrolls by itself.

    ``text`` columns from the left are words, the others numbers; the first cell of a row is its header.
    """
    kinds = ["w" if i < text else "n" for i in range(len(columns))]
    head = [element("th", c, scope="col", class_=kind) for c, kind in zip(columns, kinds, strict=True)]
    body = [
        element(
            "tr",
            *(
                element("th", cell, scope="row", class_="w") if i == 0 else element("td", cell, class_=kinds[i])
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_=class_,
    )
    return element("div", made, class_="scroll", tabindex="0", role="group", aria_label=caption)


def sortable(key: str, heading: Html, table: Html, *, noun: str, words: int, hint: str) -> Html:
    """A long table with a filter, of which a script shows the first rows and sorts all.

    ``noun``: what its rows are; ``words``: columns from the left that the filter looks at, of which ``hint`` tells.
    """
    search = element("input", type="search", class_="filter", aria_controls=key, placeholder=hint)
    return element(
        "div",
        heading,
        element(
            "p",
            element("label", "Filter ", search),
            element("output", class_="shown", aria_live="polite"),
            class_="script-only",
        ),
        table,
        element("p", element("button", "Show all", type="button", class_="more"), class_="script-only"),
        class_="sortable",
        id=key,
        data_noun=noun,
        data_words=str(words),
    )
