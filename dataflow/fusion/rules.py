"""Which vector work can be joined, by ATen operator: what an element of its result depends on.

Names are without ``aten.`` and the underscore of work in place; an operator that no rule names stays as it is.
"""

from __future__ import annotations

__all__ = ["BITS_OF", "CASTS", "CONSTANTS", "HEADS", "MAPS", "RANDOM", "ROWS", "STORED", "SUMS"]

CASTS = frozenset({"_to_copy"})
"""Between floating formats nothing on the machine, which has one."""

CONSTANTS = frozenset(
    {
        "fill",
        "full",
        "full_like",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones",
        "ones_like",
        "zero",
        "zeros",
        "zeros_like",
    }
)
"""One number everywhere: an operand of a command, and nothing in memory, where only element-wise work reads it."""

RANDOM = frozenset({"bernoulli"})
"""Zeros and ones that the vector unit draws."""

BITS_OF = frozenset({"div", "mul", "_to_copy", "clone"})
"""What makes of a mask one that is as good kept in bits: times a constant."""

MAPS = CASTS | frozenset(
    {
        "abs",
        "add",
        "addcdiv",
        "addcmul",
        "bitwise_and",
        "bitwise_not",
        "bitwise_or",
        "ceil",
        "clamp",
        "clamp_max",
        "clamp_min",
        "clone",
        "copy",
        "cos",
        "div",
        "dropout_backward",
        "elu",
        "elu_backward",
        "eq",
        "erf",
        "exp",
        "expm1",
        "floor",
        "ge",
        "gelu",
        "gelu_backward",
        "gt",
        "hardsigmoid",
        "hardsigmoid_backward",
        "hardswish",
        "hardswish_backward",
        "hardtanh",
        "hardtanh_backward",
        "isinf",
        "isnan",
        "le",
        "leaky_relu",
        "leaky_relu_backward",
        "lerp",
        "log",
        "log1p",
        "logical_and",
        "logical_not",
        "logical_or",
        "lt",
        "masked_fill",
        "masked_scale",
        "maximum",
        "minimum",
        "mish",
        "mish_backward",
        "mul",
        "native_dropout_backward",
        "ne",
        "neg",
        "pow",
        "reciprocal",
        "relu",
        "round",
        "rsqrt",
        "rsub",
        "sgn",
        "sigmoid",
        "sigmoid_backward",
        "sign",
        "silu",
        "silu_backward",
        "sin",
        "softplus",
        "softplus_backward",
        "sqrt",
        "square",
        "sub",
        "tanh",
        "tanh_backward",
        "threshold",
        "threshold_backward",
        "where",
    }
)
"""Element by element: of several operands the same place of each, or of a smaller one that is repeated."""

STORED = CASTS | frozenset({"clone", "relu"})
"""Done by whoever stores the results, as the RTL's store takes a ReLU, narrows and steps: the lanes take no beat for it
(docs/design/accelerator.md)."""

ROWS = frozenset(
    {
        "_fused_rms_norm",
        "_fused_rms_norm_backward",
        "_log_softmax",
        "_log_softmax_backward_data",
        "_softmax",
        "_softmax_backward_data",
        "native_layer_norm",
        "native_layer_norm_backward",
    }
)
"""A row at a time: an element depends on all of its row, which is on chip as a whole."""

SUMS = frozenset({"mean", "sum"})
"""Gathered as operands pass; there when all have."""

HEADS = ROWS | frozenset(
    {
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool2d_backward",
        "_native_batch_norm_legit",
        "avg_pool2d",
        "avg_pool2d_backward",
        "embedding",
        "max_pool2d_with_indices",
        "max_pool2d_with_indices_backward",
        "native_batch_norm",
        "native_batch_norm_backward",
        "native_dropout",
        "native_group_norm",
        "native_group_norm_backward",
        "upsample_bilinear2d",
        "upsample_nearest2d",
    }
)
"""Whose results leave element by element in their last trip, so that element-wise work can be done with them."""
