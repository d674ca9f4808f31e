"""Simulator and RTL side by side on random work: array, SORE, WUVE, WUVE feeding SORE, trees and gather engine.

`weft verify` prints what :func:`verify` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.pregenerate import COPIES, Copy, WeightShape
from ...dataflow.spanning_tree import TreeEngine
from ...hdl.block import usual_pattern
from ...hdl.blocks.buildable import check_buildable
from ...hdl.drivers.array import StceDriver
from ...hdl.drivers.engines import PregenerateDriver, RtlSore, RtlWuve, SoreDriver, WuveDriver
from ...hdl.drivers.gather import GatherDriver
from ...hdl.drivers.tree import TreeDriver
from ...hdl.registry import BLOCKS
from ...simulator.array import run_array
from ...simulator.engines import SoreRun, WuveRun, run_sore, run_wuve
from ...simulator.gather import run_gather
from ...simulator.operand import bits_of, is_gradient
from ...simulator.pregenerate import run_pregenerate
from ...simulator.spanning_tree import run_tree
from ...workloads.errors import require_int
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import SGD, UpdateRule, update_rule
from .difference import Difference, earliest, first_word
from .draw import draw_compact, draw_hold, draw_mask, draw_operand, draw_receivers, draw_shape, draw_training, draw_tree

__all__ = ["Case", "Verification", "build_seconds", "verify"]

MAX_CASES = 100_000
_AFTERWARDS = 8
"""Cycles watched after a run: nothing may leave any more."""
_ENGINE_SHARE = 4
"""One case of each engine for so many products."""
_ENGINES = ("sore", "wuve", "pregenerate", "tree_unit", "gather_engine")
"""Blocks that are run so where a machine has them."""
_HELD_UP = ", held up"
_BOUNDS = ("", "drain", "", "return")
"""What products are bound by in turn; mistakes in either pace show in no other product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One piece of random work, run by both; ``words`` were compared, each with the cycle in which it leaves."""

    block: str
    sizes: str
    mapping: str
    words: int
    simulator_cycles: int
    rtl_cycles: int | None
    difference: Difference | None

    @property
    def equal(self) -> bool:
        return self.difference is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found; the same ``spec``, ``pattern``, ``rule`` and ``seed`` give the same cases."""

    spec: AcceleratorSpec
    pattern: NMPattern
    rule: str
    seed: int
    cases: tuple[Case, ...]

    @property
    def equal(self) -> bool:
        return all(case.equal for case in self.cases)

    @property
    def words(self) -> int:
        return sum(case.words for case in self.cases)


def build_seconds(spec: AcceleratorSpec) -> int:
    """About how long the RTL takes to become a simulator for the first time: measured on a core of a 2-core machine."""
    return 25 + spec.array.rows * spec.array.cols // 15


def verify(
    spec: AcceleratorSpec,
    cases: int = 20,
    seed: int = 0,
    *,
    pattern: NMPattern | None = None,
    rule: str = SGD.name,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Run ``cases`` random products, and a quarter as many updates and compressions, on the simulator and on the RTL.

    Products differ in dataflow, pattern, interleave, ragged sizes, kind of values and how fast results are taken,
    updates and compressions in when their beats come and are taken. SORE compresses to ``pattern`` and WUVE updates by
    ``rule``. ``progress`` is called with the cases done and all cases.
    """
    require_int("cases", cases, 1, MAX_CASES)
    require_int("seed", seed, 0, 2**63 - 1)
    updated_by = update_rule(rule, "rule")
    chosen = pattern or usual_pattern(spec)
    check_buildable(spec, chosen)
    engines = -(-cases // _ENGINE_SHARE)
    done: list[Case] = []
    every = cases + sum(BLOCKS[name].present(spec) for name in _ENGINES) * engines
    for case in _cases(spec, chosen, updated_by, seed, cases, engines):
        done.append(case)
        if progress is not None:
            progress(len(done), every)
    return Verification(spec=spec, pattern=chosen, rule=rule, seed=seed, cases=tuple(done))


def _cases(
    spec: AcceleratorSpec, pattern: NMPattern, rule: UpdateRule, seed: int, products: int, engines: int
) -> Iterator[Case]:
    def driver(block: str) -> Any:
        return _driver(spec, block, pattern, rule)

    for i in range(products):
        yield _product(driver("stce"), _BOUNDS[i % len(_BOUNDS)], np.random.default_rng([seed, 0, i]))
    for i in range(engines if BLOCKS["sore"].present(spec) else 0):
        yield _compression(driver("sore"), np.random.default_rng([seed, 1, i]))
    for i in range(engines if BLOCKS["wuve"].present(spec) else 0):
        yield _update(driver("wuve"), rule, np.random.default_rng([seed, 2, i]))
    for i in range(engines if BLOCKS["pregenerate"].present(spec) else 0):
        yield _pregeneration(driver("pregenerate"), rule, np.random.default_rng([seed, 3, i]))
    for i in range(engines if spec.tree is not None else 0):
        yield _layer(driver("tree_unit"), np.random.default_rng([seed, 4, i]))
    for i in range(engines if BLOCKS["gather_engine"].present(spec) else 0):
        yield _gathering(driver("gather_engine"), np.random.default_rng([seed, 5, i]))


@lru_cache(maxsize=len(BLOCKS))
def _driver(spec: AcceleratorSpec, block: str, pattern: NMPattern, rule: UpdateRule) -> Any:
    drive = BLOCKS[block].drive
    assert drive is not None, f"{block} is run by itself"
    return drive(spec, pattern, rule)


def _product(driver: StceDriver, bound: str, random: np.random.Generator) -> Case:
    spec, array = driver.spec, driver.spec.array
    mapping, gemm = draw_shape(spec, bound, random)
    run, runs = gemm.run, gemm.k // gemm.run
    a, b = draw_operand(random, spec, gemm.m, gemm.k), draw_compact(random, spec, gemm, mapping.pattern)
    ready, hold = draw_receivers(random, array.cols), draw_hold(random)
    want = run_array(spec, mapping, a, b, ready=ready, hold=hold)

    def compare() -> tuple[int, Difference | None]:
        cycles = want.length + _AFTERWARDS
        gradients = is_gradient(a, spec.pe), is_gradient(b.values, spec.pe)
        stalls = {"ready": ready, "hold": hold}
        got = driver.run(mapping, gemm, a, b.values, b.indices, cycles=cycles, gradients=gradients, **stalls)
        found = first_word(want.left, got.left, ("C", want.result.view(np.uint32), got.result))
        return got.cycles, found or _length(want.length, got.cycles)

    sizes = f"{gemm.m} x {_in_runs(runs, run)} x {gemm.n}"
    how = f"{mapping.dataflow} {mapping.pattern} interleave {mapping.interleave}"
    if ready is not None or hold is not None:
        how += _HELD_UP
    return _case("STCE", sizes, how, want.result.size, want.length, compare)


def _compression(driver: SoreDriver, random: np.random.Generator) -> Case:
    spec, pattern = driver.spec, driver.pattern
    run, runs = int(random.integers(1, 3 * pattern.group + 2)), int(random.integers(1, 4))
    values = draw_operand(random, spec, run * runs, int(random.integers(1, 2 * spec.sore.lanes + 2)))
    stalls, waits = _draw_stalls(random, 1)
    want = run_sore(spec, values, pattern, run, **stalls)

    def compare() -> tuple[int, Difference | None]:
        bits, gradient = bits_of(values).astype(np.uint16), is_gradient(values, spec.pe)
        got = driver.run(bits, run, cycles=want.cycles + _AFTERWARDS, gradient=gradient, **stalls)
        return got.cycles, _compare_sore("", want, got) or _length(want.cycles, got.cycles)

    sizes = f"{_in_runs(runs, run)} x {values.shape[1]}"
    return _case("SORE", sizes, f"{spec.sore.kind} {pattern}{waits}", want.left.size, want.cycles, compare)


def _update(driver: WuveDriver, rule: UpdateRule, random: np.random.Generator) -> Case:
    n = int(random.integers(1, 12 * driver.spec.wuve.lanes + 2))
    settings, master, gradient, state = draw_training(random, driver.spec, rule, n)
    stalls, waits = _draw_stalls(random, 1)
    want = run_wuve(driver.spec, settings, master, gradient, state, **stalls)

    def compare() -> tuple[int, Difference | None]:
        bits = master.view(np.uint32), bits_of(gradient).astype(np.uint16), [x.view(np.uint32) for x in state]
        got = driver.run(settings.constants, *bits, cycles=want.cycles + _AFTERWARDS, **stalls)
        return got.cycles, _compare_wuve(want, got) or _length(want.cycles, got.cycles)

    return _case("WUVE", f"{n} parameters", f"{rule.name}{waits}", (2 + len(state)) * n, want.cycles, compare)


def _pregeneration(driver: PregenerateDriver, rule: UpdateRule, random: np.random.Generator) -> Case:
    spec, pattern = driver.spec, driver.pattern
    taps, inputs, outputs = (
        int(random.integers(1, high)) for high in (4, 3 * pattern.group + 2, 3 * pattern.group + 2)
    )
    shape = WeightShape(taps=taps, inputs=inputs, outputs=outputs)
    copies: tuple[Copy, ...] = (COPIES, ("ff",), ("bp",), COPIES)[int(random.integers(4))]
    settings, master, gradient, state = draw_training(random, spec, rule, shape.elements)
    stalls, waits = _draw_stalls(random, 2)
    want = run_pregenerate(spec, settings, pattern, shape, master, gradient, state, copies, **stalls)

    def compare() -> tuple[int, Difference | None]:
        bits = master.view(np.uint32), bits_of(gradient).astype(np.uint16), [x.view(np.uint32) for x in state]
        got = driver.run(shape, settings.constants, *bits, copies, cycles=want.cycles + _AFTERWARDS, **stalls)
        found = [_compare_wuve(want.update, got.update)]
        found += [_compare_sore(f"{copy}.", want.copies[copy], got.copies[copy]) for copy in copies]
        return got.cycles, earliest(found) or _length(want.cycles, got.cycles)

    words = (2 + len(state)) * shape.elements + sum(made.left.size for made in want.copies.values())
    how = f"{rule.name} to {' and '.join(copies)} {pattern} {spec.sore.kind}{waits}"
    return _case("WUVE to SORE", f"{taps} x {inputs} x {outputs}", how, words, want.cycles, compare)


def _layer(driver: TreeDriver, random: np.random.Generator) -> Case:
    own = driver.own
    tree, weights, inputs = draw_tree(random, own)
    engine = TreeEngine(lanes=own.lanes, word_bits=own.word_bits, positions=own.positions)
    want = run_tree(tree, weights, inputs, engine)

    def compare() -> tuple[int, Difference | None]:
        got = driver.run(tree, weights, inputs, cycles=want.cycles + _AFTERWARDS)
        # What differs nowhere from its parent has no count of its own, and no cycle.
        made = np.where(got.made < 0, want.made, got.made - own.latency)
        found = first_word(want.made, made, ("sum", want.result.view(np.uint64), got.result.view(np.uint64)))
        return got.cycles, found or _length(want.cycles, got.cycles)

    sizes = f"{inputs.shape[0]} x {tree.k} x {len(weights)}"
    how = f"{len(tree.levels)} levels" + (", inverses" if tree.inverted.any() else "")
    return _case("tree", sizes, how, want.result.size, want.cycles, compare)


def _gathering(driver: GatherDriver, random: np.random.Generator) -> Case:
    spec, own = driver.spec, driver.own
    interleave, m, kept = draw_mask(random, spec)
    k, n = kept.shape
    a, b = draw_operand(random, spec, m, k), draw_operand(random, spec, k, n)
    want = run_gather(spec, a, b, kept, interleave=interleave)

    def compare() -> tuple[int, Difference | None]:
        gradients = is_gradient(a, spec.pe), is_gradient(b, spec.pe)
        most = want.length + _AFTERWARDS
        got = driver.run(bits_of(a), bits_of(b), kept, cycles=most, interleave=interleave, gradients=gradients)
        left, made = (np.broadcast_to(run.left, (m, n)) for run in (want, got))
        found = first_word(left, made, ("C", want.result.view(np.uint32), got.result))
        return got.cycles, found or _length(want.length, got.cycles)

    how = f"{own.balance}, {own.banks} banks, interleave {interleave}, {np.count_nonzero(kept)} kept"
    return _case("gather", f"{m} x {k} x {n}", how, want.result.size, want.length, compare)


def _draw_stalls(random: np.random.Generator, outputs: int) -> tuple[dict[str, Any], str]:
    """When beats are offered and taken, and what to say of it."""
    hold, ready = draw_hold(random), draw_receivers(random, outputs)
    stalls = {"offered": None if hold is None else ~hold, "ready": ready}
    return stalls, "" if hold is None and ready is None else _HELD_UP


def _in_runs(runs: int, run: int) -> str:
    return f"{runs}*{run}" if runs > 1 else str(run)


def _case(
    block: str, sizes: str, mapping: str, words: int, cycles: int, compare: Callable[[], tuple[int, Difference | None]]
) -> Case:
    rtl: int | None = None
    try:
        rtl, difference = compare()
    except RuntimeError as error:
        # The drivers' word for RTL that lets go other words than it should; what is in flight must not meet the next.
        difference = Difference(what=str(error))
        _driver.cache_clear()
    return Case(
        block=block,
        sizes=sizes,
        mapping=mapping,
        words=words,
        simulator_cycles=cycles,
        rtl_cycles=rtl,
        difference=difference,
    )


def _compare_sore(prefix: str, want: SoreRun, got: RtlSore) -> Difference | None:
    pairs = first_word(
        want.left,
        got.left,
        (f"{prefix}value", bits_of(want.compact.values).astype(np.uint16), got.values),
        (f"{prefix}index", want.compact.indices, got.indices),
    )
    first_slot = want.compact.cut.first_slot
    flags = first_word(want.left[first_slot], got.left[first_slot], (f"{prefix}nan", want.nan_flags, got.nan_flags))
    return earliest((pairs, flags))


def _compare_wuve(want: WuveRun, got: RtlWuve) -> Difference | None:
    return first_word(
        want.left,
        got.left,
        ("master", want.master.view(np.uint32), got.master),
        ("weight16", bits_of(want.weights16).astype(np.uint16), got.weights16),
        *(
            (f"state{i}", expected.view(np.uint32), found)
            for i, (expected, found) in enumerate(zip(want.state, got.state, strict=True))
        ),
    )


def _length(want: int, got: int) -> Difference | None:
    if want == got:
        return None
    return Difference(what="length of the run", cycle=min(want, got), expected=str(want), found=str(got))
