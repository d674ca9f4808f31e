"""Operators are products with a rule, vector work, or refused by their name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.step import Workload
from weft.workloads.trace import trace_step
from weft.workloads.tracing import known
from weft.workloads.tracing.factorizations import COUNTS
from weft.workloads.tracing.known import count_as_vector_work, is_vector_work

from .toy_models import floats, source_of


class Codes(nn.Module):
    """Distances to a learned code book, by PyTorch's operator or written out."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.lift, self.codes = by, nn.Linear(8, 16), nn.Parameter(torch.empty(30, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        if self.by == "operator":
            return torch.cdist(x, self.codes)
        squares = x.square().sum(-1, keepdim=True) + self.codes.square().sum(-1)
        return (squares - 2 * x @ self.codes.t()).sqrt()


def test_distances_multiply_as_they_do_written_out() -> None:
    """40 x 16 x 30 in every pass, beside the linear layer."""
    operator, written = (
        trace_step(source_of(lambda by=by: Codes(by), floats(40, 8))) for by in ("operator", "written")
    )

    assert operator.dense_macs == written.dense_macs
    assert operator.dense_macs == {Pass.FF: 40 * 16 * 38, Pass.BP: 40 * 16 * 30, Pass.WU: 40 * 16 * 38}


def after(change: object) -> Workload:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return change(self.lift(x))  # type: ignore[operator, no-any-return]

    return trace_step(source_of(Net, floats(8, 8)))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x: torch.linalg.householder_product(x, x[0]), r"aten\.linalg_householder_product"),
        (lambda x: torch.linalg.ldl_factor(x).LD, r"aten\.linalg_ldl_factor_ex"),
        (lambda x: torch.cdist(x, x, p=1), r"aten\._cdist_forward"),
    ],
)
def test_what_may_hide_products_is_refused_by_its_name(change: object, name: str) -> None:
    with pytest.raises(InputError, match=rf"lift|toy.*operator {name} is not known.*count_as_vector_work\('{name}'\)"):
        after(change)


@pytest.fixture(autouse=True)
def nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_declared", {})


def test_what_is_declared_moves_its_bytes_and_is_listed() -> None:
    library = torch.library.Library("weft_test_known", "DEF")
    library.define("neuron(Tensor x) -> Tensor")
    library.impl("neuron", torch.empty_like, "Meta")
    library.impl("neuron", lambda x: Neuron.apply(x), "Autograd")

    class Neuron(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            with torch._C._AutoDispatchBelowAutograd():
                return torch.ops.weft_test_known.neuron(x)

        @staticmethod
        def backward(ctx: object, dy: Tensor) -> Tensor:
            return dy * 1

    with pytest.raises(InputError, match=r"custom operator weft_test_known\.neuron hides.*count_as_vector_work"):
        after(torch.ops.weft_test_known.neuron)
    count_as_vector_work("weft_test_known.*")
    step = after(torch.ops.weft_test_known.neuron)
    (op,) = (op for op in step.ops if op.kind == "vector" and op.op == "weft_test_known.neuron")

    assert (op.elements, op.read_bytes, op.write_bytes) == (64, 256, 256)
    assert step.assumed == ("weft_test_known.neuron counts as the bytes that it touches, as declared",)


class Sampled(nn.Module):
    """torchvision.ops.DeformConv2d as a public bug report has it: its operator by name, without the library.

    As torchvision registers them: one operator forward, one backward, which makes five gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self.front, self.offset = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 18, 3, padding=1)
        self.w, self.b = nn.Parameter(torch.empty(32, 16, 3, 3)), nn.Parameter(torch.empty(32))

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x)
        return Deformed.apply(x, self.w, self.offset(x), x.new_ones(len(x), 9, 8, 8), self.b)


GEOMETRY = (1, 1, 1, 1, 1, 1, 1, 1, False)


class Deformed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        return torch.ops.torchvision.deform_conv2d(*given, *GEOMETRY)

    @staticmethod
    def backward(ctx: object, dy: Tensor) -> tuple[Tensor, ...]:
        return torch.ops.torchvision._deform_conv2d_backward(dy, *ctx.saved_tensors, *GEOMETRY)  # type: ignore[attr-defined]


def test_a_deformable_convolution_multiplies_as_one_over_its_inputs() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    tensors = "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias"
    sizes = ["stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "groups", "offset_groups"]
    given = f"{tensors}, {', '.join(f'SymInt {name}' for name in sizes)}, bool use_mask"
    library.define(f"deform_conv2d({given}) -> Tensor")
    library.define(f"_deform_conv2d_backward(Tensor grad, {given}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
    library.impl("deform_conv2d", lambda x, w, *_: x.new_empty(len(x), len(w), *x.shape[2:]), "Meta")
    library.impl("_deform_conv2d_backward", lambda _, *given: tuple(map(torch.empty_like, given[:5])), "Meta")
    step = trace_step(source_of(Sampled, floats(2, 3, 8, 8)))
    front, offset, own = 128 * 27 * 16, 128 * 144 * 18, 128 * 144 * 32

    assert step.dense_macs == {Pass.FF: front + offset + own, Pass.BP: offset + own, Pass.WU: front + offset + own}
    assert step.dense_macs[Pass.FF] == 976_896
    ops = {(op.pass_, op.parameter): op.gemm for op in step.matrix_ops if "deform" in op.op}
    assert {key: (gemm.m, gemm.k, gemm.n) for key, gemm in ops.items()} == {
        (Pass.FF, "w"): (128, 144, 32),
        (Pass.BP, "w"): (128, 32, 144),
        (Pass.WU, "w"): (32, 128, 144),
    }
    sampled = [op.elements for op in step.ops if op.kind == "vector" and "deform" in op.op]
    assert sampled == [4 * 128 * 144, 3 * 4 * 128 * 144 + 128 * 32]


def test_products_are_not_declared_away() -> None:
    count_as_vector_work("aten.*")
    with pytest.raises(InputError, match=r"aten\._scaled_mm"):
        after(
            lambda x: torch.ops.aten._scaled_mm.default(
                x.to(torch.float8_e4m3fn), x.to(torch.float8_e4m3fn).t(), torch.ones(1), torch.ones(1)
            )
        )
    with pytest.raises(InputError, match=r"aten\._int_mm is not known.*einsum or element-wise operators$"):
        after(lambda x: torch._int_mm(x.to(torch.int8), x.to(torch.int8)))
    with pytest.raises(InputError, match=r"form namespace\.name"):
        count_as_vector_work("neuron")


@pytest.mark.parametrize(("n", "passes"), [(64, 6), (65, 7), (1, 1)])
def test_a_transform_is_a_pass_for_every_doubling(n: int, passes: int) -> None:
    step = trace_step(source_of(lambda: nn.Sequential(nn.Linear(4, n), Fourier()), floats(3, 4)))
    ops = [op for op in step.ops if op.kind == "vector" and op.op.startswith("aten._fft")]

    assert [op.elements for op in ops] == [3 * n * passes] * len(ops)
    assert len(ops) == 2


class Fourier(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


def test_nothing_that_multiplies_is_taken_for_vector_work() -> None:
    """Of all operators that ATen has, by the words that name a product, a factorization or a solver."""
    words = (
        "mm",
        "matmul",
        "conv",
        "attention",
        "linear",
        "lstm",
        "gru",
        "rnn",
        "linalg",
        "cholesky",
        "solve",
        "inv",
        "trilinear",
        "cdist",
        "einsum",
        "lu",
        "qr",
        "svd",
        "eig",
        "matrix",
    )
    known = {
        "linalg_cross",
        "linalg_vector_norm",
        "linalg__powsum",
        "linalg_diagonal",
        "lu_unpack",
        "matrix_H",
        "thnn_fused_lstm_cell",
        "thnn_fused_gru_cell",
        "thnn_differentiable_lstm_cell",
        "thnn_fused_lstm_cell_backward_impl",
        "upsample_bilinear2d",
        "upsample_trilinear3d",
        "upsample_linear1d",
    }
    wrong = set()
    for name in {full.partition(".")[0] for full in torch._C._dispatch_get_all_op_names() if full.startswith("aten::")}:
        packet = getattr(torch.ops.aten, name[6:], None)
        for overload in packet.overloads() if packet is not None else ():
            func = getattr(packet, overload)
            stem = name[6:].strip("_").removesuffix("_backward").removesuffix("_aa")
            gives = any("Tensor" in str(result.type) for result in func._schema.returns)
            if (
                gives
                and is_vector_work(func)
                and name[6:] not in COUNTS
                and set(stem.split("_")) & set(words)
                and stem not in known
            ):
                wrong.add(name)
            assert not (packet in flop_registry and is_vector_work(func)), name
    assert wrong == set()
