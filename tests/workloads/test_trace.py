"""The tracer against FLOP counters, closed forms and rows worked out by hand."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode

from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.models.source import ModelSource, StepInputs
from weft.workloads.operand import Role
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from weft.workloads.trace import trace_step
from weft.workloads.tracing.products import operator_name, products_of

from ..examples_drawn import examples
from .toy_models import (
    Attention,
    Checkpointed,
    Einsum,
    Experts,
    Lora,
    LstmLm,
    NestedCheckpoints,
    OddConvs,
    Tied,
    cross_entropy,
    floats,
    source_of,
    tokens,
    vgg19,
)

FF, BP, WU = Pass.FF, Pass.BP, Pass.WU

GOLDEN = Path(__file__).parents[1] / "golden" / "trace_macs.csv"


def golden(model: str) -> dict[Pass, int]:
    lines = [line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    return {Pass(row["pass"]): int(row["macs"]) for row in csv.DictReader(lines) if row["model"] == model}


def rows(step: Workload, pass_: Pass | None = None) -> list[MatrixOp]:
    return [op for op in step.matrix_ops if pass_ in (None, op.pass_)]


def vectors(step: Workload) -> list[VectorOp]:
    return [op for op in step.ops if isinstance(op, VectorOp)]


def updates(step: Workload) -> dict[str, int]:
    return {op.name: op.elements for op in step.ops if isinstance(op, UpdateOp)}


ORACLE: dict[str, ModelSource] = {
    "vgg19": source_of(vgg19, floats(512, 3, 224, 224), loss=cross_entropy),
    "lstm_lm": source_of(LstmLm, tokens(35, 64), loss=cross_entropy),
    "odd_convs": source_of(OddConvs, floats(4, 3, 64, 64)),
    "tied": source_of(Tied, tokens(4, 16), loss=cross_entropy),
}


@pytest.mark.parametrize("name", ORACLE)
def test_macs_of_every_pass_equal_the_oracle(name: str) -> None:
    assert trace_step(ORACLE[name]).dense_macs == golden(name)


CONVOLUTIONS = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
    (3, True): nn.ConvTranspose3d,
}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor, int]:
    """A convolution, an input that needs a gradient, and the multiply-accumulates of one pass."""
    dims, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    groups = draw(st.integers(1, 4))
    outer, inner = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 4))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, dilation, padding, spatial = sizes(1, 3), sizes(1, 3), sizes(1, 2), sizes(0, 1), sizes(6, 9)
    make = CONVOLUTIONS[dims, transposed]
    with torch.device("meta"):
        model = make(outer, inner, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
    x = floats(draw(st.integers(1, 3)), outer, *spatial).requires_grad_()
    positions = len(x) * math.prod(spatial if transposed else model(x).shape[2:])
    return model, x, positions * math.prod(kernel) * outer * inner // groups


@settings(max_examples=examples(40), deadline=None)
@given(convolutions())
def test_convolutions_equal_closed_form_and_flop_counter(case: tuple[nn.Module, Tensor, int]) -> None:
    model, x, macs = case
    step = trace_step(source_of(lambda: model, x))
    assert step.dense_macs == {FF: macs, BP: macs, WU: macs}
    with FlopCounterMode(display=False) as forward:
        loss = model(x).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert forward.get_total_flops() == 2 * macs
    # torch forgets the groups in the gradient of the weight.
    assert backward.get_total_flops() == 2 * (macs + macs * model.groups)


def test_strided_convolution_row_by_row() -> None:
    step = trace_step(source_of(lambda: nn.Conv2d(8, 12, 3, 2, 1, groups=4), floats(5, 8, 10, 10).requires_grad_()))
    ff, bp, wu = rows(step)
    assert ff.gemm == Gemm(m=125, k=18, n=3, groups=4, run=2)
    assert bp.gemm == Gemm(m=125, k=3, n=18, groups=4)
    assert wu.gemm == Gemm(m=3, k=125, n=18, groups=4)
    assert [op.op for op in (ff, bp, wu)] == ["aten.convolution"] + ["aten.convolution_backward"] * 2
    assert all(op.convolution and op.parameter == "weight" and op.name == "toy" for op in rows(step))
    x, w, y = 5 * 8 * 100 * 4, 12 * 2 * 9 * 4, 5 * 12 * 25 * 4
    # The loss is a sum, so its gradient is one number that PyTorch only expands on paper before the convolution.
    assert [o.bytes for o in (ff.a, ff.b, ff.c)] == [x, w, y]
    assert [o.bytes for o in (bp.b, bp.c)] == [w, x]
    assert [o.bytes for o in (wu.b, wu.c)] == [x, w]
    assert [o.role for o in (ff.a, ff.b, ff.c)] == [Role.ACTIVATION, Role.WEIGHT, Role.ACTIVATION]
    assert [o.role for o in (bp.a, bp.b, bp.c)] == [Role.GRADIENT, Role.WEIGHT, Role.GRADIENT]
    assert [o.role for o in (wu.a, wu.b, wu.c)] == [Role.GRADIENT, Role.ACTIVATION, Role.GRADIENT]


def test_transposed_convolution_row_by_row() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(8, 12, 3, 2, 1, groups=2), nn.ReLU()).to("meta")
    step = trace_step(source_of(lambda: model, floats(5, 8, 10, 10).requires_grad_()))
    ff, bp, wu = rows(step)
    assert ff.gemm == Gemm(m=500, k=4, n=54, groups=2)
    assert bp.gemm == Gemm(m=500, k=54, n=4, groups=2, run=6)
    assert wu.gemm == Gemm(m=4, k=500, n=54, groups=2)
    x, w, y = 5 * 8 * 100 * 4, 12 * 4 * 9 * 4, 5 * 12 * 19 * 19 * 4
    assert [o.bytes for o in (ff.a, ff.b, ff.c, bp.a, bp.b, bp.c, wu.a, wu.b, wu.c)] == [x, w, y, y, w, x, x, y, w]
    assert [o.role for o in (wu.a, wu.b, wu.c)] == [Role.ACTIVATION, Role.GRADIENT, Role.GRADIENT]
    assert {op.name for op in rows(step)} == {"0"}
    assert {op.parameter for op in rows(step)} == {"0.weight"}


def test_linear_row_by_row_in_bfloat16() -> None:
    source = source_of(
        lambda: nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4)),
        floats(3, 5, 6),
        loss=lambda y: y.pow(2).sum(),
        dtype=torch.bfloat16,
    )
    step = trace_step(source)
    first, second, bp, wu, last = rows(step)
    assert [op.gemm for op in rows(step)] == [
        Gemm(m=15, k=6, n=10),
        Gemm(m=15, k=10, n=4),
        Gemm(m=15, k=4, n=10),
        Gemm(m=4, k=15, n=10),
        Gemm(m=10, k=15, n=6),
    ]
    assert [op.pass_ for op in rows(step)] == [FF, FF, BP, WU, WU]
    assert [op.parameter for op in rows(step)] == ["0.weight", "2.weight", "2.weight", "2.weight", "0.weight"]
    assert [o.bytes for o in (first.a, first.b, first.c)] == [180, 120, 300]
    assert [o.bytes for o in (second.a, second.b, second.c)] == [300, 80, 120]
    assert [o.bytes for o in (bp.a, bp.b, bp.c)] == [120, 80, 300]
    assert [o.bytes for o in (wu.a, wu.b, wu.c)] == [120, 300, 80]
    assert [o.bytes for o in (last.a, last.b, last.c)] == [300, 180, 120]
    assert {o.dtype for op in rows(step) for o in (op.a, op.b, op.c)} == {"bfloat16"}
    assert updates(step) == {"0.weight": 60, "0.bias": 10, "2.weight": 40, "2.bias": 4}
    assert step.parameters == 114
    assert isinstance(step.ops[-4], UpdateOp)


def test_vector_ops_carry_bytes_pass_and_module() -> None:
    model = nn.Sequential(nn.Embedding(50, 8), nn.LayerNorm(8), nn.Linear(8, 4), nn.ReLU()).to("meta")
    step = trace_step(source_of(lambda: model, tokens(2, 3), loss=lambda y: y.pow(2).sum()))
    seen = {(op.name, op.op, op.pass_): op for op in vectors(step)}
    assert ("0", "aten.embedding", FF) in seen
    gather = seen["0", "aten.embedding", FF]
    assert (gather.read_bytes, gather.write_bytes) == (6 * 8 * 4 + 6 * 8, 6 * 8 * 4)
    relu = seen["3", "aten.relu", FF]
    assert (relu.elements, relu.read_bytes, relu.write_bytes, relu.dtype) == (24, 96, 96, "float32")
    backward = seen["3", "aten.threshold_backward", BP]
    assert (backward.read_bytes, backward.write_bytes) == (192, 96)
    # What only makes gradients of parameters is weight update; the gradient of an activation is not.
    assert seen["2", "aten.sum", WU].write_bytes == 16
    assert ("1", "aten.native_layer_norm_backward", BP) in seen
    assert seen["0", "aten.embedding_dense_backward", WU].write_bytes == 50 * 8 * 4
    assert not {"aten.view", "aten.t", "aten.detach", "aten.expand", "aten._unsafe_view"} & {
        op.op for op in vectors(step)
    }


def test_in_place_and_copying_ops_move_what_they_touch() -> None:
    class Moves(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            buffer = torch.empty(4, 8)
            buffer.copy_(y)
            buffer.mul_(2)
            buffer.zero_()
            return y.t().contiguous().t()

    step = trace_step(source_of(lambda: Moves(8, 8), floats(4, 8)))
    moved = {op.op: (op.read_bytes, op.write_bytes) for op in vectors(step) if op.pass_ is FF}
    assert moved["aten.copy_"] == (128, 128)
    assert moved["aten.mul_"] == (128, 128)
    assert moved["aten.zero_"] == (0, 128)
    assert moved["aten.clone"] == (128, 128)
    assert "aten.empty" not in moved


def test_batch_norm_writes_its_result_and_its_statistics() -> None:
    step = trace_step(source_of(lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)), floats(3, 2, 5, 5)))
    norm = next(op for op in vectors(step) if op.op == "aten._native_batch_norm_legit")
    assert norm.write_bytes == 1200 + 2 * 16 + 2 * 16  # result, saved and running statistics
    assert norm.read_bytes == 1200 + 4 * 16


def test_large_addend_of_a_product_is_traffic() -> None:
    class Biased(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return torch.baddbmm(torch.empty(2, 5, 5), y, y.transpose(1, 2))

    step = trace_step(source_of(lambda: Biased(6, 6), floats(2, 5, 6)))
    (addend,) = [op for op in vectors(step) if op.op == "aten.baddbmm"]
    assert (addend.elements, addend.read_bytes, addend.write_bytes) == (50, 200, 0)


def test_shared_weight_and_reused_module() -> None:
    step = trace_step(ORACLE["tied"])
    counts = Counter((op.parameter, op.pass_) for op in rows(step))
    head = "emb.weight=head.weight"
    assert counts == {("mid.weight", p): 2 for p in (FF, BP, WU)} | {(head, p): 1 for p in (FF, BP, WU)}
    assert updates(step) == {head: 64_000, "mid.weight": 4096, "mid.bias": 64}
    assert {op.name for op in rows(step)} == {"mid", "head"}


@pytest.mark.parametrize(("mode", "again"), [("reentrant", 2), ("early stop", 1)])
def test_checkpoint_adds_flagged_forward_ops_only(mode: str, again: int) -> None:
    plain = trace_step(source_of(lambda: Checkpointed("none"), floats(5, 8)))
    step = trace_step(source_of(lambda: Checkpointed(mode), floats(5, 8)))
    repeated = [op for op in rows(step) if op.recompute]
    assert [op.pass_ for op in repeated] == [FF] * 3 * again
    assert {op.name for op in repeated} <= {f"blocks.{i}.{j}" for i in range(3) for j in (0, 2)}
    kept = [op for op in rows(step) if not op.recompute]
    assert kept == rows(plain)
    assert step.dense_macs == plain.dense_macs
    assert step.recomputed_macs == sum(op.gemm.macs for op in repeated)
    assert any(op.recompute and op.name == "blocks.1.1" for op in vectors(step)) or mode == "early stop"


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_checkpoints_within_checkpoints_are_recomputation(outer: bool, inner: bool) -> None:
    plain = trace_step(source_of(lambda: nn.Sequential(nn.Linear(8, 8), Checkpointed("none")), floats(5, 8)))
    step = trace_step(source_of(lambda: NestedCheckpoints(outer, inner), floats(5, 8)))
    assert step.dense_macs == plain.dense_macs
    assert {op.pass_ for op in rows(step) if op.recompute} == {FF}
    assert step.recomputed_macs > plain.dense_macs[FF]


def test_gradients_that_the_forward_takes_itself_are_forward_work() -> None:
    class Penalty(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(super().forward(x).sum(), x, create_graph=True)
            return (slope.norm(dim=1) - 1) ** 2

    step = trace_step(source_of(lambda: Penalty(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)), floats(6, 8)))
    forward = 6 * (8 * 16 + 16)
    assert (step.dense_macs[FF], step.recomputed_macs) == (2 * forward, 0)
    assert {op.parameter for op in rows(step, WU)} == {"0.weight", "2.weight"}


def test_a_frozen_layer_behind_a_product_is_not_part_of_it() -> None:
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = nn.Linear(8, 8), nn.Linear(8, 8).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.student(x)
            return (y @ y.t()).sum() - self.teacher(x).sum()

    step = trace_step(source_of(Teacher, floats(5, 8), loss=lambda y: y))
    assert [(op.pass_, op.parameter) for op in rows(step)[2:]] == [
        (FF, "teacher.weight"),
        (BP, None),
        (BP, None),
        (WU, "student.weight"),
    ]


def test_rows_of_a_parameter_that_feed_a_weight_are_its_input() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.empty(20, 8))
            self.conv, self.head = nn.Conv1d(8, 6, 1), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            found = self.rows[x]
            return self.conv(found.transpose(1, 2)).transpose(1, 2) + self.head(found)

    step = trace_step(source_of(Table, tokens(4, 5)))
    assert {(op.pass_, op.parameter) for op in rows(step)} == {
        (p, name) for p in (FF, BP, WU) for name in ("conv.weight", "head.weight")
    }


def test_devices_that_a_model_names_are_meta_here() -> None:
    class Moves(nn.Linear):
        scale = torch.ones(8, device="cpu")

        def forward(self, x: Tensor) -> Tensor:
            start = torch.zeros(5, 8, device="cpu") + torch.zeros(5, 8).to("cpu")
            with torch.profiler.record_function("move"), torch.autograd.graph.save_on_cpu():
                return super().forward(x.to("cpu") * self.scale.cpu() + start).relu()

    step = trace_step(source_of(lambda: nn.Sequential(nn.Linear(8, 8), Moves(8, 8)), floats(5, 8)))
    assert step.dense_macs == {FF: 640, BP: 320, WU: 640}


def test_lazy_modules_are_sized_by_the_inputs() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(5))

    step = trace_step(source_of(build, floats(2, 3, 8, 8)))
    assert step.dense_macs == {FF: 2 * 36 * 27 * 4 + 2 * 144 * 5, BP: 1440, WU: 2 * 36 * 27 * 4 + 2 * 144 * 5}


def test_grouped_experts_equal_the_closed_form_with_an_uneven_share() -> None:
    step = trace_step(source_of(Experts, floats(30, 16), dtype=torch.bfloat16))
    experts = [op for op in rows(step) if op.parameter == "w"]
    macs = {p: sum(op.macs for op in experts if op.pass_ is p) for p in (FF, BP, WU)}
    assert macs == dict.fromkeys((FF, BP, WU), 30 * 16 * 8)
    assert [(op.gemm.groups, op.gemm.m) for op in experts if op.pass_ is FF] == [(2, 8), (2, 7)]
    assert sum(op.b.bytes for op in experts if op.pass_ is FF) == 4 * 16 * 8 * 2
    assert sum(op.a.bytes for op in experts if op.pass_ is FF) == 30 * 16 * 2


def test_transformers_own_grouped_product_has_both_gradients() -> None:
    given = {"input": floats(6, 4), "weight": floats(3, 4, 5), "offs": tokens(3), "grad_output": floats(6, 5)}

    class Schema:
        name = "transformers::grouped_mm_fallback_backward"

    class Call:
        _schema = Schema()

    assert operator_name(Call()) == "transformers.grouped_mm_fallback_backward"
    bp, wu = products_of(Call(), given, (floats(6, 4), floats(3, 4, 5)))
    assert bp.gemm == Gemm(m=2, k=5, n=4, groups=3)
    assert wu.gemm == Gemm(m=4, k=2, n=5, groups=3)


def test_merged_lora_is_weight_space() -> None:
    step = trace_step(source_of(Lora, floats(5, 12)))
    merge, forward = rows(step, FF)
    assert (merge.parameter, merge.a.role, merge.b.role, merge.c.role) == ("b+a", *[Role.WEIGHT] * 3)
    assert forward.parameter == "base.weight+b+a"
    assert forward.b.role is Role.WEIGHT
    assert rows(step, BP) == []
    assert len(rows(step, WU)) == 3
    assert updates(step) == {"a": 36, "b": 60}


def test_a_learned_query_behind_its_projection_is_an_activation() -> None:
    class Query(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Parameter(torch.empty(5, 8))
            self.wq, self.wk = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            q, k = self.wq(self.q).expand(len(x), -1, -1), self.wk(x)
            return (q @ k.transpose(1, 2)).softmax(-1) @ k

    step = trace_step(source_of(Query, floats(2, 16, 8)))
    assert Counter((op.pass_, op.parameter) for op in rows(step)) == {
        (FF, "wq.weight"): 1,
        (FF, "wk.weight"): 1,
        (FF, None): 2,
        (BP, None): 4,
        # Of the layer whose input is the query itself, the gradient of that input too.
        (BP, "wq.weight"): 1,
        (WU, "wq.weight"): 1,
        (WU, "wk.weight"): 1,
    }
    scores = next(op for op in rows(step) if op.parameter is None)
    assert [o.role for o in (scores.a, scores.b, scores.c)] == [Role.ACTIVATION] * 3
    sparse = annotate(step, "bdwp", NMPattern(keep=2, group=8))
    assert [op.kept_dense for op in rows(sparse) if op.parameter is None] == ["no weight operand"] * 6


def test_learned_positions_through_a_linear_layer_are_its_input() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place, self.scale = nn.Parameter(torch.empty(5, 4)), nn.Parameter(torch.empty(4))
            self.proj = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.proj(self.place * self.scale)

    step = trace_step(source_of(Positions, floats(5, 6)))
    assert {(op.pass_, op.parameter) for op in rows(step)} == {(p, "proj.weight") for p in (FF, BP, WU)}
    ff, bp, wu = (next(op for op in rows(step) if op.pass_ is p) for p in (FF, BP, WU))
    assert [o.role for o in (ff.a, ff.b, ff.c)] == [Role.ACTIVATION, Role.WEIGHT, Role.ACTIVATION]
    assert [o.role for o in (bp.a, bp.b)] == [Role.GRADIENT, Role.WEIGHT]
    assert [o.role for o in (wu.a, wu.b)] == [Role.GRADIENT, Role.ACTIVATION]


def test_einsum_with_the_weight_first() -> None:
    step = trace_step(source_of(Einsum, floats(3, 6)))
    assert step.dense_macs == {FF: 195, BP: 105, WU: 195}
    assert [(op.pass_, op.parameter) for op in rows(step)] == [(FF, "w"), (FF, "v"), (BP, "v"), (WU, "v"), (WU, "w")]


def test_matrix_vector_products() -> None:
    class Vector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.empty(6, 4))
            self.v = nn.Parameter(torch.empty(6))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.addmv(self.v, self.w, x)
            return torch.addbmm(torch.empty(1, 1), y.view(2, 1, 3), y.view(2, 3, 1)).sum() + y.dot(self.v)

    step = trace_step(source_of(Vector, floats(4), loss=lambda y: y))
    addmv, addbmm, dot = rows(step, FF)
    assert addmv.gemm == Gemm(m=6, k=4, n=1)
    assert addbmm.gemm == Gemm(m=1, k=6, n=1, run=3)
    assert dot.gemm == Gemm(m=1, k=6, n=1)
    assert (addmv.parameter, addbmm.parameter, dot.parameter) == ("w", None, "v")


def test_frozen_layers_have_no_weight_update() -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 8))
        model[0].requires_grad_(False)
        model[2].requires_grad_(False)
        return model

    step = trace_step(source_of(build, floats(3, 4)))
    found = {p: sorted(op.parameter or "" for op in rows(step, p)) for p in (FF, BP, WU)}
    assert found[FF] == [f"{i}.weight" for i in range(4)]
    assert found[BP] == ["2.weight", "3.weight"]
    assert found[WU] == ["1.weight", "3.weight"]
    assert sorted(updates(step)) == ["1.bias", "1.weight", "3.bias", "3.weight"]


def test_attention_is_eager_in_its_own_dtype() -> None:
    narrow = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    step = trace_step(source_of(Attention, floats(2, 5, 16), dtype=torch.bfloat16))
    products = [op for op in rows(step) if op.parameter is None]
    assert Counter(op.pass_ for op in products) == {FF: 2, BP: 4}
    assert {o.dtype for op in products for o in (op.a, op.b, op.c)} == {"bfloat16"}
    assert {o.role for op in products if op.pass_ is BP for o in (op.a, op.b)} == {Role.ACTIVATION, Role.GRADIENT}
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() == narrow


def test_frozen_part_under_inference_mode_or_no_grad_is_forward_only() -> None:
    class Probe(nn.Module):
        def __init__(self, guard: Callable[[], Any]) -> None:
            super().__init__()
            self.guard = guard
            self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 6)

        def forward(self, x: Tensor) -> Tensor:
            with self.guard():
                y = self.body(x)
            return self.head(y.clone())

    for guard in (torch.no_grad, torch.inference_mode):
        step = trace_step(source_of(lambda guard=guard: Probe(guard), floats(3, 4)))
        assert [(op.name, op.pass_, op.op) for op in rows(step)] == [
            ("body", FF, "aten.addmm"),
            ("head", FF, "aten.addmm"),
            ("head", WU, "aten.mm"),
        ]
        assert sorted(updates(step)) == ["head.bias", "head.weight"]


def test_custom_function_with_two_products_is_told_apart() -> None:
    class Two(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor, v: Tensor) -> Tensor:
            ctx.save_for_backward(x, w, v)
            return x @ w @ v

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> Any:
            x, w, v = ctx.saved_tensors
            dh = dy @ v.t()
            return dh @ w.t(), x.t() @ dh, (x @ w).t() @ dy

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.w, self.v = nn.Parameter(torch.empty(4, 5)), nn.Parameter(torch.empty(5, 6))

        def forward(self, x: Tensor) -> Tensor:
            return Two.apply(self.first(x), self.w, self.v)

    step = trace_step(source_of(Model, floats(3, 4)))
    found = [(op.pass_, op.parameter) for op in rows(step)]
    # The forward product that backward repeats reads a weight, as a gradient of the input does.
    assert found == [
        (FF, "first.weight"),
        (FF, "w"),
        (FF, "v"),
        (BP, "v"),
        (BP, "w"),
        (WU, "w"),
        (BP, "w"),
        (WU, "v"),
        (WU, "first.weight"),
    ]


def test_a_storage_address_is_never_mistaken_for_an_older_one() -> None:
    class Churn(nn.Module):
        """Throws away parameter-derived tensors before it makes data of the same kind."""

        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.empty(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(50):
                scratch = self.w * 2
                del scratch
                x = x + 1
                x = torch.matmul(x, self.w)
            return x

    step = trace_step(source_of(Churn, floats(8, 8)))
    assert [op.a.role for op in rows(step, FF)] == [Role.ACTIVATION] * 50
    assert len(rows(step, BP)) == 49
    assert len(rows(step, WU)) == 50


class Replacing(nn.Module):
    """Puts another layer in the place of its own when it is called, as BigBird does for short inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: nn.Module = nn.Sequential(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        linear = next(self.inner.children())
        del self.inner
        self.inner = nn.Sequential(*(nn.ReLU() for _ in range(4)), linear)
        out: Tensor = self.inner(x)
        return out


def test_a_module_that_is_replaced_leaves_its_name_to_no_other() -> None:
    """Modules were told apart by their address, which the next one gets."""
    step = trace_step(source_of(lambda: nn.Sequential(*(Replacing() for _ in range(4))), floats(2, 4)))
    made = [op.name for op in vectors(step) if op.op == "aten.relu"]
    assert made == [f"{i}" for i in range(4) for _ in range(4)]
    assert [op.name for op in rows(step, Pass.FF)] == [f"{i}.inner.0" for i in range(4)]


@pytest.mark.parametrize("compiled", [torch.compile, lambda call: torch.compile(call, backend="eager")])
def test_what_is_compiled_is_traced_as_it_is_written(compiled: Callable[[Any], Any]) -> None:
    class Half(nn.Module):
        def __init__(self, make: Callable[[Any], Any]) -> None:
            super().__init__()
            self.linear, self.half = nn.Linear(4, 4), make(self.work)

        def work(self, x: Tensor) -> Tensor:
            return self.linear(x).relu() * 0.5

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.half(self.half(x))
            return out

    plain, step = (
        trace_step(source_of(lambda make=make: Half(make), floats(2, 4))) for make in (lambda f: f, compiled)
    )
    assert step == plain


def test_tracing_is_deterministic_and_leaves_nothing_behind() -> None:
    hooks = (dict(nn_module._global_forward_hooks), dict(nn_module._global_forward_pre_hooks))
    first, second = trace_step(ORACLE["odd_convs"]), trace_step(ORACLE["odd_convs"])
    assert first == second

    def broken(_: Any) -> Tensor:
        raise RuntimeError("no loss today")

    with pytest.raises(InputError), torch.no_grad():
        trace_step(source_of(Tied, tokens(2, 2), loss=broken))
    assert (dict(nn_module._global_forward_hooks), dict(nn_module._global_forward_pre_hooks)) == hooks
    assert _get_current_dispatch_mode_stack() == []
    assert torch.get_default_dtype() is torch.float32
    assert torch.get_default_device().type == "cpu"
    with torch.no_grad():
        assert trace_step(ORACLE["odd_convs"]) == first


def test_workload_names_what_was_asked_for() -> None:
    told: list[str] = []
    step = trace_step(ORACLE["tied"], optimizer="adam", progress=told.append)
    assert (step.model, step.batch, step.input, step.optimizer) == ("toy", 4, "(4, 16)", "adam")
    assert told == ["build", "forward", "backward"]


class Broken(nn.Module):
    """Goes wrong in the way it is told to."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))
        self.inner.add_module("odd", Odd(way))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.first(x))


class Backfires(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(_ctx: Any, dy: Tensor) -> Tensor:
        raise ZeroDivisionError("backward is broken")


class Odd(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "shape":
            return x @ torch.empty(5, 5)
        if self.way == "item" and x.sum() > 0:
            return x
        if self.way == "backward":
            return Backfires.apply(x)
        if self.way == "unknown":
            return torch._int_mm(x.to(torch.int8), torch.empty(4, 8, dtype=torch.int8)).float()
        return x.nonzero().float()


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("shape", r"model 'toy' fails in forward in inner\.odd: RuntimeError: .*5"),
        ("item", r"inner\.odd: .*test_trace\.py:\d+ asks for the value of a tensor"),
        ("backward", r"model 'toy' fails in backward in inner\.odd: ZeroDivisionError: backward is broken"),
        ("unknown", r"inner\.odd: operator aten\._int_mm is not known: it may multiply matrices"),
        ("nonzero", r"inner\.odd: \S*test_trace\.py:\d+ asks for nonzero"),
    ],
)
def test_what_a_model_does_wrong_is_said_with_its_place(way: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        trace_step(source_of(lambda: Broken(way), floats(32, 4)))
    assert len(str(caught.value).splitlines()) < 20


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (source_of(lambda: nn.ReLU(), floats(2, 3)), "no parameter to train"),
        (source_of(lambda: nn.BatchNorm1d(3), floats(2, 3)), "multiplies no matrices"),
        (source_of(lambda: nn.Linear(3, 3), floats(2, 3), loss=lambda y: y), "one floating-point number, not 2 x 3"),
        (source_of(lambda: nn.Linear(3, 3), floats(2, 3), loss=lambda _: None), "not NoneType"),
        (source_of(lambda: nn.Linear(3, 3), floats(2, 3), loss=lambda y: y.detach().sum()), "depend on any parameter"),
        (source_of(lambda: 1 / 0, floats(2, 3)), "fails in build: ZeroDivisionError: division by zero"),
    ],
)
def test_models_that_cannot_train_are_refused(source: ModelSource, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace_step(source)


@pytest.mark.parametrize(
    ("request_", "message"),
    [({"batch": 0}, "batch must be"), ({"seq": -1}, "sequence length"), ({"optimizer": "sdg"}, "did you mean 'sgd'")],
)
def test_requests_out_of_range_are_refused(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace_step(ORACLE["tied"], **request_)


def test_opaque_custom_operator_is_refused() -> None:
    @torch.library.custom_op("weft_test::opaque", mutates_args=())
    def opaque(x: Tensor) -> Tensor:
        return x.clone()

    opaque.register_fake(torch.empty_like)
    with pytest.raises(InputError, match=r"custom operator weft_test\.opaque hides what it computes"):
        trace_step(source_of(lambda: nn.Linear(3, 3), floats(2, 3), loss=lambda y: opaque(y).sum()))


def test_inputs_are_cast_with_the_model() -> None:
    source = ModelSource(
        name="cast",
        title="",
        build=lambda: nn.Linear(4, 2),
        dtype=torch.float16,
        loss=lambda y, _: y.sum(),
        inputs=lambda _b, _s: StepInputs(args=(), kwargs={"input": floats(3, 4)}, batch=3, shape="3 x 4"),
    )
    step = trace_step(source)
    assert {o.dtype for op in rows(step) for o in (op.a, op.b, op.c)} == {"float16"}
