"""SORE and WUVE in RTL against the stepped engines: every bit, in every cycle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec, ArraySpec, PESpec, SoreSpec, WuveSpec
from weft.dataflow.engine_time import sore_issue, sore_latency
from weft.hdl.cosim import Cosim
from weft.hdl.sorter import Sore, batcher_stages
from weft.hdl.update import Wuve
from weft.simulator import engines
from weft.simulator.compact import cut
from weft.simulator.engines import Adam, Sgd, run_sore, run_wuve
from weft.workloads.sparsity import NMPattern

from ..strategies import gemms, halves, make_spec, singles

Kind = Literal["serial", "network"]
Array = npt.NDArray[np.unsignedinteger]
PATTERNS = ("1:4", "2:4", "2:8", "4:8", "2:16")
AFTERWARDS = 4
"""Cycles watched after a run: nothing may leave any more."""


def assert_same(signal: str, expected: Array, found: Array, where: Array | None = None) -> None:
    differs = (expected != found) if where is None else (expected != found) & where
    if differs.any():
        t, *lane = (int(i) for i in np.argwhere(differs)[0])
        at = (t, *lane)
        pytest.fail(f"{signal} {lane} in cycle {t}: simulator {expected[at]:#x}, RTL {found[at]:#x}")


@dataclass(frozen=True)
class SoreBench:
    """One compiled engine, and how its ports are fed and read."""

    spec: AcceleratorSpec
    pattern: NMPattern
    cosim: Cosim

    @property
    def serial(self) -> bool:
        return self.spec.sore.kind == "serial"

    def feed(self, groups: npt.NDArray[np.uint16], exists: npt.NDArray[np.bool_], cycles: int) -> dict[str, Array]:
        """Ports of every cycle from groups [rounds, lanes, M]."""
        rounds, lanes, m = groups.shape
        ports: dict[str, Array] = {"step": over(np.ones(rounds * m if self.serial else rounds, np.uint8), cycles)}
        for i in range(lanes):
            if self.serial:
                ports[f"value__{i}__0"] = over(groups[:, i].ravel(), cycles)
                ports[f"valid__{i}"] = over(exists[:, i].ravel().astype(np.uint8), cycles)
                continue
            ports |= {f"value__{i}__{j}": over(groups[:, i, j], cycles) for j in range(m)}
            ports[f"valid__{i}"] = over((exists[:, i] << np.arange(m)).sum(axis=1).astype(np.uint32), cycles)
        return ports

    def read(self, ports: dict[str, Array], field: str) -> Array:
        """[cycles, lanes, pairs a cycle]"""
        pairs = 1 if self.serial else self.pattern.keep
        lanes = range(self.spec.sore.lanes)
        return np.stack([np.stack([ports[f"pair__{i}__{p}__{field}"] for p in range(pairs)], 1) for i in lanes], 1)

    def place(self, by_group: npt.NDArray[np.uint16], cycles: int) -> Array:
        """What [rounds, lanes, keep] is at the ports in every cycle, by the contract."""
        rounds, lanes, keep = by_group.shape
        result = np.zeros((cycles, lanes, 1 if self.serial else keep), np.uint32)
        for r in range(rounds):
            if self.serial:
                first = (r + 1) * self.pattern.group
                result[first : first + keep, :, 0] = by_group[r].T
            else:
                result[r + sore_latency(self.pattern, self.spec)] = by_group[r]
        return result


def over(array: Array, cycles: int) -> Array:
    """``array`` and then zeros."""
    return np.concatenate([array, np.zeros(cycles - len(array), array.dtype)])


@cache
def sore_bench(kind: Kind, lanes: int, text: str) -> SoreBench:
    pattern = NMPattern.parse(text)
    spec = make_spec(array=ArraySpec(rows=1, cols=1), sore=SoreSpec(kind=kind, lanes=lanes))
    engine = Sore(spec, pattern, blackbox=True)
    return SoreBench(spec, pattern, Cosim(engine, parts=engine.parts))


def check_sore(bench: SoreBench, values: npt.NDArray[np.float16], run: int) -> None:
    spec, pattern, lanes = bench.spec, bench.pattern, bench.spec.sore.lanes
    expected = run_sore(spec, values, pattern, run)
    k, n = values.shape
    groups = cut(pattern, k, run)
    total = len(groups.start) * n
    rounds = -(-total // lanes)
    cycles = expected.cycles + AFTERWARDS
    assert expected.cycles == sore_issue(total, pattern, spec) + sore_latency(pattern, spec)

    def dealt(elements: Array, first: npt.NDArray[np.int64], length: npt.NDArray[np.int64], slots: int) -> Array:
        """Rows of [rows, n] in groups, column by column, dealt to the lanes: [rounds, lanes, slots]."""
        inside = np.arange(slots) < length[:, None]
        rows = np.where(inside, first[:, None] + np.arange(slots), 0)
        flat = np.zeros((rounds * lanes, slots), elements.dtype)
        flat[:total] = np.where(inside, elements[rows].transpose(2, 0, 1), 0).reshape(total, slots)
        return flat.reshape(rounds, lanes, slots)

    def into_groups(elements: Array) -> Array:
        return dealt(elements, groups.start, groups.length, pattern.group)

    def into_pairs(elements: Array) -> Array:
        return bench.place(dealt(elements, groups.first_slot, groups.kept, pattern.keep), cycles)

    bench.cosim.reset()
    exists = into_groups(np.ones((k, n), np.bool_))
    found = bench.cosim.run(bench.feed(into_groups(values.view(np.uint16)), exists, cycles))

    compact = expected.compact
    valid = into_pairs(np.ones(compact.values.shape, np.uint16))
    assert_same("pair.valid", valid, bench.read(found, "valid"))
    assert_same("pair.value", into_pairs(compact.values.view(np.uint16)), bench.read(found, "value"), valid != 0)
    assert_same("pair.index", into_pairs(compact.indices.astype(np.uint16)), bench.read(found, "index"), valid != 0)

    leaving = np.zeros(cycles, np.uint32)
    flags = np.zeros((cycles, lanes), np.uint32)
    by_lane = over(expected.nan_flags.T.ravel().astype(np.uint8), rounds * lanes).reshape(rounds, lanes)
    first = np.arange(rounds) + sore_latency(pattern, spec)
    if bench.serial:
        first = (np.arange(rounds) + 1) * pattern.group
    leaving[first], flags[first] = 1, by_lane
    found_flags = np.stack([found[f"nan__{i}"] for i in range(lanes)], axis=1)
    assert_same("leaving", leaving, found["leaving"])
    assert_same("nan", flags, found_flags, leaving[:, None] != 0)
    assert first[-1] + (pattern.keep if bench.serial else 1) == expected.cycles


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("kind", ["serial", "network"])
@settings(max_examples=60)
@given(data=st.data())
def test_sore_of_three_lanes_is_the_stepped_engine(kind: Kind, text: str, data: st.DataObject) -> None:
    gemm = data.draw(gemms())
    check_sore(sore_bench(kind, 3, text), data.draw(halves(gemm.k, gemm.n)), gemm.run)


@pytest.mark.parametrize(
    "text", ["2:8", *(pytest.param(t, marks=pytest.mark.slow) for t in ("1:1", "4:4", "3:5", "5:13"))]
)
@pytest.mark.parametrize("kind", ["serial", "network"])
@settings(max_examples=40)
@given(data=st.data())
def test_sore_of_one_lane_is_the_stepped_engine(kind: Kind, text: str, data: st.DataObject) -> None:
    gemm = data.draw(gemms())
    check_sore(sore_bench(kind, 1, text), data.draw(halves(gemm.k, gemm.n)), gemm.run)


@pytest.mark.parametrize("kind", ["serial", "network"])
def test_sore_of_a_long_run_of_raw_bits(kind: Kind) -> None:
    bits = np.random.default_rng(11).integers(0, 2**16, (9 * 100, 64), np.uint16)
    check_sore(sore_bench(kind, 3, "2:8"), bits.view(np.float16), 100)


@pytest.mark.parametrize("inputs", range(1, 33))
def test_rtl_and_simulator_have_one_network(inputs: int) -> None:
    assert batcher_stages(inputs) == engines.batcher_stages(inputs)


@dataclass(frozen=True)
class WuveBench:
    """One compiled engine."""

    spec: AcceleratorSpec
    engine: Wuve
    cosim: Cosim


@cache
def wuve_bench(rule: str, lanes: int, multiply_latency: int, add_latency: int) -> WuveBench:
    pe = PESpec(multiply_latency=multiply_latency, add_latency=add_latency)
    spec = make_spec(array=ArraySpec(rows=1, cols=1), pe=pe, wuve=WuveSpec(lanes=lanes))
    engine = Wuve(spec, rule, blackbox=True)
    return WuveBench(spec, engine, Cosim(engine, parts=engine.parts))


def registers(rule: Sgd | Adam) -> tuple[float, ...]:
    """What the page says the host computes in double precision, in the order of the lanes' constants."""
    if isinstance(rule, Sgd):
        return rule.inverse_scale, rule.weight_decay, rule.momentum, rule.rate
    root = math.sqrt(1.0 - rule.beta2**rule.step)
    rate, epsilon = rule.rate * root / (1.0 - rule.beta1**rule.step), rule.epsilon * root
    return rule.inverse_scale, rule.beta1, 1.0 - rule.beta1, rule.beta2, 1.0 - rule.beta2, rate, epsilon


def check_wuve(
    bench: WuveBench,
    rule: Sgd | Adam,
    master: npt.NDArray[np.float32],
    gradient16: npt.NDArray[np.float16],
    state: tuple[npt.NDArray[np.float32], ...],
) -> None:
    lane, lanes, n = bench.engine.lane, bench.spec.wuve.lanes, len(master)
    expected = run_wuve(bench.spec, rule, master, gradient16, state)
    cycles, depth = expected.cycles + AFTERWARDS, expected.cycles - -(-n // lanes)
    assert depth == bench.engine.latency

    def dealt(array: Array, start: int) -> Array:
        result = np.zeros((cycles, lanes), array.dtype)
        result[start:].ravel()[:n] = array
        return result

    there = np.ones(n, np.uint8)
    fed: dict[str, Array] = {"gradient16": gradient16.view(np.uint16), "master": master.view(np.uint32), "valid": there}
    fed |= {name: array.view(np.uint32) for name, array in zip(lane.STATE, state, strict=True)}
    ports: dict[str, npt.ArrayLike] = {
        f"{name}__{i}": dealt(array, 0)[:, i] for name, array in fed.items() for i in range(lanes)
    }
    for name, constant in zip(lane.CONSTANTS, registers(rule), strict=True):
        ports[name] = np.float32(constant).view(np.uint32)
    bench.cosim.reset()
    found = bench.cosim.run(ports)

    leaves: dict[str, Array] = {
        "leaving": there,
        "next_master": expected.master.view(np.uint32),
        "weight16": expected.weights16.view(np.uint16),
    }
    leaves |= {f"next_{n}": array.view(np.uint32) for n, array in zip(lane.STATE, expected.state, strict=True)}
    leaving = dealt(there, depth)
    for name, array in leaves.items():
        read = np.stack([found[f"{name}__{i}"] for i in range(lanes)], axis=1)
        assert_same(name, dealt(array, depth), read, None if name == "leaving" else leaving != 0)


scales = st.integers(-20, 20).map(lambda e: 2.0**e)
rates = st.floats(-(2.0**100), 2.0**100, width=32)
shares = st.floats(0, 1, width=32, exclude_max=True)
rules: dict[str, st.SearchStrategy[Sgd | Adam]] = {
    "sgd": st.builds(
        Sgd,
        rate=rates,
        momentum=shares | st.floats(0, 2.0**-120, width=32),
        weight_decay=st.floats(0, 0.125, width=32),
        inverse_scale=scales,
    ),
    "adam": st.builds(
        Adam,
        rate=st.floats(-(2.0**60), 2.0**60),
        beta1=st.floats(0, 0.9375),
        beta2=st.floats(0, 0.9375),
        epsilon=st.floats(0, 2.0**-10) | st.just(0.0),
        step=st.integers(1, 1000),
        inverse_scale=scales,
    ),
}
machines = [
    ("sgd", 3, 2, 4),
    *(pytest.param("sgd", *c, marks=pytest.mark.slow) for c in ((1, 1, 1), (3, 3, 5), (2, 4, 1))),
    *(pytest.param("adam", *c, marks=pytest.mark.slow) for c in ((3, 2, 4), (1, 1, 1))),
]


@pytest.mark.parametrize(("rule", "lanes", "multiply", "add"), machines)
@settings(max_examples=100)
@given(data=st.data())
def test_wuve_is_the_stepped_engine(rule: str, lanes: int, multiply: int, add: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 70))
    bench = wuve_bench(rule, lanes, multiply, add)
    state = tuple(data.draw(singles(n)) for _ in bench.engine.lane.STATE)
    check_wuve(bench, data.draw(rules[rule]), data.draw(singles(n)), data.draw(halves(n)), state)


RAW = [Sgd(rate=r, momentum=s, weight_decay=0.1 * s) for r in (0.1, 1e-30, 1e30) for s in (0.0, 1e-39, 1e-20, 0.9)]
RAW_ADAM = [Adam(rate=r, step=t, epsilon=e) for r in (1e-3, 1e-30, 1e30) for t, e in ((1, 1e-8), (9, 0.0))]


@pytest.mark.parametrize(
    ("rule", "lanes", "cases"), [("sgd", 3, RAW), pytest.param("adam", 3, RAW_ADAM, marks=pytest.mark.slow)]
)
def test_wuve_of_long_runs_of_raw_bits(rule: str, lanes: int, cases: list[Sgd | Adam]) -> None:
    """Subnormal operands, products and sums, infinities and NaNs among them."""
    rng, n = np.random.default_rng(5), 100_000
    bench = wuve_bench(rule, lanes, 2, 4)
    master, *state = (
        rng.integers(0, 2**32, n, np.uint32).view(np.float32) for _ in range(1 + len(bench.engine.lane.STATE))
    )
    gradient16 = rng.integers(0, 2**16, n, np.uint16).view(np.float16)
    for case in cases:
        check_wuve(bench, case, master, gradient16, tuple(state))
