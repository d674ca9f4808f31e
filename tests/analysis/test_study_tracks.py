"""The tracks of a study beside accuracy and the cost of a step: by hand, on hand-made trainings and real steps."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from weft.analysis import trainings
from weft.analysis.energy import energy
from weft.analysis.study import Study, StudySpec, run_study
from weft.analysis.study_files import SavedStudy, save_study, study_frame, study_markdown
from weft.analysis.study_rows import PhaseCost, StudyRow, aggregate, by_table, joules_until, row_name
from weft.analysis.study_tracks import tracks
from weft.analysis.training_sources import closure
from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes.annotate import annotate
from weft.workloads.strict import read_json
from weft.workloads.training import plan, step_workload

from .conftest import run
from .test_study import NM, cost, dense_row, spec, training

BAD = {"noise": (0.9, 0.8, 0.7, 0.6, 0.5), "blur": (0.8,) * 5, "contrast": (0.6, 0.6, 0.6, 0.6, 0.1)}
WORSE = {"noise": (0.5,) * 5, "blur": (0.6,) * 5, "contrast": (0.1,) * 5}


@pytest.fixture(autouse=True)
def at_our_priority(monkeypatch):
    monkeypatch.setattr(trainings, "NICE", 0)


def row_of(found, costs, **others) -> StudyRow:
    reference, dense = dense_row()
    known = {"reference": reference, "baseline": dense, "below": 0.03, "clock_hz": 10}
    return aggregate(("mlp", "bdwp", NM), found, costs, **known, **others)


def test_robustness_by_hand():
    found = {0: training(0, (0.93,), corrupted=BAD), 1: training(1, (0.95,), corrupted=WORSE)}
    row = row_of(found, {})

    assert (row.noise, row.blur, row.contrast) == (pytest.approx(0.6), pytest.approx(0.7), pytest.approx(0.3))
    assert row.corrupted == pytest.approx((0.7 + 0.8 + 0.5 + 0.5 + 0.6 + 0.1) / 6)
    assert row.corrupted_sd == pytest.approx(abs((0.7 + 0.8 + 0.5) - (0.5 + 0.6 + 0.1)) / 3 / 2**0.5)
    # One that was trained before there was this track leaves a gap, not half a mean.
    assert row_of({**found, 1: training(1, (0.95,))}, {}).corrupted is None


def test_the_cost_of_training_by_hand():
    found = {0: training(0, (0.5, 0.93, 0.90)), 1: training(1, (0.6, 0.7, 0.95))}
    costs = {0: (cost(15, 40, 1.0), cost(15, 80, 2.0)), 1: (cost(30, 60, 1.5),)}
    row = row_of(found, costs)

    assert row.training_seconds == pytest.approx((15 * 40 + 15 * 80 + 30 * 60) / 2 / 10)
    assert row.training_joules == pytest.approx((15 * 1.0 + 15 * 2.0 + 30 * 1.5) / 2)
    # At the target after 20 steps, 5 of them in the second phase, and after 30.
    assert row.joules_to_target == pytest.approx((15 * 1.0 + 5 * 2.0 + 30 * 1.5) / 2)
    assert row.seed_seconds_to_target == {0: (15 * 40 + 5 * 80) / 10, 1: 30 * 60 / 10}


def test_a_seed_that_never_came_there_says_so():
    found = {0: training(0, (0.5, 0.93, 0.90)), 1: training(1, (0.6, 0.7, 0.8))}
    row = row_of(found, dict.fromkeys(found, (cost(30, 60),)))

    assert (row.reached, row.seed_seconds_to_target) == (1, {0: 120.0, 1: None})
    assert row.joules_to_target is row.seconds_to_target is None
    study = Study(spec=spec(), rows=(row,), trainings=tuple(found.values()), steps={})
    assert "| 120.00 / never |" in study_markdown(study)


def test_joules_until_a_step_are_those_of_every_step_before_it():
    phases = [PhaseCost(steps=s, scheme="x", pattern=None, cycles=1, joules=j) for s, j in ((3, 1.0), (2, 5.0))]

    assert [joules_until(phases, n) for n in range(6)] == [0, 1, 2, 3, 8, 13]
    with pytest.raises(InputError, match="step must be from 0 to 5, not 6"):
        joules_until(phases, 6)


def test_inference_is_the_forward_part_of_the_last_step():
    machine = load_spec("bnn-ecp5")
    traced = step_workload(plan("mlp", scheme="biper", batch=16))
    first, last = (simulate(schedule(annotate(traced, name, None), machine)) for name in ("biper-real", "biper"))
    found = tracks([first, last])

    forward = [r for r in last.ops if r.op.pass_ is Pass.FF]
    assert found.image_cycles == sum(r.cycles.total for r in forward) / 16
    # The forward ops alone, charged as a step of their own.
    alone = energy(last, of=lambda r: r.op.pass_ is Pass.FF).joules
    assert found.image_joules == pytest.approx(alone / 16)
    assert found.blocks == "stce xnor_engine wuve"
    assert found.bit_operations == (64 * 256 + 256 * 10) * 256 + 256 * 256
    assert tracks([last, first]).bit_operations == (64 * 256 + 256 * 10) * 256 + 256 * 256 * 16
    assert (found.luts is None) == (found.lut_share is None)


# Rows of another model.


def test_a_model_beside_stands_in_every_table():
    asked = spec(models=("mlp", "resnet9"), schemes=("xnor",), beside=(("tfc", "dense"), ("lfc", "bdwp")))

    assert list(asked.tables()) == [
        (model, group)
        for model in ("mlp", "resnet9")
        for group in ((model, "dense", None), (model, "xnor", None), ("tfc", "dense", None), ("lfc", "bdwp", NM))
    ]
    with pytest.raises(InputError, match="'mlp' is one of the study's models"):
        spec(beside=(("mlp", "xnor"),))
    with pytest.raises(InputError, match="scheme 'xnr' is unknown: did you mean 'xnor'"):
        spec(beside=(("tfc", "xnr"),))


def test_schemes_of_others_have_rows_too():
    name = f"{Path(__file__).parents[2] / 'examples' / 'own_estimator.py'}:TanhNet"

    assert [group[1] for group in spec(schemes=(name, "xnor")).groups()] == ["dense", "xnor", name]
    # It may build on any family, so that a change of one is another training.
    assert {"schemes/estimated.py", "schemes/nm.py"} <= closure(name)
    assert "schemes/nm.py" not in closure("bitnet")


def beside() -> Study:
    reference, dense = dense_row()
    found = {0: training(0, (0.5, 0.93, 0.90)), 1: training(1, (0.6, 0.7, 0.95))}
    other = row_of(found, dict.fromkeys(found, (cost(30, 60),)), table="mlp")
    other = replace(other, model="tfc", scheme="dense", pattern=None, luts=1234, lut_share=0.25, parameter_bits=5000)
    everything = (*reference.values(), *found.values())
    return Study(spec=spec(), rows=(dense, other), trainings=everything, steps={("mlp", "dense", None): run("dense")})


def test_a_row_beside_is_compared_with_the_model_of_its_table(tmp_path):
    study = beside()
    dense, other = study.rows

    assert (dense.reference, other.reference) == (True, False)
    assert by_table(study.rows) == {"mlp": [dense, other]}
    assert (other.loss, other.speedup) == (pytest.approx(0.025), pytest.approx(200 / 60))
    assert row_name(other) == "tfc dense"
    text = study_markdown(study)
    assert "| `tfc dense` |  | 92.50 +- 3.54 |" in text and "| 1,234 (25 %) |" in text
    save_study(study, tmp_path, "weft study")
    assert read_json(SavedStudy, (tmp_path / "study.json").read_bytes(), "study.json").rows == study.rows
    assert (tmp_path / "study-costs-dark.png").read_bytes()[:4] == b"\x89PNG"


def test_the_frame_has_every_track_as_a_column():
    frame = study_frame(beside())

    assert frame["data"].tolist() == ["digits", "digits"] and frame["model"].tolist() == ["mlp", "tfc"]
    assert frame["luts"].tolist()[1] == 1234 and frame["luts"].isna().tolist() == [True, False]
    assert json.loads(frame["seed_seconds_to_target"][1]) == {"0": 120.0, "1": 180.0}
    wanted = {"corrupted", "training_joules", "bit_operations", "parameter_bits", "image_cycles", "luts", "lut_share"}
    assert wanted <= set(frame.columns)


# Trainings of other sources.


def test_trainings_of_other_sources_are_kept_only_when_asked_for(tmp_path, monkeypatch):
    asked = StudySpec(
        data="digits", models=("tfc",), schemes=("dense",), patterns=(NM,), seeds=1, machine=load_spec("tiny"), epochs=1
    )
    first = run_study(asked, tmp_path)
    held = trainings._sources()
    monkeypatch.setattr(trainings, "_sources", lambda: {**held, "training/run.py": "changed"})
    monkeypatch.setattr(trainings, "_train", lambda folder, plan: pytest.fail("was trained"))
    monkeypatch.setattr(trainings, "run_each", lambda left, jobs, **_: pytest.fail(f"{len(left)} would be trained"))

    kept = run_study(asked, tmp_path, keep=True)
    assert (first.earlier, kept.earlier, kept.rows) == (0, 1, first.rows)
    assert "; 1 of 1 trainings are of another state of the sources" in study_markdown(kept)
    with pytest.raises(pytest.fail.Exception, match="1 would be trained"):
        run_study(asked, tmp_path)
    # Neither another spec nor other data will do.
    with pytest.raises(pytest.fail.Exception, match="1 would be trained"):
        run_study(replace(asked, epochs=2), tmp_path, keep=True)
    monkeypatch.setattr("weft.workloads.data.images.VALIDATION_EVERY", 3)
    with pytest.raises(pytest.fail.Exception, match="1 would be trained"):
        run_study(asked, tmp_path, keep=True)


def test_the_youngest_of_several_is_kept(tmp_path):
    (planned,) = trainings.planned([plan("tfc", scheme="dense", epochs=1)])
    cells = tmp_path / "cells"
    cells.mkdir()
    for age, accuracy in enumerate((0.5, 0.7, 0.6)):
        held = training(0, (accuracy,), spec=trainings._spec_document(planned.spec), data=planned.data)
        path = cells / f"{age}.json"
        path.write_bytes(trainings.dump_json(trainings.Training, held))
        os.utime(path, (1000 * [2, 3, 1][age], 1000 * [2, 3, 1][age]))
    (cells / "damaged.json").write_text("{")

    found = trainings.run_trainings([planned], tmp_path, 1, keep=True)
    assert [one.validation for one in found.values()] == [(0.7,)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--beside", "tfc"], "--beside 'tfc' is not of the form model:scheme, for example resnet9:dense"),
        (["--beside", "tfc:xnr"], "scheme 'xnr' is unknown: did you mean 'xnor'"),
        (["--beside", "tfcc:xnor"], "did you mean 'tfc'"),
        (["--beside", "mlp:xnor"], "'mlp' is one of the study's models"),
    ],
)
def test_what_cannot_stand_beside_is_refused(asked, said, tmp_path, capsys):
    assert main(["study", "--model", "mlp", "--schemes", "dense", *asked, "-o", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
