"""WUVE with SORE behind it: the copies are those of the engines alone, the cycles those of the plain-Python machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.pregenerate import COPIES, WeightShape, blocks_of, tile_plan, walk
from weft.dataflow.stce.spec import ArraySpec
from weft.simulator.compact import compress
from weft.simulator.engines import run_wuve
from weft.simulator.pregenerate import run_pregenerate
from weft.simulator.reference import pregenerate_reference
from weft.simulator.update_settings import Adam, AdamW, Nesterov, Sgd
from weft.workloads.errors import InputError
from weft.workloads.sparsity import NMPattern

from ..examples_drawn import examples
from ..strategies import copy_sets, halves, make_spec, patterns, singles, specs, weight_shapes

SGD, ADAM = Sgd(rate=0.5, momentum=0.9), Adam(rate=0.5, step=3)
RULES = SGD, ADAM, Nesterov(rate=0.5, momentum=0.9), AdamW(rate=0.5, step=3, weight_decay=0.25)


@settings(max_examples=examples(150))
@given(data=st.data(), copies=copy_sets(), rule=st.sampled_from(RULES))
def test_every_pair_and_cycle_is_that_of_the_plain_python_machine(data, copies, rule):
    spec = data.draw(specs())
    pattern, shape = data.draw(patterns(min(spec.pe.max_group, 8))), data.draw(weight_shapes())
    n = shape.elements
    master, gradient = data.draw(singles(n)), data.draw(halves(n))
    state = tuple(data.draw(singles(n)) for _ in rule.rule.state)

    ran = run_pregenerate(spec, rule, pattern, shape, master, gradient, state, copies)

    weight = ran.update.weights16.reshape(shape.taps, shape.inputs, shape.outputs)
    depth = tile_plan(spec, rule.rule, pattern, len(copies)).depth
    left, made, cycles = pregenerate_reference(spec, depth, pattern, shape, weight, copies)
    assert ran.cycles == cycles
    places = [tuple(map(int, np.unravel_index(i, weight.shape))) for i in range(n)]
    assert ran.update.left.tolist() == [left[place] for place in places]
    for copy in copies:
        assert pairs_of(ran.copies[copy], shape, copy) == made[copy]


def pairs_of(copy_run, shape, copy):
    """(bits, index, cycle) of every group, by the places of its elements."""
    compact, found = copy_run.compact, {}
    run, columns = shape.contraction(copy)
    cut = compact.cut
    for c in range(columns):
        for start, length, first, kept in zip(cut.start, cut.length, cut.first_slot, cut.kept, strict=True):
            tap, at = divmod(int(start), run)
            group = tuple((tap, at + j, c) if copy == "ff" else (tap, c, at + j) for j in range(length))
            found[group] = [
                (int(compact.values.view(np.uint16)[s, c]), int(compact.indices[s, c]), int(copy_run.left[s, c]))
                for s in range(first, first + kept)
            ]
    return found


@settings(max_examples=examples(60))
@given(data=st.data(), copies=copy_sets())
def test_copies_are_what_compressing_the_updated_weights_gives(data, copies):
    spec = data.draw(specs())
    pattern, shape = data.draw(patterns(spec.pe.max_group)), data.draw(weight_shapes())
    n = shape.elements
    master, gradient, velocity = data.draw(singles(n)), data.draw(halves(n)), data.draw(singles(n))

    ran = run_pregenerate(spec, SGD, pattern, shape, master, gradient, (velocity,), copies)

    alone = run_wuve(spec, SGD, master, gradient, (velocity,))
    assert ran.update.master.tobytes() == alone.master.tobytes()
    assert ran.update.weights16.tobytes() == alone.weights16.tobytes()
    weight = alone.weights16.reshape(shape.taps, shape.inputs, shape.outputs)
    for copy in copies:
        run, columns = shape.contraction(copy)
        operand = (weight if copy == "ff" else weight.transpose(0, 2, 1)).reshape(-1, columns)
        expected = compress(operand, pattern, run)
        assert ran.copies[copy].compact.values.tobytes() == expected.values.tobytes()
        assert ran.copies[copy].compact.indices.tobytes() == expected.indices.tobytes()
        assert (ran.copies[copy].nan_flags == expected.nan_flags).all()


@settings(max_examples=examples(200))
@given(spec=specs(), shape=weight_shapes(), copies=copy_sets(), data=st.data())
@example(
    spec=make_spec(array=ArraySpec(rows=1, cols=1), sore=SoreSpec(lanes=12), wuve=WuveSpec(lanes=5)),
    shape=WeightShape(inputs=1, outputs=1),
    copies=COPIES,
    data=None,
)
def test_the_walk_visits_every_parameter_once_and_the_counts_give_its_blocks(spec, shape, copies, data):
    pattern = NMPattern(keep=2, group=8) if data is None else data.draw(patterns(spec.pe.max_group))
    plan = tile_plan(spec, SGD.rule, pattern, len(copies))
    order = walk(plan, pattern, shape, copies)

    assert sorted(order[order >= 0].tolist()) == list(range(shape.elements))
    groups = []
    for copy in copies:
        run, columns = shape.contraction(copy)
        groups.append(columns * shape.taps * -(-run // pattern.group))
    blocks = blocks_of(shape.elements, groups, pattern)
    assert plan.tiles(blocks) == len(order)
    assert plan.blocks * pattern.group % spec.sore.lanes == 0


def test_a_tile_of_the_reference_machine_is_four_blocks_in_eight_cycles_and_two_rounds():
    spec = make_spec(array=ArraySpec(rows=1, cols=1), sore=SoreSpec(lanes=32), wuve=WuveSpec(lanes=32))
    pattern = NMPattern(keep=2, group=8)
    plan = tile_plan(spec, SGD.rule, pattern, 2)

    assert (plan.blocks, plan.fill, plan.rounds, plan.reduce) == (4, 8, 1, 16)
    # 512 x 512 in 4,096 blocks: 1,024 tiles 16 cycles apart behind a depth of 20.
    assert plan.cycles(4096) == 20 + 8 + 1023 * 16 + 16 + 2
    network = replace(spec, sore=replace(spec.sore, kind="network"))
    assert tile_plan(network, SGD.rule, pattern, 2).cycles(4096) == 20 + 8 + 1023 * 8 + 2 + (6 + 1)


def test_bad_input_is_refused_by_name():
    spec, pattern = make_spec(array=ArraySpec(rows=1, cols=1)), NMPattern(keep=1, group=2)
    shape, four = WeightShape(inputs=2, outputs=2), np.ones(4, np.float32)
    half = four.astype(np.float16)
    with pytest.raises(InputError, match="master has 3 elements"):
        run_pregenerate(spec, SGD, pattern, shape, four[:3], half[:3], (four[:3],))
    with pytest.raises(InputError, match="ff, bp, or ff and bp in that order, 1 here, not wu"):
        run_pregenerate(spec, SGD, pattern, shape, four, half, (four,), ("wu",))
    with pytest.raises(InputError, match="2 here, not bp, ff"):
        run_pregenerate(spec, SGD, pattern, shape, four, half, (four,), ("bp", "ff"))
    with pytest.raises(InputError, match="inputs of a weight must be an integer from 1"):
        WeightShape(inputs=0, outputs=2)
