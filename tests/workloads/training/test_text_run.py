"""A training of the model of characters: interrupted and resumed to the bit, looked at on the way, refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from weft._cli import record as record_command
from weft.cli import main
from weft.workloads.checkpoint import digest, load_checkpoint, save_checkpoint
from weft.workloads.data.text import LETTERS, TextData, open_text
from weft.workloads.errors import InputError
from weft.workloads.training import CHECKPOINT
from weft.workloads.training.text_run import TextRun
from weft.workloads.training.text_spec import TextSpec

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = TextData(name="few", train=torch.arange(500) % LETTERS, test=torch.arange(200) % LETTERS, fingerprint="few")


def small(steps: int = 4, **changes: Any) -> TextSpec:
    return TextSpec(**{"blocks": 1, "width": 8, "steps": steps} | changes)


def stop_at(step: int) -> Callable[[int, int], None]:
    def progress(done: int, _: int) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    return progress


def weights(run: TextRun) -> str:
    return digest(dict(run.model.state_dict()))


@pytest.mark.parametrize(
    "spec",
    [
        small(),
        pytest.param(small(activation="silu", falls=False), marks=pytest.mark.slow),
        pytest.param(small(top_k=0.1), marks=pytest.mark.slow),
        pytest.param(small(width=64, experts=True), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_interrupted_and_resumed_ends_in_the_same_bits(tmp_path: Path, spec: TextSpec) -> None:
    whole = TextRun(spec, TEXT)
    whole.until(spec.steps)
    with pytest.raises(KeyboardInterrupt):
        TextRun(spec, TEXT, tmp_path).until(spec.steps, stop_at(1))
    again = TextRun(spec, TEXT, tmp_path)
    assert again.step == 1
    again.until(2)
    again.until(2)
    again.until(spec.steps)
    assert weights(again) == weights(whole) == weights(TextRun(spec, TEXT, tmp_path))


def test_along_a_training_at_one_rate_lie_the_shorter_ones() -> None:
    on_the_way = TextRun(small(4, falls=False), TEXT)
    on_the_way.until(2)
    short = TextRun(small(2, falls=False), TEXT)
    short.until(2)
    assert weights(on_the_way) == weights(short)
    assert [round(small(2).rate(step), 6) for step in range(2)] == [2e-3, 1e-3]


def test_shapes_are_those_that_are_asked_for() -> None:
    model, _ = small(blocks=2, width=12, activation="silu").build()
    assert [tuple(layer.fc1.weight.shape) for layer in model.model.decoder.layers] == [(48, 12)] * 2
    assert {type(layer.activation_fn).__name__ for layer in model.model.decoder.layers} <= {"SiLU", "SiLUActivation"}
    assert tuple(model.lm_head.weight.shape) == (LETTERS, 12)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 10}, "width must be a multiple of 4 heads, not 10: 8 is one"),
        ({"steps": 0}, "steps"),
        ({"activation": "silu", "top_k": 0.1}, "stand in the place of a ReLU: leave the activation relu"),
        ({"activation": "gelu"}, "activation"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        small(**changes)


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    TextRun(small(), TEXT, tmp_path).until(1)
    with pytest.raises(InputError, match=r"is of another training: .*\"seed\":0.*; name another folder"):
        TextRun(small(seed=1), TEXT, tmp_path)
    other = TextData(name="few", train=TEXT.train, test=TEXT.test, fingerprint="other")
    with pytest.raises(InputError, match="is of a training on another text: few, not other"):
        TextRun(small(), other, tmp_path)
    with pytest.raises(InputError, match="step"):
        TextRun(small(), TEXT, tmp_path).until(0)
    for name, value in {"random": torch.zeros(3), "step": 9, "model": {}, "optimizer": None}.items():
        state = load_checkpoint(tmp_path / CHECKPOINT, 1) | {name: value}
        (tmp_path / name).mkdir()
        save_checkpoint(tmp_path / name / CHECKPOINT, state)
        with pytest.raises(InputError, match=f"is no checkpoint of this training: .*{name}"):
            TextRun(small(), TEXT, tmp_path / name)


@pytest.mark.slow
def test_the_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(folder: str) -> list[str]:
        options = ["--rows", "relu", "--steps", "3", "--tokens", "8", "--json"]
        return ["record", "characters", *options, "-o", str(tmp_path / "rows.npz"), "--folder", str(tmp_path / folder)]

    @contextmanager
    def bar(_: str) -> Iterator[Callable[[int, int], None]]:
        yield stop_at(1)

    with monkeypatch.context() as patched:
        patched.setattr(record_command, "bar", bar)
        assert main(asked("broken")) == 130
    assert f"the same command goes on from {tmp_path / 'broken'}" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "broken" / CHECKPOINT, 1)["step"] == 1
    assert main(asked("broken")) == 0
    document = json.loads(capsys.readouterr().out)
    assert main(asked("whole")) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert TextRun(TextSpec(steps=3), open_text("pydoc"), tmp_path / "whole").step == 3
    assert main(["record", "mlp", "--folder", str(tmp_path), "-o", str(tmp_path / "m.npz")]) == 2
    assert "--folder is for characters" in capsys.readouterr().err
