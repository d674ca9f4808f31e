"""The operators with a rule: which are products; of the others, which let a gradient through and what makes it."""

from __future__ import annotations

import difflib

from .folding import FOLDED

__all__ = [
    "FREE",
    "NO_GRADIENT",
    "PARTS",
    "PASSES_THROUGH",
    "PRODUCTS",
    "REARRANGES",
    "RECURRENT",
    "ROUNDS",
    "ROWS_ONLY",
    "RULED",
    "SAVES_INPUT",
    "SAVES_NOTHING",
    "SAVES_OUTPUT",
    "STATISTICS",
    "UNCHANGED",
    "VECTOR",
    "nearest_operator",
]

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""One product of two tensors, see :mod:`.products`."""

FREE = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Change of the shape alone: no bytes move."""

REARRANGES = frozenset({"Cast", "Transpose"})
"""Change of the layout or format alone; of a parameter it costs nothing, it could have been stored so."""

PARTS = frozenset({"Concat", "Gather", "Slice", "Split"})
"""Parts put together or taken: of a parameter the result is that parameter, in other shape."""

NO_GRADIENT = frozenset(
    {
        "And",
        "ArgMax",
        "ArgMin",
        "BitCast",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Ceil",
        "Constant",
        "ConstantOfShape",
        "Equal",
        "EyeLike",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Mod",
        "Multinomial",
        "NonZero",
        "Not",
        "OneHot",
        "Or",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Range",
        "Round",
        "Shape",
        "Sign",
        "Size",
        "Xor",
    }
)

ROUNDS = frozenset({"DynamicQuantizeLinear", "QuantizeLinear"})
"""Round their first input: gradients pass straight through to it, from their first result."""

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Products step after step, see :mod:`.recurrent`."""

SAVES_NOTHING = frozenset(
    {
        "AveragePool",
        "Cast",
        "CastLike",
        "Col2Im",
        "Compress",
        "Concat",
        "CumSum",
        "DepthToSpace",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Expand",
        "Gather",
        "GatherElements",
        "GatherND",
        "GlobalAveragePool",
        "MaxUnpool",
        "Mean",
        "Neg",
        "Pad",
        "QuantizeLinear",
        "ReduceMean",
        "ReduceSum",
        "Resize",
        "ReverseSequence",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Sum",
        "TensorScatter",
        "Tile",
        "TopK",
        "Transpose",
        "Trilu",
        "Upsample",
        "Where",
    }
)
"""The gradient is made from the gradient of the output alone."""

SAVES_INPUT = frozenset(
    {
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BatchNormalization",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "CumProd",
        "Div",
        "Dropout",
        "Elu",
        "Erf",
        "Gelu",
        "GlobalLpPool",
        "GridSample",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LeakyRelu",
        "Log",
        "LpNormalization",
        "LpPool",
        "Max",
        "MaxRoiPool",
        "Min",
        "Mish",
        "Mul",
        "PRelu",
        "Pow",
        "RMSNormalization",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceSumSquare",
        "RoiAlign",
        "Selu",
        "Shrink",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Swish",
        "Tan",
        "ThresholdedRelu",
    }
)
"""The gradient also reads the inputs of the forward op."""

SAVES_OUTPUT = frozenset(
    {
        "Exp",
        "GlobalMaxPool",
        "LogSoftmax",
        "MaxPool",
        "Reciprocal",
        "ReduceMax",
        "ReduceMin",
        "Relu",
        "Sigmoid",
        "Softmax",
        "Sqrt",
        "Tanh",
    }
)
"""The gradient also reads the output of the forward op."""

PASSES_THROUGH = frozenset({"Add", "Sub"})
"""The gradient of an input of the output's shape is the gradient of the output itself: nothing moves."""

ROWS_ONLY = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
"""Reads no more of its first input than it writes."""

UNCHANGED = frozenset({"Cast", "CastLike", "Expand", "Tile"})
"""Moves nothing where the result has the shape and the format of the first input."""

STATISTICS = {
    "BatchNormalization": (3, 4),
    "DequantizeLinear": (1, 2),
    "QuantizeLinear": (1, 2),
    "RotaryEmbedding": (1, 2, 3),
}
"""Inputs that are collected, not trained: means and variances, scales and zero points, sines of positions."""

VECTOR = FREE | NO_GRADIENT | SAVES_NOTHING | SAVES_INPUT | SAVES_OUTPUT | PASSES_THROUGH

RULED = VECTOR | FOLDED | RECURRENT | PRODUCTS
"""All that have a rule here; others are read where ONNX defines them by these."""

_ALIKE = 0.8
"""Of two names, so that one may be the other misspelt; by half their letters ``Attention`` is like ``Flatten``."""


def nearest_operator(name: str) -> str:
    """Sentence tail that offers the operators that ``name`` may mean, or says what kinds there are."""
    small = {known.casefold(): known for known in RULED}
    close = difflib.get_close_matches(name.casefold(), small, n=3, cutoff=_ALIKE)
    if close:
        return "did you mean " + " or ".join(repr(small[each]) for each in close) + "?"
    return (
        f"read are products ({', '.join(sorted(PRODUCTS))}), recurrent layers ({', '.join(sorted(RECURRENT))}), "
        "element-wise work, normalisation, pooling, reductions, rearranging, and what ONNX itself defines by these"
    )
