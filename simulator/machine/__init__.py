"""The machine's arithmetic on whole tensors, bit for bit (docs/design/accelerator.md)."""

from .convolution import convolve, convolve_back, weight_gradient
from .product import product

__all__ = ["convolve", "convolve_back", "product", "weight_gradient"]
