"""How fast the machine's arithmetic runs on whole tensors: operations a second of its products.

`pytest benchmarks/bench_machine.py --benchmark-enable`; every run also asserts the result, and at least 10 GFLOP/s.
A masked product counts the operations of the dense one. One thread; CPU time.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from weft.dataflow.operand import FormatName
from weft.simulator.compact import compress
from weft.simulator.machine.product import product
from weft.simulator.operand import OPERAND_TYPES
from weft.simulator.reference import gemm_reference
from weft.workloads.sparsity import NMPattern

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

    assert found.view(np.uint32).tolist() == wanted.view(np.uint32).tolist()
    started = time.process_time()
    product(a, right)
    rate = 2 * m * k * n / (time.process_time() - started)
    benchmark.extra_info["GFLOP/s"] = round(rate / 1e9, 1)
    if benchmark.enabled:
        assert rate >= 1e10
