"""Which operand of which pass a scheme makes sparse, what stays dense and why, and which copies the update makes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

import weft
from weft.dataflow.beside import copy_bytes
from weft.dataflow.operand import FP16
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.operand import Operand, Role
from weft.workloads.schemes.annotate import annotate
from weft.workloads.schemes.scheme import SCHEMES, scheme
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, UpdateOp, Workload
from weft.workloads.unstructured import Drawn, Unstructured

TWO_OF_EIGHT = NMPattern(keep=2, group=8)


def _op(name: str, pass_: Pass, gemm: Gemm, a: Role, b: Role, c: Role, **more) -> MatrixOp:
    def operand(role: Role, size: int) -> Operand:
        return Operand(role=role, dtype="float16", bytes=2 * gemm.groups * size)

    parameter = more.pop("parameter", f"{name}.weight")
    return MatrixOp(
        name=name,
        op="op",
        pass_=pass_,
        gemm=gemm,
        a=operand(a, gemm.m * gemm.k),
        b=operand(b, gemm.k * gemm.n),
        c=operand(c, gemm.m * gemm.n),
        parameter=parameter,
        **more,
    )


def _layer(name: str, rows: int, k: int, n: int, run: int | None = None, convolution: bool = False) -> list[MatrixOp]:
    x, w, g = Role.ACTIVATION, Role.WEIGHT, Role.GRADIENT
    return [
        _op(name, Pass.FF, Gemm(m=rows, k=k, n=n, run=run or k), x, w, x, convolution=convolution),
        _op(name, Pass.BP, Gemm(m=rows, k=n, n=k), g, w, g, convolution=convolution),
        _op(name, Pass.WU, Gemm(m=n, k=rows, n=k), g, x, g, convolution=convolution),
    ]


@pytest.fixture
def workload() -> Workload:
    x = Role.ACTIVATION
    scores = _op("attn", Pass.FF, Gemm(m=16, k=64, n=16, groups=4), x, x, x, parameter=None)
    ops = [
        *_layer("stem", 100, 64 * 9, 64, run=64, convolution=True),
        *_layer("conv", 100, 64 * 9, 32, run=64, convolution=True),
        *_layer("thin", 100, 4 * 9, 32, run=4, convolution=True),
        *_layer("fc", 100, 20, 10),
        scores,
    ]
    updates = [UpdateOp(name=f"{n}.weight", elements=100) for n in ("stem", "conv", "thin", "fc")]
    updates.append(UpdateOp(name="fc.bias", elements=10))
    return Workload(model="m", batch=100, ops=(*ops, *updates))


FF = {("conv", Pass.FF), ("fc", Pass.FF)}
BP = {("conv", Pass.BP), ("fc", Pass.BP), ("thin", Pass.BP)}
WU = {("conv", Pass.WU), ("fc", Pass.WU), ("thin", Pass.WU)}
SPARSE = {
    "dense": set(),
    "srste": FF,
    "sdwp": BP,
    "sdgp": BP,
    "sdgp-rescaled": BP,
    "bdwp": FF | BP,
    "bimask": FF | BP,
    "transposable": FF | BP,
    "transposable-mvue": FF | BP | WU,
    "sste": FF | WU,
    "bdwp-x": FF | BP | WU,
}
STRUCTURED = [name for name, s in SCHEMES.items() if s.sparse]


@pytest.mark.parametrize("name", SPARSE)
def test_each_scheme_makes_its_own_operands_sparse(workload, name):
    annotated = annotate(workload, name, TWO_OF_EIGHT)
    sparse = [op for op in annotated.matrix_ops if op.sparse is not None]

    assert {(op.name, op.pass_) for op in sparse} == SPARSE[name]
    for op in sparse:
        online = op.pass_ == Pass.WU or name.startswith("sdgp")
        assert (op.a if op.sparse.operand == "a" else op.b).role == (Role.GRADIENT if online else Role.WEIGHT)
        assert op.sparse.online == online
        assert op.sparse.pattern == TWO_OF_EIGHT


@pytest.mark.parametrize("name", STRUCTURED)
def test_every_op_of_a_sparse_pass_is_sparse_or_says_why(workload, name):
    for op in annotate(workload, name, TWO_OF_EIGHT).matrix_ops:
        assert (op.sparse is not None or op.kept_dense != "") == (op.pass_ in scheme(name).sparse)


def test_a_transposed_convolution_keeps_its_update_dense(workload):
    """Its gradient is what im2col expands, on side b."""
    x, g = Role.ACTIVATION, Role.GRADIENT
    op = _op("up", Pass.WU, Gemm(m=32, k=100, n=64), x, g, g, convolution=True)
    stem = _op("stem", Pass.FF, Gemm(m=100, k=64, n=64), x, Role.WEIGHT, x, convolution=True)
    first, up = annotate(replace(workload, ops=(stem, op)), "bdwp-x", TWO_OF_EIGHT).matrix_ops

    assert first.kept_dense == "first convolution"
    assert up.kept_dense == "gradient is the expanded operand of a transposed convolution"


def test_opening_schemes_loads_no_torch():
    code = "import sys, weft.workloads.schemes.annotate; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layers_kept_dense_say_why(workload):
    why = {(op.name, op.pass_): op.kept_dense for op in annotate(workload, "bdwp", TWO_OF_EIGHT).matrix_ops}

    assert why["stem", Pass.FF] == "first convolution"
    assert why["stem", Pass.BP] == "first convolution"
    assert why["thin", Pass.FF] == "contraction runs of 4 are shorter than a group of 8"
    assert why["attn", Pass.FF] == "no weight operand"
    assert why["conv", Pass.FF] == why["conv", Pass.WU] == ""


def test_macs_count_kept_elements_only(workload):
    conv, fc = (
        next(op for op in annotate(workload, "bdwp", TWO_OF_EIGHT).matrix_ops if op.name == n and op.pass_ == Pass.FF)
        for n in ("conv", "fc")
    )

    assert conv.macs * 4 == conv.gemm.macs
    # 20 = 8 + 8 + 4 elements keep 2 + 2 + 2.
    assert fc.macs == 100 * 10 * 6


def test_update_makes_one_copy_for_each_use(workload):
    ops = {op.name: op for op in annotate(workload, "bdwp", TWO_OF_EIGHT).ops if isinstance(op, UpdateOp)}

    assert not ops["conv.weight"].dense_copy
    ff, bp = ops["conv.weight"].copies
    assert (ff.kept, ff.groups) == (32 * 9 * 16, 32 * 9 * 8)
    assert (bp.kept, bp.groups) == (64 * 9 * 8, 64 * 9 * 4)
    assert copy_bytes(ff, FP16) == ff.kept * 19 // 8
    assert ops["stem.weight"].dense_copy and not ops["stem.weight"].copies
    assert ops["thin.weight"].dense_copy and len(ops["thin.weight"].copies) == 1
    assert ops["fc.bias"].dense_copy and not ops["fc.bias"].copies


def test_annotating_again_replaces_what_was_there(workload):
    once = annotate(workload, "bdwp", TWO_OF_EIGHT)

    assert annotate(once, "dense", None) == annotate(workload, "dense", None)
    assert annotate(once, "srste", TWO_OF_EIGHT) == annotate(workload, "srste", TWO_OF_EIGHT)


def test_dense_needs_no_pattern_and_the_others_do(workload):
    assert annotate(workload, "dense", TWO_OF_EIGHT).pattern is None
    with pytest.raises(InputError, match="scheme 'bdwp' needs an N:M pattern, for example 2:8"):
        annotate(workload, "bdwp", None)


def test_unknown_scheme_names_the_nearest(workload):
    with pytest.raises(InputError, match="scheme 'bwdp' is unknown: did you mean 'bdwp'"):
        annotate(workload, "bwdp", TWO_OF_EIGHT)


def test_a_square_weight_has_two_copies_as_any_other():
    """FF reads groups along inputs, BP along outputs: of the same sizes, but not the same."""
    for n in (64, 96):
        ops = _layer("fc", 128, 64, n)
        step = Workload(model="m", batch=1, ops=(*ops, UpdateOp(name="fc.weight", elements=64 * n)))
        update = annotate(step, "bdwp", TWO_OF_EIGHT).ops[-1]
        assert [copy.groups for copy in update.copies] == [64 * n // 8] * 2
    again = Workload(model="m", batch=1, ops=(*ops, ops[0], UpdateOp(name="fc.weight", elements=64 * 96)))
    assert len(annotate(again, "bdwp", TWO_OF_EIGHT).ops[-1].copies) == 2


def test_a_weight_made_of_several_parameters_is_compacted_as_it_is_read(workload: Workload) -> None:
    normed = [replace(op, parameter="fc.g+fc.weight") for op in _layer("made", 64, 64, 64)]
    updates = [UpdateOp(name=name, elements=64) for name in ("fc.g", "fc.weight")]
    step = annotate(replace(workload, ops=(*_layer("first", 64, 64, 64), *normed, *updates)), "bdwp", TWO_OF_EIGHT)
    made = [op for op in step.matrix_ops if op.name == "made" and op.pass_ is not Pass.WU]
    assert [op.sparse.online for op in made if op.sparse] == [True, True]
    assert [op.sparse.online for op in step.matrix_ops if op.name == "first" and op.sparse] == [False, False]
    assert all(op.dense_copy and not op.copies for op in step.ops if isinstance(op, UpdateOp))


def test_weights_in_use_have_no_pattern_but_its_density_and_are_dense_in_training() -> None:
    trained, used = weft.trace("resnet9", batch=1), weft.trace("resnet9", use="infer", batch=1)
    made = weft.sparsify(used, "erk", ["2:8", "7.*=1:8"])

    assert all(op.sparse is None for op in weft.sparsify(trained, "erk", "2:8").matrix_ops)
    forms = {op.name: op.sparse for op in made.matrix_ops}
    assert forms.pop(made.matrix_ops[0].name) is None, "the first convolution, as under N:M"
    for name, sparse in forms.items():
        assert isinstance(sparse, Unstructured)
        assert sparse.kept == Drawn(density=0.125 if name.startswith("7.") else 0.25, distribution="binomial")
    assert loads_workload(dumps_workload(made)) == made
    assert weft.sparsify(made, "dense") == weft.sparsify(used, "dense")
