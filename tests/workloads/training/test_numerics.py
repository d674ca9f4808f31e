"""A training whose arithmetic is given: with PyTorch's own it is the training that PyTorch does."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from weft.tests.workloads.graph_by_torch import run
from weft.workloads.checkpoint import digest, load_checkpoint
from weft.workloads.errors import InputError
from weft.workloads.graph import Graph, PortKind
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import CHECKPOINT, TrainSpec, plan, resume, train
from weft.workloads.training.run import VERSION
from weft.workloads.update_rule import UPDATE_RULES, UpdateRule

Single = npt.NDArray[np.float32]

pytestmark = pytest.mark.usefixtures("one_thread")


class ByTorch:
    """PyTorch's operators in FP32, node by node of the dense graph, and PyTorch's optimizers one step at a time."""

    format = "bf16"

    def __init__(self) -> None:
        self.updates = 0

    def begin(self, graph: Graph, held: Mapping[str, Single], pixels: Single) -> _Begun:
        return _Begun(graph, held, pixels)

    def update(
        self, rule: UpdateRule, settings: Mapping[str, Any], master: Single, gradient: Any, state: tuple[Single, ...]
    ) -> tuple[Single, ...]:
        self.updates += 1
        weight = torch.nn.Parameter(torch.from_numpy(master.copy()))
        weight.grad = torch.from_numpy(gradient * np.float32(settings["inverse_scale"]))
        named = {"lr": settings["rate"], **rule.trained.settings}
        if rule.decays:
            named["weight_decay"] = settings["weight_decay"]
        optimizer = getattr(torch.optim, rule.trained.optimizer)([weight], **named)
        kept = {held.in_torch: torch.from_numpy(x.copy()) for held, x in zip(rule.state, state, strict=True)}
        if rule.trained.counts_steps:
            kept["step"] = torch.tensor(float(settings["step"] - 1))
        optimizer.state[weight] = kept
        optimizer.step()
        slots = [weight.detach(), *(optimizer.state[weight][held.in_torch] for held in rule.state)]
        return tuple(slot.numpy() for slot in slots)


class _Begun:
    def __init__(self, graph: Graph, held: Mapping[str, Single], pixels: Single) -> None:
        self._graph = graph
        self._given = {(kind, name): torch.from_numpy(x) for name, x in held.items() for kind in PortKind}
        self._given[PortKind.INPUT, ""] = torch.from_numpy(pixels)
        (port,) = graph.leaving(PortKind.OUTPUT)
        self.scores = self._run(torch.zeros(graph.tensors[port.tensor].shape))[PortKind.OUTPUT, ""].numpy()

    def _run(self, gradient: torch.Tensor) -> dict[Any, torch.Tensor]:
        return run(self._graph, {**self._given, (PortKind.GRADIENT, ""): gradient})

    def gradients(self, gradient: Single) -> tuple[dict[str, Any], dict[str, Single]]:
        found = self._run(torch.from_numpy(gradient))
        by_kind = [
            {name: x.contiguous().numpy() for (kind, name), x in found.items() if kind is wanted}
            for wanted in (PortKind.GRADIENT, PortKind.BUFFER)
        ]
        return by_kind[0], by_kind[1]


def by_torch(_: str) -> ByTorch:
    return ByTorch()


def short(model: str = "cnn", **changes: Any) -> TrainSpec:
    return plan(model, **{"scheme": "dense", "epochs": 1, "numerics": "machine-bf16", **changes})


@pytest.mark.parametrize("optimizer", UPDATE_RULES)
def test_in_pytorchs_numerics_it_is_pytorchs_training(optimizer: str) -> None:
    spec = short("mlp", epochs=2, optimizer=optimizer, label_smoothing=0.1, batch=100)
    found, plain = train(spec, numerics=by_torch), train(replace(spec, numerics="torch"))

    for mine, theirs in zip(found.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    assert found.accuracy == pytest.approx(plain.accuracy, abs=2 / 355)
    assert [row.learning_rate for row in found.log] == [row.learning_rate for row in plain.log]
    assert found.log[0].loss == pytest.approx(plain.log[0].loss, rel=1e-4)


def test_statistics_and_counts_of_a_norm_are_kept() -> None:
    found, plain = train(short(), numerics=by_torch), train(short(numerics="torch"))

    assert int(found.model[1].num_batches_tracked) == 16
    for name, buffer in plain.model.named_buffers():
        torch.testing.assert_close(found.model.get_buffer(name), buffer, rtol=1e-3, atol=1e-4)


def test_a_step_that_overflows_is_skipped_and_halves_the_scale(tmp_path: Path) -> None:
    class Overflows(ByTorch):
        format = "fp16"

        def begin(self, graph: Graph, held: Mapping[str, Single], pixels: Single) -> _Begun:
            begun = super().begin(graph, held, pixels)
            made = begun.gradients

            def overflown(gradient: Single) -> Any:
                gradients, buffers = made(gradient)
                if np.abs(gradient).sum() > 60000:  # more than 2^15 a class in all
                    gradients["5.bias"][0] = np.inf
                return gradients, buffers

            begun.gradients = overflown  # type: ignore[method-assign]
            return begun

    numerics = Overflows()
    spec = short("mlp", numerics="machine", batch=400, epochs=3)
    train(spec, tmp_path / "run", numerics=lambda _: numerics)
    state = load_checkpoint(tmp_path / "run" / CHECKPOINT, VERSION)

    skipped = 6 - numerics.updates // 6  # of six steps; the perceptron has six parameters
    assert skipped == 1
    assert state["scaler"]["scale"] == 2.0**15
    assert state["optimizer"]["state"].keys() == set(range(6))


def test_a_killed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 7:
            os.kill(os.getpid(), signal.SIGINT)

    train(short(optimizer="adamw"), tmp_path / "whole", numerics=by_torch)
    with pytest.raises(KeyboardInterrupt):
        train(short(optimizer="adamw"), tmp_path / "broken", progress=stop, numerics=by_torch)
    with pytest.raises(InputError, match="numerics 'machine-bf16' must be given"):
        resume(tmp_path / "broken")
    resume(tmp_path / "broken", numerics=by_torch)

    held = [load_checkpoint(tmp_path / name / CHECKPOINT, VERSION) for name in ("whole", "broken")]
    for part in ("model", "optimizer", "technique", "scaler", "step"):
        assert digest(held[0][part]) == digest(held[1][part]), part


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"numerics": "machines"}, "numerics 'machines' are unknown: did you mean 'machine'"),
        ({"amp": "bf16"}, "amp 'bf16' is PyTorch's"),
        ({"scheme": "xnor"}, "train no scheme 'xnor'"),
        ({"scheme": "srste"}, "give --option decay=0"),
        ({"scheme": "bdwp", "options": {"decay": 1e-4}}, "has 0.0001: give --option decay=0"),
        ({"model": "supernet9"}, "is another network every step"),
        ({"model": "snn"}, "cannot be captured"),
    ],
)
def test_what_no_other_numerics_can_train_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(short(**changes), numerics=by_torch)


def test_a_spec_of_pytorchs_numerics_is_written_as_before() -> None:
    from weft.workloads.strict import dump_json

    assert b"numerics" not in dump_json(TrainSpec, short(numerics="torch"))
    assert b"machine-bf16" in dump_json(TrainSpec, short())
    assert NMPattern(keep=2, group=8) == short(scheme="bdwp").pattern
