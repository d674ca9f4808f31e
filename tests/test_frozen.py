"""The figures of five steps on every machine that ships, to the last digit (frozen.py)."""

from __future__ import annotations

import json

import pytest

from weft.dataflow.config_io import preset_names
from weft.dataflow.objective import Objective

from .frozen import (
    BINARY_MACHINES,
    FILE,
    MACHINES,
    OBJECTIVES,
    SCHEMES,
    SIZES,
    all_figures,
    binary_figures,
    figures,
    traced,
)

HELD = json.loads(FILE.read_text())


def test_every_combination_is_held():
    names = {f"{m} {s} {a} {o}" for m in SIZES for s in SCHEMES for a in MACHINES for o in OBJECTIVES}
    names |= {f"binary dense {a} {o}" for a in BINARY_MACHINES for o in OBJECTIVES}
    assert HELD.keys() == names
    assert {*MACHINES, *BINARY_MACHINES} == set(preset_names())
    assert sum("refused" in held for held in HELD.values()) < len(HELD) / 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("machine", ["sat-vcu1525", "tiny"])
def test_a_small_step_has_moved_by_nothing(scheme, machine):
    found = figures(traced("resnet9"), scheme, machine, Objective.THRIFT)
    assert found == HELD[f"resnet9 {scheme} {machine} thrift"]


def test_a_step_on_two_engines_has_moved_by_nothing():
    for name, found in binary_figures():
        assert found == HELD[name]
        assert found["counts"]["popcounts"] > 0


@pytest.mark.slow
def test_no_figure_has_moved():
    moved = {name: (HELD[name], found) for name, found in all_figures() if found != HELD[name]}
    assert not moved
