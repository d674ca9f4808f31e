"""Two factors in the place of a weight: ranks, outputs and products against plain PyTorch and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.models.classifier import classifier
from weft.workloads.models.module import module_source
from weft.workloads.shrinking import factored, rank_of
from weft.workloads.shrinking.factors import cut_pairs, matrix_of, paired, pairs_of, weighted_layers
from weft.workloads.shrinking.trained import cut_weight, lasso, ordered_dropout, rank_pruning
from weft.workloads.trace import trace_step
from weft.workloads.training import plan

SHAPE = (1, 8, 8)
pytestmark = pytest.mark.usefixtures("one_thread")


def fresh(name: str) -> nn.Module:
    torch.manual_seed(5)
    return classifier(name, SHAPE, 10).eval()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 0.99), st.integers(0, 2**16))
def test_a_rank_is_the_least_that_keeps_the_share(outputs: int, inputs: int, kept: float, seed: int) -> None:
    """By eigenvalues of W W^T, in NumPy."""
    weight = np.random.default_rng(seed).normal(size=(outputs, inputs))
    squares = np.sort(np.linalg.eigvalsh(weight @ weight.T))[::-1]
    rank = rank_of(torch.from_numpy(weight), kept)

    assert squares[:rank].sum() >= (kept - 1e-9) * squares.sum()
    assert squares[: rank - 1].sum() < (kept + 1e-9) * squares.sum()


@pytest.mark.parametrize("name", ["mlp", "resnet9", "vit_s"])
def test_a_factored_network_gives_what_the_nearest_weights_of_its_ranks_give(name: str) -> None:
    model, pixels = fresh(name), torch.rand(3, *SHAPE)
    small = factored(model, 0.6)
    pairs = pairs_of(small)
    assert pairs
    with torch.no_grad():
        for path, pair in pairs.items():
            layer = model.get_submodule(path)
            u, s, v = np.linalg.svd(layer.weight.detach().flatten(1).numpy(), full_matrices=False)
            rank = len(pair.first.weight)
            nearest = torch.from_numpy((u[:, :rank] * s[:rank]) @ v[:rank])
            layer.weight.copy_(nearest.reshape(layer.weight.shape))
        torch.testing.assert_close(small(pixels), model(pixels), rtol=1e-4, atol=1e-5)


def test_a_step_has_two_products_a_pass_for_a_factored_layer() -> None:
    """By hand: of 64-256-256-10 at ranks r and s, forward r (64 + 256) + s (256 + 256) + 2,560 an image; backward the
    same but for the gradient of the images, and the same again for the weights."""
    small = factored(fresh("mlp"), 0.4)
    r, s = (len(pair.first.weight) for pair in pairs_of(small).values())
    step = trace_step(module_source(small, torch.empty(32, *SHAPE)), optimizer="sgd")
    forward = r * (64 + 256) + s * (256 + 256) + 256 * 10

    assert step.dense_macs[Pass.FF] == step.dense_macs[Pass.WU] == 32 * forward
    assert step.dense_macs[Pass.BP] == 32 * (forward - 64 * r)
    assert [op.name for op in step.matrix_ops][:3] == ["1.first", "1.second", "3.first"]


def test_strides_and_kernels_are_the_first_factors() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 24, 3, stride=2, padding=2, dilation=2), nn.Flatten(), nn.Linear(24 * 16, 4))
    pair = pairs_of(factored(model, 0.3))["0"]
    assert isinstance(pair.first, nn.Conv2d) and isinstance(pair.second, nn.Conv2d)
    assert (pair.first.kernel_size, pair.first.stride, pair.second.kernel_size) == ((3, 3), (2, 2), (1, 1))
    pixels = torch.rand(2, 16, 8, 8)
    weight = pair.product.reshape(24, 16, 3, 3)
    expected = nn.functional.conv2d(pixels, weight, model[0].bias, stride=2, padding=2, dilation=2)
    torch.testing.assert_close(pair(pixels), expected, rtol=1e-4, atol=1e-5)


def test_a_weight_that_two_factors_would_not_shrink_stays() -> None:
    small = factored(fresh("mlp"), 0.999)
    assert not pairs_of(small)
    grouped = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8, 2))
    assert list(weighted_layers(grouped)) == ["1"]
    with pytest.raises(InputError, match="Linear has no layer with a weight before its last"):
        factored(nn.Linear(4, 4), 0.5)


def test_pairs_of_full_rank_give_what_was_there_and_are_cut_by_what_columns_carry() -> None:
    model, pixels = fresh("cnn"), torch.rand(3, *SHAPE)
    whole = paired(model)
    torch.testing.assert_close(whole(pixels), model(pixels), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        pair = pairs_of(whole)["4"]
        pair.second.weight[:, 5:] = 0  # five columns are left
        expected = whole(pixels)
    small = cut_pairs(whole, 0.999999)
    assert len(small.get_parameter("4.first.weight")) == 5
    # 9 x 1 -> 16 has no rank that pays, so it is one layer again
    assert "0" not in pairs_of(small) and isinstance(small.get_submodule("0"), nn.Conv2d)
    torch.testing.assert_close(small(pixels), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.floats(0.0, 1.0), st.integers(0, 2**16))
def test_the_step_of_the_hierarchical_lasso_is_where_its_objective_is_least(
    columns: int, lost: float, seed: int
) -> None:
    """|x - y|^2 / 2 + lost x (sum of norms of last columns) is convex: no point near is lower if none is anywhere."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(3, columns))

    def objective(x: np.ndarray) -> float:
        return ((x - y) ** 2).sum() / 2 + lost * sum(np.linalg.norm(x[:, b:]) for b in range(columns))

    found = y * lasso(torch.from_numpy(np.linalg.norm(y, axis=0)), lost).numpy()
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            near = found + size * rng.normal(size=y.shape)
            assert objective(found) <= objective(near) + 1e-9
        for b in range(columns):
            near = found.copy()
            near[:, b:] *= 1 - size
            assert objective(found) <= objective(near) + 1e-9


def test_a_cut_of_a_weight_is_of_its_own_singular_values() -> None:
    rng = np.random.default_rng(1)
    (u, _), (v, _) = np.linalg.qr(rng.normal(size=(6, 6))), np.linalg.qr(rng.normal(size=(6, 6)))
    made = (u * [5.0, 4.0, 3.0, 0.2, 0.1, 0.0]) @ v.T
    # 25 + 16 of 50.05 are 82 %, with 9 more 99.9 %
    found = cut_weight(torch.from_numpy(made), 0.5, 0.99).numpy()
    np.testing.assert_allclose(found, (u * [4.5, 3.5, 2.5, 0, 0, 0]) @ v.T, atol=1e-12)


def test_training_by_rank_cuts_every_twentieth_step_and_the_last() -> None:
    model, spec = fresh("mlp"), plan("mlp", scheme="dense", epochs=1)
    before = matrix_of(model.get_submodule("3")).clone()
    after = rank_pruning(model, spec, 0.5)
    after(19, 25)
    assert torch.equal(matrix_of(model.get_submodule("3")), before)
    after(20, 25)
    rank = rank_of(before, 0.5)
    assert int(torch.linalg.matrix_rank(matrix_of(model.get_submodule("3")), rtol=1e-4)) == rank < 200
    after(25, 25)
    assert int(torch.linalg.matrix_rank(matrix_of(model.get_submodule("3")), rtol=1e-4)) < rank


def test_ordered_dropout_passes_on_the_first_columns_of_one_pair() -> None:
    model, spec = paired(fresh("mlp")), plan("mlp", scheme="dense", epochs=1)
    after, pixels = ordered_dropout(model, spec), torch.rand(2, *SHAPE)
    drawn = []
    for step in range(1, 12):
        (name,) = [name for name, pair in pairs_of(model).items() if pair.width is not None]
        pair = pairs_of(model)[name]
        drawn.append((name, pair.width))
        found, width = model(pixels), pair.width
        assert width is not None
        with torch.no_grad():
            kept = pair.second.weight.clone()
            pair.second.weight[:, width:] = 0
            pair.width = None
            torch.testing.assert_close(model(pixels), found)
            pair.second.weight.copy_(kept)
        after(step, 12)
    assert {name for name, _ in drawn} == {"1", "3"} and len(set(drawn)) == 11
    after(12, 12)
    assert all(pair.width is None for pair in pairs_of(model).values())
