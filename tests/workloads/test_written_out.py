"""Functions with hidden products count as they do written out by hand."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from weft.workloads.gemm import Pass
from weft.workloads.trace import trace_step
from weft.workloads.tracing.written_out import _bilinear

from ..examples_drawn import examples
from .toy_models import floats, source_of


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.form = nn.Linear(3, 4), nn.Bilinear(4, 5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(self.left(x), x.new_empty(*x.shape[:-1], 5))


def test_products_of_a_bilinear_form_by_hand() -> None:
    """14 rows; a product with W in each pass, and one with the rows of x2, whose gradient for x2 nobody needs."""
    step = trace_step(source_of(Pairs, floats(2, 7, 3)))
    linear, form, right = 14 * 3 * 4, 14 * 4 * 5 * 6, 14 * 5 * 6

    assert step.dense_macs[Pass.FF] == linear + form + right
    assert step.dense_macs[Pass.BP] == form + right
    assert step.dense_macs[Pass.WU] == linear + form


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.integers(1, 3), max_size=2), st.tuples(*[st.integers(1, 4)] * 3), st.booleans())
def test_a_bilinear_form_equals_pytorchs(rows: list[int], sizes: tuple[int, int, int], biased: bool) -> None:
    """Results and gradients, in whole numbers."""
    i, j, o = sizes
    shapes = [[*rows, i], [*rows, j], [o, i, j], *([[o]] if biased else [])]
    inputs = [torch.randint(-4, 5, shape).double().requires_grad_() for shape in shapes]
    results = [form(inputs) for form in (lambda x: nn.functional.bilinear(*x), lambda x: _bilinear(x, {}))]
    gradients = [torch.autograd.grad(result.square().sum(), inputs) for result in results]

    assert torch.equal(*results)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
