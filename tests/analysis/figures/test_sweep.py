"""The picture of a sweep: its words stay readable from one panel to more than are drawn, and say what was found."""

from __future__ import annotations

import pytest

from weft.analysis.compare_sweep import Sweep, SweepRow
from weft.analysis.figures import sweep_figure
from weft.dataflow.objective import Objective

from .test_figures import assert_readable, words

LONG = "my_new_accelerator_with_a_long_name_of_its_own_and_more_of_it"


def row(machine: str, batch: int, scheme: str, pattern: str | None, speedup: float | None, ideal: float) -> SweepRow:
    seconds = 0.0123 * batch / (speedup or 1.0)
    return SweepRow(
        machine=machine,
        batch=batch,
        scheme=scheme,
        pattern=pattern,
        seconds=seconds,
        samples_per_s=batch / seconds,
        speedup=speedup,
        ideal_speedup=ideal,
    )


def made(machines: list[str], batches: list[int], schemes: list[str] | None = None, *, dense: bool = True) -> Sweep:
    rows = []
    for machine in machines:
        for batch in batches:
            first = row(machine, batch, "dense", None, 1.0, 1.0)
            refused = SweepRow(machine=machine, batch=batch, scheme="dense", pattern=None, reason="no room")
            rows.append(first if dense else refused)
            for name in schemes or ["bdwp"]:
                rows.append(row(machine, batch, name, "2:8", 1.7 if dense else None, 2.0))
                rows.append(row(machine, batch, name, "1:16", 2.2 if dense else None, 2.66))
            rows.append(SweepRow(machine=machine, batch=batch, scheme="srste", pattern="1:32", reason="long groups"))
    return Sweep(model="resnet9", objective=Objective.CYCLES, machines={}, rules=(), rows=tuple(rows))


MANY = made([f"machine-{i}" for i in range(15)], [1, 64])
SWEEPS = {
    "one": made(["tiny"], [64]),
    "few": made(["tiny", "sat-vcu1525", LONG], [1]),
    "long": made([LONG], [1, 2**31], ["examples/own_scheme_with_a_long_path.py:GradientTopN"]),
    "no dense": made(["tiny", "poor"], [1, 64], dense=False),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", SWEEPS)
def test_the_picture_is_readable(name: str, theme: str) -> None:
    figure = sweep_figure(SWEEPS[name], theme)

    assert_readable(figure)
    assert min(float(t.get_fontsize()) for t in words(figure)) >= 9


def test_it_says_what_was_found() -> None:
    said = [t.get_text() for t in words(sweep_figure(SWEEPS["one"]))]
    assert "resnet9 trains fastest with bdwp 1:16 on tiny at batch 64: 178.9 samples/s" in said
    assert {"tiny, batch 64", "dense", "bdwp 2:8", "1.70×  463 ms", "2.20×  358 ms", "cannot run"} <= set(said)
    assert "787 ms, no dense step" in [t.get_text() for t in words(sweep_figure(SWEEPS["no dense"]))]


def test_of_very_many_it_shows_the_first_and_says_so() -> None:
    figure = sweep_figure(MANY)
    assert_readable(figure)
    assert len(figure.axes) == 24
    assert any("the first 24 of 30 machines and batches" in t.get_text() for t in words(figure))


def test_where_nothing_runs_it_says_so() -> None:
    rows = tuple(r for r in SWEEPS["one"].rows if r.reason)
    none = Sweep(model="resnet9", objective=Objective.CYCLES, machines={}, rules=(), rows=rows)
    figure = sweep_figure(none)
    assert_readable(figure)
    assert "None of 1 combinations runs resnet9" in [t.get_text() for t in words(figure)]
