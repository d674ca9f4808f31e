"""The two examples of these schemes: BiPFT's estimators in self-attention, a diffusion U-Net of binary bases."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch

import weft
from weft.workloads.gemm import Pass
from weft.workloads.schemes import attach
from weft.workloads.step import MatrixOp

ROOT = Path(__file__).parents[3] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_estimators_of_the_residue_add_its_polynomials():
    """Scores are Q_b K_b^T with q r_k^T, r_q k^T and r_q r_k^T beside it, here by longer rows; so are values."""
    bipft = example("bipft")
    torch.manual_seed(0)
    model, _ = bipft.estimated()
    attention, x = model.blocks[0].attention, torch.randn(3, 16, bipft.WIDTH)
    low = {name: layer(x)[:, None] for name, layer in attention.low_rank.items()}
    q, k, v = (
        torch.where(made >= 0, 2 * made.abs().mean(), -2 * made.abs().mean()).unflatten(-1, (4, 16)).transpose(1, 2)
        for made in (attention.query(x), attention.key(x), attention.value(x))
    )
    # q r_k + r_q r_k = (q + r_q) r_k.
    left = torch.cat(
        (q, (low["q"] + low["q_residue"]).expand(-1, 4, -1, -1), low["q_residue"].expand(-1, 4, -1, -1)), -1
    )
    right = torch.cat((k, low["k_residue"].expand(-1, 4, -1, -1), low["k"].expand(-1, 4, -1, -1)), -1)
    soft = torch.softmax(left @ right.transpose(-1, -2) / math.sqrt(16), -1)
    events = (soft / (2 * soft.mean()) >= 0.5).float() * 2 * soft.mean()
    mixed = events @ (v + low["v_residue"])
    torch.testing.assert_close(attention(x), attention.out(mixed.transpose(1, 2).flatten(2)))


def test_estimators_stay_real_in_training():
    bipft = example("bipft")
    model, _ = bipft.estimated()
    technique = attach(model, "bipft", None, steps=1)

    own = {name for name, why in technique.kept_dense.items() if why == "forward of the layer is the user's own"}
    assert own == {f"blocks.{i}.attention.low_rank.{n}" for i in (0, 1) for n in model.blocks[0].attention.low_rank}
    assert len(technique.layers) == 2 * 6
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(bool(p.grad.ne(0).any()) for n, p in model.named_parameters() if n.endswith("residue.weight"))


def test_the_noise_of_the_diffusion_has_the_share_of_its_time():
    diffusion = example("binary_diffusion")
    x, time, noise = diffusion.noised(torch.ones(4000, 1, 8, 8), torch.Generator().manual_seed(0))
    late, early = time > 95, time < 2
    assert float(x[late].std()) == pytest.approx(1.0, abs=0.02)
    assert float((x[early] - 1).abs().max()) < 0.5
    kept = (1 - torch.linspace(1e-3, 0.2, 100)).cumprod(0)[time.long()][:, None, None, None]
    torch.testing.assert_close((x - kept.sqrt()) / (1 - kept).sqrt(), noise, rtol=1e-3, atol=1e-4)


def test_a_step_of_the_diffusion_is_of_binary_bases():
    diffusion = example("binary_diffusion")
    model, inputs = diffusion.unet(2)
    technique = attach(model, "binarydm", None, steps=1)
    technique.before_step(0)
    model(torch.randn_like(inputs[0]), inputs[1]).square().mean().backward()
    assert {"enter", "leave"} <= technique.kept_dense.keys() and "down.first" in technique.layers
    assert all(len(layer.planes) == 2 for layer in technique.layers.values())

    step = weft.sparsify(weft.trace(f"{ROOT / 'binary_diffusion.py'}:unet", batch=2), "binarydm")
    planes = [op for op in step.ops if isinstance(op, MatrixOp) and op.pass_ is Pass.FF and op.plane]
    assert {op.parameter for op in planes} == {f"{name}.weight" for name in technique.layers}
