"""A causal convolution as long as its input, directly and as Fourier transforms made of products, by length.

`weft run examples/long_convolution.py:products --for infer`; the table of docs/shrinking.md:
`examples/long_convolution.py [MACHINE] [LENGTH ..]`. A length is of 64 channels of one sample, in use: the filter's
spectrum is made in the same step.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

import weft
from weft.workloads.models.long_convolution import LongConvolution
from weft.workloads.models.module import module_source
from weft.workloads.step import Workload
from weft.workloads.trace import trace_use

CHANNELS = 64


def products(batch: int = 1, length: int = 1024) -> dict[str, Any]:
    """By transforms."""
    return {"model": LongConvolution(CHANNELS, length), "inputs": torch.empty(batch, CHANNELS, length)}


def direct(batch: int = 1, length: int = 1024) -> dict[str, Any]:
    """As a depthwise convolution."""
    return {"model": LongConvolution(CHANNELS, length, "direct"), "inputs": torch.empty(batch, CHANNELS, length)}


def step(by: str, length: int) -> Workload:
    """Of use."""
    made = {"direct": direct, "products": products}[by](length=length)
    return trace_use(module_source(made["model"], made["inputs"]), "infer")


if __name__ == "__main__":
    machine = weft.machine(sys.argv[1] if len(sys.argv) > 1 else "hbm-asic")
    lengths = tuple(map(int, sys.argv[2:])) or (256, 1024, 4096, 16384)
    print("| length | MACs, direct | products | cycles, direct | products | products, fused |\n" + "|---" * 6 + "|")
    for length in lengths:
        whole, by_products = step("direct", length), step("products", length)
        macs = [sum(one.dense_macs.values()) for one in (whole, by_products)]
        steps = (whole, by_products, weft.fuse(by_products))
        cycles = [weft.simulate(weft.schedule(one, machine)).cycles.total for one in steps]
        print(f"| {length:,} | " + " | ".join(f"{n:,}" for n in (*macs, *cycles)) + " |", flush=True)
