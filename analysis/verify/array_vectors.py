"""What the bench of the array runs; the expected words are the simulator's, which `hdl` never sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from ...hdl.flow.array_bench import ArrayVectors
from ...simulator.array import run_array
from ...simulator.compact import compress
from ...simulator.operand import Half, bits_of
from ...workloads.gemm import Gemm
from ...workloads.sparsity import NMPattern
from .operands import anything, edge_words, normals, products_of_edges, sums_of_edges, sums_with_minus_zero

__all__ = ["array_vectors", "benched_products"]

_TAKEN = 0.5
"""Share of the cycles in which a receiver of the array's bench takes a word, where it does not always."""
_HELD = 0.2
"""Share of the cycles in which the array is held, of the same products: an assumption, that both occur together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """One product of the array's bench; ``operands`` draws A and B."""

    name: str
    dataflow: Dataflow
    executed: NMPattern
    interleave: int
    gemm: Gemm
    operands: Callable[[np.random.Generator, AcceleratorSpec, Gemm], tuple[Half, Half]]


def array_vectors(spec: AcceleratorSpec, pattern: NMPattern, seed: int) -> list[ArrayVectors]:
    """Products in each dataflow, dense and in ``pattern``, ragged in every direction, special values included, and in
    every regime of the schedule: bound by issue, port, drain, and the return of partial sums.

    Each comes twice: with receivers that are always ready, and with such as take a word in half of the cycles while the
    array is held in some. What the registers of the machine do not hold is left out.
    """
    return [
        vectors
        for i, product in enumerate((*_stationary_outputs(spec, pattern), *_stationary_weights(spec, pattern)))
        for vectors in _products(spec, product, np.random.default_rng([seed, i]))
    ]


def benched_products(spec: AcceleratorSpec, pattern: NMPattern) -> list[tuple[ArrayMapping, Gemm]]:
    """The products of `array_vectors`, each once."""
    products = (*_stationary_outputs(spec, pattern), *_stationary_weights(spec, pattern))
    return [(_mapping(product), product.gemm) for product in products]


def _mapping(product: _Product) -> ArrayMapping:
    return ArrayMapping(dataflow=product.dataflow, pattern=product.executed, interleave=product.interleave)


def _stationary_outputs(spec: AcceleratorSpec, pattern: NMPattern) -> Iterator[_Product]:
    rows, cols, contexts, group = spec.array.rows, spec.array.cols, spec.pe.accumulators, pattern.group
    run, short = 2 * group + 1, (group + 1) // 2
    edges = len(edge_words(spec.pe.operand))
    chosen: list[tuple[str, NMPattern, int, Gemm, Any]] = [
        ("os_dense", DENSE, contexts, Gemm(m=rows + 1, k=13, n=cols * contexts + 1), normals),
        ("os_special", DENSE, 1, Gemm(m=rows, k=3, n=2 * cols), anything),
        # one pair a tile: the drain sets the distance where rows x interleave exceeds the adder's latency
        ("os_edges", DENSE, contexts, Gemm(m=max(edges, rows + 1), k=1, n=edges), products_of_edges),
        ("os_sums", DENSE, max(1, contexts // 2), Gemm(m=2, k=2, n=edges**2), sums_of_edges),
        ("os_nm", pattern, max(1, contexts // 2), Gemm(m=2 * rows + 1, k=3 * run, n=cols + 1, run=run), normals),
    ]
    if short < group:
        # the first part of a tile is a short one, and so is every other
        gemm = Gemm(m=rows + 1, k=3 * short, n=cols + 1, run=short)
        chosen.append(("os_short", pattern, 1, gemm, normals))
    for name, executed, interleave, gemm, operands in chosen:
        yield _Product(
            name=name, dataflow=Dataflow.OS, executed=executed, interleave=interleave, gemm=gemm, operands=operands
        )


def _stationary_weights(spec: AcceleratorSpec, pattern: NMPattern) -> Iterator[_Product]:
    pe, rows, cols = spec.pe, spec.array.rows, spec.array.cols
    held = min(pe.weight_pairs, pe.max_group)
    for kind, executed in (("nm", pattern), ("dense", NMPattern(keep=held, group=held))):
        if executed.keep > pe.weight_pairs or executed.group > pe.dense_words:
            continue
        contexts, group = min(pe.accumulators, pe.dense_words // executed.group), executed.group
        ragged = Gemm(m=3 * contexts + 1, k=group * rows + group // 2 + 1, n=cols + 1)
        # one batch, one n-tile: in a small array the round waits for its own partial sums to return
        returning = Gemm(m=contexts, k=2 * group * rows + 1, n=cols)
        # rows one cycle apart, and then as far as they can be: they must not see the end of the short run
        before = Gemm(m=1, k=1, n=1)
        edges = Gemm(m=2, k=2, n=cols + 1)
        for name, dataflow, nm, interleave, gemm, operands in (
            (f"os_before_{kind}", Dataflow.OS, DENSE, 1, before, normals),
            (f"ws_{kind}", Dataflow.WS, executed, contexts, ragged, normals),
            (f"ws_{kind}_return", Dataflow.WS, executed, contexts, returning, normals),
            (f"ws_{kind}_edges", Dataflow.WS, executed, contexts, edges, sums_with_minus_zero),
        ):
            yield _Product(
                name=name, dataflow=dataflow, executed=nm, interleave=interleave, gemm=gemm, operands=operands
            )


def _products(spec: AcceleratorSpec, product: _Product, random: np.random.Generator) -> Iterator[ArrayVectors]:
    """One product that nothing keeps waiting, and the same kept waiting by receivers and held."""
    name, executed, gemm = product.name, product.executed, product.gemm
    mapping = _mapping(product)
    a, right = product.operands(random, spec, gemm)
    b = compress(right, executed, gemm.run)
    at_once = run_array(spec, mapping, a, b)
    always, never = np.ones((0, spec.array.cols), np.bool_), np.zeros(0, np.bool_)
    ready = random.random((2 * at_once.length, spec.array.cols)) < _TAKEN
    hold = random.random(2 * at_once.length) < _HELD
    waiting = run_array(spec, mapping, a, b, ready=ready, hold=hold)
    for what, ran, taken, held in ((name, at_once, always, never), (f"{name}_waiting", waiting, ready, hold)):
        yield ArrayVectors(
            name=what,
            mapping=mapping,
            gemm=gemm,
            a=bits_of(a).astype(np.uint16),
            values=bits_of(b.values).astype(np.uint16),
            indices=b.indices,
            result=ran.result.view(np.uint32),
            left=ran.left,
            cycles=ran.length,
            ready=taken,
            hold=held,
        )
