"""Operators that ONNX defines by others are what they stand for: counted as the same model in PyTorch is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from weft.workloads.errors import InputError
from weft.workloads.gemm import GEMM_PASSES, Pass
from weft.workloads.onnx import onnx_workload
from weft.workloads.onnx.bodies import has_body
from weft.workloads.onnx.operators import RULED, nearest_operator
from weft.workloads.step import VectorOp, Workload

from .oracles import Case, counted
from .test_onnx import save, trained

node = helper.make_node

SEQ, WIDTH, HEAD = 16, 64, 8


class Block(nn.Module):
    """Projections, and attention between them, by PyTorch's own products."""

    def __init__(self, heads: int, shared: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q, self.k, self.v = (nn.Linear(WIDTH, n * HEAD, bias=False) for n in (heads, shared, shared))
        self.o = nn.Linear(heads * HEAD, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        with sdpa_kernel(SDPBackend.MATH):
            y = scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=True)
        return self.o(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def by_pytorch(heads: int, shared: int, causal: bool = False) -> dict[Pass, int]:
    return counted(Case(build=lambda: Block(heads, shared, causal), inputs=lambda: ((torch.randn(2, SEQ, WIDTH),), {})))


def block(
    path: Path, heads: int, shared: int, form: int = 3, mask: Any = None, opset: int = 24, **given: Any
) -> Workload:
    """The step of the same block with the operator ``Attention``."""
    nodes, fed = [], ["q", "k", "v"]
    for name in "qkv":
        nodes.append(node("MatMul", ["x", f"w{name}"], [name], name=name))
        if form == 4:
            nodes.append(node("Reshape", [name, f"split{'q' if name == 'q' else 'k'}"], [f"{name}1"]))
            nodes.append(node("Transpose", [f"{name}1"], [f"{name}2"], perm=[0, 2, 1, 3]))
    if form == 4:
        fed = ["q2", "k2", "v2"]
    else:
        given = {"q_num_heads": heads, "kv_num_heads": shared, **given}
    constants = {"splitq": np.array([0, 0, heads, HEAD]), "splitk": np.array([0, 0, shared, HEAD])}
    constants["flat"] = np.array([0, 0, heads * HEAD])
    if mask is not None:
        constants["mask"] = mask
        fed.append("mask")
    nodes.append(node("Attention", fed, ["a"], name="attn", **given))
    if form == 4:
        nodes += [node("Transpose", ["a"], ["a1"], perm=[0, 2, 1, 3]), node("Reshape", ["a1", "flat"], ["a2"])]
    nodes.append(node("MatMul", ["a2" if form == 4 else "a", "wo"], ["y"], name="o"))
    weights = {"wq": (WIDTH, heads * HEAD), "wk": (WIDTH, shared * HEAD), "wv": (WIDTH, shared * HEAD)}
    weights["wo"] = (heads * HEAD, WIDTH)
    return onnx_workload(save(path, nodes, {"x": ("N", SEQ, WIDTH)}, weights, constants, opset=opset), batch=2)


@pytest.mark.parametrize("form", [3, 4])
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (8, 2), (8, 1)])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("opset", [23, 24, 25])
def test_attention_counts_what_pytorch_does(
    tmp_path: Path, form: int, heads: int, shared: int, causal: int, opset: int
) -> None:
    step = block(tmp_path / "a.onnx", heads, shared, form, opset=opset, is_causal=causal)
    assert step.dense_macs == by_pytorch(heads, shared, bool(causal))
    assert trained(step) == sorted([heads * HEAD * WIDTH] * 2 + [shared * HEAD * WIDTH] * 2)
    inside = [op for op in step.matrix_ops if op.name.startswith("attn/")]
    assert [(op.name, op.gemm.m, op.gemm.k, op.gemm.n, op.gemm.groups) for op in inside[:2]] == [
        ("attn/QKAttnWeight", SEQ, HEAD, SEQ, 2 * heads),
        ("attn/YPreReshape", SEQ, SEQ, HEAD, 2 * heads),
    ]
    assert [op.pass_ for op in inside].count(Pass.BP) == 4 and len(inside) == 6


@pytest.mark.parametrize("mask", [np.tri(SEQ, dtype=bool), np.zeros((2, 1, SEQ, SEQ), bool)], ids=["2-D", "4-D"])
def test_masks_caps_and_softmax_change_no_product(tmp_path: Path, mask: Any) -> None:
    plain = block(tmp_path / "a.onnx", 8, 2)
    other = block(tmp_path / "b.onnx", 8, 2, mask=mask, softcap=20.0, scale=0.5, softmax_precision=1)
    assert other.dense_macs == plain.dense_macs
    assert trained(other) == trained(plain)
    capped = {(op.name, op.pass_): op.write_bytes for op in other.ops if isinstance(op, VectorOp)}
    for name in ("SoftcapDiv", "SoftcapTanh", "QKAttnSoftcapped"):
        assert capped[f"attn/{name}", Pass.FF] == capped[f"attn/{name}", Pass.BP] == 2 * 8 * SEQ * SEQ * 4
    assert not any("Softcap" in op.name for op in plain.ops if isinstance(op, VectorOp) and op.op != "Add")


def test_repeated_keys_are_moved_not_multiplied(tmp_path: Path) -> None:
    """Heads that share keys read copies of them; heads that do not, none."""
    copies = {
        shared: [op for op in block(tmp_path / "a.onnx", 8, shared).ops if op.name == "attn/KExpanded"]
        for shared in (8, 2)
    }
    assert copies[8] == []
    assert [(op.pass_, op.write_bytes) for op in copies[2] if isinstance(op, VectorOp)] == [
        (Pass.FF, 2 * 8 * SEQ * HEAD * 4),
        (Pass.BP, 2 * 2 * SEQ * HEAD * 4),
    ]


def test_keys_of_the_past_lengthen_the_product(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["q"]),
        node(
            "Attention", ["q", "q", "q", "", "past", "past"], ["y", "k1", "v1"], "attn", q_num_heads=4, kv_num_heads=4
        ),
    ]
    fed = {"x": (2, 3, 32), "past": (2, 4, 5, 8)}
    step = onnx_workload(save(tmp_path / "a.onnx", nodes, fed, {"w": (32, 32)}, opset=23))
    gemms = {op.name: op.gemm for op in step.matrix_ops if op.pass_ is Pass.FF}
    assert (gemms["attn/QKAttnWeight"].m, gemms["attn/QKAttnWeight"].n) == (3, 8)
    assert (gemms["attn/YPreReshape"].k, gemms["attn/YPreReshape"].groups) == (8, 8)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "q_num_heads"),
        ({"q_num_heads": 4, "kv_num_heads": 3}, "attn"),
        ({"q_num_heads": 5, "kv_num_heads": 5}, "attn"),
    ],
)
def test_heads_that_do_not_fit_are_refused(tmp_path: Path, given: dict[str, int], said: str) -> None:
    nodes = [node("MatMul", ["x", "w"], ["q"]), node("Attention", ["q", "q", "q"], ["y"], "attn", **given)]
    path = save(tmp_path / "a.onnx", nodes, {"x": (2, 16, 64)}, {"w": (64, 64)}, opset=23)
    with pytest.raises(InputError) as caught:
        onnx_workload(path)
    assert said in str(caught.value)


def test_a_sequence_too_long_to_list_is_refused(tmp_path: Path) -> None:
    """A causal mask counts its rows, and ONNX's inference lists them: it took all memory, or for ever."""
    nodes = [
        node("MatMul", ["x", "w"], ["q"]),
        node("Attention", ["q", "q", "q"], ["y"], "attn", q_num_heads=4, kv_num_heads=4, is_causal=1),
    ]
    path = save(tmp_path / "a.onnx", nodes, {"x": (1, 2**31, 8)}, {"w": (8, 8)}, opset=23)
    with pytest.raises(
        InputError, match=r"axis 1 of input 'x' is 2,147,483,648; beside node 'attn/RangeRow' \(Range\)"
    ):
        onnx_workload(path)


def test_rotary_embedding_trains_no_table(tmp_path: Path) -> None:
    """Its caches are looked up as a table is, and are sines all the same."""
    nodes = [
        node("MatMul", ["x", "w"], ["q"], name="q"),
        node("RotaryEmbedding", ["q", "cos", "sin", "at"], ["r"], "rope", num_heads=4),
        node("RMSNormalization", ["r", "g"], ["n"], "norm"),
        node("Swish", ["n"], ["s"]),
        node("MatMul", ["s", "v"], ["y"], name="out"),
    ]
    weights = {"w": (64, 64), "v": (64, 10), "g": (64,), "cos": (128, 8), "sin": (128, 8)}
    constants = {"at": np.tile(np.arange(16), (2, 1))}
    step = onnx_workload(save(tmp_path / "r.onnx", nodes, {"x": (2, 16, 64)}, weights, constants, opset=24))
    assert trained(step) == [64, 640, 4096]
    assert {op.name for op in step.matrix_ops} == {"q", "out"}
    assert {tensor.name for tensor in step.frozen} == {"at", "cos", "sin"}
    moved = {(op.name, op.pass_) for op in step.ops if isinstance(op, VectorOp)}
    assert {("rope/CosX1", p) for p in (Pass.FF, Pass.BP)} <= moved
    assert not any(op.pass_ is Pass.WU and op.name.startswith("rope") for op in step.ops)


@pytest.mark.parametrize(
    ("op", "opset", "given"), [("MeanVarianceNormalization", 13, {"axes": [0, 1]}), ("SwiGLU", 28, {})]
)
def test_a_definition_moves_data_and_multiplies_nothing(
    tmp_path: Path, op: str, opset: int, given: dict[str, Any]
) -> None:
    ins = ["h", "h"] if op == "SwiGLU" else ["h"]
    nodes = [node("MatMul", ["x", "w"], ["h"], name="m"), node(op, ins, ["y"], "it", **given)]
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (2, 8)}, {"w": (8, 8)}, opset=opset))
    assert step.dense_macs == {Pass.FF: 128, Pass.BP: 0, Pass.WU: 128}
    assert {p for p in GEMM_PASSES for one in step.ops if one.pass_ is p and one.name.startswith("it/")} == {
        Pass.FF,
        Pass.BP,
    }


def test_no_operator_with_a_rule_is_written_out(tmp_path: Path) -> None:
    """Its own rule stands: a fused normalisation is one trip to memory, not that of its seven parts."""
    assert has_body("LayerNormalization", 20) and "LayerNormalization" in RULED
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("LayerNormalization", ["h", "g"], ["y"], "norm")]
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (2, 8)}, {"w": (8, 8), "g": (8,)}))
    assert [op.name for op in step.ops if op.name.startswith("norm")] == ["norm", "norm"]


def test_a_cast_to_the_same_format_moves_nothing(tmp_path: Path) -> None:
    """As ``Tensor.to`` gives back the tensor itself."""

    def moved(to: int) -> set[str]:
        nodes = [node("MatMul", ["x", "w"], ["h"]), node("Cast", ["h"], ["c"], "cast", to=to)]
        nodes.append(node("Cast", ["c"], ["y"], to=TensorProto.FLOAT))
        return {op.name for op in onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (2, 8)}, {"w": (8, 8)})).ops}

    assert "cast" not in moved(TensorProto.FLOAT) and "cast" in moved(TensorProto.FLOAT16)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Matmul", "did you mean 'MatMul'"),
        ("Sofmax", "'Softmax'"),
        ("Attention", "read are products"),
        ("NonMaxSuppression", "read are products (Conv, "),
    ],
)
def test_only_what_is_close_is_offered(name: str, said: str) -> None:
    assert said in nearest_operator(name)
