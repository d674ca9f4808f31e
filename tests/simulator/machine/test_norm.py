"""Norms against one number at a time, bit for bit, and against PyTorch, nearly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.simulator.machine.norm import (
    batch_norm,
    batch_norm_backward,
    frozen_norm_backward,
    inverse_deviation,
    layer_norm,
    layer_norm_backward,
    normalise,
    running,
    running_variance,
)
from weft.simulator.reference.vector import (
    batch_norm_back_reference,
    batch_norm_reference,
    layer_norm_back_reference,
    layer_norm_reference,
    one_nan,
)
from weft.workloads.errors import InputError

from ...examples_drawn import examples
from ...strategies import singles

F = np.float32
EPS = 1e-5


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.dtype == wanted.dtype and np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_every_bit_is_that_of_one_number_at_a_time(data: st.DataObject) -> None:
    rows, channels = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    x, g = data.draw(singles(rows, channels)), data.draw(singles(rows, channels))
    if data.draw(st.booleans()):
        x[:] = x[0]  # no variance at all
    weight, bias = data.draw(singles(channels)), data.draw(singles(channels))
    with np.errstate(all="ignore"):
        for found, wanted, back, back_wanted in (
            (batch_norm, batch_norm_reference, batch_norm_backward, batch_norm_back_reference),
            (layer_norm, layer_norm_reference, layer_norm_backward, layer_norm_back_reference),
        ):
            made = found(x, weight, bias, EPS)
            assert all(map(same, made, wanted(x, weight, bias, EPS)))
            held = made.mean, made.s, weight
            assert all(map(same, back(g, x, *held), back_wanted(g, x, *held)))


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_running_values_are_mixed_and_used(data: st.DataObject) -> None:
    channels = data.draw(st.integers(1, 9))
    held, new, variance, weight, bias = (data.draw(singles(channels)) for _ in range(5))
    x, g = data.draw(singles(4, channels)), data.draw(singles(4, channels))
    with np.errstate(all="ignore"):
        mixed = [F(F(F(1 - 0.1) * a) + F(F(0.1) * b)) for a, b in zip(held, new, strict=True)]
        assert same(running(held, new, 0.1), one_nan(np.array(mixed, F)))
        wider = one_nan(np.array([b * F(4 / 3) for b in new], F))
        assert same(running_variance(held, new, 0.1, 4), running(held, wider, 0.1))
        s = inverse_deviation(variance, EPS)
        wanted = [F(1) / np.sqrt(F(v + F(EPS))) for v in variance]
        assert same(s, one_nan(np.array(wanted, F)))
        y, dx = np.empty_like(x), np.empty_like(x)
        for r, c in np.ndindex(x.shape):
            y[r, c] = F(F(F(F(x[r, c] - held[c]) * s[c]) * weight[c]) + bias[c])
            dx[r, c] = F(F(weight[c] * s[c]) * g[r, c])
        assert same(normalise(x, held, s, weight, bias), one_nan(y))
        frozen, alone = frozen_norm_backward(g, x, held, s, weight), batch_norm_backward(g, x, held, s, weight)
        assert same(frozen.x, one_nan(dx))
        assert same(frozen.weight, alone.weight) and same(frozen.bias, alone.bias)


def test_a_running_variance_of_one_position_is_refused() -> None:
    with pytest.raises(InputError, match="2 positions or more"):
        running_variance(np.ones(1, F), np.ones(1, F), 0.1, 1)


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_norms_and_gradients_are_those_of_pytorch_nearly(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((64, 12)) * 2 + 1 for _ in range(2))
    w, b = rng.standard_normal(12), rng.standard_normal(12)
    leaves = [torch.tensor(value, requires_grad=True) for value in (x, w, b)]
    held, spread = torch.zeros(12, dtype=torch.float64), torch.ones(12, dtype=torch.float64)
    if kind == "batch":
        y = torch.nn.functional.batch_norm(leaves[0], held, spread, *leaves[1:], training=True, momentum=0.1)
    else:
        y = torch.nn.functional.layer_norm(leaves[0], (12,), *leaves[1:])
    wanted = torch.autograd.grad(y, leaves, torch.tensor(g))
    forward, backward = (batch_norm, batch_norm_backward) if kind == "batch" else (layer_norm, layer_norm_backward)
    made = forward(x.astype(F), w.astype(F), b.astype(F), EPS)
    found = backward(g.astype(F), x.astype(F), made.mean, made.s, w.astype(F))

    np.testing.assert_allclose(made.y, y.detach().numpy(), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=2e-5)
    if kind == "batch":
        np.testing.assert_allclose(running(np.zeros(12, F), made.mean, 0.1), held, rtol=1e-5)
        np.testing.assert_allclose(running_variance(np.ones(12, F), made.variance, 0.1, 64), spread, rtol=1e-5)
