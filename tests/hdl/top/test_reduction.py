"""Loads through SORE: every pair where its registers say, in the cycles that are said, whoever waits for whom."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import SoreSpec
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import Form, Space, Target, place
from weft.dataflow.program.transfer_time import load_cycles
from weft.hdl.flow.cosim import Cosim
from weft.workloads.sparsity import NMPattern

from .commands import BANK, TARGET, as_command, usual
from .loads import LoadBench, Word, contents, words_of
from .transfers import BEAT, DEPTH, LATENCY, holds, wide

SEEDS = st.none() | st.integers(0, 2**16)


def _target(kind: str, lanes: int, pattern: NMPattern) -> Target:
    spec = replace(TARGET.spec, sore=SoreSpec(lanes=lanes, kind=kind))  # type: ignore[arg-type]
    return replace(TARGET, spec=spec, pattern=pattern)


MACHINES = {
    "tiny": TARGET,
    "network": _target("network", 5, NMPattern(keep=2, group=4)),
    "wide": _target("serial", 9, NMPattern(keep=3, group=6)),
    "one lane": _target("serial", 1, NMPattern(keep=1, group=5)),
    "all kept": _target("network", 2, NMPattern(keep=1, group=1)),
}
NAMES = [name if name == "tiny" else pytest.param(name, marks=pytest.mark.slow) for name in MACHINES]


@cache
def machine(name: str) -> Cosim:
    bench = LoadBench(contents(), MACHINES[name])
    return Cosim(bench, bench.parts)


def reduced(r: dict[str, int], memory: bytes, target: Target) -> list[Word]:
    """What a load through SORE writes, in order, group by group in plain Python."""
    pattern, lines = target.pattern, []
    assert pattern is not None
    for at in np.ndindex(*(r[f"count{i}"] for i in range(4))):
        offset = r["address1" if r["which"] else "address"] + sum(n * r[f"step{i}"] for i, n in enumerate(at))
        lines.append([int.from_bytes(memory[offset + 2 * w : offset + 2 * w + 2], "little") for w in range(r["words"])])
    columns = list(zip(*lines, strict=True)) if r["across"] else lines
    kept = []
    for column in columns:
        pairs = []
        for run in range(0, len(column), r["run"]):
            cut = column[run : run + r["run"]]
            for first in range(0, len(cut), pattern.group):
                group = cut[first : first + pattern.group]
                ranked = sorted(range(len(group)), key=lambda i, g=group: (-(g[i] & 0x7FFF), i))[: pattern.keep]
                pairs += [(group[i], i) for i in sorted(ranked)]
        kept.append(pairs)
    written: list[Word] = []
    for number, line in enumerate(zip(*kept, strict=True) if r["across"] else kept):
        outer = number // r["outer2"]
        first = r["place"] + outer // r["outer1"] * r["outer0_step"] + outer % r["outer1"] * r["outer1_step"]
        first += number % r["outer2"] * r["outer2_step"]
        for word, (value, index) in enumerate(line):
            inner = word // r["inner2"]
            at = first + inner // r["inner1"] * r["inner0_step"] + inner % r["inner1"] * r["inner1_step"]
            at = (at + word % r["inner2"] * r["inner2_step"]) % 2**32
            written.append((r["space"], r["half"], at // BANK, at % BANK, value, index, 0))
    return written


def drawn(rng: np.random.Generator, target: Target) -> dict[str, int]:
    """Any load through SORE that may be."""
    size = target.size(Space.N2S)
    while True:
        across = int(rng.integers(2))
        r = {f"count{i}": int(rng.integers(1, 5)) for i in range(4)}
        r |= {f"step{i}": 2 * int(rng.integers(-60, 61)) for i in range(4)}
        r |= {"across": across, "run": int(rng.integers(1, 40)), "which": int(rng.integers(2))}
        r["address"], r["address1"] = (2 * int(x) for x in rng.integers(DEPTH * BEAT // 2, size=2))
        r["words"] = int(rng.integers(1, (target.spec.sore.lanes if across else 50) + 1))
        for side in ("inner", "outer"):
            r |= {f"{side}{i}_step": int(rng.integers(-1, 2)) * BANK + int(rng.integers(-8, 9)) for i in range(3)}
            r |= {f"{side}{i}": int(rng.integers(1, 8)) for i in (1, 2)}
        if rng.random() < 0.7:
            r["inner2_step"] = int(rng.choice((1, BANK)))
        r["place"] = place(int(rng.integers(size.banks)), int(rng.integers(size.depth)))
        r |= {"space": Space.N2S, "form": Form.OPERAND, "half": int(rng.integers(2)), "reduce": 1}
        registers = usual(Unit.LOAD, **r)
        lines = [r["address1" if r["which"] else "address"]]
        for i in range(4):
            lines = [at + n * r[f"step{i}"] for at in lines for n in range(r[f"count{i}"])]
        if min(lines) < 0 or max(lines) + 2 * r["words"] > DEPTH * BEAT:
            continue
        found = reduced(registers, bytes(DEPTH * BEAT), target)
        if all(bank < size.banks and address < size.depth for _, _, bank, address, *_ in found):
            return registers


def ran(name: str, registers: dict[str, int], cycles: int, seed: int | None = None) -> dict[str, Any]:
    bench = machine(name)
    bench.reset()
    payload = wide([as_command(Unit.LOAD, registers)], cycles, bench.inputs["command__payload"].words)
    fed = {"command__valid": np.arange(cycles) < 1, "command__payload": payload, "size": DEPTH * BEAT}
    return bench.run(fed | holds(seed, cycles), cycles)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), SEEDS)
def test_a_load_through_sore_writes_each_pair_in_its_place_in_the_cycles_that_are_said(
    name: str, drawing: int, seed: int | None
) -> None:
    target = MACHINES[name]
    registers = drawn(np.random.default_rng(drawing), target)
    expected = reduced(registers, contents().tobytes(), target)
    cycles = load_cycles(registers, target, BEAT, LATENCY)
    seen = ran(name, registers, cycles + 20 if seed is None else 12 * cycles + 400, seed)
    assert not seen["error"].any()
    times = np.flatnonzero(seen["writes"])
    assert [word for t in times for word in words_of(seen["write"][t])] == expected
    assert np.flatnonzero(seen["done"]).tolist() == [times[-1]]
    if seed is None:
        assert times[-1] == cycles


N2S = TARGET.size(Space.N2S)


@pytest.mark.parametrize(
    ("registers", "error", "value"),
    [
        ({"words": 5, "across": 1}, MachineError.COMMAND, 0),
        ({"place": place(N2S.banks - 1, N2S.depth - 1), "inner2_step": 1}, MachineError.PLACE, place(3, N2S.depth)),
        ({"address": DEPTH * BEAT - 8}, MachineError.WINDOW, DEPTH * BEAT - 8),
    ],
)
def test_an_error_stops_a_load_through_sore(registers: dict[str, int], error: MachineError, value: int) -> None:
    plain = {"space": Space.N2S, "form": Form.OPERAND, "words": 8, "inner2": 8, "reduce": 1}
    seen = ran("tiny", usual(Unit.LOAD, **plain | registers), 80)
    assert (seen["error"][-1], seen["value"][-1]) == (error, value)
    assert not seen["done"].any()
    for t in np.flatnonzero(seen["writes"]):
        assert all(address < N2S.depth for _, _, _, address, *_ in words_of(seen["write"][t]))


def test_what_does_not_go_into_n2s_as_operands_goes_past_sore() -> None:
    r = usual(Unit.LOAD, space=Space.W2E, form=Form.OPERAND, words=8, inner2=8, inner2_step=1, reduce=1)
    seen = ran("tiny", r, 80)
    assert not seen["error"].any()
    assert sum(len(words_of(seen["write"][t])) for t in np.flatnonzero(seen["writes"])) == 8
