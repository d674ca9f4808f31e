"""Weights that are sums of planes: estimators by hand, steps against autograd, what a training keeps of them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import weft
import weft.testing
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.schemes import attach, outside
from weft.workloads.schemes.bases import DualPlanes, Steps, TwoBases, first_scales
from weft.workloads.schemes.estimated import Estimated
from weft.workloads.schemes.estimator import Estimator, Few
from weft.workloads.schemes.oneshot import columns, inverse_factor
from weft.workloads.schemes.partial import PartialMean, PartialSign, Salient, salient
from weft.workloads.schemes.scheme import SCHEMES, Scheme, phases
from weft.workloads.training import plan, train

from .harness import batch, net
from .harness import train as steps_of
from .test_estimated import Small, filters, plus_minus, rounded, tensor, through

NAMES = [name for name, s in SCHEMES.items() if s.planes]
PARTIAL = [name for name in NAMES if name.startswith("pb-llm")]
DENSE_FIRST = [name for name in NAMES if SCHEMES[name].schedule]


def at_once(name):
    return {"until": 0.0} if name in DENSE_FIRST else {}


def held(mask, codes, step):
    shape = (1, len(step), -1, 1)
    return Salient(
        mask=torch.tensor(mask).reshape(shape),
        codes=torch.tensor(codes, dtype=torch.int8).reshape(shape),
        step=tensor(*step).reshape(1, -1, 1, 1),
    )


# Of two filters the second weight of the first is salient: 127 steps of 0.02.
HELD = held([[False, True, False], [False, False, False]], [[0, 127, 0], [0, 0, 0]], [0.02, 0.5])
WEIGHT = filters((0.5, 2.54, -1.5), (0.25, -0.5, 0.75))


@pytest.mark.parametrize(
    ("estimator", "x", "planes", "g", "gradient"),
    [
        # alpha = (0.5 + 1.5 + 0.25 + 0.5 + 0.75) / 5 = 0.7.
        (
            PartialSign(HELD),
            WEIGHT,
            (((1, 0, -1, 1, -1, 1), (0.7,)), ((0, 127, 0, 0, 0, 0), (0.02, 0.5))),
            (1, 2, 3, 4, 5, 6),
            (0.7, 0, 2.1, 2.8, 3.5, 4.2),
        ),
        # Means -1/2 and 1/6; of what is left 1 and (1/12 + 2/3 + 7/12) / 3 = 4/9.
        (
            PartialMean(HELD),
            WEIGHT,
            (
                ((1, 0, 0, 1, 0, 1), (0.5, 1 / 6 + 4 / 9)),
                ((0, 0, 1, 0, 1, 0), (-1.5, 1 / 6 - 4 / 9)),
                ((0, 127, 0, 0, 0, 0), (0.02, 0.5)),
            ),
            (1, 2, 3, 4, 5, 6),
            (1, 0, 3, 16 / 9, 20 / 9, 24 / 9),
        ),
        # Levels -1, 0, 1, 2 and then 0, 3, -0.5, 2.5; what is half-way goes up from b, down from d.
        (
            DualPlanes(tensor(2.0, 3.0).reshape(1, 2, 1, 1), tensor(-1.0, -0.5).reshape(1, 2, 1, 1)),
            filters((-0.6, 0.4, 0.5, 1.6), (-0.2, 1.2, 1.3, 2.8)),
            (((0, 0, 1, 1, 0, 0, 1, 1), (2, 3)), ((1, 0, 1, 0, 0, 0, 1, 0), (-1, -0.5))),
            (1, 2, 3, 4, 5, 6, 7, 8),
            (1, 2, 3, 4, 5, 6, 7, 8),
        ),
        # a = 1, R = -0.5, -0.5, -0.25, -0.25, c = 0.375; p = 1, 0, 1, 0; q = 1: a p + c (1 - a p) = 1, c, 1, c.
        (
            TwoBases(),
            filters((0.5, -1.5, 0.75, -1.25)),
            (((1, -1, 1, -1), (1.0,)), ((-1, -1, -1, -1), (0.375,))),
            (1, 2, 3, 4),
            (1, 0.75, 3, 1.5),
        ),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Estimator) else "",
)
def test_forward_and_backward_by_hand(estimator, x, planes, g, gradient):
    few = estimator.few(x)
    assert len(few.planes) == len(planes)
    whole = torch.zeros_like(x)
    for found, (values, scale) in zip(few.planes, planes, strict=True):
        assert found.more == ()
        torch.testing.assert_close(found.values.flatten(), tensor(*values))
        torch.testing.assert_close(found.scale.flatten().double(), tensor(*scale))
        whole += tensor(*values).reshape(x.shape) * tensor(*scale).reshape(1, -1, 1, 1)
    torch.testing.assert_close(few.whole, whole)
    torch.testing.assert_close(estimator.gradient(tensor(*g).reshape(x.shape), x).flatten(), tensor(*gradient))


def test_the_residue_of_a_clipped_weight_counts_twice():
    """|W| above 1 stops the first sign, |R| above 1 the second: a = 1.75, c = 1.25 of 3, 0.5; R = 1.25, -1.25."""
    found = TwoBases().gradient(tensor(1, 1).reshape(1, 1, 2, 1), filters((3.0, 0.5)))
    assert found.flatten().tolist() == [0.0, 1.75]


def test_steps_of_four_bits_by_hand():
    """s = 2 / sqrt(7) mean |X| is 1 where 16 numbers add up to 8 sqrt(7), here 0.4, 0.6, 9, 9 and what is left."""
    left = 8 * math.sqrt(7) - 19.0
    x = tensor(0.4, -0.6, 9.0, -9.0, left, *[0] * 11)[None]
    few = Steps(4).few(x)
    assert few.scale.shape == (1, 1) and float(few.scale) == pytest.approx(1.0)
    assert few.values[0].tolist() == [0, -1, 7, -8, 2, *[0] * 11]
    assert Steps(4).gradient(torch.ones_like(x), x)[0].tolist() == [1, 1, 0, 0, 1, *[1] * 11]


def test_the_salient_are_the_largest_of_a_layer_in_steps_of_their_filter():
    weight = filters((0.5, -2.54, 1.0), (0.25, 1.0, -0.1), (0.0, 0.1, 0.2))
    found = salient(weight, weight.abs(), 0.34)

    assert found.mask.flatten().tolist() == [False, True, True, False, True, *[False] * 4]
    assert found.codes.flatten().tolist() == [0, -127, 50, 0, 127, 0, 0, 0, 0]
    torch.testing.assert_close(found.values.flatten(), tensor(0, -2.54, 1.0, 0, 1.0, 0, 0, 0, 0))
    assert bool(found.step.isfinite().all())
    assert int(salient(weight, weight.abs(), 1e-6).mask.sum()) == 1, "one at least"


def test_scales_begin_as_the_steps_of_two_bits():
    up, down = first_scales(filters((-1.0, 0.2, 2.0), (0.0, 0.0, 0.0)))
    assert up.flatten().tolist() == pytest.approx([2.0, 2e-5])
    assert down.flatten().tolist() == pytest.approx([-1.0, -1e-5])


def test_weights_of_nothing_but_zeros_stay_finite():
    zeros = torch.zeros(1, 2, 3, 1)
    some = salient(zeros, zeros, 0.5)
    all_ = salient(zeros, zeros, 1.0)
    for estimator in (*(kind(s) for kind in (PartialSign, PartialMean) for s in (some, all_)), TwoBases(), Steps(4)):
        few = estimator.few(zeros)
        assert few.whole.isfinite().all() and all(p.scale.isfinite().all() for p in few.planes)
        assert estimator.gradient(torch.ones_like(zeros), zeros).isfinite().all()


# What each scheme stands for, written as functions that autograd differentiates, filters first.


def others(w, mask, dims):
    return torch.stack([row[~m].mean() for row, m in zip(w.flatten(1), mask.flatten(1), strict=True)]).reshape(dims)


def surrogate_weight(name, w):
    each = (-1, *[1] * (w.dim() - 1))
    rows = w.detach().flatten(1)
    if name.startswith("db-llm"):
        size = ((rows.max(1).values - rows.min(1).values) / 3).reshape(each)
        return through((w.detach() / size).round().clamp(-1, 2) * size, w)
    if name == "binarydm":
        first = rows.abs().mean(1).reshape(each)
        base = first * through(plus_minus(w), w.clamp(-1, 1))
        rest = w - base
        second = (rows - base.detach().flatten(1)).abs().mean(1).reshape(each)
        return base + second * through(plus_minus(rest), rest.clamp(-1, 1))
    edge = rows.abs().flatten().sort(descending=True).values[round(0.1 * w.numel()) - 1]
    mask = w.detach().abs() >= edge
    most = (rows.abs() * mask.flatten(1)).max(1).values.reshape(each).clamp_min(1e-30)
    kept = (w.detach() * 127 / most).round() * most / 127
    if name == "pb-llm-mean":
        mean = others(w.detach(), mask, each)
        alpha = others((w.detach() - mean).abs(), mask, each)
        rest = alpha * through(plus_minus(w - mean), w) + mean
    else:
        rest = w.detach()[~mask].abs().mean() * through(plus_minus(w), w)
    return torch.where(mask, kept, rest)


def surrogate_input(name, x, conv):
    dims = (1, 2, 3) if conv else (-1,)
    if name == "binarydm":
        size = x.detach().abs().mean(dims, keepdim=True) * 2 / math.sqrt(7)
        inside = torch.minimum(torch.maximum(x, -8 * size), 7 * size)
        return through((x / size).round().clamp(-8, 7) * size, inside)
    if name.endswith("int8"):
        return rounded(x, x.detach().abs().amax(dims, keepdim=True) / 128, -128, 127)
    return x


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_what_autograd_makes_of_the_surrogates(name):
    """Loss and the gradient of every parameter, convolutions grouped and transposed among them, in FP64."""
    torch.manual_seed(0)
    model, x = Small().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)

    def expected():
        y = model.stem(x)
        w = surrogate_weight(name, model.conv.weight)
        y = functional.conv2d(surrogate_input(name, y, True), w, model.conv.bias, stride=2, padding=1, groups=2)
        # Filters of a transposed convolution are stored inputs first.
        w = surrogate_weight(name, model.up.weight.transpose(0, 1)).transpose(0, 1)
        y = functional.conv_transpose2d(surrogate_input(name, torch.tanh(y), True), w, model.up.bias, stride=2)
        y = y.flatten(2).transpose(1, 2)
        w = surrogate_weight(name, model.tokens.weight)
        return model.head(functional.linear(surrogate_input(name, y, False), w, model.tokens.bias)).mean(1)

    wanted = expected()
    slopes = torch.autograd.grad((wanted**2).sum(), list(model.parameters()))
    attach(model, name, None, steps=8, norm="none", **at_once(name)).before_step(0)
    found = model(x)
    torch.testing.assert_close(found, wanted)
    gradients = torch.autograd.grad((found**2).sum(), list(model.parameters()))
    for (key, _), ours, theirs in zip(model.named_parameters(), gradients, slopes, strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", NAMES)
def test_at_inference_planes_hold_their_values_and_make_the_weight(name):
    model = net()
    technique = attach(model, name, None, steps=4)
    steps_of(model, technique, batch(), range(4), torch.optim.SGD(model.parameters(), 0.1))
    model.eval()
    seen = []
    for layer in technique.layers.values():
        layer.observer = seen.append
    with torch.no_grad():
        model(batch()[0])

    planes = SCHEMES[name].planes
    assert [(g.layer.name, g.plane) for g in seen] == [
        (layer, i) for layer in ("conv", "tokens") for i in range(len(planes))
    ]
    for gemm in seen:
        values, levels = set(gemm.right.flatten().tolist()), planes[gemm.plane]
        if levels is Levels.INT8:
            assert values <= set(levels.values) and 127 in map(abs, values) and len(values) > 10
        else:
            assert values == set(levels.values)
    for layer in technique.layers.values():
        made = sum(p.values * p.scale.reshape(-1, *[1] * (p.values.dim() - 1)) for p in layer.planes)
        torch.testing.assert_close(made, layer.operand(Pass.FF))
        if name in PARTIAL:
            assert int((layer.planes[-1].values != 0).sum()) <= round(0.1 * layer.weight.numel())
            assert bool(((layer.planes[0].values != 0) & (layer.planes[-1].values != 0)).logical_not().all())


@pytest.mark.parametrize("name", PARTIAL)
def test_salient_weights_are_frozen_under_momentum_and_decay(name):
    model = net()
    technique = attach(model, name, None, steps=8)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    steps_of(model, technique, batch(), range(4), optimizer)
    assert technique.layers["tokens"].state == {} and technique.layers["tokens"].passes == frozenset()
    steps_of(model, technique, batch(), range(4, 5), optimizer)
    mask = technique.layers["tokens"].state["mask"]
    first = model.tokens.weight.detach().clone()
    steps_of(model, technique, batch(), range(5, 8), optimizer)

    assert torch.equal(model.tokens.weight[mask], first[mask])
    assert bool((model.tokens.weight[~mask] != first[~mask]).all())
    assert [(p.scheme, p.share) for p in phases(name, None)] == [("dense", 0.5), (name, 0.5)]


def test_the_hessian_metric_is_the_loss_of_each_weight_given_those_before_it():
    """c^2 is [H_F^-1]_jj, where F are the columns from j on."""
    model = net()
    technique = attach(model, "pb-llm", None, steps=6, until=0.5, metric="hessian", calibration=2, salient=0.25)
    seen = []
    model.tokens.register_forward_hook(lambda m, args, y: seen.append(args[0].detach()))
    steps_of(model, technique, batch(), range(3), torch.optim.SGD(model.parameters(), 0.1))
    x = torch.cat([s.reshape(-1, 40) for s in seen[1:]]).double()
    weight = model.tokens.weight.detach().double()
    technique.before_step(3)

    h = x.T @ x
    h.diagonal().add_(0.01 * h.diagonal().mean())
    free = torch.stack([torch.linalg.inv(h[j:, j:])[0, 0] for j in range(40)])
    score = (weight.square() / free).flatten()
    wanted = torch.zeros(800, dtype=torch.bool)
    wanted[score.argsort(descending=True)[:200]] = True
    assert torch.equal(technique.layers["tokens"].state["mask"].flatten(), wanted)
    assert not torch.equal(wanted, weight.abs().flatten() >= weight.abs().flatten().sort().values[600])
    assert "hessian" not in technique.layers["tokens"].state
    layer = technique.layers["tokens"]
    assert columns(layer, seen[0]).shape == (1, 40, seen[0].shape[0] * seen[0].shape[1])
    torch.testing.assert_close(inverse_factor(x.T @ x).diagonal().square(), free)


def test_the_hessian_metric_needs_inputs():
    with pytest.raises(InputError, match=r"has seen no input of layer 'conv', which metric=hessian needs"):
        attach(net(), "pb-llm", None, steps=4, until=0.0, metric="hessian").before_step(0)


def test_scales_take_steps_along_their_own_gradient():
    """Of a - rate dL/da / sqrt(n), where autograd differentiates the loss by the scales of every filter."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)).double()
    x = torch.randn(7, 6, dtype=torch.float64)
    technique = attach(model, "db-llm", None, steps=4, until=0.0, scale_rate=0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    technique.before_step(0)
    layer = technique.layers["1"]
    planes = layer.technique.weight_estimator_of(layer).few(layer.canonical(layer.weight.detach())).planes
    scales = [p.scale.clone().requires_grad_() for p in planes]
    inner = model[0](x).detach()
    weight = sum(p.values * s for p, s in zip(planes, scales, strict=True))[0, :, :, 0]
    loss = (model[2](functional.linear(inner, weight, model[1].bias)) ** 2).sum()
    slopes = torch.autograd.grad(loss, scales)
    torch.testing.assert_close((model(x) ** 2).sum(), loss)

    optimizer.zero_grad()
    (model(x) ** 2).sum().backward()
    technique.adjust_gradients(0)
    optimizer.step()
    technique.after_step(0, optimizer)
    for found, scale, slope in zip(layer.state["scales"], scales, slopes, strict=True):
        torch.testing.assert_close(found, scale.detach() - 0.05 * slope / math.sqrt(5))
    assert bool((layer.state["scales"][0] != -2 * layer.state["scales"][1]).any()), "independent"


class TwoInputs(Estimated):
    """An activation that is a sum."""

    def activation_estimator(self):
        return TwoBases()


def test_an_activation_is_one_plane(monkeypatch):
    monkeypatch.setattr(outside, "_KNOWN", {})
    levels = {Pass.FF: {Role.ACTIVATION: Levels.BINARY}}
    weft.register_scheme(Scheme(name="two", title="two", levels=levels), TwoInputs)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    attach(model, "two", None, steps=1)
    with pytest.raises(InputError, match="scheme 'two' brings an activation to a sum of 2 planes"):
        model(torch.ones(2, 3, 4, 4))


@pytest.mark.parametrize("levels", [{}, {Pass.BP: {}}, {Pass.FF: {Role.WEIGHT: Levels.BINARY}}])
def test_planes_take_the_place_of_the_levels_of_a_weight(levels):
    with pytest.raises(InputError, match="planes of scheme 'odd' must be two at least"):
        Scheme(name="odd", title="", levels=levels, planes=(Levels.SPIKE, Levels.SPIKE))
    with pytest.raises(InputError, match="planes of scheme 'odd' must be two at least"):
        Scheme(name="odd", title="", levels={Pass.FF: {}}, planes=(Levels.SPIKE,))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pb-llm", {"metric": "hesian"}, "option 'metric' is 'hesian': did you mean 'hessian'"),
        ("pb-llm", {"salient": 0.0}, "option 'salient' must be a number from 1e-06 to 1, not 0.0"),
        ("pb-llm", {"until": 2}, "option 'until' must be a number from 0 to 1, not 2"),
        ("pb-llm", {"calibration": 0}, "option 'calibration'"),
        ("db-llm", {"scale_rate": -1.0}, "option 'scale_rate' must be a number from 0"),
        ("binarydm", {"until": 0.5}, "option 'until' of scheme 'binarydm' is unknown"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        attach(net(), name, None, steps=1, **options)


def test_a_tensor_that_is_no_sum_is_its_own_plane():
    few = Few(values=torch.ones(2, 2))
    assert few.planes == (few,) and torch.equal(few.whole, few.values)
    deep = Few(values=torch.ones(2), more=(Few(values=torch.ones(2), scale=torch.tensor(2.0), more=(few,)),))
    assert [p.more for p in deep.planes] == [(), (), ()]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_ours_conform(name):
    assert "are right" in weft.testing.check_scheme(name)


def test_a_training_resumed_among_its_calibration_goes_on_in_the_same_bits():
    def start():
        model = net()
        technique = attach(model, "pb-llm", None, steps=6, metric="hessian", calibration=2)
        return model, technique, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    whole, technique, optimizer = start()
    steps_of(whole, technique, batch(), range(2), optimizer)
    saved = copy.deepcopy((whole.state_dict(), technique.state_dict(), optimizer.state_dict()))
    assert "hessian" in technique.layers["conv"].state
    losses = steps_of(whole, technique, batch(), range(2, 6), optimizer)
    parts = start()
    for part, state in zip(parts, saved, strict=True):
        part.load_state_dict(state)
    model, again, second = parts
    assert steps_of(model, again, batch(), range(2, 6), second) == losses
    for name, layer in again.layers.items():
        assert torch.equal(layer.state["mask"], technique.layers[name].state["mask"])


@pytest.mark.slow
@pytest.mark.parametrize("amp", [None, "fp16", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_digits_are_learnt(name, amp):
    """Ten classes, so 10 % by chance; planes from the middle on."""
    assert train(plan("mlp", scheme=name, epochs=6, amp=amp)).accuracy > 0.85
