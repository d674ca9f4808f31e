"""What is refused, and what is offered instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.workloads.errors import InputError, nearest, require_positive


@given(st.floats() | st.integers(-(2**60), 2**60))
def test_a_positive_number_is_finite_and_above_zero(value: float) -> None:
    if 0 < value < float("inf"):
        require_positive("x", value)
    else:
        with pytest.raises(InputError, match=r"x must be a positive number, not "):
            require_positive("x", value)


def test_the_nearest_name_whatever_its_case_or_the_first_of_many() -> None:
    assert nearest("bdpw", ("bdwp", "dense")) == "did you mean 'bdwp'?"
    assert nearest("DENSE", ("bdwp", "dense")) == "did you mean 'dense'?"
    assert nearest("?", ("b", "a")) == "choose one of a, b"
    assert nearest("?", map(str, range(100, 400))).endswith(", 138, 139 and 260 more")
