"""What a training on the RTL leaves in a folder, and how one that was broken off goes on; the steps are the model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.analysis.verify.rtl_files import go_on, save_record, save_rtl_training
from weft.analysis.verify.rtl_train import RtlStep, RtlTrainer, RtlTraining
from weft.workloads.errors import InputError

from .rtl_networks import target_of, work_of


def trainer(steps: int, rate: float = 0.05) -> RtlTrainer:
    return RtlTrainer(work_of("cnn"), target_of(), steps, rate=rate)


def made_by_the_model(own: RtlTrainer, steps: int) -> None:
    """What the RTL would have made, if it is right: ``repeat`` says the loss where another was written down."""
    unknown = [RtlStep(0.0, 0.0, own.step_cycles, own.step_cycles, False)] * steps
    losses = [loss for loss in own.repeat(unknown, {"cycles": steps * own.step_cycles}) if loss is not None]
    own.made = [RtlStep(loss, loss, own.step_cycles, own.step_cycles, False) for loss in losses]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of five."""
    own, path = trainer(5), tmp_path_factory.mktemp("kept")
    made_by_the_model(own, 2)
    save_record(own, path)
    return path


def test_what_was_broken_off_goes_on_where_it_was(folder: Path) -> None:
    whole, again = trainer(5), trainer(5)
    made_by_the_model(whole, 2)
    assert go_on(again, folder) == 2
    assert again.made == whole.made and len(again.made) == 2
    assert again.counters == whole.counters
    assert (again.memory == whole.memory).all()
    assert again.memory.any()


def test_of_another_training_nothing_is_taken(folder: Path) -> None:
    assert go_on(trainer(5, rate=0.06), folder) == 0
    assert go_on(trainer(5), folder / "none") == 0


def test_a_loss_that_is_not_the_models_is_refused(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "rtl-train.json").read_text())
    document["steps"][1]["model_loss"] += 1e-9
    (tmp_path / "rtl-train.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"rtl-train.json: the loss of step 2 is .* there, but .* by the model"):
        go_on(trainer(5), tmp_path)


def test_document_and_picture_say_what_was_done(tmp_path: Path) -> None:
    own = trainer(3)
    made_by_the_model(own, 3)
    result = RtlTraining(
        steps=tuple(own.made),
        accuracy=0.5,
        instructions=own.instructions,
        commands=own.commands,
        window=own.compiled.window,
        counters=own.counters,
    )
    save_rtl_training(own, result, tmp_path)
    document = json.loads((tmp_path / "rtl-train.json").read_text())
    assert [step["loss"] for step in document["steps"]] == [step.loss for step in own.made]
    assert document["settings"]["machine"] == "tiny" and document["settings"]["batch"] == 4
    assert (document["asked"], document["accuracy"], document["commands"]) == (3, 0.5, own.commands)
    assert (tmp_path / "rtl-train.png").read_bytes().startswith(b"\x89PNG")
    assert go_on(trainer(3), tmp_path) == 0  # a training that has ended is made anew
