"""The slow, obvious twins of everything that is fast: product, array, engines, traffic, DRAM.

They share nothing with the kernels, know no closed form, and move every word over every hop.
"""

from .array import ReferenceRun, array_reference
from .dram import Command, ReferenceChannel, channel_reference
from .engines import sore_reference, wuve_reference
from .jedec import jedec_violations
from .pregenerate import pregenerate_reference
from .product import gemm_reference
from .traffic import Addresses, Traffic, traffic_reference

__all__ = [
    "Addresses",
    "Command",
    "ReferenceChannel",
    "ReferenceRun",
    "Traffic",
    "array_reference",
    "channel_reference",
    "gemm_reference",
    "jedec_violations",
    "pregenerate_reference",
    "sore_reference",
    "traffic_reference",
    "wuve_reference",
]
