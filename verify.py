"""Simulator and RTL side by side on random work: the array, SORE, WUVE, and WUVE feeding SORE.

The one place besides the command line that sees both; `weft verify` prints what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ._vectors import edge_words
from ._verilog import usual_pattern
from .dataflow.accelerator import AcceleratorSpec
from .dataflow.array_time import array_machine, col_work, mapped_tiling, row_work
from .dataflow.mapping import DENSE, ArrayMapping, Dataflow
from .dataflow.pregenerate import COPIES, Copy, WeightShape
from .hdl.buildable import check_buildable
from .hdl.drive import StceDriver
from .hdl.engine_drive import PregenerateDriver, RtlSore, RtlWuve, SoreDriver, WuveDriver
from .simulator.array import run_array
from .simulator.compact import Compact, compress, decompress, from_mask
from .simulator.engines import Adam, Sgd, SoreRun, WuveRun, run_sore, run_wuve
from .simulator.operand import Half, operand_type
from .simulator.pregenerate import run_pregenerate
from .workloads.errors import InputError, nearest, require_int
from .workloads.gemm import Gemm
from .workloads.sparsity import NMPattern
from .workloads.step import OPTIMIZERS

__all__ = ["Case", "Difference", "Verification", "build_seconds", "verify"]

MAX_CASES = 100_000
_AFTERWARDS = 8
"""Cycles watched after a run: nothing may leave any more."""
_ENGINE_SHARE = 4
"""One case of each engine for so many products."""
_BOUNDS = ("", "drain", "", "return")
"""What products are bound by in turn; mistakes in either pace show in no other product."""
_DRAWS = 300
"""Draws for a product that is bound so; on a machine that has one, some 1 to 20 % are."""
_PATTERNS = tuple(NMPattern.parse(text) for text in ("1:4", "2:4", "2:8", "4:8", "2:16"))

Signal = tuple[str, npt.NDArray[Any], npt.NDArray[Any]]
"""Name, what the simulator says, what the RTL says, in bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The earliest word on which the two disagree; ``signal`` alone where the RTL let go too many words or too few."""

    signal: str
    cycle: int | None = None
    simulator: str = ""
    rtl: str = ""


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
    rule: str = "sgd",
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Run ``cases`` random products, and a quarter as many updates and compressions, on the simulator and on the RTL.

    Products differ in dataflow, pattern, interleave, ragged sizes, kind of values and how fast results are taken; SORE
    compresses to ``pattern`` and WUVE updates by ``rule``. ``progress`` is called with the cases done and all cases.
    """
    require_int("cases", cases, 1, MAX_CASES)
    require_int("seed", seed, 0, 2**63 - 1)
    if rule not in OPTIMIZERS:
        raise InputError(f"rule {rule!r} is unknown: {nearest(rule, OPTIMIZERS)}")
    chosen = pattern or usual_pattern(spec)
    check_buildable(spec, chosen)
    engines = -(-cases // _ENGINE_SHARE)
    done: list[Case] = []
    every = cases + (3 if spec.wuve.pregenerate else 2) * engines
    for case in _cases(spec, chosen, rule, seed, cases, engines):
        done.append(case)
        if progress is not None:
            progress(len(done), every)
    return Verification(spec=spec, pattern=chosen, rule=rule, seed=seed, cases=tuple(done))


def _cases(
    spec: AcceleratorSpec, pattern: NMPattern, rule: str, seed: int, products: int, engines: int
) -> Iterator[Case]:
    for i in range(products):
        yield _product(_array(spec), _BOUNDS[i % len(_BOUNDS)], np.random.default_rng([seed, 0, i]))
    for i in range(engines):
        yield _compression(_sore(spec, pattern), np.random.default_rng([seed, 1, i]))
    for i in range(engines):
        yield _update(_wuve(spec, rule), rule, np.random.default_rng([seed, 2, i]))
    for i in range(engines if spec.wuve.pregenerate else 0):
        yield _pregeneration(_inline(spec, pattern, rule), rule, np.random.default_rng([seed, 3, i]))


@lru_cache(maxsize=1)
def _array(spec: AcceleratorSpec) -> StceDriver:
    return StceDriver(spec)


@lru_cache(maxsize=1)
def _sore(spec: AcceleratorSpec, pattern: NMPattern) -> SoreDriver:
    return SoreDriver(spec, pattern)


@lru_cache(maxsize=1)
def _wuve(spec: AcceleratorSpec, rule: str) -> WuveDriver:
    return WuveDriver(spec, rule)


@lru_cache(maxsize=1)
def _inline(spec: AcceleratorSpec, pattern: NMPattern, rule: str) -> PregenerateDriver:
    return PregenerateDriver(spec, pattern, rule)


def _bound_by(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> str:
    """What sets the pace of a product beside its issue: the drain of tiles, or partial sums that return."""
    x = array_machine(spec)
    t = mapped_tiling(x, mapping, gemm.m, gemm.k, gemm.run)
    if t.ws:
        distance = col_work(x, t, gemm.n) * row_work(x, t, gemm.m)
        return "return" if t.slots > 1 and x.R * t.bare + 1 > distance else ""
    tiles = col_work(x, t, gemm.n) * row_work(x, t, gemm.m)
    return "drain" if tiles > 1 and t.drain > t.L else ""


def _shape(spec: AcceleratorSpec, bound: str, random: np.random.Generator) -> tuple[ArrayMapping, Gemm]:
    """A mapping and sizes; of a few draws one that is ``bound``, if the machine knows such."""
    array = spec.array
    for _ in range(_DRAWS):
        mapping = _mapping(spec, random)
        run, runs = int(random.integers(1, 2 * mapping.pattern.group + 8)), int(random.integers(1, 4))
        gemm = Gemm(
            m=int(random.integers(1, 2 * array.rows + 2)),
            k=run * runs,
            n=int(random.integers(1, array.cols * (mapping.interleave + 1) + 2)),
            run=run,
        )
        if not bound or _bound_by(spec, mapping, gemm) == bound:
            break
    return mapping, gemm


def _product(driver: StceDriver, bound: str, random: np.random.Generator) -> Case:
    spec, array = driver.spec, driver.spec.array
    mapping, gemm = _shape(spec, bound, random)
    run, runs = gemm.run, gemm.k // gemm.run
    a, b = _operand(random, spec, gemm.m, gemm.k), _compact(random, spec, gemm, mapping.pattern)
    ready = _receivers(random, array.cols)
    want = run_array(spec, mapping, a, b, ready=ready)

    def compare() -> tuple[int, Difference | None]:
        got = driver.run(mapping, gemm, a, b.values, b.indices, cycles=want.length + _AFTERWARDS, ready=ready)
        found = _first(want.left, got.left, ("C", want.result.view(np.uint32), got.result))
        return got.cycles, found or _length(want.length, got.cycles)

    sizes = f"{gemm.m} x {_in_runs(runs, run)} x {gemm.n}"
    how = f"{mapping.dataflow} {mapping.pattern} interleave {mapping.interleave}"
    if ready is not None:
        how += ", held up"
    return _case("STCE", sizes, how, want.result.size, want.length, compare)


def _compression(driver: SoreDriver, random: np.random.Generator) -> Case:
    spec, pattern = driver.spec, driver.pattern
    run, runs = int(random.integers(1, 3 * pattern.group + 2)), int(random.integers(1, 4))
    values = _operand(random, spec, run * runs, int(random.integers(1, 2 * spec.sore.lanes + 2)))
    want = run_sore(spec, values, pattern, run)

    def compare() -> tuple[int, Difference | None]:
        got = driver.run(values.view(np.uint16), run, cycles=want.cycles + _AFTERWARDS)
        return got.cycles, _compare_sore("", want, got) or _length(want.cycles, got.cycles)

    sizes = f"{_in_runs(runs, run)} x {values.shape[1]}"
    return _case("SORE", sizes, f"{spec.sore.kind} {pattern}", want.left.size, want.cycles, compare)


def _update(driver: WuveDriver, name: str, random: np.random.Generator) -> Case:
    n = int(random.integers(1, 12 * driver.spec.wuve.lanes + 2))
    rule, master, gradient, state = _training(random, driver.spec, name, n)
    want = run_wuve(driver.spec, rule, master, gradient, state)

    def compare() -> tuple[int, Difference | None]:
        bits = master.view(np.uint32), gradient.view(np.uint16), [x.view(np.uint32) for x in state]
        got = driver.run(rule.constants, *bits, cycles=want.cycles + _AFTERWARDS)
        return got.cycles, _compare_wuve(want, got) or _length(want.cycles, got.cycles)

    return _case("WUVE", f"{n} parameters", name, (2 + len(state)) * n, want.cycles, compare)


def _pregeneration(driver: PregenerateDriver, name: str, random: np.random.Generator) -> Case:
    spec, pattern = driver.spec, driver.pattern
    taps, inputs, outputs = (
        int(random.integers(1, high)) for high in (4, 3 * pattern.group + 2, 3 * pattern.group + 2)
    )
    shape = WeightShape(taps=taps, inputs=inputs, outputs=outputs)
    copies: tuple[Copy, ...] = (COPIES, ("ff",), ("bp",), COPIES)[int(random.integers(4))]
    rule, master, gradient, state = _training(random, spec, name, shape.elements)
    want = run_pregenerate(spec, rule, pattern, shape, master, gradient, state, copies)

    def compare() -> tuple[int, Difference | None]:
        bits = master.view(np.uint32), gradient.view(np.uint16), [x.view(np.uint32) for x in state]
        got = driver.run(shape, rule.constants, *bits, copies, cycles=want.cycles + _AFTERWARDS)
        found = [_compare_wuve(want.update, got.update)]
        found += [_compare_sore(f"{copy}.", want.copies[copy], got.copies[copy]) for copy in copies]
        differences = [difference for difference in found if difference is not None]
        return got.cycles, min(differences, key=_when, default=None) or _length(want.cycles, got.cycles)

    words = (2 + len(state)) * shape.elements + sum(made.left.size for made in want.copies.values())
    how = f"{name} to {' and '.join(copies)} {pattern} {spec.sore.kind}"
    return _case("WUVE to SORE", f"{taps} x {inputs} x {outputs}", how, words, want.cycles, compare)


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
        difference = Difference(signal=str(error))
        _array.cache_clear()
    return Case(
        block=block, sizes=sizes, mapping=mapping, words=words, simulator_cycles=cycles, rtl_cycles=rtl,
        difference=difference,
    )  # fmt: skip


def _compare_sore(prefix: str, want: SoreRun, got: RtlSore) -> Difference | None:
    pairs = _first(
        want.left,
        got.left,
        (f"{prefix}value", want.compact.values.view(np.uint16), got.values),
        (f"{prefix}index", want.compact.indices, got.indices),
    )
    first_slot = want.compact.cut.first_slot
    flags = _first(want.left[first_slot], got.left[first_slot], (f"{prefix}nan", want.nan_flags, got.nan_flags))
    return min((found for found in (pairs, flags) if found is not None), key=_when, default=None)


def _compare_wuve(want: WuveRun, got: RtlWuve) -> Difference | None:
    return _first(
        want.left,
        got.left,
        ("master", want.master.view(np.uint32), got.master),
        ("weight16", want.weights16.view(np.uint16), got.weights16),
        *(
            (f"state{i}", expected.view(np.uint32), found)
            for i, (expected, found) in enumerate(zip(want.state, got.state, strict=True))
        ),
    )


def _first(want_left: npt.NDArray[Any], got_left: npt.NDArray[Any], *signals: Signal) -> Difference | None:
    """The earliest word, by the simulator, that leaves the RTL in another cycle or with other bits."""
    found: list[Difference] = []
    for name, want, got in (*signals, ("", want_left, got_left)):
        wrong = np.argwhere(want != got)
        if not len(wrong):
            continue
        at = min(map(tuple, wrong), key=lambda place: int(want_left[place]))
        where = f"{name or signals[0][0]}[{', '.join(str(i) for i in at)}]"
        digits = 2 * want.itemsize
        shown = (f"{int(x):0{digits}x}" if name else f"leaves in cycle {int(x)}" for x in (want[at], got[at]))
        simulator, rtl = shown
        found.append(Difference(signal=where, cycle=int(want_left[at]), simulator=simulator, rtl=rtl))
    return min(found, key=_when, default=None)


def _length(want: int, got: int) -> Difference | None:
    if want == got:
        return None
    return Difference(signal="length of the run", cycle=min(want, got), simulator=str(want), rtl=str(got))


def _when(difference: Difference) -> int:
    assert difference.cycle is not None, "words that were compared have a cycle"
    return difference.cycle


def _mapping(spec: AcceleratorSpec, random: np.random.Generator) -> ArrayMapping:
    """One that the registers of the machine hold: dense, a usual pattern, or any other."""
    pe, dataflow = spec.pe, (Dataflow.OS, Dataflow.WS)[int(random.integers(2))]
    stationary = dataflow == Dataflow.WS
    most = min(pe.max_group, pe.weight_pairs) if stationary else pe.max_group
    held = int(random.integers(1, most + 1))
    dense = NMPattern(keep=held, group=held) if stationary else DENSE
    group = int(random.integers(1, pe.max_group + 1))
    other = NMPattern(keep=int(random.integers(1, min(group, most) + 1)), group=group)
    usual = [p for p in _PATTERNS if p.group <= pe.max_group and p.keep <= most] or [other]
    pattern = (dense, usual[int(random.integers(len(usual)))], other)[int(random.integers(3))]
    contexts = min(pe.accumulators, pe.dense_words // pattern.group) if stationary else pe.accumulators
    return ArrayMapping(dataflow=dataflow, pattern=pattern, interleave=int(random.integers(1, contexts + 1)))


def _receivers(random: np.random.Generator, cols: int) -> npt.NDArray[np.bool_] | None:
    """When the columns are taken from for a while; always in half of the cases."""
    if random.random() < 0.5:
        return None
    return random.random((int(random.integers(1, 400)), cols)) < random.choice((0.3, 0.7, 0.95), (1, cols))


def _operand(random: np.random.Generator, spec: AcceleratorSpec, *shape: int) -> Half:
    """Values of every kind: normal, many equal ones, words at which something changes, raw bits."""
    dtype = operand_type(spec.pe)
    values = random.standard_normal(shape)
    kind, share = int(random.integers(4)), random.random(shape) < (0.02, 0.3)[int(random.integers(2))]
    if kind == 1:
        values = np.round(values)
    operand = values.astype(np.float32).astype(dtype)
    if kind >= 2:
        raw = random.choice(edge_words(spec.pe.operand), shape) if kind == 2 else random.integers(0, 2**16, shape)
        operand.view(np.uint16)[share] = raw.astype(np.uint16)[share]
    return operand


def _compact(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm, pattern: NMPattern) -> Compact:
    """The largest of each group, or what a mask leaves of them, with bubbles."""
    b = _operand(random, spec, gemm.k, gemm.n)
    compact = compress(b, pattern, gemm.run)
    if random.random() < 0.5:
        return compact
    return from_mask(b, (decompress(compact) != 0) & (random.random(b.shape) < 0.6), pattern, gemm.run)


def _training(
    random: np.random.Generator, spec: AcceleratorSpec, name: str, n: int
) -> tuple[Sgd | Adam, npt.NDArray[np.float32], Half, tuple[npt.NDArray[np.float32], ...]]:
    """A rule, FP32 weights and state, some of them raw bits, and a gradient."""
    scale = 2.0 ** -int(random.integers(0, 17))
    rate, share = float(random.random()), float(random.random())
    rule: Sgd | Adam = Sgd(rate=rate, momentum=share, weight_decay=0.1 * share, inverse_scale=scale)
    if name == "adam":
        rule = Adam(rate=rate, step=int(random.integers(1, 1000)), inverse_scale=scale)
    vectors = [random.standard_normal(n).astype(np.float32) for _ in range(2 if name == "sgd" else 3)]
    for vector in vectors:
        raw = random.random(n) < (0.0, 0.1)[int(random.integers(2))]
        vector.view(np.uint32)[raw] = random.integers(0, 2**32, n, np.uint32)[raw]
    return rule, vectors[0], _operand(random, spec, n), tuple(vectors[1:])
