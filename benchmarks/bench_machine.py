"""How fast the machine's arithmetic runs on whole tensors: operations a second of products, numbers of the vector unit.

`pytest benchmarks/bench_machine.py --benchmark-enable`; every run also asserts the result, and of products and
convolutions at least 10 GFLOP/s. A masked product counts the operations of the dense one. One thread; CPU time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.dataflow.operand import FormatName
from weft.simulator.compact import compress
from weft.simulator.machine.convolution import convolve, convolve_back, weight_gradient
from weft.simulator.machine.norm import batch_norm
from weft.simulator.machine.product import product
from weft.simulator.machine.vector import gelu, relu, softmax
from weft.simulator.operand import OPERAND_TYPES, narrow, widen
from weft.simulator.reference import gemm_reference
from weft.simulator.reference.vector import batch_norm_reference, gelu_reference, softmax_reference
from weft.workloads.im2col import Window, unfold
from weft.workloads.sparsity import NMPattern

Single = npt.NDArray[np.float32]

PRODUCTS = {
    "square": (1024, 1024, 1024),
    "ResNet-18@64, layer 1, 8 images": (2048, 576, 64),
    "ResNet-18@64, layer 4, 8 images": (32, 4608, 512),
}


@pytest.mark.parametrize("format", ["fp16", "bf16"])
@pytest.mark.parametrize("pattern", [None, "2:8"], ids=["dense", "2:8"])
@pytest.mark.parametrize("shape", PRODUCTS.values(), ids=PRODUCTS.keys())
def test_products_run_at_ten_gigaflops(
    benchmark: BenchmarkFixture, shape: tuple[int, int, int], pattern: str | None, format: FormatName
) -> None:
    m, k, n = shape
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(s).astype(OPERAND_TYPES[format]) for s in ((m, k), (k, n)))
    right = b if pattern is None else compress(b, NMPattern.parse(pattern))
    wanted = gemm_reference(a, right)

    found = benchmark(lambda: product(a, right))

    assert same(found, wanted)
    at_least(benchmark, 1e10, 2 * m * k * n, lambda: product(a, right))


def at_least(benchmark: BenchmarkFixture, rate: float, amount: int, work: Callable[[], object]) -> None:
    """In CPU time, as others may use the machine."""
    started = time.process_time()
    work()
    found = amount / (time.process_time() - started)
    benchmark.extra_info["G/s"] = round(found / 1e9, 1)
    if benchmark.enabled:
        assert found >= rate


def same(found: Single, wanted: Single) -> bool:
    return np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("pass_", ["FF", "BP", "WU"])
def test_convolutions_run_at_ten_gigaflops(benchmark: BenchmarkFixture, pass_: str) -> None:
    """3 x 3, 64 to 64 channels on 16 x 16: the first layer of ResNet-18@64, 16 images."""
    rng = np.random.default_rng(1)
    window = Window(image=(16, 16), kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    x, gradient = (rng.standard_normal((16, 16, 16, 64)).astype(np.float16) for _ in range(2))
    weight = rng.standard_normal((64, 3, 3, 64)).astype(np.float16)
    windows, rows = unfold(np.moveaxis(x, -1, 1), window).reshape(-1, 9 * 64), gradient.reshape(-1, 64)
    passes: dict[str, Callable[[], Single]] = {
        "FF": lambda: convolve(x, weight, window),
        "BP": lambda: convolve_back(gradient, weight, window),
        "WU": lambda: weight_gradient(x, gradient, window),
    }
    found = benchmark(passes[pass_])
    if pass_ == "FF":
        assert same(found.reshape(-1, 64), gemm_reference(windows, weight.reshape(64, -1).T))
    elif pass_ == "WU":
        assert same(found.reshape(64, -1), gemm_reference(np.ascontiguousarray(rows.T), windows))
    else:
        # At one position, where nine taps meet, added in their order.
        columns = gemm_reference(rows, weight.reshape(64, -1)).reshape(16, 16, 16, 3, 3, 64)
        total = np.full((16, 64), np.float32(-0.0))
        for kh, kw in np.ndindex(3, 3):
            total += columns[:, 9 - kh, 9 - kw, kh, kw]
        assert same(np.ascontiguousarray(found[:, 8, 8]), total)
    at_least(benchmark, 1e10, 2 * len(windows) * 9 * 64 * 64, passes[pass_])


VECTOR: dict[str, tuple[Callable[[Single], Single], Callable[[Single], Single]]] = {
    "widen, narrow": (lambda x: widen(narrow(x, "fp16")), lambda x: x.astype(np.float16).astype(np.float32)),
    "relu": (relu, lambda x: np.maximum(x, np.float32(0))),
    "batch norm": (lambda x: batch_norm(x, x[0], x[1], 1e-5).y, lambda x: batch_norm_reference(x, x[0], x[1], 1e-5)[0]),
    "soft-max": (softmax, softmax_reference),
    "gelu": (gelu, lambda x: gelu_reference(x.ravel(), False).reshape(x.shape)),
}


@pytest.mark.parametrize("name", VECTOR)
def test_the_vector_unit(benchmark: BenchmarkFixture, name: str) -> None:
    fast, slow = VECTOR[name]
    few, many = (np.random.default_rng(1).standard_normal((rows, 64)).astype(np.float32) for rows in (64, 16384))
    assert same(fast(few), slow(few))
    benchmark(lambda: fast(many))
    at_least(benchmark, 2e7, many.size, lambda: fast(many))
