"""Speed of training techniques: 2:8 masks of ResNet-50's weights beside torch.topk, a BDWP step beside a dense one.

Warm: kernels compiled, PyTorch's threads started, weights in memory; masks are made anew. `NUMBA_CPU_NAME=znver3
NUMBA_CPU_FEATURES= ATEN_CPU_CAPABILITY=avx2`, with a `NUMBA_CACHE_DIR` of its own, measures code without AVX-512.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from weft.workloads.gemm import Pass
from weft.workloads.models import zoo
from weft.workloads.schemes import attach
from weft.workloads.schemes.layer import View
from weft.workloads.schemes.masks import mask_of_largest
from weft.workloads.schemes.technique import Technique
from weft.workloads.sparsity import NMPattern

TWO_OF_EIGHT = NMPattern(keep=2, group=8)


@pytest.fixture(scope="module")
def resnet50() -> list[tuple[Tensor, View]]:
    """Every weight that BDWP makes sparse, with the groups of FF in the middle and with those of BP.

    The values of a weight are all different, since topk may take either of two equal ones.
    """
    torch.manual_seed(0)
    technique = attach(zoo.source("resnet50@64").build(), "bdwp", TWO_OF_EIGHT, steps=1)
    return [
        (torch.randperm(layer.weight.numel()).float().add(1).reshape(layer.weight.shape), layer.view(p))
        for layer in technique.layers.values()
        for p in (Pass.FF, Pass.BP)
        if p in layer.passes
    ]


def _by_topk(x: Tensor, view: View) -> Tensor:
    """Groups of whole runs only; all runs of ResNet-50 but the 1,000 classes are multiples of 8, and 1,000 is too."""
    outer, length, inner = view
    groups = x.abs().reshape(outer, length // 8, 8, inner).transpose(2, 3)
    mask = torch.zeros(groups.shape, dtype=torch.bool).scatter_(3, groups.topk(2, dim=3).indices, True)
    return mask.transpose(2, 3).reshape(x.shape)


def _fastest(work: Callable[[], object], rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def test_masks_of_resnet50(benchmark, resnet50):
    def masks() -> list[Tensor]:
        return [mask_of_largest(x, view, TWO_OF_EIGHT) for x, view in resnet50]

    made = benchmark.pedantic(masks, rounds=5, warmup_rounds=1)

    assert sum(x.numel() for x, _ in resnet50) == 2 * 25_493_504 and all(
        torch.equal(mask, _by_topk(x, view)) for mask, (x, view) in zip(made, resnet50, strict=True)
    )
    if benchmark.stats is not None:
        # Weight by weight in turns, so that what else the machine does meets both alike.
        ours = sum(_fastest(partial(mask_of_largest, x, view, TWO_OF_EIGHT), 20) for x, view in resnet50)
        benchmark.extra_info["ms, the best of every weight"] = round(ours * 1e3, 1)
        benchmark.extra_info["ns an element"] = round(ours / 2 / 25_493_504 * 1e9, 2)
        all_threads = torch.get_num_threads()
        for threads in (all_threads, 1):
            torch.set_num_threads(threads)
            theirs = sum(_fastest(partial(_by_topk, x, view)) for x, view in resnet50)
            benchmark.extra_info[f"times as fast as topk on {threads}"] = round(theirs / ours, 1)
        torch.set_num_threads(all_threads)


def _step(model: nn.Module, technique: Technique | None) -> Callable[[], float]:
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x, labels = torch.randn(32, 3, 64, 64), torch.randint(0, 1000, (32,))

    def step() -> float:
        if technique is not None:
            technique.before_step(0)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).logits, labels)
        loss.backward()
        if technique is not None:
            technique.adjust_gradients(0)
        optimizer.step()
        if technique is not None:
            technique.after_step(0, optimizer)
        return loss.item()

    return step


@pytest.mark.parametrize("scheme", ["bdwp", "bdwp-x"])
def test_step_of_resnet18(benchmark, scheme):
    """Batch 32 at 64 x 64; the same model without a technique is the measure."""
    torch.manual_seed(0)
    model = zoo.source("resnet18@64").build()
    dense = _step(model, None)
    dense()
    plain = _fastest(dense)
    technique = attach(model, scheme, TWO_OF_EIGHT, steps=10)
    step = _step(model, technique)

    loss = benchmark.pedantic(step, rounds=4, warmup_rounds=1)

    assert 0 < loss < 20
    assert all(m.density_ff == 0.25 for m in technique.metrics().values())
    if benchmark.stats is not None:
        benchmark.extra_info["times a dense step"] = round(benchmark.stats["min"] / plain, 2)
