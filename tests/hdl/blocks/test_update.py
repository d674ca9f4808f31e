"""WUVE's lanes and engine: what leaves, and in which cycle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil

from weft.dataflow.accelerator import AcceleratorSpec, WuveSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.engine_time import wuve_latency
from weft.hdl.blocks.update import Wuve
from weft.workloads.update_rule import UPDATE_RULES

from ..stepping import step


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def half(value: float) -> int:
    return int(np.float16(value).view(np.uint16))


def machine(lanes: int = 1, multiply_latency: int = 1, add_latency: int = 1) -> AcceleratorSpec:
    spec = load_spec("tiny")
    pe = replace(spec.pe, multiply_latency=multiply_latency, add_latency=add_latency)
    return replace(spec, pe=pe, wuve=WuveSpec(lanes=lanes))


SGD = {"inverse_scale": 0.5, "weight_decay": 0.25, "momentum": 0.5, "rate": 2.0}
# g = 4 / 2 + 8 / 4 = 4; v = 2 / 2 + 4 = 5; w = 8 - 2 * 5 = -2
SGD_CASE = {"master": 8.0, "velocity": 2.0}, {"next_master": -2.0, "next_velocity": 5.0}
# the same g and v; w = 8 - 2 * (4 + 5 / 2) = -5
NESTEROV_CASE = SGD_CASE[0], {"next_master": -5.0, "next_velocity": 5.0}
ADAM = {"inverse_scale": 0.5, "beta1": 0.5, "rest1": 0.5, "beta2": 0.75, "rest2": 0.25, "rate": 3.0, "epsilon": 1.0}
# g = 4 / 2 = 2; m = 4 / 2 + 2 / 2 = 3; v = 4 * 3 / 4 + 4 / 4 = 4; w = 8 - 3 * 3 / (2 + 1) = 5
ADAM_CASE = {"master": 8.0, "mean": 4.0, "square": 4.0}, {"next_master": 5.0, "next_mean": 3.0, "next_square": 4.0}


ADAMW = ADAM | {"shrink": 0.5}
# the same step of 3 from 8 / 2
ADAMW_CASE = ADAM_CASE[0], {**ADAM_CASE[1], "next_master": 1.0}


@pytest.mark.parametrize(
    ("name", "constants", "case", "depth"),
    [
        ("sgd", SGD, SGD_CASE, 4 * 2 + 3 * 3),
        ("nesterov", SGD, NESTEROV_CASE, 5 * 2 + 4 * 3),
        ("adam", ADAM, ADAM_CASE, 3 * 2 + 3 * 3 + 2 * 16),
        ("adamw", ADAMW, ADAMW_CASE, 3 * 2 + 3 * 3 + 2 * 16),
    ],
)
def test_a_parameter_leaves_after_the_depth_and_no_cycle_before(name, constants, case, depth):
    given, expected = case
    rule = UPDATE_RULES[name]
    engine = Wuve(machine(multiply_latency=2, add_latency=3), rule)
    assert engine.latency == depth == wuve_latency(rule, machine(multiply_latency=2, add_latency=3).pe)
    inputs = {name: [bits(value)] * (depth + 2) for name, value in constants.items()}
    inputs |= {f"{name}__0": [0, bits(value)] for name, value in given.items()}
    inputs |= {"gradient16__0": [0, half(4.0)], "valid__0": [0, 1]}

    seen = step(engine, inputs, depth + 3)

    assert seen["leaving__0"] == [int(t == depth + 1) for t in range(depth + 3)]
    assert {name: seen[f"{name}__0"][depth + 1] for name in expected} == {n: bits(v) for n, v in expected.items()}
    assert seen["weight16__0"][depth + 1] == half(expected["next_master"])
    assert [seen["weight16__0"][t] for t in (depth, depth + 2)] == [0, 0]


def test_a_weight_beyond_fp16_becomes_infinity_and_nan_canonical():
    engine = Wuve(machine(lanes=2))
    inputs = {"master__0": [bits(1e6)], "master__1": [0xFFC00001], "valid__0": [1], "valid__1": [1]}

    seen = step(engine, inputs, engine.latency + 1)

    assert [seen[f"weight16__{i}"][-1] for i in range(2)] == [0x7C00, 0x7E00]
    assert seen["next_master__1"][-1] == 0x7FC00000


@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_a_black_box_emits_the_lane_once(rule):
    engine = Wuve(machine(lanes=3), UPDATE_RULES[rule], blackbox=True)
    text = rtlil.convert(engine, name="wuve", emit_src=False)

    assert text.count("cell \\wuve_lane ") == 3
    parts = {name: rtlil.convert(part, name=name) for name, part in engine.parts.items()}
    assert list(parts) == ["wuve_lane"]
