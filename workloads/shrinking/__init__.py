"""Models whose shapes shrink: fewer channels, two factors in the place of a weight, a narrower residual stream.

What comes out is a smaller `nn.Module` (docs/shrinking.md), tuned, measured, and traced like any other.
"""

from .channels import pruned_channels
from .document import to_dict
from .factors import FactorPair, factored, rank_of
from .form import FORMS, Asked, Form
from .run import Layer, Shrunk, shrink
from .slicing import sliced_opt
from .text import SlicedText, slice_characters
from .tokens import fewer_tokens

__all__ = [
    "FORMS",
    "Asked",
    "FactorPair",
    "Form",
    "Layer",
    "Shrunk",
    "SlicedText",
    "factored",
    "fewer_tokens",
    "pruned_channels",
    "rank_of",
    "shrink",
    "slice_characters",
    "sliced_opt",
    "to_dict",
]
