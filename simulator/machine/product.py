"""The product of the machine: FP32 sums in the order of k, of dense and of N:M operands (docs/design/machine.md)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError
from ..array import canonical
from ..compact import BUBBLE, Compact, decompress, either
from ..kernels.product import LANES, dense, sparse
from ..operand import ENCODINGS, OPERAND_TYPES, Half, operand_types, widen

__all__ = ["product"]

Single = npt.NDArray[np.float32]
Sums = npt.NDArray[Any]
"""float32, or int32."""
Bool = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


class _Pairs(NamedTuple):
    """Kept elements row by row: where each row starts, int64 [rows + 1]; k, int64, and value, float32 [pairs]."""

    start: Integers
    k: Integers
    value: Single


def product(a: Half, b: Half | Compact, *, kept_a: Bool | None = None, kept_b: Bool | None = None) -> Sums:
    """C[..., m, n] = A[..., m, k] B[..., k, n] as the array leaves it, before it is narrowed.

    The dtype of operands is their format, as all over the simulator; E4M3 and E5M2 may meet. A product is rounded to
    FP32, then added in FP32, in the order of k from -0.0; NaN leaves as `CANONICAL_NAN`. Of INT8 the result is int32,
    which wraps around. One operand may be sparse: ``b`` a `Compact` [k, n], or ``kept_a`` or ``kept_b`` says what of it
    is kept, bool of its shape. What is not kept takes part in no sum, not even as a zero.
    """
    if isinstance(b, Compact):
        _check(a, b.values, (b.k, b.n), kept_a, kept_b, compact=True)
        if a.ndim != 2:
            raise InputError(f"a must be a matrix where b is a Compact, not {list(a.shape)}")
        pairs = _pairs_of(b)
        return _of_integers(a, decompress(b)) if a.dtype == np.int8 else _sparse(pairs, a.T).T.copy()
    _check(a, b, b.shape, kept_a, kept_b)
    if a.dtype == np.int8:
        return _of_integers(*(x if kept is None else np.where(kept, x, 0) for x, kept in ((a, kept_a), (b, kept_b))))
    if kept_a is None and kept_b is None:
        return _dense(a, b)
    out = np.empty((*a.shape[:-1], b.shape[-1]), np.float32)
    for at in np.ndindex(a.shape[:-2]):
        if kept_a is not None:
            out[at] = _sparse(_kept_pairs(a[at], kept_a[at]), b[at])
        elif kept_b is not None:
            out[at] = _sparse(_kept_pairs(b[at].T, kept_b[at].T), a[at].T).T
    return out


def _of_integers(a: Half, b: Half) -> Sums:
    """What is not kept may take part as a zero, which INT32 does not see; nor does it see the order."""
    made: Sums = np.matmul(a.astype(np.int32), b.astype(np.int32))
    return made


def _dense(a: Half, b: Half) -> Single:
    m, n = a.shape[-2], b.shape[-1]
    # A vector holds neighbouring columns: of few columns and more rows, the transposed product.
    if n < min(m, 2 * LANES):
        return np.ascontiguousarray(_turned(_dense(_turned(b), _turned(a))))
    left, right = (widen(x).reshape(-1, *x.shape[-2:]) for x in (a, b))
    out = np.empty((len(left), m, n), np.float32)
    dense(left, right, out)
    return canonical(out).reshape(*a.shape[:-1], n)


def _sparse(pairs: _Pairs, dense_operand: Half) -> Single:
    """The product of sparse rows [m, k], as pairs, and a dense operand [k, n]."""
    out = np.empty((len(pairs.start) - 1, dense_operand.shape[1]), np.float32)
    sparse(*pairs, widen(dense_operand), out)
    return canonical(out)


def _kept_pairs(operand: Half, kept: Bool) -> _Pairs:
    """What is kept of an operand [m, k]."""
    counts = np.count_nonzero(kept, axis=1)
    return _Pairs(_starts(counts), np.nonzero(kept)[1], widen(operand[kept]))


def _pairs_of(compact: Compact) -> _Pairs:
    """The columns of a compact operand as rows; bubbles are left out, as they add -0.0."""
    held = (compact.indices != BUBBLE).T
    at = (compact.cut.slot_base[:, None] + compact.indices).T[held]
    start = _starts(np.count_nonzero(held, axis=1))
    descends = np.diff(at) <= 0
    descends[start[1:-1][(start[1:-1] > 0) & (start[1:-1] < len(at))] - 1] = False
    if descends.any():
        raise InputError("indices of a Compact must ascend inside each group; this one has a column where they do not")
    return _Pairs(start, at, widen(compact.values.T[held]))


def _starts(counts: npt.NDArray[np.intp]) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _turned(array: Half) -> Half:
    return array.swapaxes(-1, -2)


def _check(
    a: Half, b: Half, shape: tuple[int, ...], kept_a: Bool | None, kept_b: Bool | None, *, compact: bool = False
) -> None:
    """Refuse what is no product; ``b`` in a compact form has a ``shape`` that is not that of its values."""
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, np.ndarray) or value.dtype.type not in ENCODINGS or value.ndim < 2:
            shown = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
            names = either([dtype.__name__ for dtype in ENCODINGS])
            raise InputError(f"{name} must be a matrix of {names}, or a stack of them, not {shown}")
        if not value.size:
            raise InputError(f"{name} is empty, {list(value.shape)}; a product needs a row, a column and a contraction")
    if b.dtype.type not in next(kinds for kinds in map(operand_types, OPERAND_TYPES) if a.dtype.type in kinds):
        raise InputError(f"a holds {a.dtype}, but b {b.dtype}; both must have the format of the machine")
    if a.shape[-1] != shape[-2] or (not compact and a.shape[:-2] != shape[:-2]):
        raise InputError(f"a is {list(a.shape)} and b {list(shape)}; they must be [..., m, k] and [..., k, n]")
    given = [("b", True)] if compact else []
    given += [(name, True) for name, kept in (("a", kept_a), ("b", kept_b)) if kept is not None]
    if len(given) > 1:
        raise InputError("a product has one sparse operand: give kept_a, or kept_b, or a Compact")
    for name, operand, kept in (("kept_a", a, kept_a), ("kept_b", b, kept_b)):
        if kept is not None and (kept.dtype != np.bool_ or kept.shape != operand.shape):
            raise InputError(f"{name} must be bool {list(operand.shape)}, not {kept.dtype} {list(kept.shape)}")
