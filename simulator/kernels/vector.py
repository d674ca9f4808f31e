"""Sums in order, many side by side, and the functions that the host computes in double precision.

A sum starts at -0.0 and is added to strictly in order: no fast-math. What runs side by side are different sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Single = NDArray[np.float32]

AT_ONCE = 16
"""Rows whose sums are interleaved, so that none waits for the adder."""


@kernel
def column_sums(x: Single, out: Single) -> None:
    """``out`` [columns] = the sum of the rows of ``x`` [rows, columns], first to last."""
    rows, columns = x.shape
    out[:] = np.float32(-0.0)
    whole = rows // 4 * 4
    for r in range(0, whole, 4):
        for c in range(columns):
            out[c] = (((out[c] + x[r, c]) + x[r + 1, c]) + x[r + 2, c]) + x[r + 3, c]
    for r in range(whole, rows):
        for c in range(columns):
            out[c] = out[c] + x[r, c]


@kernel
def column_products(x: Single, y: Single, out: Single) -> None:
    """``out`` [columns] = the sum of the rows of ``x`` times those of ``y`` [rows, columns]; products are rounded."""
    rows, columns = x.shape
    out[:] = np.float32(-0.0)
    for r in range(rows):
        for c in range(columns):
            out[c] = out[c] + x[r, c] * y[r, c]


@kernel
def row_sums(x: Single, out: Single) -> None:
    """``out`` [rows] = the sum of the columns of ``x`` [rows, columns], first to last."""
    rows, columns = x.shape
    out[:] = np.float32(-0.0)
    for first in range(0, rows, AT_ONCE):
        some, total = x[first : first + AT_ONCE], out[first : first + AT_ONCE]
        for c in range(columns):
            for r in range(len(some)):
                total[r] = total[r] + some[r, c]


@kernel
def row_products(x: Single, y: Single, out: Single) -> None:
    """``out`` [rows] = the sum of the columns of ``x`` times those of ``y`` [rows, columns]."""
    rows, columns = x.shape
    out[:] = np.float32(-0.0)
    for first in range(0, rows, AT_ONCE):
        some, others, total = x[first : first + AT_ONCE], y[first : first + AT_ONCE], out[first : first + AT_ONCE]
        for c in range(columns):
            for r in range(len(some)):
                total[r] = total[r] + some[r, c] * others[r, c]


@kernel
def relu(x: Single, out: Single) -> None:
    """``out`` [n] = ``x`` [n] where it is not <= 0, which a NaN is not, else +0.0."""
    for i in range(len(x)):
        out[i] = np.float32(0.0) if x[i] <= 0 else x[i]


@kernel
def relu_backward(gradient: Single, y: Single, out: Single) -> None:
    """``out`` [n] = ``gradient`` [n] where ``y`` [n] > 0, else +0.0."""
    for i in range(len(y)):
        out[i] = gradient[i] if y[i] > 0 else np.float32(0.0)


@kernel
def exp(x: Single, out: Single) -> None:
    """Of ``x`` [n] in double precision, rounded to ``out`` [n]."""
    for i in range(len(x)):
        out[i] = np.float32(math.exp(np.float64(x[i])))


@kernel
def erf(x: Single, out: Single) -> None:
    """As `exp`."""
    for i in range(len(x)):
        out[i] = np.float32(math.erf(np.float64(x[i])))


@kernel
def tanh(x: Single, out: Single) -> None:
    """As `exp`."""
    for i in range(len(x)):
        out[i] = np.float32(math.tanh(np.float64(x[i])))


Function = Callable[[Single, Single], None]
"""One of these."""
