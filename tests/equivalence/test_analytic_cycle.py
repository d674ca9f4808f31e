"""Level 1 equals level 2: the closed forms of `dataflow/` against the machine stepped on real values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import SoreSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.engine_time import compares_per_group, sore_issue, sore_latency, wuve_latency
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.spec import ArraySpec
from weft.dataflow.stce.time import array_cycles
from weft.hdl.blocks.batcher import batcher_stages
from weft.simulator.array import run_array
from weft.simulator.engines import run_sore, run_wuve
from weft.simulator.reference import gemm_reference, wuve_reference
from weft.simulator.update_settings import Adam, AdamW, Nesterov, Sgd
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

from ..examples_drawn import examples
from ..strategies import array_mappings, compacts, gemms, halves, make_spec, most_interleave, patterns, specs


@settings(max_examples=examples(400))
@given(st.data())
def test_closed_form_equals_the_stepped_array_in_every_cause(data):
    spec = data.draw(specs())
    mapping = data.draw(array_mappings(spec))
    gemm = data.draw(gemms())
    b = data.draw(compacts(gemm, mapping.pattern))
    a = data.draw(halves(gemm.m, gemm.k))

    run = run_array(spec, mapping, a, b)

    assert run.cycles == array_cycles(spec, gemm, mapping)
    assert run.cycles.total > int(run.left.max())
    assert run.result.tobytes() == gemm_reference(a, b).tobytes()


@pytest.mark.parametrize("dataflow", Dataflow)
@pytest.mark.parametrize("pattern", ["1:1", "1:4", "2:4", "2:8", "4:8", "2:16"])
def test_closed_form_equals_the_stepped_array_at_full_size(dataflow, pattern):
    """32 x 32, a contraction of kernel taps, ragged everywhere."""
    spec = load_spec("sat-vcu1525")
    executed = NMPattern.parse(pattern)
    interleave = min(5, most_interleave(spec, dataflow, executed))
    mapping = ArrayMapping(dataflow=dataflow, pattern=executed, interleave=interleave)
    gemm = Gemm(m=101, k=9 * 21, n=203, run=21)
    rng = np.random.default_rng(7)
    a = rng.standard_normal((gemm.m, gemm.k)).astype(np.float16)
    b = rng.standard_normal((gemm.k, gemm.n)).astype(np.float16)

    run = run_array(spec, mapping, a, b, run=gemm.run)

    assert run.cycles == array_cycles(spec, gemm, mapping)


def test_dense_is_the_same_in_every_group_size():
    """1:1 in OS and D:D in WS add the same products in the same order."""
    spec = load_spec("tiny")
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((13, 13)).astype(np.float16) for _ in range(2))
    runs = [run_array(spec, ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=3), a, b)]
    for held in (1, 2, 4):
        pattern = NMPattern(keep=held, group=held)
        runs.append(run_array(spec, ArrayMapping(dataflow=Dataflow.WS, pattern=pattern, interleave=3), a, b))

    assert len({run.result.tobytes() for run in runs}) == 1


@settings(max_examples=examples(150))
@given(st.data())
def test_sore_takes_its_closed_form(data):
    spec = data.draw(specs())
    pattern = data.draw(patterns(spec.pe.max_group))
    gemm = data.draw(gemms())
    values = data.draw(halves(gemm.k, gemm.n))
    groups = gemm.n * (gemm.k // gemm.run) * -(-gemm.run // pattern.group)

    run = run_sore(spec, values, pattern, gemm.run)

    assert run.cycles == sore_issue(groups, pattern, spec) + sore_latency(pattern, spec)


@settings(max_examples=examples(100))
@given(st.data(), st.integers(1, 70))
def test_wuve_takes_its_closed_form(data, count):
    spec = data.draw(specs())
    state = np.zeros(count, np.float32)
    gradient = np.ones(count, np.float16)
    issue = -(-count // spec.wuve.lanes)
    for step in (Sgd(rate=0.1), Nesterov(rate=0.1), Adam(rate=0.1, step=1), AdamW(rate=0.1, step=1)):
        run = run_wuve(spec, step, state, gradient, (state,) * len(step.rule.state))
        _, cycles = wuve_reference(spec, step, state, gradient, (state,) * len(step.rule.state))
        assert run.cycles == cycles == issue + wuve_latency(step.rule, spec.pe)


@pytest.mark.parametrize("pattern", ["1:1", "1:2", "2:4", "2:8", "4:8", "3:13", "2:16"])
def test_compared_is_what_the_networks_of_the_rtl_compare(pattern):
    executed = NMPattern.parse(pattern)
    spec = make_spec(array=ArraySpec(rows=1, cols=1), sore=SoreSpec(kind="network"))
    networks = [batcher_stages(inputs) for inputs in (executed.group, executed.keep)]
    assert compares_per_group(executed, spec) == sum(len(stage) for network in networks for stage in network)
