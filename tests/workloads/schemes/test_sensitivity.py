"""Sensitivities against formulas by hand and derivatives by brute force; rounding; a model that stays as it was."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from weft.workloads.errors import InputError
from weft.workloads.levels import Levels
from weft.workloads.schemes.integer import Rounded
from weft.workloads.schemes.scores import LayerScores, Scores, candidate, rank_correlation
from weft.workloads.schemes.sensitivity import fisher_diagonals, hessian_traces, sensitivities

CLASSES = 5


def batches(*shape: int, sizes: tuple[int, ...] = (6, 5), seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, *shape, generator=drawn), torch.randint(0, CLASSES, (n,), generator=drawn)) for n in sizes]


def perceptron() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, CLASSES))


def largest_by_trying(row: np.ndarray, keep: int, group: int) -> np.ndarray:
    """The largest of every group of a row, the earlier of equal ones, element by element."""
    made = np.zeros_like(row)
    for start in range(0, len(row), group):
        part = row[start : start + group]
        for i in sorted(range(len(part)), key=lambda i: (-abs(part[i]), i))[:keep]:
            made[start + i] = part[i]
    return made


def test_a_linear_classifier_by_hand() -> None:
    """Every score of one layer, written down: p - y times x is the gradient, softmax the outputs."""
    torch.manual_seed(0)
    model, data = nn.Linear(8, CLASSES), batches(8)
    found, sizes, _ = sensitivities(nn.Sequential(model), data, ["2:4", "int3"])
    x, y = (torch.cat(part).double().numpy() for part in zip(*data, strict=True))
    y = y.astype(int)
    w, b = (p.detach().double().numpy() for p in (model.weight, model.bias))

    def log_p(weight: np.ndarray) -> np.ndarray:
        z = x @ weight.T + b
        return z - np.log(np.exp(z).sum(1, keepdims=True))

    gradient = (np.exp(log_p(w)) - np.eye(CLASSES)[y])[:, :, None] * x[:, None, :]
    norms = (x**2).sum(0)
    scale = abs(w).max(1, keepdims=True) / 3
    made = {"2:4": np.array([largest_by_trying(row, 2, 4) for row in w]), "int3": scale * np.round(w / scale)}
    assert sizes == {"0": 8 * CLASSES}
    for text, after in made.items():
        change, rows = after - w, np.arange(len(y))
        expected = {
            "fisher": 0.5 * ((gradient**2).mean(0) * change**2).sum(),
            "zeroq": (np.exp(log_p(w)) * (log_p(w) - log_p(after))).sum(1).mean(),
            "magnitude": (change**2).sum() / (w**2).sum(),
            "wanda": (change**2 * norms).sum() / (w**2 * norms).sum(),
            "loss": (log_p(w) - log_p(after))[rows, y].mean(),
        }
        for method, score in expected.items():
            assert found["0"][method][text] == pytest.approx(score, rel=1e-4, abs=1e-7), method


def loss_of(model: nn.Module, data: list[tuple[Tensor, Tensor]], weights: dict[str, Tensor]) -> Tensor:
    x, y = (torch.cat(part) for part in zip(*data, strict=True))
    return functional.cross_entropy(functional_call(model, weights, (x,)), y)


def full_hessian(model: nn.Module, data: list[tuple[Tensor, Tensor]], names: list[str]) -> Tensor:
    """Of the loss by all named weights side by side, by autograd row by row."""
    parameters = dict(model.named_parameters())
    sizes = [parameters[name].numel() for name in names]

    def loss(flat: Tensor) -> Tensor:
        parts = zip(names, flat.split(sizes), strict=True)
        return loss_of(model, data, {name: part.view_as(parameters[name]) for name, part in parts})

    flat = torch.cat([parameters[name].detach().flatten() for name in names])
    return torch.autograd.functional.hessian(loss, flat)


def test_traces_are_those_of_the_whole_hessian() -> None:
    """Within four deviations of Hutchinson's mean, which is known: 2 (|H_l|^2 - |diag|^2) and what blocks share."""
    model, data, probes = perceptron().double(), batches(8), 256
    data = [(x.double(), y) for x, y in data]
    names = ["0.weight", "2.weight"]
    whole = full_hessian(model, data, names)
    weights = [model[0].weight, model[2].weight]
    found = hessian_traces(model, data, weights, probes, seed=5)
    start = 0
    for w, trace in zip(weights, found, strict=True):
        own = whole[start : start + w.numel()]
        block = own[:, start : start + w.numel()]
        # v_l^T H v over all weights: symmetric terms of the block count twice, those of other blocks once.
        variance = 2 * (block.square().sum() - block.diagonal().square().sum())
        variance += own.square().sum() - block.square().sum()
        exact = float(block.diagonal().sum())
        assert abs(trace - exact) <= 4 * math.sqrt(float(variance) / probes)
        assert abs(trace - exact) < 0.25 * abs(exact)
        start += w.numel()
    # One batch split in two is the same Hessian, though drawn anew.
    once = hessian_traces(model, [tuple(torch.cat(part) for part in zip(*data, strict=True))], weights, probes, seed=5)  # type: ignore[list-item]
    assert once != found
    assert once == pytest.approx(found, rel=0.3)


def test_all_signs_give_the_trace_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over all sign vectors of one layer is exact, whatever the Hessian."""
    torch.manual_seed(2)
    model, data = nn.Sequential(nn.Linear(3, 2, bias=False)).double(), batches(3)
    data = [(torch.cat([x for x, _ in data]).double(), torch.cat([y for _, y in data]) % 2)]
    signs = iter([torch.tensor(bits).reshape(2, 3) for bits in product((0, 1), repeat=6)])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: next(signs))
    (found,) = hessian_traces(model, data, [model[0].weight], 64)
    assert found == pytest.approx(float(full_hessian(model, data, ["0.weight"]).diagonal().sum()), rel=1e-9)


def test_fisher_is_the_mean_of_squared_gradients_of_single_samples() -> None:
    """By vectorised derivatives of the functional model, where ours goes sample by sample."""
    model, data = perceptron(), batches(8)
    x, y = (torch.cat(part) for part in zip(*data, strict=True))

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    held = {name: p.detach() for name, p in model.named_parameters()}
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(held, x, y)
    for name, found in zip(
        ("0.weight", "2.weight"), fisher_diagonals(model, data, [model[0].weight, model[2].weight]), strict=True
    ):
        torch.testing.assert_close(found, gradients[name].double().square().mean(0), rtol=1e-4, atol=1e-9)


def test_the_second_order_is_what_small_changes_do() -> None:
    """At a minimum the loss rises by half of D^T H D: the outside check of the whole idea, on a trained layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, CLASSES))
    data = batches(8, sizes=(64,))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=400, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data, dict(model.named_parameters()))
        loss.backward()
        return loss

    optimizer.step(closure)
    found, _, _ = sensitivities(model, data, ["int6", "int7", "int8"])
    whole = full_hessian(model, data, ["0.weight"])
    weight = model[0].weight.detach()
    for text in ("int6", "int7"):
        few = Rounded(Levels(text)).few(weight[None, :, :, None])
        change = (few.whole[0, :, :, 0] - weight).flatten()
        assert found["0"]["loss"][text] == pytest.approx(float(change @ whole @ change) / 2, rel=0.1)


def test_a_padded_convolution_is_seen_window_by_window() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 4, CLASSES)
    )
    data = batches(2, 6, 6)
    found, sizes, dense = sensitivities(model, data, ["2:8"], ["wanda"])
    assert dense == {"0": "first convolution", "3": "no candidate fits its channels"}
    assert sizes == {"1": 8 * 8 * 9}
    weight = model[1].weight.detach().numpy()
    x = torch.cat([model[0](x).detach() for x, _ in data]).double().numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    lost = whole = 0.0
    for o, i, j in product(range(8), range(3), range(3)):
        taken = largest_by_trying(weight[o, :, i, j], 2, 8)
        for c in range(8):
            seen = (padded[:, c, i : i + 3 : 2, j : j + 3 : 2] ** 2).sum()
            lost += (weight[o, c, i, j] - taken[c]) ** 2 * seen
            whole += weight[o, c, i, j] ** 2 * seen
    assert found["1"]["wanda"]["2:8"] == pytest.approx(lost / whole, rel=1e-5)


def test_the_model_stays_and_the_seed_decides() -> None:
    model, data = perceptron(), batches(8)
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = sensitivities(model, data, ["1:4", "int4"], probes=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert [type(module) for module in model] == [nn.Linear, nn.Tanh, nn.Linear]
    assert all(p.grad is None for p in model.parameters())
    assert sensitivities(model, data, ["1:4", "int4"], probes=2) == first
    assert sensitivities(model, data, ["1:4", "int4"], probes=2, seed=1) != first


def test_a_weight_that_two_layers_share_and_one_that_is_frozen() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES))
    model[2].weight = model[0].weight
    model[3].weight.requires_grad_(False)
    found, _, dense = sensitivities(model, batches(8), ["2:4", "int4"], probes=1)
    assert list(found) == ["0", "4"]
    assert dense == {"3": "its weight is not trained"}


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=8, max_size=8),
    levels=st.sampled_from([levels for levels in Levels if levels.value.startswith("int")]),
)
def test_rounding_is_to_the_nearest_of_the_levels(values: list[float], levels: Levels) -> None:
    weight = torch.tensor(values).reshape(1, 2, 2, 2)
    few = Rounded(levels).few(weight)
    assert few.scale is not None
    assert set(few.values.flatten().tolist()) <= set(levels.values)
    for filter_ in range(2):
        scale = float(few.scale[0, filter_])
        for v, q in zip(weight[0, filter_].flatten().tolist(), few.values[0, filter_].flatten().tolist(), strict=True):
            # No other symmetric level is nearer, but for the rounding of the division.
            assert abs(v - q * scale) <= scale / 2 * (1 + 1e-4)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=9))
def test_rank_correlation_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    """A rank is one more than the number of smaller values, and half of the equal ones."""

    def ranks(values: list[int]) -> np.ndarray:
        return np.array([1 + sum(w < v for w in values) + (values.count(v) - 1) / 2 for v in values])

    a, b = (ranks(list(side)) for side in zip(*pairs, strict=True))
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert rank_correlation(*zip(*pairs, strict=True)) == pytest.approx(np.corrcoef(a, b)[0, 1])
    else:
        assert rank_correlation(*zip(*pairs, strict=True)) == 0


def test_what_is_refused() -> None:
    model, data = perceptron(), batches(8)
    for arguments, said in (
        ((["2:4"], ["fischer"]), "method 'fischer' is unknown: did you mean 'fisher'"),
        ((["in4"],), "candidate 'in4' is no N:M pattern.*did you mean 'int4'"),
        ((["ternary"],), "candidate 'ternary' is no N:M pattern"),
        ((["2:16"],), "no layer can be brought to any of 2:16"),
    ):
        with pytest.raises(InputError, match=said):
            sensitivities(model, data, *arguments)  # type: ignore[arg-type]
    layer = {"layer": "a", "weights": 4}
    with pytest.raises(InputError, match="must be finite"):
        LayerScores(**layer, scores={"fisher": {"2:8": math.inf}})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="method 'hawq' of layer 'a' is unknown"):
        LayerScores(**layer, scores={"hawq": {}})  # type: ignore[arg-type]
    scores = Scores(
        model="m", data="d", digest="", images=1, probes=1, seed=0,
        layers=(LayerScores(**layer, scores={"fisher": {"2:8": 1.0}}),),  # type: ignore[arg-type]
    )  # fmt: skip
    assert scores.by("fisher") == {"a": {"2:8": 1.0}}
    with pytest.raises(InputError, match="no scores by 'zeroq'"):
        scores.by("zeroq")
    assert str(candidate("2:8")) == "2:8"
