"""Unstructured techniques: budgets kept, what drops and what grows, schedules, resume, and what the machine is told."""

from __future__ import annotations

import copy
from dataclasses import replace
from math import ceil, prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.models.classifier import classifier
from weft.workloads.schemes import attach
from weft.workloads.schemes.allocation import erk_densities
from weft.workloads.schemes.annotate import annotate
from weft.workloads.schemes.dynamic import cosine, cubic
from weft.workloads.schemes.scheme import SCHEMES, widening
from weft.workloads.schemes.unstructured import drop_and_grow, top
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan, step_workload
from weft.workloads.training import train as train_digits

from .harness import TWO_OF_EIGHT, backward, batch, net, train

NAMES = [name for name, s in SCHEMES.items() if s.unstructured]
GROUPED = {name: s.groups for name, s in SCHEMES.items() if s.groups}
"""Their shapes are cut down to what the small network has whole groups of."""
FALLING = ("gmp", "granet", "lottery", "lottery-late", "soup", "jackpot", "turbo-vbi", *GROUPED)
"""Masks that lose weights during training."""
MOVING = {
    "gmp": {"period": 2, "end": 0.6},
    "set": {"period": 2},
    "rigl": {"period": 2, "end": 1.0},
    "granet": {"period": 2, "end": 0.6},
    "sparse-ift": {"period": 2},
    "sparcl": {"period": 2},
    "erk": {},
    "lottery": {"rounds": 2},
    "lottery-late": {"rounds": 2, "rewind": 0.5},
    "soup": {"copies": 2},
    "jackpot": {},
    "turbo-vbi": {"period": 1},
    **{name: {"period": 2, "end": 0.6, "shape": shape.replace("16", "4")} for name, shape in GROUPED.items()},
}


def active(technique) -> int:
    return sum(int(layer.state["mask"].sum()) for layer in technique.own_layers())


def size(technique) -> int:
    return sum(layer.weight.numel() for layer in technique.own_layers())


@given(st.data())
def test_drop_and_grow_conserves_the_count_and_takes_the_extremes(data):
    """Against sorting by hand; equal scores are decided by the index."""
    length = data.draw(st.integers(1, 40))
    small = st.integers(-3, 3).map(float)
    weight, growth = (torch.tensor(data.draw(st.lists(small, min_size=length, max_size=length))) for _ in range(2))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    count = data.draw(st.integers(0, int(mask.sum())))
    made = drop_and_grow(weight, mask, growth, count)

    alive = sorted((i for i in range(length) if mask[i]), key=lambda i: (-abs(float(weight[i])), i))
    left = set(alive[: len(alive) - count])
    grown = sorted((i for i in range(length) if i not in left), key=lambda i: (-float(growth[i]), i))[:count]
    assert set(made.nonzero()[:, 0].tolist()) == left | set(grown)
    assert int(made.sum()) == int(mask.sum())


def test_top_takes_all_where_there_are_fewer():
    assert top(torch.ones(4), 3, torch.tensor([True, False, True, False])).tolist() == [True, False, True, False]
    assert top(torch.ones(4), 0, torch.ones(4, dtype=torch.bool)).tolist() == [False] * 4


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple), min_size=1, max_size=6),
    st.floats(0.01, 1),
)
def test_erk_densities_add_up_to_the_budget(shapes, density):
    made = erk_densities(shapes, density)
    sizes = [prod(shape) for shape in shapes]

    assert all(0 < d <= 1 + 1e-9 for d in made)
    assert sum(d * n for d, n in zip(made, sizes, strict=True)) == pytest.approx(density * sum(sizes))
    # One eps for all layers that are not dense, and dense ones would have passed 1 with it.
    scales = [d * n / sum(shape) for d, n, shape in zip(made, sizes, shapes, strict=True)]
    open_ = [s for s, d in zip(scales, made, strict=True) if d < 1 - 1e-9]
    if open_:
        assert open_ == pytest.approx([open_[0]] * len(open_))
        for d, n, shape in zip(made, sizes, shapes, strict=True):
            assert d < 1 - 1e-9 or open_[0] * sum(shape) / n >= 1 - 1e-6


def test_erk_by_hand_with_a_layer_that_saturates():
    # Raw 20/100 and 200/10000; eps = 2525 / 220 would make the first 2.3 times full, so it is dense and eps 2425 / 200.
    assert erk_densities([(10, 10), (100, 100)], 0.25) == pytest.approx([1.0, 0.2425])
    assert erk_densities([(8, 8), (8, 8)], 0.25) == pytest.approx([0.25, 0.25])


def test_schedules_at_their_ends():
    assert [cubic(0.0, 0.8, p) for p in (-1, 0, 0.5, 1, 2)] == pytest.approx([0, 0, 0.7, 0.8, 0.8])
    assert [cosine(0.3, 0.0, p) for p in (0, 0.5, 1, 2)] == pytest.approx([0.3, 0.15, 0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_masks_keep_the_budget_and_everything_outside_is_zero(name):
    """After every step: weights, momentum; in every forward and backward the masked weight alone is read. Jackpots keep
    the weights that no mask holds, and move none."""
    model, steps, stays = net(), 12, name == "jackpot"
    technique = attach(model, name, TWO_OF_EIGHT, steps=steps, **MOVING[name])
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    counts = []
    for step in range(steps):
        technique.before_step(step)
        optimizer.zero_grad()
        backward(model, batch())
        for layer in technique.layers.values():
            outside = ~layer.state["mask"]
            assert (layer.operand(Pass.FF)[outside] == 0).all()
            assert layer.operand(Pass.BP) is layer.operand(Pass.FF)
        technique.adjust_gradients(step)
        for layer in technique.layers.values():
            gradient = layer.weight.grad
            assert (gradient is None) if stays and step >= steps / 2 else (gradient[~layer.state["mask"]] == 0).all()
        optimizer.step()
        technique.after_step(step, optimizer)
        counts.append(active(technique))
        for layer in technique.layers.values() if not stays else ():
            outside = ~layer.state["mask"]
            assert (layer.weight[outside] == 0).all()
            held = optimizer.state[layer.weight]
            assert (held["exp_avg"][outside] == 0).all() and (held["exp_avg_sq"][outside] == 0).all()

    odd = 1
    if name in GROUPED:
        # A whole group more or less for each layer, and for each row of a level.
        cells = [technique.cells(layer, layer.weight).shape for layer in technique.own_layers()]
        odd = max(elements * (rows if SCHEMES[name].level else 1) for rows, _, elements in cells)
    assert counts[-1] == pytest.approx(0.25 * size(technique), abs=odd * len(technique.layers))
    assert counts == sorted(counts, reverse=True)
    assert (len(set(counts)) > 1) == (name in FALLING)
    assert technique.compact() == {key: {} for key in technique.layers}


def test_rigl_grows_the_largest_gradients_from_zero_and_drops_the_smallest_weights():
    model = net()
    technique = attach(model, "rigl", TWO_OF_EIGHT, steps=100, period=3, end=1.0, fraction=0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    train(model, technique, batch(), range(2), optimizer)
    before = {key: layer.state["mask"].clone() for key, layer in technique.layers.items()}
    technique.before_step(2)
    optimizer.zero_grad()
    backward(model, batch())
    dense = {key: layer.weight.grad.clone().abs() for key, layer in technique.layers.items()}
    technique.adjust_gradients(2)
    optimizer.step()
    stepped = {key: layer.weight.detach().clone().abs() for key, layer in technique.layers.items()}
    technique.after_step(2, optimizer)

    for key, layer in technique.layers.items():
        old, new = before[key], layer.state["mask"]
        count = int(cosine(0.5, 0.0, 3 / 100) * int(old.sum()))
        weakest = torch.zeros_like(old).flatten()
        order = torch.where(old, stepped[key], torch.inf).flatten().argsort(stable=True)
        weakest[order[:count]] = True
        kept = old & ~weakest.reshape(old.shape)
        grown = new & ~kept
        assert count and int(grown.sum()) == count and (new[kept]).all()
        assert dense[key][grown].min() >= dense[key][~new].max()
        fresh = new & ~old
        assert fresh.any() and (layer.weight[fresh] == 0).all()
        assert (optimizer.state[layer.weight]["momentum_buffer"][fresh] == 0).all()
    assert technique._gradients == {}


@pytest.mark.parametrize("name", ["rigl", "sparcl"])
def test_a_gradient_that_is_not_finite_moves_nothing(name):
    """As when the loss scale was too large; other layers go on."""
    model = net()
    technique = attach(model, name, TWO_OF_EIGHT, steps=2, period=1, end=1.0)
    before = {key: layer.state["mask"].clone() for key, layer in technique.layers.items()}
    technique.before_step(0)
    backward(model, batch())
    model.tokens.weight.grad[0, 0] = torch.inf
    technique.adjust_gradients(0)
    technique.after_step(0, torch.optim.SGD(model.parameters(), 0.1))

    assert torch.equal(technique.layers["tokens"].state["mask"], before["tokens"])
    assert not torch.equal(technique.layers["conv"].state["mask"], before["conv"])


def test_set_grows_at_random_by_its_seed():
    def run(seed: int) -> torch.Tensor:
        model = net()
        technique = attach(model, "set", TWO_OF_EIGHT, seed=seed, steps=4, period=2)
        train(model, technique, batch(), range(4), torch.optim.SGD(model.parameters(), 0.1))
        return technique.layers["conv"].state["mask"]

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_gradual_pruning_follows_the_cubic_and_keeps_the_largest():
    model, steps = net(), 20
    technique = attach(model, "gmp", TWO_OF_EIGHT, steps=steps, period=4, begin=0.1, end=0.55)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    layer = technique.layers["tokens"]
    densities = {}
    for step in range(steps):
        train(model, technique, batch(), range(step, step + 1), optimizer)
        densities[step + 1] = int(layer.state["mask"].sum()) / layer.weight.numel()

    def at(done: int) -> float:
        return 1 - cubic(0.0, 0.75, (done - 2) / 9)

    expected = {done: at(max(e for e in (2, 6, 10, 11) if e <= done)) if done >= 2 else 1.0 for done in densities}
    assert densities == pytest.approx(expected, abs=1 / layer.weight.numel())
    assert densities[11] == densities[20] == 0.25


def test_granet_prunes_over_all_layers_together():
    model = net()
    technique = attach(model, "granet", TWO_OF_EIGHT, steps=10, period=100, end=0.1, initial=1.0, fraction=0.0)
    with torch.no_grad():
        model.tokens.weight.mul_(100)
    weights = {key: layer.weight.detach().abs().clone() for key, layer in technique.layers.items()}
    technique._gradients = {}
    technique.move(1)

    every = torch.cat([w.flatten() for w in weights.values()])
    threshold = every.sort(descending=True).values[round(0.25 * len(every)) - 1]
    for key, layer in technique.layers.items():
        assert torch.equal(layer.state["mask"], weights[key] >= threshold)
    assert technique.layers["tokens"].state["mask"].float().mean() > 0.9


def test_granet_regrows_a_share_that_falls_to_half_a_percent():
    technique = attach(net(), "granet", TWO_OF_EIGHT, steps=8, period=2, end=0.5)
    assert technique.initial_density == 0.5 and [d for d in range(1, 9) if technique.moves(d)] == [2, 4, 6, 8]
    layer = technique.layers["conv"]
    before = layer.state["mask"].clone()
    technique._gradients = {"conv": torch.ones_like(layer.weight)}
    technique.move(8)
    changed = int((before ^ layer.state["mask"]).sum())
    assert changed <= 2 * ceil(0.005 * int(before.sum())) and int(before.sum()) == int(layer.state["mask"].sum())


def test_sparcl_updates_the_largest_gradients_only():
    model = net()
    technique = attach(model, "sparcl", TWO_OF_EIGHT, steps=10, gradient=0.9, period=1000)
    technique.before_step(0)
    backward(model, batch())
    masked = {k: la.weight.grad.masked_fill(~la.state["mask"], 0).abs() for k, la in technique.layers.items()}
    technique.adjust_gradients(0)

    for key, layer in technique.layers.items():
        left = layer.weight.grad != 0
        assert int(left.sum()) <= round(0.1 * left.numel()) < int((masked[key] != 0).sum())
        assert masked[key][left].min() >= masked[key][~left].max()


@pytest.mark.parametrize("name", NAMES)
def test_training_resumes_exactly(name):
    def start():
        model = net()
        technique = attach(model, name, TWO_OF_EIGHT, seed=3, steps=8, **MOVING[name])
        return model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), technique

    model, optimizer, technique = start()
    train(model, technique, batch(), range(3), optimizer)
    saved = copy.deepcopy([part.state_dict() for part in (model, optimizer, technique)])
    losses = train(model, technique, batch(), range(3, 8), optimizer)

    again = start()
    for part, state in zip(again, saved, strict=True):
        part.load_state_dict(state)
    assert train(again[0], again[2], batch(), range(3, 8), again[1]) == losses
    assert again[2].metrics() == technique.metrics()


def test_attaching_leaves_the_weights_and_detaching_undoes_it():
    model, untouched = net(), net()
    attach(model, "rigl", TWO_OF_EIGHT, steps=4).detach()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), untouched.parameters(), strict=True))


def test_tied_weights_share_one_mask():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    technique = attach(model, "set", TWO_OF_EIGHT, steps=4, period=1)
    data = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 8
    train(model, technique, data, range(3), torch.optim.SGD(model.parameters(), 0.1))
    assert technique.layers["0"].state["mask"] is technique.layers["2"].state["mask"]


def test_density_and_distribution():
    technique = attach(net(), "erk", None, steps=1, density=0.1, distribution="uniform")
    shares = [la.state["mask"].float().mean().item() for la in technique.layers.values()]
    assert shares == pytest.approx([0.1] * len(shares), abs=0.01)
    model = net()
    with pytest.raises(InputError, match="scheme 'erk' needs an N:M pattern, for example 2:8, or the option 'density'"):
        attach(model, "erk", None, steps=1)
    for density in (0, 1.5, "x", True):
        with pytest.raises(InputError, match="option 'density' of scheme 'erk' must be a number above 0 to 1"):
            attach(model, "erk", None, steps=1, density=density)
    with pytest.raises(InputError, match="option 'distribution' is 'er': did you mean 'erk'"):
        attach(model, "erk", TWO_OF_EIGHT, steps=1, distribution="er")
    attach(model, "erk", TWO_OF_EIGHT, steps=1)


def test_sparse_ift_costs_what_the_dense_model_did():
    """Between two widened layers: density times the square of the width is 1."""
    assert widening("rigl", TWO_OF_EIGHT) == 1.0
    assert widening("sparse-ift", TWO_OF_EIGHT) == 2.0
    assert widening("sparse-ift", TWO_OF_EIGHT, 0.5) == pytest.approx(2**0.5)
    for model, path, dense in (
        ("mlp", "3", 256 * 256),
        ("resnet9", "3", 32 * 16 * 9),
        ("vit_s", "blocks.0.attention.proj", 64 * 64),
    ):
        wide = classifier(model, (1, 8, 8), 10, 2.0).get_submodule(path).weight
        assert wide.numel() * TWO_OF_EIGHT.density == dense
        assert classifier(model, (1, 8, 8), 10).get_submodule(path).weight.numel() == dense
    with pytest.raises(InputError, match="model 'vgg19' cannot be built 2 times as wide: choose one of mlp"):
        classifier("vgg19", (3, 32, 32), 10, 2.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_machine_gains_nothing_and_says_why(name):
    spec = plan("mlp", scheme=name)
    made = annotate(step_workload(spec), name, spec.pattern)

    assert made.pattern is None and all(op.sparse is None for op in made.matrix_ops)
    for op in made.matrix_ops:
        told = op.pass_ in (Pass.FF, Pass.BP) and op.parameter is not None
        assert op.kept_dense == ("zeros of the weight follow no N:M pattern" if told else "")


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_the_digits_for_an_epoch(name):
    options = {"period": 5} if "period" in MOVING[name] else MOVING[name]
    result = train_digits(
        replace(plan("mlp", scheme=name, pattern=NMPattern(keep=1, group=2), epochs=1), options=options)
    )
    technique = result.technique

    assert active(technique) == pytest.approx(0.5 * size(technique), abs=3)
    assert result.accuracy > 0.25
