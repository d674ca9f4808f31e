"""How few neurons are needed: CETT against a walk over tokens and neurons, and the bound that is kept."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from weft.workloads.data.text import open_text
from weft.workloads.errors import InputError
from weft.workloads.training.characters import bits
from weft.workloads.training.tails import activation, tail_error, tail_threshold
from weft.workloads.training.text_run import TextRun
from weft.workloads.training.text_spec import TextSpec

Array = npt.NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("one_thread")


def walked(x: Array, weight: Array, threshold: float) -> float:
    """CETT by its definition: of ``x`` [tokens, neurons], a vector a neuron of ``weight`` [outputs, neurons]."""
    errors = []
    for token in x:
        tail = [0.0] * len(weight)
        whole = [0.0] * len(weight)
        for value, column in zip(token, weight.T, strict=True):
            vector = [value * float(w) for w in column]
            if math.dist(vector, [0.0] * len(vector)) <= threshold:
                tail = [a + b for a, b in zip(tail, vector, strict=True)]
            whole = [a + b for a, b in zip(whole, vector, strict=True)]
        length = math.hypot(*whole)
        errors.append(math.hypot(*tail) / length if length else 0.0)
    return sum(errors) / len(errors)


def strengths(x: Array, weight: Array) -> list[float]:
    """Of every neuron of every token, without what is twice."""
    return sorted({abs(float(v)) * math.hypot(*weight[:, i]) for token in x for i, v in enumerate(token)})


@st.composite
def layers(draw: st.DrawFn, *, apart: bool = False) -> tuple[Array, Array]:
    """Whole numbers, so that sums are exact; ``apart``: every neuron has an output of its own, as long as a number."""
    tokens, neurons, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    number = st.integers(-6, 6)
    x = np.array(draw(st.lists(number, min_size=tokens * neurons, max_size=tokens * neurons)), dtype=float)
    if apart:
        weight = np.diag(draw(st.lists(st.integers(1, 4), min_size=neurons, max_size=neurons))).astype(float)
    else:
        weight = np.array(draw(st.lists(number, min_size=outputs * neurons, max_size=outputs * neurons)), dtype=float)
        weight = weight.reshape(outputs, neurons)
    return x.reshape(tokens, neurons), weight


@given(layers(), st.floats(0, 30))
def test_the_error_of_a_tail_is_that_of_a_walk(layer: tuple[Array, Array], threshold: float) -> None:
    x, weight = layer
    assume(all(abs(threshold - s) > 1e-3 for s in strengths(x, weight)))
    found = tail_error(torch.tensor(x).float(), torch.tensor(weight).float(), threshold)
    assert found == pytest.approx(walked(x, weight, threshold), abs=1e-5)


@given(layers(apart=True), st.floats(0.01, 0.99))
def test_the_threshold_is_the_last_that_fits_of_all_that_can_be(layer: tuple[Array, Array], cett: float) -> None:
    """Neurons at right angles to each other: the error never falls as the threshold rises."""
    x, weight = layer
    tried = [(s, walked(x, weight, s + 1e-9)) for s in strengths(x, weight)]
    assume(all(abs(error - cett) > 1e-4 for _, error in tried))
    last = max((s for s, error in tried if error <= cett), default=-1.0)
    found = tail_threshold(torch.tensor(x).float(), torch.tensor(weight).float(), cett)
    assert [s <= found for s, _ in tried] == [s <= last for s, _ in tried]


@given(layers(), st.floats(0.01, 0.99))
def test_a_threshold_keeps_its_bound(layer: tuple[Array, Array], cett: float) -> None:
    x, weight = layer
    threshold = tail_threshold(torch.tensor(x).float(), torch.tensor(weight).float(), cett)
    assert tail_error(torch.tensor(x).float(), torch.tensor(weight).float(), threshold) <= cett


@pytest.mark.parametrize("rise", [0.0, -1.0, 2.0])
def test_a_rise_is_a_share(rise: float) -> None:
    with pytest.raises(InputError, match=r"the rise of perplexity must be above 0, 1 at most, not .*: 0.01 is 1 %"):
        activation(torch.nn.Identity(), None, rise)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_bound_on_perplexity_is_kept_and_used() -> None:
    text = open_text("pydoc")
    found = {}
    for neurons in ("relu", "silu"):
        model = TextRun(TextSpec(blocks=1, width=32, activation=neurons, steps=30), text).until(30)
        found[neurons] = few, more = activation(model, text, 0.01), activation(model, text, 0.1)
        assert few.bits[0] == bits(model, text)
        for one, rise in ((few, 0.01), (more, 0.1)):
            assert one.bits[1] <= one.bits[0] + math.log2(1 + rise)
            assert 0 < one.ratio <= one.nonzero
            assert one.alike.density == pytest.approx(one.ratio, rel=1e-4)
        assert more.cett > few.cett and more.ratio < few.ratio
    assert found["silu"][0].nonzero > 0.99 > found["relu"][0].nonzero
