"""Who must follow whom: by hand on small models, and a witness that replays a traced step in other orders."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from weft.workloads.trace import trace_step

from .toy_models import floats, source_of


def _find(step: Workload, name: str, pass_: Pass, op: str = "") -> int:
    found = [
        i
        for i, one in enumerate(step.ops)
        if not isinstance(one, UpdateOp) and one.name == name and one.pass_ is pass_ and op in one.op
    ]
    assert len(found) == 1, (name, pass_, op, found)
    return found[0]


def _all_before(step: Workload, op: int) -> set[int]:
    reached: set[int] = set()
    queue = [op]
    while queue:
        for other in step.after[queue.pop()]:
            if other not in reached:
                reached.add(other)
                queue.append(other)
    return reached


class Branches(nn.Module):
    """Two layers side by side whose results are added."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = (nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.left(x) + self.right(x))


def test_branches_do_not_wait_for_each_other():
    step = trace_step(source_of(Branches, floats(4, 8)))
    left, right, last = (_find(step, name, Pass.FF) for name in ("left", "right", "last"))

    assert not {left, right} & (_all_before(step, left) | _all_before(step, right))
    assert {left, right} <= _all_before(step, last)
    left_wu, right_wu = (_find(step, name, Pass.WU) for name in ("left", "right"))
    assert left_wu not in _all_before(step, right_wu) and right_wu not in _all_before(step, left_wu)
    assert _find(step, "last", Pass.BP) in _all_before(step, left_wu)
    assert _find(step, "last", Pass.WU) not in _all_before(step, left_wu)


def test_an_update_waits_for_its_gradient_and_for_those_that_read_the_weight():
    step = trace_step(source_of(Branches, floats(4, 8)))
    update = next(i for i, op in enumerate(step.ops) if isinstance(op, UpdateOp) and op.name == "last.weight")

    assert step.after[update] == tuple(sorted(_find(step, "last", p) for p in (Pass.FF, Pass.BP, Pass.WU)))


class InPlace(nn.Module):
    """The sum is made from a result that is overwritten afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).detach()
        kept = self.other(y.clone())
        return kept + y.add_(1)


def test_work_in_place_waits_for_those_that_read_what_it_overwrites():
    step = trace_step(source_of(InPlace, floats(4, 8)))
    clone = next(i for i, op in enumerate(step.ops) if isinstance(op, VectorOp) and "clone" in op.op)
    overwrite = next(i for i, op in enumerate(step.ops) if isinstance(op, VectorOp) and "add_" in op.op)

    assert clone in step.after[overwrite]
    assert _find(step, "first", Pass.FF) in step.after[clone]


def test_a_large_addend_is_part_of_the_result():
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(floats(8, 8))
            self.next = nn.Linear(8, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.next(x.relu().addmm(x, self.weight))

    step = trace_step(source_of(Added, floats(8, 8)))
    relu = next(i for i, op in enumerate(step.ops) if isinstance(op, VectorOp) and "relu" in op.op)
    addend = next(
        i for i, op in enumerate(step.ops) if isinstance(op, VectorOp) and "addmm" in op.op and op.pass_ is Pass.FF
    )

    assert {relu, addend} <= _all_before(step, _find(step, "next", Pass.FF))


def test_every_op_but_the_first_readers_of_data_and_weights_waits_for_another():
    step = trace_step(source_of(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), floats(4, 8)))
    free = [i for i, before in enumerate(step.after) if not before]

    assert free == [0]
    assert all(other < i for i, before in enumerate(step.after) for other in before)
    assert isinstance(step.ops[0], MatrixOp)


def test_dependencies_survive_the_file():
    step = trace_step(source_of(Branches, floats(4, 8)))

    assert loads_workload(dumps_workload(step)) == step


@pytest.mark.parametrize(
    ("after", "message"),
    [(((),), "names 1 ops, not"), (((0,),), "after of op 0"), (((), (1,)), "after of op 1"), (((), (-1,)), "op 1")],
)
def test_an_op_that_waits_for_no_earlier_one_is_refused(after: tuple[tuple[int, ...], ...], message: str):
    ops = tuple(UpdateOp(name=str(i), elements=1) for i in range(2 if message == "names 1 ops, not" else len(after)))

    with pytest.raises(InputError, match=message):
        Workload(model="m", batch=1, ops=ops, after=after)
