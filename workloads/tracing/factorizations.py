"""Factorizations and solutions of linear systems: multiply-adds that one element after another waits for, no product.

Counts are the classical ones of direct methods (G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., 2013:
LU 3.2, triangular systems 3.1, Cholesky 4.2, Householder QR 5.2; their flops are halved, as a multiply-add is two), in
leading order. Methods that iterate until values converge have no such count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

__all__ = ["COUNTS", "REFUSED", "Refusal", "multiply_adds"]

Count = Callable[[Mapping[str, Any], Any], int]


def multiply_adds(name: str, given: Mapping[str, Any], out: Any) -> int | None:
    """Multiply-adds of a call of an operator of ATen by its name; None where it is of no kind known here."""
    count = COUNTS.get(name)
    if count is None:
        return None
    sixths = count(given, out)
    complex_ = any(isinstance(value, Tensor) and value.is_complex() for value in given.values())
    return -(-sixths * (4 if complex_ else 1) // 6)


def _matrices(tensor: Tensor) -> tuple[int, int, int]:
    """How many, rows, columns."""
    return prod(tensor.shape[:-2]), tensor.shape[-2], tensor.shape[-1]


def _lu(tensor: Tensor) -> int:
    """Six times r^2 (s - r / 3) / 2 of r <= s: n^3 / 3 of a square one."""
    count, *sides = _matrices(tensor)
    r, s = sorted(sides)
    return count * r * r * (3 * s - r)


def _two_triangles(matrix: Tensor, solved: Tensor) -> int:
    """Six times n^2 for every right-hand side."""
    return 6 * matrix.shape[-1] * solved.numel()


def _qr(given: Mapping[str, Any], out: Any) -> int:
    """R takes r^2 (s - r / 3), and the columns of Q that are asked for as much again or more."""
    count, m, n = _matrices(given["A"])
    r, s = min(m, n), max(m, n)
    mode = given.get("mode", "reduced")
    made = 2 * r * r * (3 * s - r)
    if mode == "complete" and m > n:
        made += 4 * (3 * m * m * n - 3 * m * n * n + n**3)
    elif mode != "r":
        made += 2 * r * r * (3 * m - r)
    return count * made


COUNTS: dict[str, Count] = {
    "linalg_lu_factor_ex": lambda given, _: _lu(given["A"]),
    "linalg_lu": lambda given, _: _lu(given["A"]),
    "_linalg_det": lambda given, _: _lu(given["A"]),
    "_linalg_slogdet": lambda given, _: _lu(given["A"]),
    "_linalg_solve_ex": lambda given, out: _lu(given["A"]) + _two_triangles(given["A"], out[0]),
    "linalg_lu_solve": lambda given, out: _two_triangles(given["LU"], out),
    "linalg_inv_ex": lambda given, _: 6 * given["A"].numel() * given["A"].shape[-1],
    "linalg_solve_triangular": lambda given, out: _two_triangles(given["self"], out) // 2,
    "triangular_solve": lambda given, out: _two_triangles(given["A"], out[0]) // 2,
    "linalg_cholesky_ex": lambda given, _: given["self"].numel() * given["self"].shape[-1],
    "cholesky": lambda given, _: given["self"].numel() * given["self"].shape[-1],
    "cholesky_solve": lambda given, out: _two_triangles(given["input2"], out),
    "cholesky_inverse": lambda given, _: 2 * given["self"].numel() * given["self"].shape[-1],
    "linalg_qr": _qr,
}
"""Six times the multiply-adds, by operator of ATen."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an operator has no count, and what to write instead; one that ``multiplies`` is never declared to be none."""

    reason: str
    instead: str
    multiplies: bool = False


_ITERATES = Refusal(
    "iterates until its values converge, so no shape tells how long",
    "use qr, cholesky, solve or a fixed number of power iterations",
)
REFUSED: dict[str, Refusal] = {
    **dict.fromkeys(
        ("aten._linalg_svd", "aten._linalg_eigh", "aten.linalg_eig", "aten._linalg_eigvals", "aten.linalg_pinv"),
        _ITERATES,
    ),
    "aten.linalg_lstsq": Refusal("looks at values for the rank", "use qr and solve_triangular, or solve"),
    "aten.linalg_matrix_exp": Refusal(
        "multiplies as often as the norm of its values asks for",
        "write a polynomial and a fixed number of squarings with matmul",
        multiplies=True,
    ),
}
"""Others of the family."""
