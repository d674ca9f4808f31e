"""Masks found by training more than once: each training is one that stands alone, to the bit."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import Tensor, nn

from weft.workloads.errors import InputError
from weft.workloads.schemes import attach
from weft.workloads.schemes.scheme import phases
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan, resume
from weft.workloads.training import train as train_digits

from .harness import train

HALF = NMPattern(keep=4, group=8)
RATE = 0.1


def made() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    return [(torch.randn(12, 8, generator=drawn), torch.randint(0, 8, (12,), generator=drawn)) for _ in range(count)]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), RATE, momentum=0.9)


def by_scheme(name: str, steps: int, **options):
    """A training under a scheme: the model, its technique, and the state behind every step."""
    model = made()
    technique = attach(model, name, HALF, steps=steps, distribution="uniform", **options)
    optimizer, states = optimizer_of(model), []
    for step, batch in enumerate(batches(steps)):
        train(model, technique, batch, range(step, step + 1), optimizer)
        states.append({key: value.clone() for key, value in model.state_dict().items()})
    return model, technique, states


def by_hand(start: dict[str, Tensor], masks: dict[str, Tensor], data: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """A training of plain PyTorch, whose masked weights are 0 throughout."""
    model = made()
    model.load_state_dict(start)
    weights = {name: value for name, value in model.named_parameters() if name in masks}

    def cut() -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                weight[~masks[name]] = 0

    cut()
    optimizer = optimizer_of(model)
    for x, labels in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        for name, weight in weights.items():
            weight.grad[~masks[name]] = 0
        optimizer.step()
        cut()
    return {key: value.clone() for key, value in model.state_dict().items()}


def largest(state: dict[str, Tensor], masks: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The largest magnitudes of each mask, by sorting."""
    found = {}
    for name, mask in masks.items():
        weight = state[name].abs()
        order = sorted((i for i in range(mask.numel()) if mask.flatten()[i]), key=lambda i: -float(weight.flatten()[i]))
        new = torch.zeros(mask.numel(), dtype=torch.bool)
        new[order[: round(share * mask.numel())]] = True
        found[name] = new.reshape(mask.shape)
    return found


def full() -> dict[str, Tensor]:
    return {
        name: torch.ones_like(value, dtype=torch.bool) for name, value in made().named_parameters() if value.dim() > 1
    }


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    # how many batches a norm has seen is no number that is set back
    keys = [key for key in state if not key.endswith("num_batches_tracked")]
    return all(torch.equal(state[key], other[key]) for key in keys)


@pytest.mark.parametrize("name, early", [("lottery", 0), ("lottery-late", 2)])
def test_every_ticket_is_trained_from_the_same_weights(name, early):
    length, data = 4, batches(20)
    each = length - early
    steps = length + 2 * each
    _model, technique, states = by_scheme(name, steps, rounds=2, rewind=early / length)
    start = by_hand(made().state_dict(), full(), data[:early])

    masks, at = full(), 0
    for number, share in enumerate((1.0, 0.5**0.5, 0.5)):
        end = length + number * each
        trained = by_hand(start if number else made().state_dict(), masks, data[at:end])
        masks = largest(trained, masks, 0.5 ** ((number + 1) / 2))
        if number < 2:  # the state behind the step is that of the next training already
            assert same(states[end - 1], by_hand(start, masks, []))
        else:
            assert same(states[end - 1], trained)
        assert share == 1.0 or round(share * 128) == int((trained["0.weight"] != 0).sum())
        at = end
    assert technique.ends == (length, length + each, length + 2 * each)


def test_a_soup_is_the_mean_of_trainings_under_one_mask():
    data = batches(14)
    _model, technique, states = by_scheme("soup", 14, until=2 / 14, cycles=2, copies=2)
    start = by_hand(made().state_dict(), full(), data[:2])
    at = 2
    masks = full()
    for cycle in range(2):
        masks = largest(start, masks, 0.5 ** ((cycle + 1) / 2))
        copies = [by_hand(start, masks, data[at + 3 * i : at + 3 * i + 3]) for i in range(2)]
        at += 6
        start = {key: (copies[0][key] + copies[1][key]) / 2 for key in start}
    assert same(states[-1], start)
    assert int((states[-1]["0.weight"] != 0).sum()) == 64
    assert technique.snapshots == {}


def test_a_jackpot_moves_scores_alone():
    """Against autograd: the gradient of a mask that multiplies the weight."""
    data = batches(6)
    _model, technique, states = by_scheme("jackpot", 6, until=0.5, rate=3.0, momentum=0.5)
    dense = by_hand(made().state_dict(), full(), data[:3])
    fixed = [key for key in dense if "running" not in key and "num_batches" not in key]
    assert all(torch.equal(states[-1][key], dense[key]) for key in fixed)

    other = made()
    other.load_state_dict(dense)
    masks = largest(dense, full(), 0.5)
    score = {name: torch.where(mask, 1.0, 0.99) for name, mask in masks.items()}
    speed = {name: torch.zeros_like(value) for name, value in score.items()}
    moved = False
    for number, (x, labels) in enumerate(data[3:]):
        held = {name: mask.float().requires_grad_() for name, mask in masks.items()}
        weights = {name: held[name] * dense[name] for name in held}
        nn.functional.cross_entropy(torch.func.functional_call(other, weights, (x,)), labels).backward()
        rate = 3.0 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * number / 3, dtype=torch.float64)).item())
        for name, mask in held.items():
            speed[name] = 0.5 * speed[name] + mask.grad
            score[name] = score[name] - rate * speed[name]
            before = masks[name]
            masks = {
                **masks,
                name: largest({name: score[name] - score[name].min() + 1}, {name: before | True}, 0.5)[name],
            }
            moved |= not torch.equal(before, masks[name])
    assert moved
    for name, layer in technique.layers.items():
        assert torch.allclose(layer.state["score"], score[f"{name}.weight"], atol=1e-6)
        assert torch.equal(layer.state["mask"], masks[f"{name}.weight"])


def test_each_training_goes_through_the_schedule_of_the_rate():
    technique = attach(made(), "lottery", HALF, steps=12, rounds=2)
    assert [technique.clock(step) for step in (0, 3, 4, 7, 8, 11)] == [(0, 4), (3, 4)] * 3
    late = attach(made(), "lottery-late", HALF, steps=8, rounds=2, rewind=0.5)
    assert late.early == 2
    assert [late.clock(step) for step in (0, 3, 4, 5, 6, 7)] == [(0, 4), (3, 4), (2, 4), (3, 4), (2, 4), (3, 4)]
    assert attach(made(), "rigl", HALF, steps=8).clock(5) == (5, 8)


def test_phases_are_dense_before_the_first_mask():
    shares = {name: [(p.scheme, round(p.share, 4)) for p in phases(name, HALF)] for name in ("lottery", "lottery-late")}
    assert shares["lottery"] == [("dense", 0.2), ("lottery", 0.8)]
    assert shares["lottery-late"] == [("dense", round(1 / 4.6, 4)), ("lottery-late", round(3.6 / 4.6, 4))]


def test_too_few_steps_are_refused():
    with pytest.raises(InputError, match=r"trains 5 times, for which 3 steps are too few: .* fewer of rounds"):
        attach(made(), "lottery", HALF, steps=3)
    with pytest.raises(InputError, match=r"option 'until' must be a number from 0\.01 to 0\.99"):
        attach(made(), "soup", HALF, steps=30, until=0.0)


@pytest.mark.parametrize("name", ["lottery-late", "soup"])
def test_a_training_goes_on_from_its_folder_to_the_same_bits(name, tmp_path):
    spec = plan("mlp", scheme=name, pattern=HALF, epochs=3)
    whole = train_digits(spec)

    def interrupt(done: int, steps: int) -> None:
        if done == 20:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_digits(spec, tmp_path, progress=interrupt)
    again = resume(tmp_path)
    assert same(again.model.state_dict(), whole.model.state_dict())
