"""Neurons behind the stepped XNOR engine against words and memories one by one, and against products of integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.neuron import Neurons, largest_membrane, require_membrane
from weft.dataflow.xnor.words import largest_sum
from weft.simulator.reference.xnor import xnor_reference
from weft.simulator.reference.xnor_neuron import neuron_reference
from weft.simulator.xnor import run_xnor
from weft.simulator.xnor_neuron import fire, neurons_of, run_spiking
from weft.workloads.errors import InputError
from weft.workloads.levels import Levels

from ..examples_drawn import examples
from ..strategies import LEVELS, gemms, integers_of, xnor_mappings, xnor_specs
from .test_xnor import ONCE, machine


def int32(*values: object) -> np.ndarray:
    return np.array(values, np.int32)


def by_hand(sums: list[int], leak: int, threshold: int) -> tuple[list[int], list[int]]:
    """Spikes and membranes of one neuron."""
    u, spikes, membranes = 0, [], []
    for s in sums:
        u = u - u // 2**leak + s
        spikes.append(int(u >= threshold))
        u -= threshold * spikes[-1]
        membranes.append(u)
    return spikes, membranes


def test_a_neuron_on_paper() -> None:
    """Half of the membrane stays, rounded up; what is above the threshold stays; a tie fires."""
    u, spikes, membranes = None, [], []
    for s in (3, 3, -9, 1, 7):
        out, u = fire(int32([s]), u, Neurons(1, int32(5)))
        spikes.append(int(out.item()))
        membranes.append(int(u.item()))
    # 3; 2 + 3 = 5 fires; 0 - 9; -4 + 1 = -3 as -9 >> 1 is -5; -1 + 7 = 6 fires
    assert (spikes, membranes) == ([0, 1, 0, 0, 1], [3, 0, -9, -3, 1])


@pytest.mark.parametrize("leak", [0, 1, 3, 31])
def test_a_neuron_is_that_of_the_page(leak: int) -> None:
    rng = np.random.default_rng(leak)
    sums, threshold = rng.integers(-40, 60, (30, 5)), int32(1, 2, 17, 50, 2**31 - 1)
    u, spikes, membranes = None, [], []
    for row in sums:
        out, u = fire(row[None].astype(np.int32), u, Neurons(leak, threshold))
        spikes.append(out[0].astype(int).tolist())
        membranes.append(u[0].tolist())

    for c, at in enumerate(threshold.tolist()):
        want = by_hand(sums[:, c].tolist(), leak, at)
        assert ([row[c] for row in spikes], [row[c] for row in membranes]) == want
    if leak == 0:
        assert (np.array(spikes) == (sums >= threshold)).all(), "a leak of 0 forgets"


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_layers_of_neurons_are_those_of_registers_and_memories(data: st.DataObject) -> None:
    """Both dataflows, words skipped or not: every spike, every membrane, every cycle of every time step."""
    spec, gemm, levels = data.draw(xnor_specs()), data.draw(gemms(8, 8)), data.draw(LEVELS)
    mapping, skip = data.draw(xnor_mappings(spec)), data.draw(st.booleans())
    steps, leak = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4))
    b = data.draw(integers_of(levels, gemm.k, gemm.n))
    spikes = np.stack([data.draw(integers_of(Levels.SPIKE, gemm.m, gemm.k)) for _ in range(steps)]).astype(bool)
    threshold = np.array(data.draw(st.lists(st.integers(1, 9), min_size=gemm.n, max_size=gemm.n)), np.int32)

    made = run_spiking(spec, mapping, spikes, b, levels, Neurons(leak, threshold), run=gemm.run, skip=skip)

    cols = spec.xnor.cols
    memories: list[list[int]] = [[] for _ in range(cols)]
    cycles = 0
    for step, events in enumerate(spikes):
        sides = (Levels.SPIKE, levels)
        registers = xnor_reference(spec, mapping, events.astype(int), b, sides, run=gemm.run, skip=skip)
        want = neuron_reference(registers, cols, leak, threshold.tolist(), memories)
        assert made.spikes[step].tolist() == want.tolist()
        assert made.steps[step].left.tolist() == registers.left.tolist()
        cycles += registers.cycles
    assert made.length == cycles
    for c, memory in enumerate(memories):
        order = sorted((int(registers.left[m, n]), m, n) for m in range(gemm.m) for n in range(c, gemm.n, cols))
        assert [int(made.membrane[m, n]) for _, m, n in order] == memory
    for m in range(gemm.m):
        for n in range(gemm.n):
            sums = [int(s) for s in spikes[:, m].astype(int) @ b[:, n]]
            fired, membranes = by_hand(sums, leak, int(threshold[n]))
            assert (made.spikes[:, m, n].astype(int).tolist(), int(made.membrane[m, n])) == (fired, membranes[-1])
    assert made.membrane_bytes == 4 * gemm.m * gemm.n * (steps - 1)


def test_one_time_step_is_a_threshold_and_moves_no_membrane() -> None:
    rng = np.random.default_rng(1)
    a, b, at = rng.random((1, 9, 40)) < 0.3, rng.integers(-1, 2, (40, 7)), int32(*range(1, 8))
    spec, mapping = machine(word_bits=8), XnorMapping(dataflow=Dataflow.OS, interleave=2)

    made = run_spiking(spec, mapping, a, b, Levels.TERNARY, Neurons(3, at))

    assert made.spikes[0].tolist() == (a[0].astype(int) @ b >= at).tolist()
    assert made.membrane_bytes == 0
    alone = run_xnor(spec, mapping, a[0].astype(int), b, (Levels.SPIKE, Levels.TERNARY), skip=True)
    assert made.length == alone.length, "neurons take no cycles"


@settings(max_examples=examples(300))
@given(st.integers(0, 6), st.integers(1, 12), st.integers(1, 9), st.data())
def test_a_membrane_stays_within_its_bound(leak: int, steps: int, largest: int, data: st.DataObject) -> None:
    sums = data.draw(st.lists(st.integers(-largest, largest), min_size=steps, max_size=steps))
    threshold = data.draw(st.integers(1, 12))
    u = 0
    for s in sums:
        u += s - u // 2**leak
        assert abs(u) <= largest_membrane(largest, leak, steps)
        u -= threshold * (u >= threshold)


def test_the_bound_is_reached() -> None:
    """By equal sums below the threshold: after so many steps, and where a leak takes what one brings."""
    for leak, steps in ((5, 4), (2, 40)):
        u = 0
        for _ in range(steps):
            u += 3 - u // 2**leak
        assert u == largest_membrane(3, leak, steps) == 12


def test_membranes_that_32_bits_may_not_hold_are_refused() -> None:
    k, levels = 2**17, (Levels.SPIKE, Levels.INT8)
    most = (2**31 - 1) // largest_sum(k, *levels)
    require_membrane(k, *levels, leak=31, steps=most)
    require_membrane(k, *levels, leak=most.bit_length() - 1, steps=10**9)
    with pytest.raises(InputError, match=f"may reach 2.31 at a leak of 31, .* take {most} time steps, or a leak of 6"):
        require_membrane(k, *levels, leak=31, steps=most + 1)
    with pytest.raises(InputError, match="membranes of 200 time steps"):
        run_spiking(
            machine(), ONCE, np.ones((200, 1, k), bool), np.full((k, 1), -128), Levels.INT8, Neurons(31, int32(1))
        )
    with pytest.raises(InputError, match=r"the membrane at \[0, 0\] becomes 2147483648, beyond 32 bits"):
        fire(int32([1]), int32([2**31 - 1]), Neurons(31, int32(1)))


SPIKES = np.ones((2, 3, 4), bool)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"leak": 32}, "leak must be an integer from 0 to 31, not 32; the nearest valid value is 31"),
        ({"threshold": np.ones(2)}, r"threshold must be int32 \[n\], one a channel, not float64 \[2\]"),
        ({"threshold": int32(3, 0)}, "threshold of channel 1 must be 1 or more, not 0"),
        ({"threshold": int32(1)}, "threshold must be one a channel, 2 of them, not 1"),
        ({"spikes": SPIKES[0]}, r"spikes must be bool \[steps, m, k\], not bool \[3, 4\]"),
        ({"spikes": SPIKES.astype(int)}, "spikes must be bool"),
        ({"b": np.full((4, 2), 2)}, "b holds 2 at .*, which is no value of ternary"),
    ],
)
def test_layers_that_are_none_are_refused(given: dict, message: str) -> None:
    full = {"spikes": SPIKES, "b": np.ones((4, 2), int), "leak": 1, "threshold": int32(1, 1)} | given
    with pytest.raises(InputError, match=message):
        neurons = Neurons(full["leak"], full["threshold"])
        run_spiking(machine(), ONCE, full["spikes"], full["b"], Levels.TERNARY, neurons)


def test_membranes_of_another_layer_are_refused() -> None:
    with pytest.raises(InputError, match=r"membrane must be int32 \[1, 2\], not int64 \[1, 2\]"):
        fire(int32([1, 1]), np.ones((1, 2), np.int64), Neurons(1, int32(1, 1)))


@given(st.floats(2**-10, 2**10, width=32), st.floats(2**-20, 2**4, width=32))
def test_a_threshold_in_integers_is_that_of_the_floats(threshold: float, scale: float) -> None:
    """In one time step: the least sum whose current is the threshold or more."""
    at = int(neurons_of(np.array([threshold], np.float32), scale, 1).threshold[0])

    assert at * Fraction(scale) >= Fraction(threshold) or at == 2**31 - 1
    assert (at - 1) * Fraction(scale) < Fraction(threshold)


@pytest.mark.parametrize(
    ("threshold", "scale", "message"),
    [
        ([1.0], 0.0, "scale must be a number above 0, not 0.0"),
        ([1.0], float("inf"), "scale must be a number above 0, not inf"),
        ([1.0, -0.5], 1.0, "threshold must be above 0, not -0.5"),
        ([float("nan")], 1.0, "threshold must be above 0, not nan"),
    ],
)
def test_thresholds_that_never_are_one_are_refused(threshold: list[float], scale: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        neurons_of(np.array(threshold, np.float32), scale, 1)
