"""Studies: arithmetic on hand-made trainings, real ones killed and resumed, failures, and what is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from weft.analysis import study as study_module
from weft.analysis import trainings
from weft.analysis.figures.labels import place_labels
from weft.analysis.frames import ops_frame
from weft.analysis.records import measured_means, to_dict
from weft.analysis.study import Study, StudySpec, measured_of, run_study
from weft.analysis.study_files import SavedStudy, save_study, study_markdown
from weft.analysis.study_rows import PhaseCost, StudyRow, aggregate, cycles_until, first_reached
from weft.analysis.theme import theme_of
from weft.analysis.training_sources import closure
from weft.analysis.trainings import LayerFindings, TrainedPhase, Training, planned, run_trainings
from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.workloads.errors import InputError
from weft.workloads.files import alone
from weft.workloads.gemm import GEMM_PASSES, Pass
from weft.workloads.host import Host
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Measured
from weft.workloads.strict import read_json

from .conftest import run, step

NM = NMPattern(keep=2, group=8)
HOST = Host(processor="slow chip", core="i8008", vector="4 bits", torch="0", threads=1)
WEFT = (
    sys.executable,
    "-c",
    "from weft.analysis import trainings as t; t.NICE = 0; from weft.cli import main; raise SystemExit(main())",
)
"""The command line at the priority of the tests, which may run on a busy machine."""


@pytest.fixture(autouse=True)
def at_our_priority(monkeypatch):
    monkeypatch.setattr(trainings, "NICE", 0)


def spec(**changes: Any) -> StudySpec:
    usual: dict[str, Any] = {
        "data": "digits",
        "models": ("mlp",),
        "schemes": ("bdwp",),
        "patterns": (NM,),
        "seeds": 2,
        "machine": load_spec("tiny"),
        "epochs": 1,
    }
    return StudySpec(**{**usual, **changes})


def training(
    seed: int, validation: tuple[float, ...], phases: tuple[TrainedPhase, ...] = (), **changes: Any
) -> Training:
    """Epochs of ten steps. On the test set it is a point worse than on the validation set, seed 1 two points."""
    steps = tuple(10 * (i + 1) for i in range(len(validation)))
    whole = TrainedPhase(steps=steps[-1], scheme="bdwp", pattern=NM, kept_dense={})
    density = {Pass.FF: 0.25, Pass.BP: 0.25, Pass.WU: 1.0}
    usual: dict[str, Any] = {
        "model": "mlp",
        "scheme": "bdwp",
        "pattern": NM,
        "seed": seed,
        "spec": {},
        "images": (30, 20, 10),
        "hosts": (HOST,),
        "digest": "",
        "seconds": 1.0,
        "steps": steps,
        "validation": validation,
        "accuracy": validation[-1] - 0.01 * (seed + 1),
        "density": density,
        "flip_rate": 0.01 * seed,
        "sad": 0.1,
        "phases": phases or (whole,),
        "layers": {"net.1.conv": LayerFindings(density=density, flip_rate=0.01 * seed, sad=0.1)},
    }
    return Training(**{**usual, **changes})


def cost(steps: int, cycles: int, joules: float = 1.0) -> PhaseCost:
    return PhaseCost(steps=steps, scheme="bdwp", pattern="2:8", cycles=cycles, joules=joules)


def dense_row() -> tuple[dict[int, Training], StudyRow]:
    trained = {0: training(0, (0.80, 0.92, 0.94)), 1: training(1, (0.91, 0.93, 0.96))}
    costs = dict.fromkeys(trained, (cost(30, 200, 4.0),))
    row = aggregate(("mlp", "dense", None), trained, costs, reference=trained, baseline=None, below=0.03, clock_hz=10)
    return trained, row


def test_a_scheme_that_takes_no_pattern_has_one_row():
    other = NMPattern(keep=1, group=4)
    rows = spec(schemes=("bdwp", "xnor", "biper", "dense"), patterns=(NM, other)).groups()

    assert [row[1:] for row in rows] == [
        ("dense", None),
        ("xnor", None),
        ("biper", None),
        ("bdwp", NM),
        ("bdwp", other),
    ]


@pytest.mark.slow
def test_a_study_of_two_stages_costs_both(tmp_path):
    """BiPer: real weights under the first two thirds of the steps."""
    found = run_study(spec(schemes=("biper",), seeds=1), tmp_path)
    (trained,) = [one for one in found.trainings if one.scheme == "biper"]

    assert [(phase.scheme, phase.steps) for phase in trained.phases] == [("biper-real", 11), ("biper", 5)]
    assert trained.phases[0].kept_dense.keys() == {"1", "5"}, "the first and the last layer"
    assert [row.scheme for row in found.rows if row.cycles] == ["dense", "biper"]


def test_a_row_by_hand():
    reference, dense = dense_row()
    found = {0: training(0, (0.5, 0.93, 0.90)), 1: training(1, (0.6, 0.7, 0.95))}
    costs = {0: (cost(15, 40, 1.0), cost(15, 80, 2.0)), 1: (cost(30, 60, 1.5),)}

    row = aggregate(("mlp", "bdwp", NM), found, costs, reference=reference, baseline=dense, below=0.03, clock_hz=10)

    assert row.target == pytest.approx(0.95 - 0.03)
    assert (dense.validation, dense.accuracy) == (pytest.approx(0.95), pytest.approx(0.935))
    assert dense.steps_to_target == 20  # both after their second epoch
    assert (row.validation, row.accuracy) == (pytest.approx(0.925), pytest.approx(0.91))
    assert row.validation_sd == pytest.approx(0.05 / 2**0.5)
    assert row.accuracy_sd == pytest.approx(0.04 / 2**0.5)
    assert row.loss == pytest.approx((0.04 + 0.01) / 2)
    assert row.loss_sd == pytest.approx(0.03 / 2**0.5)
    assert (row.cycles, row.joules, row.speedup) == (60.0, 1.5, pytest.approx(200 / 60))
    assert (row.reached, row.steps_to_target) == (2, 25)
    # Seed 0: 15 steps of 40 and 5 of 80; seed 1: 30 of 60.
    assert row.cycles_to_target == (1000 + 1800) / 2
    assert row.seconds_to_target == 140
    assert row.seconds_to_target_sd == pytest.approx(80 / 2**0.5)
    assert row.time_speedup == pytest.approx(20 * 200 / 1400)
    assert row.flip_rate == pytest.approx(0.005)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_nothing_but_what_is_reported_depends_on_the_test_set(dense_test, sparse_test):
    def row(*, tested: bool) -> StudyRow:
        reference = {seed: training(seed, (0.80, 0.92, 0.94)) for seed in range(2)}
        found = {0: training(0, (0.5, 0.93, 0.90)), 1: training(1, (0.6, 0.7, 0.95))}
        if tested:
            reference = {seed: replace(one, accuracy=dense_test[seed]) for seed, one in reference.items()}
            found = {seed: replace(one, accuracy=sparse_test[seed]) for seed, one in found.items()}
        costs = {seed: (cost(30, 60),) for seed in found}
        dense = aggregate(
            ("mlp", "dense", None), reference, costs, reference=reference, baseline=None, below=0.03, clock_hz=10
        )
        return aggregate(
            ("mlp", "bdwp", NM), found, costs, reference=reference, baseline=dense, below=0.03, clock_hz=10
        )

    reported = dict.fromkeys(("accuracy", "accuracy_sd", "loss", "loss_sd"))
    assert replace(row(tested=True), **reported) == replace(row(tested=False), **reported)
    assert row(tested=True).accuracy == pytest.approx(sum(sparse_test) / 2)


def test_a_target_that_one_seed_misses_gives_no_time():
    reference, dense = dense_row()
    found = {0: training(0, (0.5, 0.93, 0.90)), 1: training(1, (0.6, 0.7, 0.91))}
    costs = dict.fromkeys(found, (cost(30, 60),))

    row = aggregate(("mlp", "bdwp", NM), found, costs, reference=reference, baseline=dense, below=0.03, clock_hz=10)

    assert row.reached == 1
    assert row.steps_to_target is row.cycles_to_target is row.seconds_to_target is row.time_speedup is None
    assert row.speedup == pytest.approx(200 / 60)


def test_failures_stay_in_the_row():
    reference, dense = dense_row()
    found: dict[int, Training | str] = {0: training(0, (0.95,)), 1: "diverged"}

    row = aggregate(
        ("mlp", "bdwp", NM),
        found,
        {},
        reference=reference,
        baseline=dense,
        below=0.03,
        clock_hz=10,
        unplaced="too large",
    )

    assert (row.trained, row.seeds, row.failed, row.unplaced) == (1, 2, {1: "diverged"}, "too large")
    assert (row.validation, row.accuracy) == (pytest.approx(0.95), pytest.approx(0.94))
    assert row.accuracy_sd is None
    assert row.loss == pytest.approx(-0.01)  # against seed 0 of dense only
    assert row.steps_to_target is row.cycles is row.speedup is None
    assert (
        aggregate(
            ("mlp", "bdwp", NM), {0: "no"}, {}, reference=reference, baseline=dense, below=0.03, clock_hz=10
        ).accuracy
        is None
    )


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 999)), min_size=1, max_size=5), st.data())
def test_cycles_until_a_step_are_those_of_every_step_before_it(phases, data):
    every = [cycles for steps, cycles in phases for _ in range(steps)]
    step_ = data.draw(st.integers(0, len(every)))

    assert cycles_until([cost(s, c) for s, c in phases], step_) == sum(every[:step_])
    with pytest.raises(InputError, match="step must be from 0"):
        cycles_until([cost(s, c) for s, c in phases], len(every) + 1)


def test_the_first_epoch_at_the_target_counts():
    one = training(0, (0.2, 0.7, 0.6, 0.8))

    assert [first_reached(one, target) for target in (0.1, 0.65, 0.7, 0.75, 0.81)] == [10, 20, 20, 40, None]


@settings(max_examples=6)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=25))
def test_names_cover_neither_names_nor_points(points):
    figure = Figure(figsize=(6, 4))
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    ax.set_xlim(-0.1, 1.3)
    ax.set_ylim(-0.1, 1.1)

    homeless = place_labels(
        figure, ax, points, [(0.0, 0.0)] * len(points), ["bdwp"] * len(points), theme_of("light"), size=7
    )

    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer).padded(-1) for text in ax.texts]
    assert len(boxes) + len(homeless) == len(points)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*ax.transData.transform(point)) for box in boxes for point in points)


# Measurements on a workload.


def found_in_training(**kept_dense: str) -> tuple[Measured, ...]:
    reasons = {Pass[name]: why for name, why in kept_dense.items()}
    share = {Pass.FF: 0.2, Pass.BP: 0.25, Pass.WU: 1.0}
    return (
        Measured(layer="net.1.conv", density=share, flip_rate=0.02, kept_dense=reasons),
        Measured(layer="head", density={**share, Pass.FF: 0.24}, flip_rate=0.01),
    )


def test_what_was_measured_is_kept_and_changes_no_cycle(bdwp):
    work = annotate(step(), "bdwp", NM, found_in_training())
    result = simulate(schedule(work, load_spec("tiny")))

    assert loads_workload(dumps_workload(work)) == work
    assert work.ops == bdwp.workload.ops
    assert [r.cycles for r in result.ops] == [r.cycles for r in bdwp.ops]
    sizes = {"net.1.conv": 20 * 24, "head": 64 * 33}
    mean = (0.2 * sizes["net.1.conv"] + 0.24 * sizes["head"]) / sum(sizes.values())
    assert measured_means(result)["FF"] == pytest.approx(mean)
    assert to_dict(result)["measured"] == measured_means(result)
    frame = ops_frame(result)
    conv = frame[(frame["name"] == "net.1.conv") & (frame["kind"] == "matrix")].set_index("pass")
    assert conv["density"].to_dict() == {"FF": 0.2, "BP": 0.25, "WU": 1.0}
    assert set(conv["flip_rate"]) == {0.02}
    assert "density" not in ops_frame(bdwp).columns


def test_old_files_load_and_unmeasured_ones_look_like_them(bdwp):
    text = dumps_workload(bdwp.workload)

    assert b"measured" not in text
    assert loads_workload(text).measured == ()
    assert annotate(annotate(step(), "bdwp", NM, found_in_training()), "sdgp", NM).measured == ()


def test_what_a_training_could_not_thin_out_stays_dense_on_the_machine():
    work = annotate(step(), "bdwp", NM, found_in_training(BP="its forward is its own"))

    found = {op.pass_: op for op in work.matrix_ops if op.name == "net.1.conv"}
    assert found[Pass.FF].sparse is not None
    assert (found[Pass.BP].sparse, found[Pass.BP].kept_dense) == (None, "its forward is its own")
    with pytest.raises(InputError, match="another model"):
        annotate(step(), "bdwp", NM, [Measured(layer="nobody")])
    with pytest.raises(InputError, match=r"from 0 to 1, not 1\.5"):
        Measured(layer="head", flip_rate=1.5)


def test_measurements_are_means_over_seeds_of_the_last_phase():
    reasons = {"head": dict.fromkeys(GEMM_PASSES, "own forward")}
    first = TrainedPhase(steps=4, scheme="dense", pattern=None, kept_dense={})
    last = TrainedPhase(steps=6, scheme="bdwp", pattern=NM, kept_dense=reasons)
    trained = [training(seed, (0.9,), (first, last)) for seed in (1, 3)]

    made = {one.layer: one for one in measured_of(trained, 1)}

    assert made["net.1.conv"].flip_rate == pytest.approx(0.02)
    assert made["net.1.conv"].density == {Pass.FF: 0.25, Pass.BP: 0.25, Pass.WU: 1.0}
    assert made["head"].kept_dense == reasons["head"]
    assert [(one.layer, one.density, one.flip_rate) for one in measured_of(trained, 0)] == [("net.1.conv", {}, None)]


# Real trainings.


def trained_here(scheme: str, seed: int, epochs: int) -> Any:
    """The same training without processes, cache and checkpoints."""
    from weft.workloads.training import plan, train

    return train(plan("mlp", scheme=scheme, pattern=NM, seed=seed, epochs=epochs))


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(what: Any, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_study_leaves_no_process_and_goes_on(tmp_path, monkeypatch):
    asked = ["study", "--model", "mlp", "--schemes", "bdwp", "--seeds", "2", "--epochs", "3", "--jobs", "1"]
    command = [*WEFT, *asked, "--arch", "tiny", "-o", str(tmp_path)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    cells = tmp_path / "cells"
    wait_for(lambda: process.poll() is not None or (cells.is_dir() and any(cells.glob("*.json"))), 120)
    workers = children(process.pid)
    process.kill()
    process.wait()

    assert workers
    wait_for(lambda: all(map(gone, workers)), 20)
    before = {path: path.read_bytes() for path in cells.glob("*.json")}
    assert 1 <= len(before) <= 4
    told: list[tuple[int, int]] = []
    wanted = spec(epochs=3)
    study = run_study(wanted, tmp_path, 1, lambda done, total: told.append((done, total)))

    assert told[0] == (len(before), 4)
    assert told[-1] == (4, 4)
    assert all(path.read_bytes() == held for path, held in before.items())
    assert [(row.scheme, row.trained, row.failed) for row in study.rows] == [("dense", 2, {}), ("bdwp", 2, {})]
    by = {(t.scheme, t.seed): t for t in study.trainings}
    for scheme, seed in (("dense", 1), ("bdwp", 1)):
        alone = trained_here(scheme, seed, 3)
        assert (by[scheme, seed].digest, by[scheme, seed].accuracy) == (alone.digest, alone.accuracy)
        assert by[scheme, seed].validation == tuple(row.validation_accuracy for row in alone.log)
        assert (by[scheme, seed].images, by[scheme, seed].hosts) == (alone.images, alone.hosts)
    _check_the_machine_side(study)

    monkeypatch.setattr(trainings, "run_each", None)
    again = run_study(wanted, tmp_path, 1)
    assert again.rows == study.rows
    assert not any((tmp_path / "running").iterdir())


def _check_the_machine_side(study: Study) -> None:
    from weft.workloads.training import plan, step_workload

    dense = step_workload(plan("mlp", scheme="dense", epochs=3))
    cycles = {
        name: simulate(schedule(annotate(dense, name, NM), study.spec.machine)).cycles.total
        for name in ("dense", "bdwp")
    }
    assert {row.scheme: row.cycles for row in study.rows} == cycles
    sparse = study.rows[1]
    assert sparse.speedup == pytest.approx(cycles["dense"] / cycles["bdwp"])
    assert sparse.density_ff == pytest.approx(0.25, abs=0.01)
    assert study.steps["mlp", "bdwp", "2:8"].workload.measured


NARROW = """
import os
from torch import nn

def net(classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(size * size, 6), nn.ReLU(), nn.Linear(6, classes))

def dies(classes):
    os._exit(7)
"""


@pytest.mark.slow
def test_one_failure_stops_nothing_else(tmp_path, capfd):
    (tmp_path / "narrow.py").write_text(NARROW)
    models = ",".join(f"{tmp_path / 'narrow.py'}:{name}" for name in ("dies", "net"))
    asked = ["study", "--model", models, "--schemes", "sdgp", "--nm", "2:16", "--seeds", "1", "--epochs", "1"]

    assert main([*asked, "--jobs", "1", "-o", str(tmp_path / "out"), "--json"]) == 0

    document = json.loads(capfd.readouterr().out)
    rows = {(Path(row["model"]).name, row["scheme"]): row for row in document["rows"]}
    assert rows["narrow.py:dies", "dense"]["failed"] == {"0": "its process ended with exit code 7"}
    assert "no sparsifiable layer" in rows["narrow.py:net", "sdgp"]["failed"]["0"]
    assert rows["narrow.py:net", "dense"]["accuracy"] > 0.1
    assert "no sparsifiable layer" in (tmp_path / "out" / "study.md").read_text()


def test_keys_follow_spec_data_and_sources(tmp_path, monkeypatch):
    from weft.workloads.training import plan

    specs = [plan("mlp", scheme=name, pattern=NM) for name in ("bdwp", "rigl")]
    before = [one.key for one in planned(specs)]
    assert before == [one.key for one in planned(specs)]
    assert len({*before, planned([replace(specs[0], seed=1)])[0].key}) == 3
    held = trainings._sources()
    monkeypatch.setattr(trainings, "_sources", lambda: {**held, "schemes/dynamic.py": "changed"})
    after = [one.key for one in planned(specs)]
    assert after[0] == before[0]
    assert after[1] != before[1]

    monkeypatch.setattr(trainings, "_sources", lambda: held)
    monkeypatch.setattr("weft.workloads.data.images.VALIDATION_EVERY", 3)
    assert not {one.key for one in planned(specs)} & set(before)

    (tmp_path / "narrow.py").write_text(NARROW)
    user = plan(f"{tmp_path / 'narrow.py'}:net", scheme="dense")
    first = planned([user])
    (tmp_path / "narrow.py").write_text(NARROW + "\n")
    assert planned([user])[0].key != first[0].key


@pytest.mark.slow
def test_everything_that_a_training_imports_is_in_its_key():
    code = (
        "import sys; from weft.workloads.training import plan, train; train(plan('mlp', scheme='bdwp-x', epochs=1));"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('weft.workloads')), sep='\\n')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
    folder = Path(trainings.__file__).parents[1] / "workloads"
    loaded = {Path(line).relative_to(folder).as_posix() for line in said.splitlines()}

    assert len(loaded) > 15
    assert loaded <= closure("bdwp-x")
    assert "schemes/dynamic.py" not in closure("bdwp-x")


def test_a_damaged_training_is_named(tmp_path):
    from weft.workloads.training import plan

    plans = planned([plan("mlp", scheme="dense", epochs=1)])
    place = tmp_path / "cells" / f"{plans[0].key}.json"
    place.parent.mkdir()
    place.write_text("{")

    with pytest.raises(InputError, match=r"is damaged; delete it"):
        run_trainings(plans, tmp_path, 1)


def test_a_machine_that_no_table_can_charge_is_refused_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study_module, "run_trainings", lambda *_: pytest.fail("was trained"))
    tiny = load_spec("tiny")
    machine = replace(tiny, technology="fpga-ultrascale-plus", pe=replace(tiny.pe, add_latency=5))

    with pytest.raises(InputError, match="weft area --target xcup"):
        run_study(spec(machine=machine), tmp_path, 1)


def test_two_studies_do_not_share_a_folder(tmp_path):
    from weft.workloads.training import plan

    plans = planned([plan("mlp", scheme="dense", epochs=1)])
    with alone(tmp_path, "study"), pytest.raises(InputError, match="another study is at work"):
        run_trainings(plans, tmp_path, 1)


# Files and pictures.


def study_by_hand() -> Study:
    reference, dense = dense_row()
    found = {0: training(0, (0.5, 0.93, 0.92)), 1: training(1, (0.6, 0.7, 0.95))}
    costs = dict.fromkeys(found, (cost(30, 60),))
    sparse = aggregate(("mlp", "bdwp", NM), found, costs, reference=reference, baseline=dense, below=0.03, clock_hz=10)
    failed = replace(
        sparse,
        scheme="sdgp",
        trained=0,
        validation=None,
        accuracy=None,
        seconds=None,
        seconds_to_target=None,
        failed={0: "diverged", 1: "diverged"},
    )
    elsewhere = replace(found[1], hosts=(HOST, replace(HOST, core="z80")))
    everything = (*reference.values(), found[0], elsewhere)
    return Study(
        spec=spec(), rows=(dense, sparse, failed), trainings=everything, steps={("mlp", "bdwp", "2:8"): run("bdwp")}
    )


def test_a_study_is_written(tmp_path):
    save_study(study_by_hand(), tmp_path, "weft study")
    read = read_json(SavedStudy, (tmp_path / "study.json").read_bytes(), "study.json")
    assert read.rows == study_by_hand().rows and read.command == "weft study"

    document = json.loads((tmp_path / "study.json").read_text())
    csv, parquet = pd.read_csv(tmp_path / "study.csv"), pd.read_parquet(tmp_path / "study.parquet")
    assert list(csv["scheme"]) == list(parquet["scheme"]) == ["dense", "bdwp", "sdgp"]
    assert [row["speedup"] for row in document["rows"]] == csv["speedup"].tolist() == parquet["speedup"].tolist()
    assert json.loads(csv["failed"][2]) == {"0": "diverged", "1": "diverged"}
    assert loads_workload((tmp_path / "steps" / "mlp-bdwp-2of8.json").read_bytes()).scheme == "bdwp"
    for name in ("study.png", "study-dark.png", "study-costs.png", "study-costs-dark.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    assert (read.hosts, read.images) == ((HOST, replace(HOST, core="z80")), (30, 20, 10))
    text = study_markdown(study_by_hand())
    assert text.startswith(
        "digits (30 images to train, 20 for validation, 10 to test), seeds 0, 1, on tiny (9f4c2d696294); trained on "
        "slow chip (i8008, 4 bits), PyTorch 0, 1 thread; slow chip (z80, 4 bits), PyTorch 0, 1 thread. "
        "tiny takes 35,837 of 83,640 LUT sites of LFE5U-85F, 43 %: it fits.\n\n### mlp"
    )
    assert "| `bdwp` | 2:8 | 93.50 +- 2.12 | 92.00 +- 1.41 | 1.50 +- 0.71 | 60 |" in text
    assert "- `sdgp` 2:8 seed 0, `sdgp` 2:8 seed 1: not trained: diverged" in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--schemes", "bdpw"], "scheme 'bdpw' is unknown: did you mean 'bdwp'"),
        (["--seeds", "0"], "seeds must be an integer from 1 to 1000, not 0; the nearest valid value is 1"),
        (["--nm", "2:8,2-4"], "N:M pattern '2-4' is not of the form keep:group"),
        (["--nm", "2:8,2:8"], "pattern '2:8' is named twice"),
        (["--schemes", "bdwp,bdwp"], "scheme 'bdwp' is named twice"),
        (["--model", "resnet_9", "--schemes", "bdwp"], "did you mean 'resnet9'"),
        (["--jobs", "0", "--model", "mlp"], "jobs must be an integer from 1"),
        (["--below", "-1"], "the target must be 0 to 100 points below dense"),
        (["--arch", "tinny"], "tiny"),
        (["mnist"], "data 'mnist' is unknown: did you mean 'mnist5k'"),
    ],
)
def test_bad_input_is_refused_before_any_work(asked, said, tmp_path, capsys):
    assert main(["study", *asked, "-o", str(tmp_path / "out")]) == 2

    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ctrl_c_reaches_a_study(tmp_path):
    command = [*WEFT, "study", "--model", "mlp", "--seeds", "9", "--jobs", "1", "-o", str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: process.poll() is not None or any(tmp_path.glob("running/*/checkpoint.pt")), 120)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "the same command goes on from" in err
    assert "Traceback" not in err
