"""What stays on chip: bytes of products split by operand to the last, capacity kept, never more moved, refusals."""

from __future__ import annotations

import pytest

import weft
from weft.analysis.residency import _moved, residency
from weft.workloads.errors import InputError
from weft.workloads.step import MatrixOp


@pytest.fixture(scope="module", params=["dense", "bdwp"])
def result(request):
    step = weft.fuse(weft.trace("resnet9", batch=2), "full")
    pattern = None if request.param == "dense" else "2:8"
    return weft.simulate(weft.schedule(weft.sparsify(step, request.param, pattern), "sat-vcu1525"))


def test_operands_move_what_the_product_does(result):
    products = [one for one in result.ops if isinstance(one.op, MatrixOp)]
    for one in products:
        sides = [_moved(one, side, result.spec) for side in "abc"]
        assert sum(write for _, write in sides) <= one.counts.dram_write_bytes
        assert sum(read for read, _ in sides) <= one.counts.dram_read_bytes
        if one.counts.dram_write_bytes == sides[2][1]:
            assert sum(read for read, _ in sides) == one.counts.dram_read_bytes
    assert any(one.counts.dram_write_bytes == _moved(one, "c", result.spec)[1] for one in products)


def test_more_memory_never_moves_more_than_none_and_all_of_it_leaves_what_no_parameter_moves(result):
    none, some, every = (residency(result, size) for size in (0, 2**24, 2**32))
    assert none.kept == () and none.dram_bytes == result.counts.dram_bytes
    assert some.peak <= 2**24 and some.dram_bytes == none.dram_bytes - some.saved < none.dram_bytes
    assert set(every.kept) == set(every.candidates) and 0 < every.dram_bytes < some.dram_bytes


def test_refused(result):
    with pytest.raises(InputError, match="bytes of on-chip memory"):
        residency(result, -1)
