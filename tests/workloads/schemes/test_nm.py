"""The equations of the N:M family, on tensors small enough to check by hand, and the operands of every GEMM."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from weft.workloads.gemm import Pass
from weft.workloads.schemes import attach
from weft.workloads.schemes.masks import largest
from weft.workloads.schemes.scheme import SCHEMES, scheme
from weft.workloads.sparsity import NMPattern

from .harness import TWO_OF_EIGHT, Products, backward, batch, most_kept, net

HALF = NMPattern(keep=1, group=2)
WEIGHT = [[3.0, 1.0], [2.0, -4.0]]


def _layer(scheme: str, weight: list[list[float]] = WEIGHT, pattern: NMPattern = HALF, **options):
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    technique = attach(layer, scheme, pattern, steps=100, **options)
    technique.before_step(0)
    return layer, technique


def _pass(layer: nn.Module, x: list[list[float]], dy: list[list[float]]) -> tuple[Tensor, Tensor, Tensor]:
    given = torch.tensor(x, requires_grad=True)
    y = layer(given)
    y.backward(torch.tensor(dy))
    return y.detach(), given.grad, layer.weight.grad


@pytest.mark.parametrize(
    ("scheme", "y", "dx"),
    [
        ("dense", [130.0, -380.0], [13.0, -19.0]),
        ("srste", [30.0, -400.0], [3.0, -20.0]),
        ("sdwp", [130.0, -380.0], [3.0, -20.0]),
        ("bdwp", [30.0, -400.0], [3.0, -20.0]),
        ("sdgp", [130.0, -380.0], [10.0, -20.0]),
        ("transposable", [30.0, -400.0], [3.0, -20.0]),
    ],
)
def test_forward_and_both_gradients(scheme, y, dx):
    layer, _ = _layer(scheme)

    assert [t.tolist() for t in _pass(layer, [[10.0, 100.0]], [[1.0, 5.0]])] == [[y], [dx], [[10, 100], [50, 500]]]


def test_forward_and_backward_of_bdwp_differ_where_the_axes_do():
    layer, technique = _layer("bdwp", [[3.0, 1.0], [4.0, 2.0]])
    made = technique.layers[""]

    assert made.operand(Pass.FF).tolist() == [[3, 0], [4, 0]]
    assert made.operand(Pass.BP).tolist() == [[0, 0], [4, 2]]
    y, dx, _ = _pass(layer, [[10.0, 100.0]], [[1.0, 5.0]])
    assert y.tolist() == [[30, 40]] and dx.tolist() == [[20, 10]]


def test_srste_gradient_is_straight_through_with_decay_on_what_was_dropped():
    layer, technique = _layer("srste", decay=0.5)
    _pass(layer, [[10.0, 100.0]], [[1.0, 5.0]])
    technique.adjust_gradients(0)

    # lambda (1 - m) W with m keeping 3 and -4.
    assert layer.weight.grad.tolist() == [[10, 100 + 0.5 * 1], [50 + 0.5 * 2, 500]]
    assert scheme("srste").technique == "nm.SrSte" and type(technique).options_type().decay == 2e-4


def test_bdwp_has_no_decay_unless_asked():
    for decay, expected in ((0.0, 100.0), (0.5, 100.5)):
        layer, technique = _layer("bdwp", decay=decay)
        _pass(layer, [[10.0, 100.0]], [[1.0, 5.0]])
        technique.adjust_gradients(0)
        assert layer.weight.grad[0, 1].item() == expected


def test_with_everything_kept_srste_is_autograd():
    plain, sparse = net(), net()
    technique = attach(sparse, "srste", NMPattern(keep=8, group=8), steps=1)
    technique.before_step(0)
    backward(plain, batch())
    backward(sparse, batch())
    technique.adjust_gradients(0)

    for ours, theirs in zip(sparse.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_srste_backward_is_autograd_through_the_masked_weight():
    plain, sparse = net(), net()
    technique = attach(sparse, "srste", TWO_OF_EIGHT, steps=1)
    with torch.no_grad():
        for name, layer in technique.layers.items():
            plain.get_submodule(name).weight.copy_(layer.operand(Pass.FF))
    backward(plain, batch())
    backward(sparse, batch())

    for ours, theirs in zip(sparse.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_sdgp_rescales_every_map_to_its_own_magnitude():
    layer = nn.Conv2d(1, 2, 1)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), layer)
    technique = attach(model, "sdgp-rescaled", HALF, steps=1)
    dy = torch.tensor([[[[1.0, -6.0]], [[2.0, 3.0]]]])
    made = technique.backward_gradient(technique.layers["1"], dy)

    # Channel 0 keeps -6 of 7, channel 1 keeps 2 of 5.
    torch.testing.assert_close(made, torch.tensor([[[[0.0, -7.0]], [[5.0, 0.0]]]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", [n for n, s in SCHEMES.items() if s.technique.partition(".")[0] in ("nm", "full")])
@pytest.mark.parametrize("pattern", ["2:4", "2:8"])
def test_every_claimed_operand_is_n_to_m_along_the_contraction_of_its_pass(name, pattern):
    """As PyTorch's kernels were given it: weights along channels, gradients along channels or positions."""
    nm, model = NMPattern.parse(pattern), net()
    technique = attach(model, name, nm, steps=100)
    technique.before_step(0)
    technique.before_step(50)
    with Products() as products:
        backward(model, batch())
    claimed = scheme(name).sparse
    conv, tokens = technique.layers["conv"], technique.layers["tokens"]
    assert conv.passes == tokens.passes == claimed.keys()
    (_, w_ff), (dy_bp, w_bp), (dy_wu, _) = products.forward[1], products.input_gradient[0], products.weight_gradient[0]
    rows_ff, rows_bp, rows_wu = products.matrices[0][1].t(), products.matrices[-2], products.matrices[-1][0].t()
    if Pass.FF in claimed:
        assert most_kept(conv.canonical(w_ff), 2, nm.group) == nm.keep == most_kept(rows_ff, 1, nm.group)
    if claimed.get(Pass.BP) == "weight":
        order = technique.channel_order(conv)
        canonical = conv.canonical(w_bp) if order is None else conv.canonical(w_bp)[:, order]
        order = technique.channel_order(tokens)
        rows = rows_bp[1] if order is None else rows_bp[1][order]
        assert most_kept(canonical, 1, nm.group) == nm.keep == most_kept(rows, 0, nm.group)
    if claimed.get(Pass.BP) == "gradient":
        assert most_kept(dy_bp.unflatten(1, (2, 20)), 2, nm.group) == nm.keep == most_kept(rows_bp[0], 1, nm.group)
    if Pass.WU in claimed:
        # 6 images of 4 x 4 positions, in the order batch, row, column.
        assert most_kept(dy_wu.transpose(0, 1).flatten(1), 1, nm.group) == nm.keep == most_kept(rows_wu, 0, nm.group)
    else:
        assert dy_wu.count_nonzero() > 0.3 * dy_wu.numel()


def test_update_groups_go_on_from_one_image_to_the_next():
    """9 positions an image: groups of 8 lie along the 54 positions of the batch, the last one of 6."""
    x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    model = net()
    technique = attach(model, "bdwp-x", TWO_OF_EIGHT, steps=100, dense_head=0.0)
    technique.before_step(0)
    with Products() as products:
        model(x).square().sum().backward()
    dy = products.weight_gradient[0][0]

    assert dy.shape == (6, 40, 3, 3)
    assert most_kept(dy.transpose(0, 1).reshape(40, 54), 1, 8) == 2


def test_a_batch_shorter_than_a_group_is_not_sampled():
    layer, _ = _layer("bdwp-x", [[1.0] * 8] * 8, TWO_OF_EIGHT, dense_head=0.0)
    _, _, dw = _pass(layer, [[1.0] * 8] * 7, [[1.0] * 8] * 7)

    assert dw.tolist() == [[7.0] * 8] * 8


def test_bimask_backward_is_a_subset_of_its_forward_under_a_better_permutation():
    model = net()
    technique = attach(model, "bimask", TWO_OF_EIGHT, steps=100, candidates=30)
    layer = technique.layers["tokens"]
    alive = layer.operand(Pass.BP).count_nonzero()
    technique.before_step(0)
    order = layer.state["order"]
    forward, back = layer.operand(Pass.FF), layer.operand(Pass.BP)

    assert sorted(order.tolist()) == list(range(20)) and order.tolist() != list(range(20))
    assert back.count_nonzero() > alive
    assert torch.equal(back[back != 0], forward[back != 0])
    assert most_kept(back[order], 0, 8) == 2
    expected = largest(forward[order].contiguous(), (1, 20, 40), TWO_OF_EIGHT)
    assert torch.equal(back[order], expected)
    technique.before_step(1)
    assert torch.equal(layer.state["order"], order)


def test_transposable_mask_is_kept_for_its_period():
    model = net()
    technique = attach(model, "transposable", TWO_OF_EIGHT, steps=100, period=2)
    layer = technique.layers["tokens"]
    masks = []
    for step in range(3):
        technique.before_step(step)
        masks.append(layer.operand(Pass.FF) != 0)
        assert torch.equal(layer.operand(Pass.FF), layer.operand(Pass.BP))
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(step)))

    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[1], masks[2])


def test_transposable_mvue_ends_dense():
    model = net()
    technique = attach(model, "transposable-mvue", TWO_OF_EIGHT, steps=6)
    layer = technique.layers["tokens"]
    passes = []
    for step in range(6):
        technique.before_step(step)
        passes.append(len(layer.passes))
    assert passes == [3, 3, 3, 3, 3, 0]
    assert torch.equal(layer.operand(Pass.FF), layer.weight) and technique.pattern is None


def test_sste_scales_the_soft_weights_to_fit_the_dense_ones():
    layer, technique = _layer("sste", [[3.0, -1.0, 2.0, -4.0]] * 8, NMPattern(keep=2, group=4))
    soft = torch.tensor([1.0, 0.0, 0.0, -2.0])
    beta = (1 * 3 + 2 * 4) / (1 + 4)

    torch.testing.assert_close(technique.layers[""].operand(Pass.FF), (beta * soft).expand(8, 4))
    with torch.no_grad():
        layer.weight.mul_(2)
    torch.testing.assert_close(technique.layers[""].operand(Pass.FF), (2 * beta * soft).expand(8, 4))


def test_decay_acts_on_what_mixed_precision_drops():
    """1.001 and 1 are equal in bfloat16, where the lower index stays; in float32 the other one would."""
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.001, 0.5, 0.25]]))
    technique = attach(layer, "srste", NMPattern(keep=1, group=4), steps=1, decay=0.5)
    technique.before_step(0)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.ones(1, 4))
    (0 * y).sum().backward()
    technique.adjust_gradients(0)

    assert layer.weight.grad.tolist() == [[0.0, pytest.approx(0.5005), 0.25, 0.125]]
