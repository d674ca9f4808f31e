"""What a product is: the definition that every level is held against, bit by bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..array import canonical
from ..compact import BUBBLE, Compact
from ..operand import Half

__all__ = ["gemm_reference"]

MINUS_ZERO = np.float32(-0.0)
Single = npt.NDArray[np.float32]


def gemm_reference(a: Half, b: Half | Compact) -> Single:
    """The definition of the product: FP32, kept elements only, added in the order of k; float32 [m, n]."""
    acc = np.full((a.shape[0], b.n if isinstance(b, Compact) else b.shape[1]), MINUS_ZERO)
    with np.errstate(all="ignore"):
        dense = a.astype(np.float32)
        if isinstance(b, Compact):
            for base, values, indices in zip(b.cut.slot_base, b.values.astype(np.float32), b.indices, strict=True):
                bubble = indices == BUBBLE
                product = dense[:, np.where(bubble, 0, base + indices)] * values
                acc += np.where(bubble, MINUS_ZERO, product)
        else:
            for k in range(a.shape[1]):
                acc += dense[:, k, None] * b[k].astype(np.float32)
    return canonical(acc)
