"""Streaming form of a network, as FINN builds binary ones: an engine a layer, each folded by PE x SIMD.

FINN (Umuroglu et al., arXiv 1612.07119), FINN-R (Blott et al., arXiv 1809.04570) and the public FINN compiler.
"""

from .engine import Cost, Fabric, Folding, StreamingLayer, legal_foldings
from .foldings import read_foldings
from .layers import Bits, streaming_layers
from .pipeline import Pipeline
from .search import UnreachableError, at_rate, cheapest, fastest, no_faster, resolve

__all__ = [
    "Bits",
    "Cost",
    "Fabric",
    "Folding",
    "Pipeline",
    "StreamingLayer",
    "UnreachableError",
    "at_rate",
    "cheapest",
    "fastest",
    "legal_foldings",
    "no_faster",
    "read_foldings",
    "resolve",
    "streaming_layers",
]
