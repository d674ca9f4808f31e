"""Few values of a model's own in a traced step: which operands have them, and what packs them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.hashed_attention import code
from weft.workloads.levels import Levels
from weft.workloads.own_levels import of_levels
from weft.workloads.step import MatrixOp, VectorOp


class Net(nn.Module):
    """``use`` of what a layer makes of the input, [4, 6, 8], and signs of it."""

    def __init__(self, use):
        super().__init__()
        self.layer, self.use = nn.Linear(8, 8, bias=False), use

    def forward(self, x):
        made = self.layer(x)
        return self.use(made, code(made))


def step_of(use):
    return weft.trace(Net(use), torch.zeros(4, 6, 8))


def levels(step):
    return [(op.a.levels, op.b.levels) for op in step.matrix_ops if op.parameter is None and op.pass_ is Pass.FF]


def packs(step):
    return [op for op in step.ops if isinstance(op, VectorOp) and op.op == "pack"]


def changed(s):
    s.add_(1)
    return s


@pytest.mark.parametrize(
    ("use", "found"),
    [
        (lambda x, s: s.mT @ x, (Levels.BINARY, None)),
        (lambda x, s: x.mT @ s, (None, Levels.BINARY)),
        (lambda x, s: s.mT @ s, (Levels.BINARY, Levels.BINARY)),
        (lambda x, s: s.mT.contiguous() @ x, (Levels.BINARY, None)),
        (lambda x, s: s[:, :3].mT @ x[:, :3], (Levels.BINARY, None)),
        (lambda x, s: s.double().mT @ x.double(), (Levels.BINARY, None)),
        (lambda x, s: s[:, torch.tensor([1, 0])].mT @ x[:, :2], (Levels.BINARY, None)),
        (lambda x, s: (2 * s).mT @ x, (None, None)),
        (lambda x, s: (s * s).mT @ x, (None, None)),
        (lambda x, s: changed(s).mT @ x, (None, None)),
        (lambda x, s: torch.where(x >= 0, 1.0, -1.0).mT @ x, (None, None)),
    ],
)
def test_views_and_copies_have_the_levels_and_nothing_else_has(use, found):
    step = step_of(use)
    assert levels(step) == [found]
    assert len(packs(step)) == (found != (None, None))


def test_the_gradient_of_the_other_operand_reads_them_too_and_they_are_packed_once():
    step = step_of(lambda x, s: s.mT @ x + s.mT @ (2 * x))
    (pack,) = packs(step)
    at = step.ops.index(pack)
    readers = [
        i for i, op in enumerate(step.ops) if isinstance(op, MatrixOp) and Levels.BINARY in (op.a.levels, op.b.levels)
    ]
    assert [step.ops[i].pass_ for i in readers] == [Pass.FF, Pass.FF, Pass.BP, Pass.BP]
    assert all(at in step.after[i] for i in readers)
    assert (pack.elements, pack.read_bytes, pack.write_bytes) == (192, 4 * 192, 0)
    assert {copy.bytes for copy in pack.packs} == {192 // 8}
    assert len({copy.form for copy in pack.packs}) == 1
    where = max(i for i, op in enumerate(step.ops) if isinstance(op, VectorOp) and op.op == "aten.where")
    assert where in step.after[at]


def test_two_halves_of_one_tensor_are_packed_each():
    step = step_of(lambda x, s: s[:2].mT @ x[:2] + s[2:].mT @ x[2:])
    assert [op.elements for op in packs(step)] == [96, 96]


def test_what_is_made_again_is_packed_again():
    step = step_of(lambda x, _: checkpoint(lambda y: (code(y).mT @ y).square(), x, use_reentrant=False))
    assert [op.recompute for op in packs(step)] == [False, True]
    assert [(op.a.levels, op.recompute) for op in step.matrix_ops if op.parameter is None and op.pass_ is Pass.FF] == [
        (Levels.BINARY, False),
        (Levels.BINARY, True),
    ]


def test_a_weight_of_few_values_is_no_operand_of_them():
    """Its packed form would be the update's to write, which a scheme says."""

    class Signed(nn.Linear):
        def forward(self, x):
            return x @ code(self.weight).mT

    step = weft.trace(Signed(8, 8, bias=False), torch.zeros(4, 8))
    assert all(op.a.levels is op.b.levels is None for op in step.matrix_ops)
    assert not packs(step)


@pytest.mark.parametrize(
    ("values", "of", "message"),
    [
        ([1.0, -1.0, 0.0], Levels.BINARY, "holds 0, but binary values are -1, 1"),
        ([1.0, 0.0, -1.0], Levels.SPIKE, "holds -1, but spike values are 0, 1"),
        ([0.5, 0.0], Levels.TERNARY, "holds 0.5, but ternary values are -1, 0, 1"),
        ([8.0, 1.0], Levels.INT4, "holds 8, but int4 values are -8 to 7"),
        ([float("nan")], Levels.INT8, "holds nan"),
    ],
)
def test_other_values_are_refused(values, of, message):
    with pytest.raises(InputError, match=message):
        of_levels(torch.tensor(values), of)


def test_values_of_all_levels_pass_and_integers_are_refused():
    for of in Levels:
        x = torch.tensor([float(v) for v in of.values])
        assert of_levels(x, of) is x
    with pytest.raises(InputError, match="must be of a float dtype"):
        of_levels(torch.ones(2, dtype=torch.int64), Levels.BINARY)


def test_a_scheme_leaves_them_as_they_are_and_can_be_taken_off_again():
    """`xnor` has levels in all passes, `pb-llm` in FF and WU alone, a pattern in none."""
    step = step_of(lambda x, s: s.mT @ x)
    for name, pattern in (("xnor", None), ("pb-llm", None), ("bdwp", "2:8")):
        marked = weft.sparsify(step, name, pattern)
        own = [op for op in marked.matrix_ops if op.parameter is None]
        assert [(op.a.levels, op.b.levels) for op in own] == [
            (op.a.levels, op.b.levels) for op in step.matrix_ops if op.parameter is None
        ]
        added = {op.parameter for op in marked.ops if isinstance(op, VectorOp)} - {None}
        assert added <= {"layer.weight"}
        assert weft.sparsify(marked, "dense").ops == step.ops
