"""docs/results/which-machine.md: its best machines are re-evaluated, and lie in the spaces that it names."""

from __future__ import annotations

import pandas as pd
import pytest

from weft.analysis.explore.axes import axes_of
from weft.analysis.explore.space import read_space

from . import machines_page as page
from .study_page import ROOT

FRAME = pd.read_csv(page.ROWS)
SPACES = {
    study: f"{'study_bitnet.py:' if 'bitnet' in study else 'study-'}{study.removeprefix('bitnet-')}"
    for study in FRAME["study"].unique()
}
ROWS = [
    pytest.param(row, id=f"{row['study']} {row['what']}", marks=() if "resnet50" in row["study"] else pytest.mark.slow)
    for _, row in FRAME.iterrows()
]


def space_of(study):
    name = SPACES[study]
    return read_space(str(ROOT / "examples" / "spaces" / (name if ":" in name else f"{name}.toml")))


@pytest.mark.parametrize("row", ROWS)
def test_a_machine_of_the_page_takes_what_the_page_says(row):
    """Cycles by its own schedule, LUTs by its modules."""
    model = str(ROOT / row["model"]) if "/" in row["model"] else row["model"]
    seq, nm = (None if pd.isna(row[name]) else row[name] for name in ("seq", "nm"))
    step = page.work(model, int(row["batch"]), None if seq is None else int(seq), row["scheme"], nm or "")
    spec = page.machine_of(row["arch"], {name: row[name] for name in FRAME if "." in name})

    made = page.measured(step, spec, row["device"])

    assert {name: made[name] for name in made} == pytest.approx({name: row[name] for name in made}, rel=1e-12)


@pytest.mark.parametrize("study", SPACES)
def test_the_chosen_machines_lie_in_their_space_and_hold_its_limits(study):
    space, rows = space_of(study), FRAME[(FRAME["study"] == study) & (FRAME["what"] != "preset")]
    axes = axes_of(space)

    assert set(rows["what"]) == {"smaller", "same board", "any"}
    for axis in axes.axes:
        assert set(rows[axis.name]) <= set(axis.values), axis.name
    for name, to in axes.tied.items():
        assert (rows[name] == rows[to]).all()
    assert (rows["lut_sites"] <= space.constraints.most["lut"]).all()
    assert space.constraints.device == rows["device"].unique().item()
    assert (space.batch, space.scheme) == (rows["batch"].unique().item(), rows["scheme"].unique().item())


@pytest.mark.parametrize("study", SPACES)
def test_what_was_chosen_is_in_order(study):
    """The fastest of all is no slower than the fastest on the board, that no slower than the smaller one."""
    seconds = FRAME[FRAME["study"] == study].set_index("what")["seconds"]
    sites = FRAME[FRAME["study"] == study].set_index("what")["lut_sites"]

    assert seconds["any"] <= seconds["same board"] <= seconds["smaller"] <= seconds["preset"]
    assert sites["smaller"] <= sites["same board"]


@pytest.mark.parametrize("device", page.PRESETS)
def test_the_tables_are_those_of_the_rows(device):
    assert page.table(FRAME, device) in page.PAGE.read_text(encoding="utf-8")
