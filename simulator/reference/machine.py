"""The machine's arithmetic one number at a time: loops over NumPy scalars, as docs/design/accelerator.md has it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..operand import Half

__all__ = ["product_reference"]

Single = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
MINUS_ZERO, NAN = np.float32(-0.0), np.uint32(0x7FC00000).view(np.float32)


def product_reference(a: Half, b: Half, kept: Bool) -> Single:
    """C[m, n] of ``a`` [m, k] and ``b`` [k, n], of either operand type; ``kept`` bool [m, k, n] are the products."""
    (m, k), n = a.shape, b.shape[1]
    out = np.empty((m, n), np.float32)
    with np.errstate(all="ignore"):
        for i, j in np.ndindex(m, n):
            total = MINUS_ZERO
            for step in range(k):
                if kept[i, step, j]:
                    total = np.float32(total + np.float32(np.float32(a[i, step]) * np.float32(b[step, j])))
            out[i, j] = NAN if np.isnan(total) else total
    return out
