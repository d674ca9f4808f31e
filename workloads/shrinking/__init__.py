"""Models whose shapes shrink: fewer channels, two factors in the place of a weight, a narrower residual stream.

What comes out is a smaller `nn.Module` (docs/shrinking.md), tuned, measured, and traced like any other.
"""

from .channels import pruned_channels
from .factors import FactorPair, factored, rank_of
from .form import FORMS, Asked, Form
from .run import Layer, Shrunk, shrink, to_dict

__all__ = [
    "FORMS",
    "Asked",
    "FactorPair",
    "Form",
    "Layer",
    "Shrunk",
    "factored",
    "pruned_channels",
    "rank_of",
    "shrink",
    "to_dict",
]
