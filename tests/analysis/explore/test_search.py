"""Searches: the same points however often they are interrupted, better than chance, warm from a sweep."""

from __future__ import annotations

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from weft.analysis.explore.parts import JOURNAL
from weft.analysis.explore.plan import plan_of
from weft.analysis.explore.saved import read_explored
from weft.analysis.explore.search import Asker
from weft.analysis.explore.sweep import sweep
from weft.workloads.errors import InputError

from .spaces import held, space
from .test_sweep import Dies

AXES = {
    "array.rows": {"first": 1, "last": 32},
    "array.cols": {"first": 1, "last": 32},
    "scheme": ["dense", "bdwp"],
    "pe.accumulators": [2, 8],
}
LIMIT = {"most": {"pes": 64}}


def searched(folder, by, **fields):
    fields = {"axes": AXES, "constraints": LIMIT, "points": 48, "objectives": ["cycles"], **fields}
    return space(folder, sampler="search", search={"by": by, "batch": 8}, **fields)


@pytest.mark.parametrize("by", ["tpe", "nsga2", "random"])
def test_an_interrupted_search_goes_on_to_the_same_bytes(tmp_path, by):
    given = searched(tmp_path, by)
    sweep(given, tmp_path / "whole")
    expected = without_journal(tmp_path / "whole")
    assert len(read_explored(tmp_path / "whole").frame()) == 48

    folder, times = tmp_path / "out", 0
    while True:
        try:
            sweep(given, folder, Dies(1 + times % 3, times))
            break
        except KeyboardInterrupt:
            times += 1
    assert times >= 2
    assert without_journal(folder) == expected


def without_journal(folder):
    """Optuna writes down when it was asked."""
    return {name: data for name, data in held(folder).items() if name != JOURNAL}


def test_optuna_reads_the_journal(tmp_path):
    sweep(searched(tmp_path, "random", points=8), tmp_path / "out")

    storage = JournalStorage(JournalFileBackend(str(tmp_path / "out" / JOURNAL)))
    trials = optuna.load_study(study_name="weft", storage=storage).trials

    frame = read_explored(tmp_path / "out").frame()
    runs = frame["status"] == "runs"
    assert [trial.params["scheme"] for trial in trials] == frame["scheme"].tolist()
    assert [trial.value for trial, ran in zip(trials, runs, strict=True) if ran] == frame["cycles"][runs].tolist()


def test_tpe_finds_a_better_machine_than_chance_does(tmp_path):
    """The mean over seeds: one seed may be lucky."""
    best = {
        by: [_best(searched(tmp_path, by, seed=seed), tmp_path / f"{by}{seed}") for seed in range(4)]
        for by in ("tpe", "random")
    }

    assert sum(best["tpe"]) < sum(best["random"])


def _best(given, folder) -> int:
    sweep(given, folder)
    return int(read_explored(folder).front()["cycles"].iloc[0])


def test_a_search_that_is_warm_begins_with_what_a_sweep_found(tmp_path):
    axes = {"array.rows": [1, 8, 32], "array.cols": [1, 8, 32], "scheme": ["dense", "bdwp"], "pe.accumulators": [2, 8]}
    sweep(space(tmp_path, axes=axes, objectives=["cycles"], constraints=LIMIT), tmp_path / "swept")
    cold = searched(tmp_path, "tpe", points=16)
    warm = space(
        tmp_path,
        axes=AXES,
        constraints=LIMIT,
        points=16,
        objectives=["cycles"],
        sampler="search",
        search={"by": "tpe", "batch": 8, "warm": str(tmp_path / "swept")},
    )
    sweep(cold, tmp_path / "cold")
    sweep(warm, tmp_path / "warm")

    first = [read_explored(tmp_path / name).frame().head(8) for name in ("cold", "warm")]
    runs = [int((frame["status"] == "runs").sum()) for frame in first]
    assert runs[1] > runs[0]


def test_outsiders_ask_and_tell(tmp_path):
    plan = plan_of(searched(tmp_path, "tpe"))
    asker, again = Asker(plan), Asker(plan)

    places = asker.ask(4)

    assert [axis.tolist() for axis in places] == [axis.tolist() for axis in again.ask(4)]
    assert all(len(axis) == 4 for axis in places)
    with pytest.raises(InputError, match="4 points were asked for and not told yet"):
        asker.ask(1)


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="for points that are known beforehand"):
        sweep(searched(tmp_path, "tpe", prune=True), tmp_path / "out")
    with pytest.raises(InputError, match="a value twice"):
        sweep(searched(tmp_path, "tpe", axes={"nm": ["1:2", "1:2"]}), tmp_path / "out")
