"""A workload whose weights are sums of planes: a product a plane, their sum, and what the machine makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import weft
from weft.workloads.catalog import trace_module
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.schemes import attach
from weft.workloads.schemes.planes import SUM_OF_PLANES, without_planes
from weft.workloads.schemes.scheme import SCHEMES
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp, Workload

from .harness import net
from .test_annotate_levels import Attended

NAMES = [name for name, s in SCHEMES.items() if s.planes]
S, B, T, I4, I8 = Levels.SPIKE, Levels.BINARY, Levels.TERNARY, Levels.INT4, Levels.INT8
EXPECTED = {
    "pb-llm": ((T, I8), None),
    "pb-llm-int8": ((T, I8), I8),
    "pb-llm-mean": ((S, S, I8), None),
    "db-llm": ((S, S), None),
    "db-llm-int8": ((S, S), I8),
    "binarydm": ((B, B), I4),
}


@pytest.fixture(scope="module")
def step() -> Workload:
    return trace_module(Attended(), torch.zeros(2, 4, 16), loss=lambda y: y.sum())


def of(workload, name, pass_):
    return [(i, op) for i, op in enumerate(workload.ops) if (op.name, op.pass_) == (name, pass_)]


@pytest.mark.parametrize("name", NAMES)
def test_every_plane_is_a_product_and_their_results_are_added(step, name):
    made = weft.sparsify(step, name)
    planes, levels = EXPECTED[name]
    for layer in ("again", "middle"):
        before = [op for _, op in of(step, layer, Pass.FF) if isinstance(op, MatrixOp)]
        products = [(i, op) for i, op in of(made, layer, Pass.FF) if isinstance(op, MatrixOp)]
        assert len(before) == 1 and len(products) == len(planes)
        for number, (_, op) in enumerate(products):
            roles = {x.role: x.levels for x in (op.a, op.b)}
            assert roles == {Role.ACTIVATION: levels, Role.WEIGHT: planes[number]}
            bare = replace(op, a=replace(op.a, levels=None), b=replace(op.b, levels=None), plane=0)
            assert op.plane == number and bare == before[0]
        place, added = next((i, op) for i, op in of(made, layer, Pass.FF) if op.op == SUM_OF_PLANES)
        assert isinstance(added, VectorOp) and added.elements == before[0].c.elements
        assert added.read_bytes == len(planes) * before[0].c.bytes and added.write_bytes == before[0].c.bytes
        scaled = [i for i, op in of(made, layer, Pass.FF) if op.op == "scale"]
        assert [made.after[i][-1] for i in scaled] == [i for i, _ in products]
        assert made.after[place] == tuple(scaled)

    ends = {op.name for op in made.matrix_ops if op.parameter and op.pass_ is Pass.FF and op.kept_dense}
    assert ends == {"conv", "head", *(("into",) if name == "binarydm" else ())}
    for pass_, role in ((Pass.BP, Role.WEIGHT), (Pass.WU, Role.ACTIVATION)):
        op = next(op for _, op in of(made, "middle", pass_) if isinstance(op, MatrixOp))
        found = next(x.levels for x in (op.a, op.b) if x.role is role)
        assert found == (levels if pass_ is Pass.WU else None)


@pytest.mark.parametrize("name", NAMES)
def test_what_waited_for_a_product_waits_for_the_sum(step, name):
    """The ops that each op of the traced step waits for, directly or not, are what they were, with planes beside."""

    def ancestors(workload):
        found = []
        for before in workload.after:
            found.append(set(before).union(*(found[j] for j in before)))
        return found

    made = weft.sparsify(step, name)
    old = [
        i
        for i, op in enumerate(made.ops)
        if not (isinstance(op, MatrixOp) and op.plane)
        and not (isinstance(op, VectorOp) and (op.op == SUM_OF_PLANES or op.parameter))
    ]
    assert len(old) == len(step.ops) < len(made.ops)
    was, now, place = ancestors(step), ancestors(made), {i: n for n, i in enumerate(old)}
    for n, i in enumerate(old):
        assert {place[j] for j in now[i] if j in place} == was[n]
    sums = [i for i, op in enumerate(made.ops) if isinstance(op, VectorOp) and op.op == SUM_OF_PLANES]
    planes = {j for i in sums for j in made.after[i]}
    readers = {(i, j) for i, before in enumerate(made.after) for j in before}
    assert {i for i, j in readers if j in planes} == set(sums)
    assert {j for _, j in readers if j in sums} == set(sums)


@pytest.mark.parametrize("name", NAMES)
def test_another_scheme_takes_the_planes_back(step, name):
    made = weft.sparsify(step, name)

    assert weft.sparsify(made, "dense") == weft.sparsify(step, "dense")
    assert weft.sparsify(made, "bitnet") == weft.sparsify(step, "bitnet")
    assert weft.sparsify(made, name) == made
    assert loads_workload(dumps_workload(made)) == made
    assert without_planes(step) is step
    assert b'"plane"' not in dumps_workload(step)


def test_a_step_without_dependencies_keeps_none(step):
    made = weft.sparsify(replace(step, after=()), "db-llm")
    assert made.after == () and len(made.ops) == len(weft.sparsify(step, "db-llm").ops)


@pytest.mark.parametrize("name", NAMES)
def test_training_and_annotation_bring_the_same_weights_to_planes(name):
    model = net()
    workload = weft.sparsify(trace_module(model, torch.zeros(32, 3, 8, 8), loss=lambda y: y.sum()), name)
    technique = attach(model, name, None, steps=100)
    technique.before_step(99)
    products = [op for op in workload.matrix_ops if op.pass_ is Pass.FF and op.parameter and not op.kept_dense]

    assert {op.parameter for op in products} == {f"{layer}.weight" for layer in technique.layers}
    assert len(products) == len(SCHEMES[name].planes) * len(technique.layers)


def simulated(workload):
    return weft.simulate(weft.schedule(workload, weft.machine("bnn-vu9p")))


def reads(result):
    """How often the weight comes from memory: once if it stays, else for every macro-tile of rows."""
    mapping = result.mapping
    assert mapping.n2s == "b" and mapping.order == "mn"
    return 1 if mapping.resident else -(-mapping.gemm.m // mapping.tile_rows)


def test_an_op_of_the_machine_counts_every_plane():
    """Cycles and bytes of FF are those of the planes one by one; under real activations twice those of a dense FF."""
    step = weft.trace("tfc", batch=64)
    dense, made = (simulated(weft.sparsify(step, name)) for name in ("dense", "db-llm"))

    def ff(result, plane=None):
        return [
            r
            for r in result.ops
            if isinstance(r.op, MatrixOp) and r.op.pass_ is Pass.FF and (plane is None or r.op.plane == plane)
        ]

    layers = {r.op.name for r in ff(made, 1)}
    assert layers == {r.op.name for r in ff(dense)} - {"10"} and len(layers) == 3
    for layer in layers:
        whole = next(r for r in ff(dense) if r.op.name == layer)
        planes = [r for r in ff(made) if r.op.name == layer]
        assert len(planes) == 2 and all(r.counts.macs == whole.counts.macs for r in planes)
        assert all(r.cycles.compute == whole.cycles.compute for r in planes)
        assert all(r.counts.sign_flips == r.counts.macs for r in planes)
        weights = whole.op.gemm.k * whole.op.gemm.n
        # The FP16 weight against a bit, as often as each is read; what is left are the activations, once.
        rest = {whole.counts.dram_read_bytes - 2 * weights * reads(whole)}
        rest |= {r.counts.dram_read_bytes - weights // 8 * reads(r) for r in planes}
        assert rest == {2 * whole.op.gemm.m * whole.op.gemm.k}
    alone = simulated(replace(made.workload, ops=tuple(r.op for r in ff(made)), after=()))
    assert alone.cycles.total == sum(r.cycles.total for r in ff(made))


def test_planes_under_levels_run_on_the_engine_of_bits():
    made = simulated(weft.sparsify(weft.trace("tfc", batch=64), "db-llm-int8"))
    engines = {
        (r.op.name, r.op.plane): type(r.mapping.array).__name__
        for r in made.ops
        if isinstance(r.op, MatrixOp) and r.op.pass_ is Pass.FF
    }
    assert engines == {
        **{(layer, plane): "XnorMapping" for layer in ("1", "4", "7") for plane in (0, 1)},
        ("10", 0): "ArrayMapping",
    }


def test_a_streaming_pipeline_has_one_plane_of_weights():
    from weft.dataflow.streaming import streaming_layers

    with pytest.raises(InputError, match=r"is a sum of planes under scheme 'db-llm', with a scale each"):
        streaming_layers(weft.sparsify(weft.trace("tfc"), "db-llm"))


def test_a_plane_is_a_number(step):
    with pytest.raises(InputError, match="plane of matrix op"):
        replace(step.matrix_ops[0], plane=-1)


def test_every_plane_has_a_scale_of_its_own():
    """A weight with one input has a filter, and a scale a plane, for every element."""
    step = trace_module(torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Linear(8, 4)), torch.zeros(2, 1))
    first = next(op for op in weft.sparsify(step, "pb-llm").ops if isinstance(op, UpdateOp))

    assert (first.elements, first.scales) == (8, 2 * 8)
