"""The compact format: what is selected, where it stands, and that nothing else is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.simulator.compact import BUBBLE, Compact, compress, cut, decompress, from_mask
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

from ..examples_drawn import examples
from ..strategies import compacts, formats, gemms, halves, patterns


def bits(x: npt.NDArray[np.float16]) -> list[list[int]]:
    found: list[list[int]] = x.view(np.uint16).tolist()
    return found


def one_by_one(b: npt.NDArray[np.float16], pattern: NMPattern, run: int) -> tuple[list[list[int]], list[list[int]]]:
    """(value bits, indices) by slot and column, with a plain sort of every group."""
    values, indices = [], []
    for start in range(0, b.shape[0], run):
        for lo in range(start, start + run, pattern.group):
            group = b[lo : min(lo + pattern.group, start + run)].view(np.uint16)
            kept = [
                sorted(sorted(range(len(group)), key=lambda j: (-int(column[j] & 0x7FFF), j))[: pattern.keep])
                for column in group.T
            ]
            indices += np.array(kept).T.tolist()
            values += [[int(group[j, c]) for c, j in enumerate(row)] for row in np.array(kept).T]
    return values, indices


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_the_largest_of_each_group_are_kept(data: st.DataObject) -> None:
    gemm, pattern = data.draw(gemms()), data.draw(patterns())
    b = data.draw(halves(gemm.k, gemm.n, format=data.draw(formats)))
    compact = compress(b, pattern, gemm.run)
    assert (bits(compact.values), compact.indices.tolist()) == one_by_one(b, pattern, gemm.run)
    assert compact.values.shape[0] == pattern.kept(gemm.k, gemm.run)


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_decompress_gives_back_what_was_kept(data: st.DataObject) -> None:
    gemm, pattern = data.draw(gemms()), data.draw(patterns())
    compact = data.draw(compacts(gemm, pattern, data.draw(formats)))
    dense = decompress(compact)
    kept = compact.indices != BUBBLE
    rows = (compact.cut.slot_base[:, None] + compact.indices)[kept]
    assert bits(dense[rows, np.nonzero(kept)[1]][None]) == bits(compact.values[kept][None])
    assert np.count_nonzero(dense.view(np.uint16)) == np.count_nonzero(compact.values[kept].view(np.uint16))


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_a_mask_is_kept_in_order_and_padded_with_bubbles(data: st.DataObject) -> None:
    gemm, pattern = data.draw(gemms()), data.draw(patterns())
    b = data.draw(halves(gemm.k, gemm.n, format=data.draw(formats)))
    chosen = compress(data.draw(halves(gemm.k, gemm.n)), pattern, gemm.run)
    mask = np.zeros(b.shape, np.bool_)
    np.put_along_axis(mask, chosen.cut.slot_base[:, None] + chosen.indices, True, axis=0)
    mask &= np.random.default_rng(data.draw(st.integers(0, 99))).random(b.shape) < 0.7
    compact = from_mask(b, mask, pattern, gemm.run)
    assert bits(decompress(compact)) == bits(np.where(mask, b, b.dtype.type(0)))
    for first, kept in zip(compact.cut.first_slot, compact.cut.kept, strict=True):
        part = compact.indices[first : first + kept].astype(int)
        assert (np.diff(part, axis=0) > 0).sum() + (part[1:] == BUBBLE).sum() >= part[1:].size
    bubble = compact.indices == BUBBLE
    assert (compact.values.view(np.uint16)[bubble] == 0x8000).all()


def test_nan_flags_name_the_group() -> None:
    b = np.ones((10, 2), np.float16)
    b[6, 1] = np.nan
    flags = compress(b, NMPattern(keep=1, group=4), 5).nan_flags
    assert flags.tolist() == [[False, False], [False, False], [False, True], [False, False]]


def test_the_cut_follows_runs() -> None:
    groups = cut(NMPattern(keep=2, group=4), 14, 7)
    assert groups.start.tolist() == [0, 4, 7, 11]
    assert groups.length.tolist() == [4, 3, 4, 3]
    assert cut(NMPattern(keep=3, group=4), 10, 5).kept.tolist() == [3, 1, 3, 1]


def test_bad_input_is_refused_by_name() -> None:
    pattern = NMPattern(keep=1, group=4)
    b = np.ones((8, 2), np.float16)
    with pytest.raises(InputError, match="mask keeps 2 of 4 elements of a group of column 1, but the pattern is 1:4"):
        from_mask(b, np.array([[0, 0]] * 4 + [[0, 1]] * 2 + [[0, 0]] * 2, np.bool_), pattern)
    with pytest.raises(InputError, match=r"mask has shape \(4, 2\), but b has \(8, 2\)"):
        from_mask(b, np.zeros((4, 2), np.bool_), pattern)
    with pytest.raises(InputError, match=r"b must be a non-empty matrix of float16, .* or int8, not float64"):
        compress(np.ones((8, 2)), pattern)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="run must be an integer from 1 to 8, not 9"):
        compress(b, pattern, 9)
    good = compress(b, pattern)
    with pytest.raises(InputError, match="indices of a Compact hold 4 at slot 0, column 0, where the group has 4"):
        replace(good, indices=good.indices + np.uint8(4))
    with pytest.raises(InputError, match=r"both must be \[4, n\]"):
        Compact(values=good.values, indices=good.indices, pattern=pattern, k=8, run=2)


def test_gemm_runs_reach_the_slots() -> None:
    gemm = Gemm(m=1, k=27, n=1, run=3)
    assert compress(np.ones((27, 1), np.float16), NMPattern(keep=2, group=8), gemm.run).values.shape == (18, 1)
