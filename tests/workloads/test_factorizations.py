"""Factorizations count the multiply-adds of the textbook's loops, as vector work; those around them multiply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from weft.workloads.errors import InputError
from weft.workloads.step import VectorOp, Workload
from weft.workloads.trace import trace_step
from weft.workloads.tracing.factorizations import multiply_adds

from .oracle_idioms import idiom
from .oracles import counted
from .toy_models import floats, source_of

linalg = torch.linalg


def lu(m: int, n: int) -> int:
    """Gaussian elimination, row by row: one multiply-add for every element behind the pivot."""
    return sum(1 for k in range(min(m, n)) for _row in range(k + 1, m) for _column in range(k + 1, n))


def triangle(n: int) -> int:
    """Forward substitution of one right-hand side."""
    return sum(1 for row in range(n) for _ in range(row))


def cholesky(n: int) -> int:
    return sum(1 for j in range(n) for _row in range(j, n) for _ in range(j))


def reflections(m: int, n: int, columns: Callable[[int], int]) -> int:
    """Householder vectors of length m - k, put to columns: an inner product and an update each."""
    return sum(2 * (m - k) * columns(k) for k in range(min(m, n)))


def qr(m: int, n: int, mode: str) -> int:
    made = reflections(m, n, lambda k: n - k)
    if mode == "complete":
        return made + reflections(m, n, lambda k: m - k)
    return made if mode == "r" else made + reflections(m, n, lambda k: min(m, n) - k)


N, K = 96, 40
KINDS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], int]] = {
    "_linalg_solve_ex": (linalg.solve, ((3, N, N), (3, N, K)), 3 * (lu(N, N) + 2 * K * triangle(N))),
    "linalg_lu_factor_ex": (lambda a: linalg.lu_factor(a)[0], ((N, K),), lu(N, K)),
    "linalg_lu": (lambda a: linalg.lu(a)[2], ((K, N),), lu(K, N)),
    "_linalg_det": (linalg.det, ((2, N, N),), 2 * lu(N, N)),
    "_linalg_slogdet": (lambda a: linalg.slogdet(a)[1], ((N, N),), lu(N, N)),
    "linalg_lu_solve": (lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b), ((N, N), (N, K)), 2 * K * triangle(N)),
    # The columns of the identity: forward substitution starts at their one, back substitution is whole.
    "linalg_inv_ex": (linalg.inv, ((N, N),), lu(N, N) + sum(triangle(N - k) for k in range(N)) + N * triangle(N)),
    "linalg_solve_triangular": (
        lambda a, b: linalg.solve_triangular(a, b, upper=True),
        ((N, N), (N, K)),
        K * triangle(N),
    ),
    "linalg_cholesky_ex": (linalg.cholesky, ((N, N),), cholesky(N)),
    "cholesky_solve": (lambda a, b: torch.cholesky_solve(b, a), ((N, N), (N, K)), 2 * K * triangle(N)),
    # The inverse of the factor, and the lower half of its product with itself.
    "cholesky_inverse": (torch.cholesky_inverse, ((N, N),), sum(triangle(N - k) for k in range(N)) + cholesky(N)),
}


class Net(nn.Module):
    """Parameters, a function of them, and a layer behind that makes it a model."""

    def __init__(self, change: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.given = nn.ParameterList(torch.empty(*shape) for shape in shapes)
        self.change, self.layer = change, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).sum() + self.change(*self.given).sum()


def traced(change: Callable[..., Any], *shapes: tuple[int, ...]) -> Workload:
    return trace_step(source_of(lambda: Net(change, shapes), floats(4, 8)))


def forward(step: Workload, name: str) -> VectorOp:
    return next(op for op in step.ops if op.kind == "vector" and op.op == f"aten.{name}" and op.pass_ == "FF")


@pytest.mark.parametrize("name", KINDS)
def test_counts_are_those_of_the_loops_to_leading_order(name: str) -> None:
    change, shapes, loops = KINDS[name]
    step = traced(change, *shapes)
    assert forward(step, name).elements == pytest.approx(loops, rel=3 / K)
    assert f"aten.{name}: its classical multiply-adds as vector work, none waits" in step.assumed


@pytest.mark.parametrize("mode", ["r", "reduced", "complete"])
@pytest.mark.parametrize(("m", "n"), [(N, N), (N, K), (K, N)])
def test_qr_counts_reflections(m: int, n: int, mode: str) -> None:
    found = multiply_adds("linalg_qr", {"A": floats(m, n), "mode": mode}, None)
    assert found == pytest.approx(qr(m, n, mode), rel=3 / K)


def test_exact_counts_of_a_small_system() -> None:
    """8 x 8: 512 / 3 to factor, 2 x 64 for two right-hand sides; an inverse 512; bytes once each way."""
    step = traced(linalg.solve, (8, 8), (8, 2))
    op = forward(step, "_linalg_solve_ex")
    assert (op.elements, op.read_bytes) == (171 + 128, 4 * (64 + 16))
    assert forward(traced(linalg.inv, (8, 8)), "linalg_inv_ex").elements == 512


FOLLOWED = {
    "solve": lambda x: linalg.solve(x.mT @ x, x.mT),
    "inv": lambda x: x @ linalg.inv(x.mT @ x),
    "qr": lambda x: linalg.qr(x).Q,
    "cholesky": lambda x: torch.cholesky_solve(x.mT, linalg.cholesky(x.mT @ x)),
    "lu": lambda x: linalg.lu(x)[2],
    "det": lambda x: linalg.slogdet(x.mT @ x)[1],
    "triangular": lambda x: linalg.solve_triangular(x.mT @ x, x.mT, upper=False),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_products_around_a_factorization_equal_both_oracles(name: str) -> None:
    case = idiom(lambda self, x: FOLLOWED[name](self.layer(x)), layer=lambda: nn.Linear(16, 16))
    assert trace_step(case.source()).dense_macs == counted(case)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (linalg.svdvals, r"operator aten\._linalg_svd iterates until .*power iterations.*count_as_vector_work"),
        (linalg.eigvalsh, r"operator aten\._linalg_eigh iterates until"),
        (linalg.pinv, r"operator aten\.linalg_pinv\S* iterates until .*or let it count"),
        (lambda a: linalg.lstsq(a, a).solution, r"aten\.linalg_lstsq looks at values for the rank; use qr and"),
        (linalg.matrix_exp, r"aten\.linalg_matrix_exp multiplies as often as the norm.*squarings with matmul$"),
    ],
)
def test_what_has_no_count_is_refused_with_what_to_write(change: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        traced(change, (6, 6))
