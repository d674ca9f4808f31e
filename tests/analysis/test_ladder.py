"""The table of arrays that were placed and routed."""

from __future__ import annotations

import pytest

from weft.analysis.ladder import Rung, _shape, ladder
from weft.workloads.errors import InputError


def named(rung: Rung) -> str:
    return f"{rung.rows}x{rung.cols}-{rung.found['placer']}-{rung.found['router']}"


@pytest.mark.parametrize("rung", ladder(), ids=named)
def test_a_rung_says_what_finished_and_nothing_of_what_did_not(rung):
    placed, routed = rung.found["placed"], rung.found["routed"]

    assert all(0 <= used <= has for used, has in rung.found["sites"].values())
    assert rung.found["sites"]["MULT18X18D"][0] == rung.rows * rung.cols
    assert (rung.found["placed_mhz"] is not None) == placed["finished"] == (routed is not None)
    assert (rung.mhz is not None) == (routed is not None and routed["finished"])
    assert (
        rung.mhz is None
        or abs(1000 / rung.mhz - sum(rung.found["critical"][x] for x in ("logic_ns", "routing_ns"))) < 1
    )


def test_no_try_stands_there_twice():
    assert len({rung.key for rung in ladder()}) == len(ladder()) > 0


@pytest.mark.parametrize("text", ["4", "4x", "x4", "4x4x4", "-1x2"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(InputError, match="is no array: ROWSxCOLS, as 4x4"):
        _shape(text)
