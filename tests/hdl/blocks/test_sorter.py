# amaranth: UnusedElaboratable=no
# A component that refuses its arguments is never used.
"""SORE's lanes and engine: what leaves, and in which cycle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil

from weft.dataflow.accelerator import AcceleratorSpec, SoreSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.engine_time import sore_latency
from weft.hdl.blocks.batcher import batcher_stages
from weft.hdl.blocks.sorter import NetworkLane, SerialLane, Sore, network_latency
from weft.workloads.errors import InputError
from weft.workloads.sparsity import NMPattern

from ..stepping import step

ONE, MINUS_ONE, TWO, MINUS_TWO, THREE = 0x3C00, 0xBC00, 0x4000, 0xC000, 0x4200
INFINITY, NAN = 0x7C00, 0xFC01
TWO_OF_FOUR = NMPattern(keep=2, group=4)

Pair = tuple[int, int]


def serial(groups: list[list[int]], pattern: NMPattern = TWO_OF_FOUR) -> dict[int, tuple[Pair, int]]:
    """Cycle to ((value, index), flag) of everything that leaves a serial lane."""
    values = [value for group in groups for value in group + [0] * (pattern.group - len(group))]
    valid = [int(j < len(group)) for group in groups for j in range(pattern.group)]
    index = [j for _ in groups for j in range(pattern.group)]
    last = [int(j == pattern.group - 1) for _ in groups for j in range(pattern.group)]
    inputs = {"value": values, "valid": valid, "index": index, "last": last}
    seen = step(SerialLane(pattern), inputs, len(values) + pattern.group)
    return {
        t: ((seen["pair__value"][t], seen["pair__index"][t]), seen["nan"][t])
        for t, leaves in enumerate(seen["pair__valid"])
        if leaves
    }


def network(groups: list[list[int]], pattern: NMPattern = TWO_OF_FOUR) -> dict[int, tuple[list[Pair], int]]:
    """Cycle to (pairs, flag) of everything that leaves a network lane."""
    inputs = {f"value__{j}": [(g + [0] * pattern.group)[j] for g in groups] for j in range(pattern.group)}
    inputs["valid"] = [(1 << len(group)) - 1 for group in groups]
    seen = step(NetworkLane(pattern), inputs, len(groups) + network_latency(pattern) + 4)
    kept = range(pattern.keep)
    return {
        t: (
            [
                (seen[f"pair__{p}__value"][t], seen[f"pair__{p}__index"][t])
                for p in kept
                if seen[f"pair__{p}__valid"][t]
            ],
            f,
        )
        for t, f in enumerate(seen["nan"])
        if any(seen[f"pair__{p}__valid"][t] for p in kept)
    }


GROUPS = {
    "ties keep the lower index whatever the sign": ([MINUS_TWO, ONE, TWO, MINUS_TWO], [(MINUS_TWO, 0), (TWO, 2)], 0),
    "the later of equals goes": ([ONE, MINUS_ONE, TWO, ONE], [(ONE, 0), (TWO, 2)], 0),
    "a NaN is larger than infinity": ([INFINITY, NAN, INFINITY, TWO], [(INFINITY, 0), (NAN, 1)], 1),
    "pairs leave in index order": ([ONE, THREE, MINUS_ONE, TWO], [(THREE, 1), (TWO, 3)], 0),
    "zeros keep their bits": ([0x8000, 0, 0x8000, 0], [(0x8000, 0), (0, 1)], 0),
    "a short group": ([TWO, ONE, THREE], [(TWO, 0), (THREE, 2)], 0),
    "a group of one": ([NAN], [(NAN, 0)], 1),
}


@pytest.mark.parametrize("case", GROUPS)
def test_a_serial_lane_lets_pairs_go_after_the_whole_group(case):
    group, pairs, flag = GROUPS[case]
    assert serial([group]) == {4 + p: (pair, flag) for p, pair in enumerate(pairs)}


@pytest.mark.parametrize("case", GROUPS)
def test_a_network_lane_lets_a_group_go_after_both_networks(case):
    group, pairs, flag = GROUPS[case]
    assert network([group]) == {3 + 1: (pairs, flag)}


def test_groups_follow_each_other_without_a_trace():
    groups = [group for group, _, _ in GROUPS.values()]
    expected = [(pairs, flag) for _, pairs, flag in GROUPS.values()]

    assert network(groups) == {4 + g: found for g, found in enumerate(expected)}
    assert serial(groups) == {
        4 * (g + 1) + p: (pair, flag) for g, (pairs, flag) in enumerate(expected) for p, pair in enumerate(pairs)
    }


def machine(**sore: object) -> AcceleratorSpec:
    spec = load_spec("tiny")
    return replace(spec, sore=SoreSpec(**sore), pe=replace(spec.pe, max_group=16))


def test_a_serial_engine_waits_where_no_step_is_taken():
    group, pairs, _ = GROUPS["pairs leave in index order"]
    engine = Sore(machine(lanes=1), TWO_OF_FOUR)
    gaps = [1, 0, 1, 1, 0, 0, 1]
    feed = iter(group)
    inputs = {"step": gaps, "valid__0": [1] * 7, "value__0__0": [next(feed) if taken else NAN for taken in gaps]}

    seen = step(engine, inputs, 12)

    assert seen["leaving"] == [int(t == 7) for t in range(12)]
    assert seen["pair__0__0__valid"] == [int(t in (7, 8)) for t in range(12)]
    assert [(seen["pair__0__0__value"][t], seen["pair__0__0__index"][t]) for t in (7, 8)] == pairs
    assert seen["nan__0"][7] == 0


def test_a_network_engine_ignores_what_comes_without_a_step():
    engine = Sore(machine(kind="network", lanes=2), TWO_OF_FOUR)
    seen = step(engine, {"step": [0, 1, 0], "valid__0": [15] * 3, "valid__1": [0] * 3}, 9)

    assert seen["leaving"] == seen["pair__0__0__valid"] == seen["pair__0__1__valid"] == [int(t == 5) for t in range(9)]
    assert not any(seen["pair__1__0__valid"])


@pytest.mark.parametrize("text", ["1:1", "1:4", "2:4", "2:8", "4:8", "2:16", "5:13"])
def test_a_network_is_as_deep_as_the_closed_form_says(text):
    pattern = NMPattern.parse(text)
    assert network_latency(pattern) == sore_latency(pattern, machine(kind="network"))


@pytest.mark.parametrize("wires", [1, 2, 4, 8, 16])
def test_the_network_sorts_every_pattern_of_zeros_and_ones(wires):
    # The zero-one principle: a network that sorts these sorts everything.
    words = (np.arange(2**wires)[:, None] >> np.arange(wires)) & 1
    for stage in batcher_stages(wires):
        touched = [wire for pair in stage for wire in pair]
        assert len(touched) == len(set(touched))
        for i, j in stage:
            words[:, i], words[:, j] = np.maximum(words[:, i], words[:, j]), np.minimum(words[:, i], words[:, j])
    assert (np.diff(words, axis=1) <= 0).all()


@pytest.mark.parametrize("kind", ["serial", "network"])
def test_a_black_box_emits_the_lane_once(kind):
    engine = Sore(machine(kind=kind, lanes=5), TWO_OF_FOUR, blackbox=True)
    text = rtlil.convert(engine, name="sore", emit_src=False)

    assert text.count("cell \\sore_lane ") == 5
    assert text.count("\nmodule ") + text.startswith("module ") == 1
    parts = {name: rtlil.convert(part, name=name) for name, part in engine.parts.items()}
    assert list(parts) == ["sore_lane"]


def test_a_group_longer_than_the_machine_holds_is_refused():
    with pytest.raises(InputError, match="pattern 1:32 has groups of 32"):
        Sore(machine(), NMPattern(keep=1, group=32))
