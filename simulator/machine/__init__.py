"""The machine's arithmetic on whole tensors, bit for bit (docs/design/accelerator.md)."""

from .product import product

__all__ = ["product"]
