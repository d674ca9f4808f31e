"""WUVE feeding SORE in RTL against the simulator: every bit of the update and of both copies, in every cycle."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.pregenerate import COPIES, WeightShape, tile_plan, walk
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.dataflow.streams import pregenerate_streams
from weft.hdl.drivers.engines import PregenerateDriver
from weft.simulator.pregenerate import run_pregenerate
from weft.simulator.streams import run_streams
from weft.simulator.update_settings import Sgd
from weft.workloads.sparsity import NMPattern

from ..examples_drawn import examples
from ..strategies import copy_sets, halves, holds, make_spec, receivers, singles, weight_shapes
from .waiting import assert_waits

MACHINES = {
    # kind, lanes of SORE, lanes of WUVE, pattern: tiles of one block and of several, SORE the slower and the faster.
    "serial, as many lanes": ("serial", 4, 4, "2:4"),
    "network, a group that is no power of two": ("network", 3, 4, "2:5"),
    "serial, lanes that do not divide the group": ("serial", 6, 5, "3:4"),
    "network, WUVE the slower": ("network", 2, 3, "1:4"),
}


@cache
def driver(name: str) -> PregenerateDriver:
    kind, sore, wuve, text = MACHINES[name]
    spec = make_spec(
        array=ArraySpec(rows=1, cols=1),
        pe=PESpec(multiply_latency=1, add_latency=1),
        sore=SoreSpec(kind=kind, lanes=sore),
        wuve=WuveSpec(lanes=wuve),
    )
    return PregenerateDriver(spec, NMPattern.parse(text), Sgd.rule)


RULE = Sgd(rate=0.5, momentum=0.75, weight_decay=0.25)


def check(driver, shape, copies, master, gradient, velocity, **stalls):
    spec, pattern = driver.spec, driver.pattern
    want = run_pregenerate(spec, RULE, pattern, shape, master, gradient, (velocity,), copies, **stalls)
    got = driver.run(
        shape,
        RULE.constants,
        master.view(np.uint32),
        gradient.view(np.uint16),
        [velocity.view(np.uint32)],
        copies,
        cycles=want.cycles + 8,
        **stalls,
    )
    plan = tile_plan(spec, RULE.rule, pattern, len(copies))
    beats = plan.fill * len(walk(plan, pattern, shape, copies))
    assert_waits(got.ran, run_streams(pregenerate_streams(spec, pattern, plan), beats, **stalls))
    assert got.update.master.tolist() == want.update.master.view(np.uint32).tolist()
    assert got.update.state[0].tolist() == want.update.state[0].view(np.uint32).tolist()
    assert got.update.weights16.tolist() == want.update.weights16.view(np.uint16).tolist()
    assert got.update.left.tolist() == want.update.left.tolist()
    for copy in copies:
        made, expected = got.copies[copy], want.copies[copy]
        assert made.values.tolist() == expected.compact.values.view(np.uint16).tolist()
        assert made.indices.tolist() == expected.compact.indices.tolist()
        assert made.left.tolist() == expected.left.tolist()
        assert made.nan_flags.tolist() == expected.nan_flags.tolist()
    assert got.cycles == want.cycles


@pytest.mark.parametrize(
    "name", [*list(MACHINES)[:1], *(pytest.param(n, marks=pytest.mark.slow) for n in list(MACHINES)[1:])]
)
@settings(max_examples=examples(40))
@given(data=st.data(), shape=weight_shapes(), copies=copy_sets())
def test_rtl_equals_the_simulator(name, data, shape, copies):
    n = shape.elements
    check(driver(name), shape, copies, data.draw(singles(n)), data.draw(halves(n)), data.draw(singles(n)))


@pytest.mark.parametrize(
    "name", [*list(MACHINES)[:1], *(pytest.param(n, marks=pytest.mark.slow) for n in list(MACHINES)[1:])]
)
@settings(max_examples=examples(40))
@given(shape=weight_shapes(), copies=copy_sets(), seed=st.integers(0, 2**32 - 1), held=holds(), ready=receivers(2))
def test_it_waits_for_whom_it_serves_and_loses_nothing(name, shape, copies, seed, held, ready):
    """Beats that come late, and two receivers: no half of the buffer is written before it is read."""
    rng, n = np.random.default_rng(seed), shape.elements
    master, velocity = (rng.standard_normal(n).astype(np.float32) for _ in range(2))
    gradient = rng.standard_normal(n).astype(np.float16)
    check(driver(name), shape, copies, master, gradient, velocity, offered=~held, ready=ready)


def test_a_long_run_of_raw_bits():
    shape, rng = WeightShape(taps=9, inputs=22, outputs=17), np.random.default_rng(3)
    n = shape.elements
    master, velocity = (rng.integers(0, 2**32, n, np.uint32).view(np.float32) for _ in range(2))
    gradient = rng.integers(0, 2**16, n, np.uint16).view(np.float16)
    check(driver("serial, as many lanes"), shape, COPIES, master, gradient, velocity)
