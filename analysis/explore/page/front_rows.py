"""The points of the front: which of many are shown, and what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import pandas as pd

from .cuts import Column
from .scales import label_of
from .summary import Objective

__all__ = ["MOST_SHOWN", "details", "front_table_rows", "shown_rows", "value_of"]

MOST_SHOWN = 300
"""Points of a front that have a mark, a line and a row on the page."""
_SYSTEM_GAP = "system_gap"
_NOT_NUMBERS = ("point", "status", "reason")


def shown_rows(front: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """All of a small front; of a large one the ends and what lies evenly between them, in each objective in turn."""
    known = [one for one in objectives if one.name in front.columns]
    if known:
        front = front.sort_values([one.name for one in known], ascending=[one.sign > 0 for one in known])
    if len(front) <= MOST_SHOWN:
        return front.reset_index(drop=True)
    share = MOST_SHOWN // max(1, len(known))
    kept: dict[Any, None] = {}
    for one in known:
        order = front[one.name].sort_values(kind="stable", ascending=one.sign > 0).index
        kept.update(dict.fromkeys(order[round(i * (len(order) - 1) / (share - 1))] for i in range(share)))
    return front.loc[[i for i in front.index if i in kept]].reset_index(drop=True)


def value_of(front: pd.DataFrame, row: int, name: str) -> Any:
    """A Python value, None for nothing and for what is no finite number."""
    found = front[name].iloc[row]
    plain = found.item() if hasattr(found, "item") else found
    return None if pd.isna(plain) or plain in (inf, -inf) else plain


def details(front: pd.DataFrame, axes: Sequence[str]) -> list[dict[str, Any]]:
    """Of each point its number, its ``axes``, every number of it, and its reason if there is one, in words."""
    axes = [name for name in axes if name in front.columns]
    rest = [name for name in front.columns if name not in (*axes, *_NOT_NUMBERS)]
    return [
        {
            "point": int(value_of(front, row, "point")),
            "axes": [[name, label_of(value_of(front, row, name))] for name in axes],
            "numbers": [
                [name if "." in name else name.replace("_", " "), _written(name, value)]
                for name in rest
                if (value := value_of(front, row, name)) not in (None, "")
            ],
            "reason": str(value_of(front, row, "reason") or "") if "reason" in front.columns else "",
        }
        for row in range(len(front))
    ]


def _written(name: str, value: Any) -> str:
    return f"{100 * value:.2f} %" if name == _SYSTEM_GAP else label_of(value)


def front_table_rows(front: pd.DataFrame, columns: Sequence[Column]) -> tuple[list[str], list[list[str]], int]:
    """Heads and cells of a table of the front, and how many columns from the left are the point and its axes."""
    shown = [c for c in columns if c.name in front.columns]
    heads = ["point", *(c.label for c in shown)]
    names = [c.name for c in shown]
    if _SYSTEM_GAP in front.columns:
        heads.append("system level, against the step")
        names.append(_SYSTEM_GAP)
    rows = []
    for row in range(len(front)):
        values = [value_of(front, row, name) for name in names]
        cells = ["" if v is None else _written(n, v) for n, v in zip(names, values, strict=True)]
        rows.append([str(int(value_of(front, row, "point"))), *cells])
    return heads, rows, 1 + sum(c.objective is None for c in shown)
