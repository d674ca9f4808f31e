"""Bit operations and parameter bits, against the modules themselves, counted by hooks and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from weft.analysis.complexity import bit_operations, parameter_bits
from weft.dataflow.operand import FP16
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import new_model, plan, step_workload

# Bits of the weight and of the activation in the layers that are not kept whole: as the papers have them.
BITS = {"dense": (16, 16), "xnor": (1, 1), "bireal": (1, 1), "bitnet": (2, 8), "biper-real": (16, 1)}
WHOLE = {"dense": (), "xnor": (0, -1), "bireal": (0, -1), "bitnet": (-1,), "biper-real": (0, -1)}


def counted(name: str, scheme: str) -> tuple[float, int]:
    """Of one image, walking over the modules of a real forward pass."""
    spec = plan(name, scheme=scheme, batch=4)
    model = new_model(spec)
    layers: list[tuple[nn.Module, int]] = []
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.register_forward_hook(lambda m, _, y: layers.append((m, y.numel() // 4 * m.weight[0].numel())))
    model(torch.zeros(4, 1, 8, 8))
    whole = {i % len(layers) for i in WHOLE[scheme]}
    if name == "birealnet":
        whole |= {0}  # a first convolution is never touched
    operations, few = 0, 0
    for i, (layer, macs) in enumerate(layers):
        w, x = (16, 16) if i in whole else BITS[scheme]
        operations += macs * w * x
        few += layer.weight.numel() * (16 - w)
    return operations, 16 * sum(p.numel() for p in model.parameters()) - few


@pytest.mark.parametrize("scheme", BITS)
@pytest.mark.parametrize("name", ["mlp", "birealnet"])
def test_both_are_those_of_the_modules(name, scheme):
    step = annotate(step_workload(plan(name, scheme=scheme, batch=4)), scheme, None)

    assert (bit_operations(step, FP16), parameter_bits(step, FP16)) == counted(name, scheme)


def test_n_of_m_keeps_its_pairs_and_drops_its_products():
    """By hand: 64-256-256-10; ten outputs of 256 inputs are groups of 8 too."""
    step = annotate(step_workload(plan("mlp", scheme="bdwp", batch=4)), "bdwp", NMPattern(keep=2, group=8))
    weights = 64 * 256 + 256 * 256 + 256 * 10

    assert bit_operations(step, FP16) == weights / 4 * 256
    assert parameter_bits(step, FP16) == weights // 4 * (16 + 3) + 16 * (256 + 256 + 10)


def test_a_weight_that_one_of_its_readers_reads_whole_is_whole():
    """SDGP makes gradients sparse, not weights; SDWP weights in BP alone."""
    for scheme in ("sdgp", "sdwp"):
        step = annotate(step_workload(plan("mlp", scheme=scheme, batch=4)), scheme, NMPattern(keep=2, group=8))
        assert parameter_bits(step, FP16) == counted("mlp", "dense")[1]
        assert bit_operations(step, FP16) == counted("mlp", "dense")[0]
