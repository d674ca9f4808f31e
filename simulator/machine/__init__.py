"""The machine's arithmetic on whole tensors, bit for bit (docs/design/accelerator.md, Arithmetic)."""

from .convolution import convolve, convolve_back, weight_gradient
from .norm import (
    batch_norm,
    batch_norm_backward,
    frozen_norm_backward,
    inverse_deviation,
    layer_norm,
    layer_norm_backward,
    normalise,
    running,
    running_variance,
)
from .pool import (
    adaptive_average_pool,
    adaptive_average_pool_backward,
    average_pool,
    average_pool_backward,
    max_pool,
    max_pool_backward,
)
from .product import product
from .vector import (
    add,
    gelu,
    gelu_backward,
    mean,
    multiply,
    relu,
    relu_backward,
    scale,
    softmax,
    softmax_backward,
    total,
)

__all__ = [
    "product",
    "convolve",
    "convolve_back",
    "weight_gradient",
    "add",
    "multiply",
    "scale",
    "total",
    "mean",
    "relu",
    "relu_backward",
    "softmax",
    "softmax_backward",
    "gelu",
    "gelu_backward",
    "batch_norm",
    "batch_norm_backward",
    "normalise",
    "frozen_norm_backward",
    "inverse_deviation",
    "running",
    "running_variance",
    "layer_norm",
    "layer_norm_backward",
    "max_pool",
    "max_pool_backward",
    "average_pool",
    "average_pool_backward",
    "adaptive_average_pool",
    "adaptive_average_pool_backward",
]
