"""One product on the array alone, memory unlimited: its best mapping, and the same stepped on real operands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.account import Cycles
from ...dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from ...dataflow.stce.spec import PESpec
from ...dataflow.stce.time import array_cycles
from ...simulator.array import run_array
from ...simulator.compact import compress
from ...simulator.operand import Half, narrow
from ...simulator.reference import gemm_reference
from ...workloads.errors import InputError, nearest
from ...workloads.gemm import Gemm
from ...workloads.sparsity import NMPattern

__all__ = ["DATAFLOWS", "MAX_ELEMENTS", "MAX_PE_CYCLES", "Product", "best_product", "step_product"]

MAX_PE_CYCLES = 2 * 10**9
MAX_ELEMENTS = 2**26
"""Largest product that is stepped: cycles x PEs, some ten seconds, and elements of its operands and its result."""

Side = Literal["a", "b"]
DataflowName = Literal["os", "ws", "is", "auto"]
DATAFLOWS: tuple[str, ...] = get_args(DataflowName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """``gemm`` under its best mapping. ``n2s`` is the operand that flows N2S, held by the PEs in WS; it is the sparse
    one where ``sparse`` names a pattern."""

    spec: AcceleratorSpec
    gemm: Gemm
    mapping: ArrayMapping
    n2s: Side
    sparse: NMPattern | None
    cycles: Cycles

    @property
    def dataflow(self) -> str:
        """``is`` when A is the operand that stays in the PEs."""
        exchanged = self.mapping.dataflow == Dataflow.WS and self.n2s == "a"
        return "is" if exchanged else str(self.mapping.dataflow)

    @property
    def macs(self) -> int:
        """Multiply-accumulates that change the result."""
        g = self.gemm
        return g.macs if self.sparse is None else g.groups * g.m * g.n * self.sparse.kept(g.k, g.run)

    @property
    def utilization(self) -> float:
        """Share of the array's peak that those reach."""
        return self.macs / (self.cycles.total * self.spec.array.pes)

    @property
    def placed(self) -> Gemm:
        """The product as the array sees it."""
        return self.gemm if self.n2s == "b" else self.gemm.transposed


def best_product(spec: AcceleratorSpec, gemm: Gemm, dataflow: str = "auto", sparse: NMPattern | None = None) -> Product:
    """Mapping of least array cycles, the first of equals, over interleaves and held pairs.

    ``os`` and ``ws`` let B flow N2S, ``is`` is ``ws`` with the roles exchanged; ``auto`` also tries both roles where
    they are free. ``sparse`` is the pattern of the operand that flows N2S, B under ``auto``.
    """
    best: Product | None = None
    refused: InputError | None = None
    for flow, side in _placements(dataflow, sparse):
        placed = gemm if side == "b" else gemm.transposed
        for mapping in _mappings(spec, flow, sparse):
            try:
                cycles = array_cycles(spec, placed, mapping)
            except InputError as error:
                refused = refused or error
                continue
            if best is None or cycles.total < best.cycles.total:
                best = Product(spec=spec, gemm=gemm, mapping=mapping, n2s=side, sparse=sparse, cycles=cycles)
    if best is None:
        raise refused or InputError("no mapping was tried")
    return best


def _placements(dataflow: str, sparse: NMPattern | None) -> list[tuple[Dataflow, Side]]:
    OS, WS = Dataflow.OS, Dataflow.WS
    choices: dict[str, list[tuple[Dataflow, Side]]] = {
        "os": [(OS, "b")],
        "ws": [(WS, "b")],
        "is": [(WS, "a")],
        "auto": [(OS, "b"), (WS, "b")] if sparse else [(OS, "b"), (WS, "b"), (OS, "a"), (WS, "a")],
    }
    if dataflow not in choices:
        raise InputError(f"dataflow {dataflow!r} is unknown: {nearest(dataflow, choices)}")
    return choices[dataflow]


def _mappings(spec: AcceleratorSpec, flow: Dataflow, sparse: NMPattern | None) -> Iterator[ArrayMapping]:
    """Executed patterns and interleaves; what the registers cannot hold is refused later."""
    held = [
        NMPattern(keep=d, group=d) for d in (1, 2, 4, 8, 16, 32) if d <= min(spec.pe.weight_pairs, spec.pe.max_group)
    ]
    for pattern in [sparse] if sparse else held if flow == Dataflow.WS else [DENSE]:
        for interleave in range(1, spec.pe.accumulators + 1):
            yield ArrayMapping(dataflow=flow, pattern=pattern, interleave=interleave)


def step_product(product: Product, seed: int = 0) -> Cycles:
    """Cycles of the product stepped on random operands, after checking its result and its cycles.

    The result must equal the k-order reference bit for bit and the cycles those of the closed form, cause by cause;
    anything else is a fault of Weft, so it is no :class:`InputError`.
    """
    _require_small(product)
    g, mapping = product.placed, product.mapping
    random = np.random.default_rng(seed)
    a, b = (_random(random, shape, product.spec.pe) for shape in ((g.m, g.k), (g.k, g.n)))
    operand = compress(b, mapping.pattern, g.run)
    ran = run_array(product.spec, mapping, a, operand)
    if not np.array_equal(ran.result.view(np.uint32), gemm_reference(a, operand).view(np.uint32)):
        raise AssertionError(f"the array's result of {g} with seed {seed} differs from the k-order reference")
    if ran.cycles != product.cycles:
        raise AssertionError(f"{g}: stepped {ran.cycles}, but the closed form says {product.cycles}")
    return ran.cycles


def _random(random: np.random.Generator, shape: tuple[int, int], pe: PESpec) -> Half:
    return narrow(random.standard_normal(shape, dtype=np.float32), pe.format)


def _require_small(product: Product) -> None:
    g, work = product.placed, product.cycles.total * product.spec.array.pes
    if g.groups > 1:
        raise InputError(f"the cycle level steps one product at a time, not {g.groups} groups")
    elements = g.m * g.k + g.k * g.n + g.m * g.n
    if work > MAX_PE_CYCLES or elements > MAX_ELEMENTS:
        raise InputError(
            f"{g} is too large to step: {work:.3g} PE-cycles on {elements:.3g} elements, the limits are "
            f"{MAX_PE_CYCLES:.0e} and {MAX_ELEMENTS:.3g}; use --level analytic, which gives the same count"
        )
