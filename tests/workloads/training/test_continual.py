"""Tasks one after the other: what was learned stays to the bit, masks hold what they say, one task is plain SGD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from weft.workloads.data import normalised, open_data, order
from weft.workloads.errors import InputError
from weft.workloads.models.classifier import classifier
from weft.workloads.training import continual as module
from weft.workloads.training.continual import Continual, continual


@pytest.mark.parametrize("growth", ["gradient", "random", "none"])
def test_what_was_learned_stays_to_the_bit(growth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[Any] = []

    def built(*asked: Any) -> Any:
        models.append(classifier(*asked))
        return models[-1]

    monkeypatch.setattr(module, "classifier", built)
    states: list[dict[str, torch.Tensor]] = []

    def note(*_: int) -> None:
        states.append({name: p.detach().clone() for name, p in models[0].named_parameters()})

    found = continual(growth=growth, density=0.3, epochs=3, seed=1, progress=note)
    assert len(states) == len(found.tasks) == 5
    assert [task.classes for task in found.tasks] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    for task, then in zip(found.tasks, states, strict=True):
        for name, mask in task.masks.items():
            assert torch.equal(states[-1][name][mask], then[name][mask])
        assert task.learned == task.end > 0.7
    assert found.forgotten == 0
    union = {name: torch.stack([task.masks[name] for task in found.tasks]).any(0) for name in found.tasks[0].masks}
    assert found.used == sum(int(mask.sum()) for mask in union.values()) == sum(task.own for task in found.tasks)
    assert all(task.own + task.reused == sum(int(m.sum()) for m in task.masks.values()) for task in found.tasks)
    assert shares(found) == pytest.approx([0.3] * 5, abs=1e-3)


def shares(found: Continual) -> list[float]:
    """Densities of the masks of the hidden layers."""
    hidden = list(found.tasks[0].masks)[:-1]
    sizes = sum(found.tasks[0].masks[name].numel() for name in hidden)
    return [sum(int(task.masks[name].sum()) for name in hidden) / sizes for task in found.tasks]


def test_nothing_frozen_is_forgotten() -> None:
    found = continual(isolate=False, density=1.0, growth="none")
    assert found.forgotten > 0.005
    assert found.used == found.weights


def test_one_dense_task_is_plain_sgd() -> None:
    found = continual(tasks=1, density=1.0, growth="none", epochs=2, seed=3)
    data = open_data("digits")
    torch.manual_seed(3)
    model = classifier("mlp", data.shape, data.classes)
    drawn = torch.Generator().manual_seed(3)
    for p in [p for p in model.parameters() if p.dim() > 1][:-1]:
        torch.rand(p.shape, generator=drawn)  # what masks are drawn by
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    steps = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * -(-len(data.train.labels) // 64))
    images = normalised(data, data.train.fetch(torch.arange(len(data.train.labels))))
    for _ in range(2):
        for index in order(len(images), drawn).split(64):
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(images[index]), data.train.labels[index]))
            optimizer.step()
            steps.step()
    for mine, theirs in zip(found.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)
    test = normalised(data, data.test.fetch(torch.arange(64)))
    assert torch.allclose(found.answers(0, test), model(test), atol=1e-3)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"tasks": 6}, "tasks must be an integer from 1 to 5, not 6"),
        ({"density": 0}, "density is 0: each task needs weights"),
        ({"density": 1.0}, "density is 1: each task needs weights, and must leave some"),
        ({"density": 1.5}, "density"),
        ({"growth": "gradients"}, "did you mean 'gradient'"),
        ({"data": "digit"}, "did you mean 'digits'"),
    ],
)
def test_what_cannot_be_learned_is_refused(asked: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        continual(**asked)
