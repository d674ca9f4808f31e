"""FP8 in a training: what is multiplied, by ml_dtypes and the formulas of backward; and what is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from weft.workloads.errors import InputError
from weft.workloads.schemes import attach
from weft.workloads.schemes.float8 import FORWARD, GRADIENT, Float8, rounded
from weft.workloads.schemes.layer import Observed
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan, train

from ...examples_drawn import examples

KINDS = {FORWARD: (ml_dtypes.float8_e4m3fn, 448.0), GRADIENT: (ml_dtypes.float8_e5m2, 57344.0)}


def by_hand(x: np.ndarray, kind: torch.dtype) -> tuple[np.ndarray, float]:
    """``x`` in doubles, rounded under the largest power of two that saturates nothing, found by trying; the power."""
    dtype, most = KINDS[kind]
    if not x.any():
        return x.astype(np.float64), 1.0
    scale = max(2.0**s for s in range(-126, 127) if float(np.abs(x).max()) * 2.0**s <= most)
    return (x.astype(np.float64) * scale).astype(np.float32).astype(dtype).astype(np.float64) / scale, scale


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-60, 60), st.sampled_from((FORWARD, GRADIENT)))
def test_a_tensor_is_rounded_under_its_own_power_of_two(seed: int, power: int, kind: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((5, 7)) * np.exp2(rng.integers(-20, 3, (5, 7)) + power)).astype(np.float32)
    found = rounded(torch.from_numpy(x), kind)

    assert found.dtype == torch.float32 and np.array_equal(found.numpy().astype(np.float64), by_hand(x, kind)[0])
    assert torch.equal(rounded(found, kind), found), "what is rounded stays as it is"


def test_the_ends_of_a_scale() -> None:
    """0.875 of a power of two is the largest that takes the next; what is not finite leaves nothing finite."""
    assert rounded(torch.tensor([0.875, 0.875 * 2**-9 / 448]), FORWARD)[0] == 0.875
    assert by_hand(np.float32([0.875]), FORWARD)[1] == 2 * by_hand(np.float32([0.8751]), FORWARD)[1] == 512
    assert not rounded(torch.zeros(3), GRADIENT).any() and rounded(torch.zeros(0), FORWARD).numel() == 0
    for wrong in (torch.inf, torch.nan):
        assert rounded(torch.tensor([1.0, wrong]), FORWARD).isnan().all()


class Attention(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            return functional.scaled_dot_product_attention(x, x, x)
        return (x @ x.transpose(-2, -1) / x.shape[-1] ** 0.5).softmax(-1) @ x


@pytest.mark.parametrize("at_work", [False, True])
def test_three_products_of_a_linear_layer(at_work: bool) -> None:
    """Of a plain module and of one that a technique is at work on: E4M3 x E4M3, then E5M2 x E4M3 twice."""
    torch.manual_seed(1)
    layer, x, dy = nn.Linear(12, 9), torch.randn(5, 12, requires_grad=True), 1e-4 * torch.randn(5, 9)
    if at_work:
        attach(nn.Sequential(layer), "dense", None, seed=0, steps=1)
    with Float8():
        y = layer(x)
    y.backward(dy)
    (a, _), (w, _) = (by_hand(t.detach().numpy(), FORWARD) for t in (x, layer.weight))
    g, _ = by_hand(dy.numpy(), GRADIENT)

    assert layer.weight.grad is not None and layer.bias.grad is not None and x.grad is not None
    bias = layer.bias.detach().numpy()
    for found, wanted in (
        (y, a @ w.T + bias),
        (x.grad, g @ w),
        (layer.weight.grad, g.T @ a),
        (layer.bias.grad, g.sum(0)),
    ):
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=2e-6, atol=2e-6 * np.abs(wanted).max())
    assert not np.allclose(y.detach().numpy(), (x @ layer.weight.T + layer.bias).detach().numpy(), rtol=2e-6)


def test_every_operand_under_a_scheme_is_a_number_of_its_encoding() -> None:
    """Of a convolution under BDWP: the kept weights are those of the rounded ones; gradients are E5M2."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1))
    technique = attach(model, "bdwp", NMPattern(keep=2, group=8), seed=0, steps=10)
    seen: list[Observed] = []
    (layer,) = technique.layers.values()
    layer.observer = seen.append
    technique.before_step(0)
    with Float8():
        loss = model(torch.randn(2, 3, 6, 6)).square().sum()
    loss.backward()

    assert [str(one.pass_) for one in seen] == ["FF", "BP", "WU"]
    for one in seen:
        for operand, kind in ((one.left, GRADIENT if one.dy is not None else FORWARD), (one.right, FORWARD)):
            assert torch.equal(rounded(operand, kind), operand) and operand.unique().numel() > 8
    w, _ = by_hand(layer.weight.detach().numpy(), FORWARD)
    kept = seen[0].right.numpy()
    assert np.array_equal(kept[kept != 0], w[kept != 0]) and (kept != 0).mean() < 0.3
    assert model[0].weight.grad is not None, "the layer that is left dense is in FP8 too"


def test_both_products_of_an_attention_are_rounded_however_it_is_written() -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 6, 8)
    with Float8():
        written, whole = Attention(False)(x), Attention(True)(x)
    a, _ = by_hand(x.numpy(), FORWARD)
    scores = torch.from_numpy((a @ a.swapaxes(-2, -1)).astype(np.float32)) / 8**0.5
    wanted = by_hand(scores.softmax(-1).numpy(), FORWARD)[0] @ a

    np.testing.assert_allclose(whole.numpy(), written.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(written.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_network_learns_in_fp8() -> None:
    found = train(plan("mlp", data="digits", scheme="bdwp", pattern=NMPattern(keep=2, group=8), epochs=8, amp="fp8"))
    assert found.accuracy > 0.85


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"scheme": "xnor"}, "rounds real operands, but scheme 'xnor' has operands of few values"),
        ({"numerics": "machine"}, "amp 'fp8' is PyTorch's"),
    ],
)
def test_what_has_no_fp8_operands_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train(plan("mlp", data="digits", epochs=1, amp="fp8", **({"scheme": "dense"} | asked)))


def test_products_that_cannot_be_reached_are_refused(tmp_path: Any) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.mix, self.out = nn.MultiheadAttention(8, 2), nn.Linear(8, 10)\n"
        "    def forward(self, x):\n        x = x.flatten(1, 2)\n"
        "        return self.out(self.mix(x, x, x)[0].mean(1))\n"
    )
    with pytest.raises(InputError, match=r"those of 'mix', an nn\.MultiheadAttention, cannot be reached"):
        train(plan(f"{file}:Net", data="digits", scheme="dense", epochs=1, amp="fp8"))
    with Float8(), pytest.raises(InputError, match=r"rounds no operands of torch\.einsum"):
        torch.einsum("ij,jk->ik", torch.ones(2, 2), torch.ones(2, 2))
