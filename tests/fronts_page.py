"""The tables and pictures of docs/results/fronts.md: `python -m weft.tests.fronts_page` makes them of the files there.

`benchmarks/optimisers.py` wrote those files; the words round the tables stay as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from weft.analysis.explore.plan import Plan, plan_of
from weft.analysis.explore.space import read_space
from weft.analysis.figures import regret_figure
from weft.analysis.theme import THEMES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGE = RESULTS / "fronts.md"
SPACES = ("front-resnet50", "front-vit")
BEGIN, END = "<!-- what benchmarks/optimisers.py wrote begins -->", "<!-- and ends -->"
SHOWN, AFTER = 8, (64, 128, 256, 512)
"""Points of a front on the page, and points asked for at which regrets are."""


def plan(name: str) -> Plan:
    """The space of a front."""
    return plan_of(read_space(ROOT / "examples" / "spaces" / f"{name}.toml"))


def front(name: str) -> pd.DataFrame:
    """All points of a front."""
    return pd.read_csv(RESULTS / f"{name}.csv", converters={"seconds": float, "joules": float})


def came_to(name: str) -> dict[str, Any]:
    """What a space came to."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def regrets() -> pd.DataFrame:
    """Regrets on all spaces."""
    each = [pd.read_csv(RESULTS / f"{name}-regret.csv").assign(space=name) for name in SPACES]
    return pd.concat(each, ignore_index=True)


def tables() -> str:
    """All tables of the page."""
    said = {name: came_to(name) for name in SPACES}
    objectives = {name: [m.name for m in plan(name).objectives] for name in SPACES}
    rows = [
        ["points", *(f"{d['points']:,}" for d in said.values())],
        ["run", *(f"{d['runs']:,}" for d in said.values())],
        [
            "do not",
            *("; ".join(f"{o['points']:,}: {o['reason']}" for o in d["others"]) or "none" for d in said.values()),
        ],
        ["objectives, all the less the better", *(", ".join(f"`{m}`" for m in own) for own in objectives.values())],
        ["on the front", *(f"{d['front']:,}" for d in said.values())],
        ["reference", *(", ".join(f"{value:,.6g}" for value in d["reference"].values()) for d in said.values())],
        ["hypervolume of the front", *(f"{d['hypervolume']:.6f}" for d in said.values())],
        ["every point of it", *(f"[{name}.csv]({name}.csv)" for name in SPACES)],
    ]
    parts = [_table(["", *(f"`{name}`" for name in SPACES)], rows)]
    for name in SPACES:
        parts += [f"### Regret on {name}", _regret_table(name, said[name]["front"])]
    for name in SPACES:
        parts += [f"### Some points of {name}", _points_table(name, objectives[name])]
    return "\n\n".join(parts)


def _regret_table(name: str, size: int) -> str:
    own = regrets()
    own = own[own["space"] == name]
    rows = []
    for by in dict.fromkeys(own["optimiser"]):
        at = own[own["optimiser"] == by].set_index("asked")
        shares = [
            f"{100 * r['median']:.2f} ({100 * r['low']:.2f}-{100 * r['high']:.2f})"
            for _, r in at.loc[list(AFTER)].iterrows()
        ]
        rows.append([f"`{by}`", *shares, f"{at.loc[AFTER[-1], 'found']:g} of {size}"])
    return _table(["missing, %, after", *map(str, AFTER), f"points of the front after {AFTER[-1]}"], rows)


def _points_table(name: str, objectives: list[str]) -> str:
    own = front(name).sort_values(objectives[0])
    some = own.iloc[np.linspace(0, len(own) - 1, SHOWN).round().astype(int)]
    axes = list(plan(name).axes.names)
    names = ["point", *objectives, *axes]
    rows = [[_value(row[column]) for column in names] for _, row in some[names].astype(object).iterrows()]
    return _table([f"`{column}`" for column in names], rows)


def _value(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _table(names: list[str], rows: list[list[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def with_tables(page: str) -> str:
    """``page`` with the tables between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for theme in THEMES:
        ending = "" if theme == "light" else f"-{theme}"
        regret_figure(regrets(), theme).savefig(ROOT / "docs" / "images" / f"regret{ending}.png")


if __name__ == "__main__":
    main()
