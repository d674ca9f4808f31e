"""What a product is: the definition that every level is held against, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..array import canonical
from ..compact import BUBBLE, Compact
from ..operand import Half

__all__ = ["gemm_reference"]

MINUS_ZERO = np.float32(-0.0)


def gemm_reference(a: Half, b: Half | Compact) -> npt.NDArray[Any]:
    """The definition of the product: FP32, or INT32 of INT8, kept elements only, added in the order of k; [m, n]."""
    kind = np.int32 if a.dtype == np.int8 else np.float32
    acc = np.full((a.shape[0], b.n if isinstance(b, Compact) else b.shape[1]), MINUS_ZERO, kind)
    with np.errstate(all="ignore"):
        dense = a.astype(kind)
        if isinstance(b, Compact):
            for base, values, indices in zip(b.cut.slot_base, b.values.astype(kind), b.indices, strict=True):
                bubble = indices == BUBBLE
                product = dense[:, np.where(bubble, 0, base + indices)] * values
                acc += np.where(bubble, kind(-0.0), product)
        else:
            for k in range(a.shape[1]):
                acc += dense[:, k, None] * b[k].astype(kind)
    return canonical(acc)
