"""The slow, obvious twins of everything that is fast: product, array, engines.

They share nothing with the kernels, know no closed form, and move every word over every hop.
"""

from .array import ReferenceRun, array_reference
from .engines import sore_reference, wuve_reference
from .product import gemm_reference

__all__ = ["ReferenceRun", "array_reference", "gemm_reference", "sore_reference", "wuve_reference"]
