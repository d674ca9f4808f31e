"""The operators that are no products: which let a gradient through, and what it is made from."""

from __future__ import annotations

__all__ = [
    "FREE", "NO_GRADIENT", "PARTS", "PASSES_THROUGH", "REARRANGES", "RECURRENT", "ROWS_ONLY", "SAVES_INPUT",
    "SAVES_NOTHING", "SAVES_OUTPUT", "STATISTICS", "VECTOR",
]  # fmt: skip

FREE = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Change of the shape alone: no bytes move."""

REARRANGES = frozenset({"Cast", "Transpose"})
"""Change of the layout or format alone; of a parameter it costs nothing, it could have been stored so."""

PARTS = frozenset({"Concat", "Gather", "Slice", "Split"})
"""Parts put together or taken: of a parameter the result is that parameter, in other shape."""

NO_GRADIENT = frozenset({
    "And", "ArgMax", "ArgMin", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "Ceil", "Constant", "ConstantOfShape",
    "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Mod",
    "Not", "OneHot", "Or", "Range", "Round", "Shape", "Sign", "Size", "Xor",
})  # fmt: skip

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Products step after step, see :mod:`.recurrent`."""

SAVES_NOTHING = frozenset({
    "AveragePool", "Cast", "CastLike", "Concat", "CumSum", "DepthToSpace", "Expand", "Gather", "GatherElements",
    "GatherND", "GlobalAveragePool", "Mean", "Neg", "Pad", "ReduceMean", "ReduceSum", "Resize", "Slice",
    "SpaceToDepth", "Split", "Sum", "Tile", "TopK", "Transpose", "Trilu", "Upsample", "Where",
})  # fmt: skip
"""The gradient is made from the gradient of the output alone."""

SAVES_INPUT = frozenset({
    "Abs", "BatchNormalization", "Clip", "Cos", "Div", "Dropout", "Elu", "Erf", "Gelu", "GroupNormalization",
    "HardSigmoid", "HardSwish", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Log",
    "LpNormalization", "Max", "Min", "Mish", "Mul", "PRelu", "Pow", "RMSNormalization", "ReduceL2",
    "ReduceSumSquare", "Selu", "Sin", "Softplus", "Softsign", "Swish",
})  # fmt: skip
"""The gradient also reads the inputs of the forward op."""

SAVES_OUTPUT = frozenset({
    "Exp", "GlobalMaxPool", "LogSoftmax", "MaxPool", "Reciprocal", "ReduceMax", "ReduceMin", "Relu", "Sigmoid",
    "Softmax", "Sqrt", "Tanh",
})  # fmt: skip
"""The gradient also reads the output of the forward op."""

PASSES_THROUGH = frozenset({"Add", "Sub"})
"""The gradient of an input of the output's shape is the gradient of the output itself: nothing moves."""

ROWS_ONLY = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
"""Reads no more of its first input than it writes."""

STATISTICS = {"BatchNormalization": (3, 4), "DequantizeLinear": (1, 2), "QuantizeLinear": (1, 2)}
"""Inputs that are collected, not trained: means and variances, scales and zero points."""

VECTOR = FREE | NO_GRADIENT | SAVES_NOTHING | SAVES_INPUT | SAVES_OUTPUT | PASSES_THROUGH
