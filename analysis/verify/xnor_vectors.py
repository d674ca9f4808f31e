"""What the bench of the XNOR engine runs; the expected sums are the simulator's, which `hdl` never sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import Dataflow
from ...dataflow.xnor.mapping import XnorMapping, require_xnor
from ...hdl.flow.xnor_bench import XnorVectors
from ...simulator.xnor import XnorRun, run_xnor
from ...workloads.gemm import Gemm
from ...workloads.levels import Levels

__all__ = ["xnor_vectors"]

_TAKEN = 0.5
"""Share of the cycles in which a receiver takes a word, where it does not always."""
_HELD = 0.2
"""Share of the cycles in which the array is held, of the same products: an assumption, that both occur together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """One product of the bench; ``kept``: the share of values that are not made 0, where 0 is one; ``skip``: whether
    zero words are left out."""

    name: str
    levels: tuple[Levels, Levels]
    mapping: XnorMapping
    gemm: Gemm
    kept: float = 1.0
    skip: bool = False


def xnor_vectors(spec: AcceleratorSpec, seed: int) -> list[XnorVectors]:
    """Products in both dataflows of all kinds of levels, ragged in every direction, padded words included, bound by
    issue, by the drain and by partial sums that return; thresholds on the sums and beside them, and at both ends.

    Each comes twice: with receivers that are always ready, and with such as take a word in half of the cycles while the
    array is held in some.
    """
    return [
        vectors
        for i, product in enumerate((*_stationary_outputs(spec), *_stationary_weights(spec)))
        for vectors in _products(spec, product, np.random.default_rng([seed, i]))
    ]


def _stationary_outputs(spec: AcceleratorSpec) -> Iterator[_Product]:
    own, one = require_xnor(spec), Levels
    rows, cols, bits, contexts = own.rows, own.cols, own.word_bits, own.accumulators
    some = max(1, contexts // 2)
    for name, levels, interleave, gemm, kept in (
        ("os_binary", (one.BINARY, one.BINARY), contexts, _runs(rows + 1, bits + 3, 2, cols * contexts + 1), 1.0),
        ("os_ternary", (one.TERNARY, one.BINARY), 1, _runs(2 * rows + 1, bits - 1, 1, cols + 1), 0.6),
        ("os_spikes", (one.SPIKE, one.TERNARY), some, _runs(rows, bits, 2, cols * some), 0.1),
        ("os_zeros", (one.TERNARY, one.TERNARY), 1, _runs(rows, 2 * bits, 1, cols), 0.0),
        ("os_planes", (one.INT3, one.INT2), some, _runs(rows + 1, bits // 2 + 1, 2, cols + 1), 1.0),
        ("os_widest", (one.INT8, one.INT8), 1, _runs(2, 5, 1, cols + 1), 1.0),
        ("os_drain", (one.BINARY, one.BINARY), contexts, _runs(2 * rows + 1, 1, 1, 2 * cols * contexts), 1.0),
    ):
        mapping = XnorMapping(dataflow=Dataflow.OS, interleave=interleave)
        yield _Product(name=name, levels=levels, mapping=mapping, gemm=gemm, kept=kept)
    # tiles of no word, of one and of several, of which some wait for the drain chain
    gemm = _runs(3 * rows, bits, 4, 3 * cols * some)
    mapping = XnorMapping(dataflow=Dataflow.OS, interleave=some)
    kept = 2 / (bits * rows)
    yield _Product(name="os_skipped", levels=(one.SPIKE, one.TERNARY), mapping=mapping, gemm=gemm, kept=kept, skip=True)


def _stationary_weights(spec: AcceleratorSpec) -> Iterator[_Product]:
    own, one = require_xnor(spec), Levels
    rows, cols, bits, held = own.rows, own.cols, own.word_bits, min(own.weight_words, own.dense_words)
    contexts = min(own.accumulators, own.dense_words // held)
    single, full = (
        XnorMapping(dataflow=Dataflow.OS, interleave=1),
        XnorMapping(dataflow=Dataflow.WS, interleave=contexts, group=held),
    )
    for name, levels, mapping, gemm in (
        # rows one cycle apart, and then as far as they can be: they must not see the end of the short run
        ("os_before", (one.BINARY, one.BINARY), single, _runs(1, 1, 1, 1)),
        ("ws_binary", (one.BINARY, one.BINARY), full, _runs(3 * contexts + 1, bits + 1, held, cols + 1)),
        # the beats of a word lie in two rows and in two tiles
        ("ws_planes", (one.INT3, one.TERNARY), full, _runs(contexts + 1, bits, 1 + held * rows // 4, cols + 1)),
        # one batch, one n-tile: in a small array the round waits for its own partial sums to return
        ("ws_return", (one.TERNARY, one.SPIKE), full, _runs(contexts, bits, held * rows + 1, cols)),
    ):
        yield _Product(name=name, levels=levels, mapping=mapping, gemm=gemm, kept=0.7)


def _runs(m: int, run: int, runs: int, n: int) -> Gemm:
    return Gemm(m=m, k=run * runs, n=n, run=run)


def _drawn(random: np.random.Generator, levels: Levels, kept: float, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = random.choice(np.array(tuple(levels.values)), shape)
    return values * (random.random(shape) < kept) if 0 in levels.values else values


def _products(spec: AcceleratorSpec, product: _Product, random: np.random.Generator) -> Iterator[XnorVectors]:
    """One product that nothing keeps waiting, and the same kept waiting by receivers and held."""
    gemm, levels, cols = product.gemm, product.levels, require_xnor(spec).cols
    a = _drawn(random, levels[0], product.kept, (gemm.m, gemm.k))
    b = _drawn(random, levels[1], product.kept, (gemm.k, gemm.n))

    def run(ready: npt.NDArray[np.bool_] | None, hold: npt.NDArray[np.bool_] | None) -> XnorRun:
        mapping, skip = product.mapping, product.skip
        return run_xnor(spec, mapping, a, b, levels, run=gemm.run, skip=skip, ready=ready, hold=hold)

    at_once = run(None, None)
    at, flip = _thresholds(random, at_once.result)
    always, never = np.ones((0, cols), np.bool_), np.zeros(0, np.bool_)
    ready = random.random((2 * at_once.length, cols)) < _TAKEN
    hold = random.random(2 * at_once.length) < _HELD
    waiting = run(ready, hold)
    for what, ran, taken, held in (
        (product.name, at_once, always, never),
        (f"{product.name}_waiting", waiting, ready, hold),
    ):
        yield XnorVectors(
            name=what,
            mapping=product.mapping,
            gemm=gemm,
            levels=levels,
            a=a,
            b=b,
            at=at,
            flip=flip,
            result=ran.result,
            passed=np.where(flip, ran.result <= at, ran.result >= at),
            left=ran.left,
            cycles=ran.length,
            ready=taken,
            hold=held,
            skip=product.skip,
        )


def _thresholds(
    random: np.random.Generator, sums: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """One a column, on one of its sums or beside it, at least or at most; of the last ones the ends of 32 bits."""
    n: int = sums.shape[1]
    at = sums[random.integers(0, len(sums), n), np.arange(n)] + random.integers(-1, 2, n)
    flip = random.integers(0, 2, n).astype(np.bool_)
    ends = np.iinfo(np.int32)
    if n > 2:
        at[-2:], flip[-2:] = (ends.max, ends.min), (True, False)
    return at.astype(np.int32), flip
