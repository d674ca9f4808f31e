"""Bi-Real Net: its blocks by hand, what a binary scheme makes of it, and that it is what is traced."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import weft
from weft.workloads.gemm import Pass
from weft.workloads.models.bireal import birealnet
from weft.workloads.schemes import attach
from weft.workloads.training import new_model, plan, train


def blocks(model: nn.Module) -> list[nn.Module]:
    return [part for part in model if hasattr(part, "clip")]  # type: ignore[attr-defined]


def made(size: int = 8) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(1)
    model = birealnet(10, 1, (32, 64), 2)
    return model, torch.randn(3, 1, size, size)


@pytest.mark.parametrize("size", [8, 7])
def test_binary_blocks_are_sign_convolution_norm_and_shortcut(size):
    """The forward pass of liuzechun/Bi-Real-net, written down: no clip, no ReLU, signs and mean magnitudes."""
    model, x = made(size)
    model.train()
    attach(model, "bireal", None, steps=1, norm="none")
    found = model(x)

    stem, norm, *_, head = model
    y = functional.batch_norm(functional.conv2d(x, stem.weight, padding=1), None, None, norm.weight, norm.bias, True)
    for block in blocks(model):
        shortcut = y
        if block.conv.stride == (2, 2):
            side = -(-y.shape[-1] // 2)
            cells = [
                [y[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(side)] for i in range(side)
            ]
            pooled = torch.stack([torch.stack(row, -1) for row in cells], -2)
            shortcut = torch.cat([pooled, pooled], 1)
        weight = block.conv.weight
        binary = torch.where(weight >= 0, 1.0, -1.0) * weight.abs().mean((1, 2, 3), keepdim=True)
        signs = torch.where(y >= 0, 1.0, -1.0)
        y = functional.conv2d(signs, binary, stride=block.conv.stride, padding=1)
        y = functional.batch_norm(y, None, None, block.norm.weight, block.norm.bias, True) + shortcut
    assert torch.allclose(found, functional.linear(y.mean((2, 3)), head.weight, head.bias), atol=1e-4)


def test_it_is_not_linear_without_a_scheme_and_never_has_a_relu():
    model, x = made()
    model.eval()

    assert not any(isinstance(part, nn.ReLU) for part in model.modules())
    origin = model(torch.zeros_like(x))
    assert not torch.allclose(model(9 * x) - origin, 9 * (model(x) - origin), atol=0.1)


def test_every_convolution_but_the_first_is_binary_on_the_machine():
    step = weft.sparsify(weft.trace("birealnet", batch=2), "bireal")
    forward = [op for op in step.matrix_ops if op.pass_ is Pass.FF]

    assert len(forward) == 1 + 16 + 1
    assert [op.kept_dense for op in forward if op.kept_dense] == ["first convolution", "last layer"]
    assert all(op.a.levels and op.b.levels for op in forward[1:-1])


def test_nothing_is_normalised_twice_unless_asked_for():
    assert plan("birealnet", scheme="xnor").options == {"norm": "none"}
    assert plan("birealnet", scheme="bitnet", options={"norm": "layer"}).options == {"norm": "layer"}
    assert plan("birealnet", scheme="reste", options={"least": 0.2}).options == {"norm": "none", "least": 0.2}
    assert plan("birealnet", scheme="dense").options == plan("resnet9", scheme="xnor").options == {}


def test_the_same_command_resumes_with_an_option_of_its_own(tmp_path):
    from weft.workloads.errors import InputError
    from weft.workloads.training import resume

    train(plan("birealnet", scheme="xnor", epochs=1, batch=512, options={"edge": "one"}), tmp_path)

    assert resume(tmp_path, {"options": {"edge": "one"}}).accuracy > 0
    with pytest.raises(InputError, match="holds a training with options"):
        resume(tmp_path, {"options": {"edge": "zero"}})


def test_small_images_get_a_small_one():
    """By hand: widths 32, 64, 128, two convolutions of each."""
    weights = 9 * (1 * 32 + 2 * 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 128 * 10
    channels = 32 + 2 * 32 + 2 * 64 + 2 * 128
    assert sum(p.numel() for p in new_model(plan("birealnet")).parameters()) == weights + 2 * channels + 10


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "accuracy"), [("dense", 0.97), ("bireal", 0.94), ("reste", 0.94)])
def test_it_learns_the_digits(scheme, accuracy):
    assert train(plan("birealnet", scheme=scheme)).accuracy >= accuracy
