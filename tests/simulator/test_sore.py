"""SORE: the stepped lanes against plain Python lanes, against `compress`, and in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec, SoreSpec
from weft.dataflow.stce.spec import ArraySpec
from weft.simulator.compact import compress
from weft.simulator.engines import batcher_stages, run_sore
from weft.simulator.operand import bits_of
from weft.simulator.reference import sore_reference
from weft.workloads.errors import InputError
from weft.workloads.sparsity import NMPattern

from ..examples_drawn import examples
from ..strategies import array_formats, gemms, halves, make_spec, patterns, specs


def machine(kind: Literal["serial", "network"], lanes: int = 2) -> AcceleratorSpec:
    return make_spec(array=ArraySpec(rows=1, cols=1), sore=SoreSpec(lanes=lanes, kind=kind))


def closed_form(spec: AcceleratorSpec, groups: int, pattern: NMPattern) -> int:
    rounds = -(-groups // spec.sore.lanes)
    if spec.sore.kind == "serial":
        return rounds * pattern.group + pattern.keep
    p, q = (pattern.group - 1).bit_length(), (pattern.keep - 1).bit_length()
    return rounds + p * (p + 1) // 2 + q * (q + 1) // 2


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_every_pair_and_cycle_is_that_of_the_lanes(data: st.DataObject) -> None:
    format = data.draw(array_formats)
    spec, gemm, pattern = data.draw(specs(format)), data.draw(gemms()), data.draw(patterns())
    spec = replace(spec, pe=replace(spec.pe, max_group=16, dense_words=16))
    values = data.draw(halves(gemm.k, gemm.n, format=format))
    found = run_sore(spec, values, pattern, gemm.run)
    pairs, flags, cycles = sore_reference(spec, values, pattern, gemm.run)
    assert found.cycles == cycles == closed_form(spec, len(pairs), pattern)
    assert found.nan_flags.T.ravel().tolist() == flags
    per_column = len(pairs) // gemm.n
    slots = [[p for group in pairs[c * per_column : (c + 1) * per_column] for p in group] for c in range(gemm.n)]
    assert found.compact.indices.T.tolist() == [[index for _, index in column] for column in slots]
    assert bits_of(found.compact.values).T.tolist() == [
        [int.from_bytes(v.tobytes(), "little") for v, _ in col] for col in slots
    ]


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_both_kinds_keep_what_compress_keeps(data: st.DataObject) -> None:
    gemm, pattern = data.draw(gemms()), data.draw(patterns())
    values, lanes = data.draw(halves(gemm.k, gemm.n)), data.draw(st.integers(1, 40))
    expected = compress(values, pattern, gemm.run)
    for kind in ("serial", "network"):
        found = run_sore(machine(kind, lanes), values, pattern, gemm.run)
        assert found.compact.indices.tolist() == expected.indices.tolist()
        assert found.compact.values.view(np.uint16).tolist() == expected.values.view(np.uint16).tolist()
        assert found.nan_flags.tolist() == expected.nan_flags.tolist()


@pytest.mark.parametrize("wires", [1, 2, 4, 8, 16])
def test_the_network_sorts_every_pattern_of_zeros_and_ones(wires: int) -> None:
    # The zero-one principle: a network that sorts these sorts everything.
    words = (np.arange(2**wires)[:, None] >> np.arange(wires)) & 1
    for stage in batcher_stages(wires):
        touched = [wire for pair in stage for wire in pair]
        assert len(touched) == len(set(touched))
        for i, j in stage:
            words[:, i], words[:, j] = np.maximum(words[:, i], words[:, j]), np.minimum(words[:, i], words[:, j])
    assert (np.diff(words, axis=1) <= 0).all()


@pytest.mark.parametrize("inputs", range(1, 33))
def test_the_network_is_as_deep_and_as_large_as_batchers(inputs: int) -> None:
    p = (inputs - 1).bit_length()
    stages = batcher_stages(inputs)
    assert len(stages) == p * (p + 1) // 2
    assert sum(map(len, stages)) == ((p * p - p + 4) * 2**p // 4 - 1 if p else 0)


def test_ties_keep_the_lower_index_whatever_the_sign() -> None:
    values = np.array([[-2.0], [1.0], [2.0], [-2.0]], np.float16)
    for kind in ("serial", "network"):
        found = run_sore(machine(kind), values, NMPattern(keep=2, group=4))
        assert found.compact.indices.ravel().tolist() == [0, 2]
        assert found.compact.values.ravel().tolist() == [-2.0, 2.0]


def test_a_nan_is_kept_before_infinity_and_flagged() -> None:
    values = np.array([[np.inf], [np.nan], [np.inf], [1.0]], np.float16)
    for kind in ("serial", "network"):
        found = run_sore(machine(kind), values, NMPattern(keep=1, group=2))
        assert found.compact.indices.ravel().tolist() == [1, 0]
        assert found.nan_flags.ravel().tolist() == [True, False]


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="values must be a non-empty matrix of float16"):
        run_sore(machine("serial"), np.ones(4, np.float16), NMPattern(keep=1, group=2))
    with pytest.raises(InputError, match="pattern 1:32 has groups of 32"):
        run_sore(machine("serial"), np.ones((4, 1), np.float16), NMPattern(keep=1, group=32))
    with pytest.raises(InputError, match="run must divide k, but k = 4 and run = 3"):
        run_sore(machine("serial"), np.ones((4, 1), np.float16), NMPattern(keep=1, group=2), 3)
