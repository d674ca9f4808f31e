"""Blocks between streams: the simulator's cycles are those of a block stepped clock by clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.engine_time import sore_issue, sore_latency, wuve_latency
from weft.dataflow.pregenerate import tile_plan
from weft.dataflow.streams import pregenerate_streams, sore_streams, wuve_streams
from weft.simulator.reference.streams import streams_reference
from weft.simulator.streams import run_streams
from weft.workloads.errors import InputError
from weft.workloads.update_rule import ADAM, SGD

from ..strategies import holds, patterns, receivers, specs


@st.composite
def plans(draw):
    """A block of any machine, and beats that enter it: whole rounds or tiles."""
    spec = draw(specs())
    pattern, rule = draw(patterns(max_group=spec.pe.max_group)), draw(st.sampled_from((SGD, ADAM)))
    tile = tile_plan(spec, rule, pattern, draw(st.integers(1, 2)))
    plan = draw(
        st.sampled_from(
            (sore_streams(spec, pattern), wuve_streams(spec, rule), pregenerate_streams(spec, pattern, tile))
        )
    )
    every = max(flow.every for flow in plan.outputs)
    return plan, every * draw(st.integers(1, max(1, 60 // every)))


@given(made=plans(), data=st.data())
def test_waits_are_those_of_a_block_stepped_by_the_clock(made, data):
    plan, beats = made
    offered, ready = ~data.draw(holds()), data.draw(receivers(len(plan.outputs)))
    got = run_streams(plan, beats, offered, ready)
    flows = [(flow.every, flow.after) for flow in plan.outputs]
    accepts, valids, entered, taken = streams_reference(
        flows,
        plan.fill,
        plan.pause,
        beats,
        lambda t: t >= len(offered) or bool(offered[t]),
        lambda t, output: t >= len(ready) or bool(ready[t, output]),
    )

    assert got.entered.tolist() == entered
    assert [times.tolist() for times in got.taken] == taken
    assert got.cycles == len(valids)
    assert got.open.tolist() == np.flatnonzero(accepts).tolist()
    for output, (shown, last) in enumerate(zip(got.shown, got.taken, strict=True)):
        there = [t for first, end in zip(shown, last, strict=True) for t in range(first, end + 1)]
        assert there == [t for t, seen in enumerate(valids) if seen[output]]
    # nothing is lost and nothing comes twice
    assert [len(times) for times in taken] == [beats // every * len(after) for every, after in flows]


@given(spec=specs(), data=st.data())
def test_what_never_waits_takes_the_cycles_of_the_closed_forms(spec, data):
    pattern = data.draw(patterns(max_group=spec.pe.max_group))
    count = data.draw(st.integers(1, 9))
    issue = sore_issue(count * spec.sore.lanes, pattern, spec)
    assert run_streams(sore_streams(spec, pattern), issue).cycles == issue + sore_latency(pattern, spec)
    wuve = run_streams(wuve_streams(spec, SGD), count)
    assert wuve.cycles == count + wuve_latency(SGD, spec.pe)
    assert wuve.entered.tolist() == list(range(count))
    tile = tile_plan(spec, SGD, pattern, 2)
    line = run_streams(pregenerate_streams(spec, pattern, tile), tile.fill * count)
    assert line.cycles == tile.cycles(tile.blocks * count)


def test_waits_of_another_shape_are_refused():
    plan = wuve_streams(load_spec("tiny"), SGD)
    with pytest.raises(InputError, match=r"offered must be bool \[cycles\], not int64 \[3\]"):
        run_streams(plan, 1, np.arange(3))
    with pytest.raises(InputError, match=r"ready must be bool \[cycles\], not bool \[3, 2\]"):
        run_streams(plan, 1, ready=np.ones((3, 2), np.bool_))
