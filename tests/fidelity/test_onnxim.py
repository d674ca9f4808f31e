"""ONNXim's weight-stationary core: the same tile pace and, but for a constant, the same run length.

Its rule, restated from src/SystolicWS.cc of github.com/PSAL-POSTECH/ONNXim as quoted in that repository's issue 18: the
first tile starts after its weights have been read and shifted in, 2 R - 1 cycles; every next one starts when the last
has taken in its rows, but not before R cycles (nor 4), in which new weights are shifted in; a tile of m rows ends
R + C - 2 + max(m, 4) cycles after its start. ONNXim quotes 0.23 % mean absolute error of its core against Gemmini's RTL
(arXiv 2406.08051). Ours reloads weights only when the last row has taken them over (docs/design/machine.md), so a tile
of fewer than 2 R - 1 rows takes longer here.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.time import array_cycles
from weft.workloads.gemm import Gemm

SIDES = st.sampled_from([4, 8, 16, 32])


def _onnxim(rows: int, R: int, C: int, tiles: int) -> int:
    start = 2 * R - 1
    for _ in range(tiles - 1):
        start += max(rows, 4, R)
    return start + R + C - 2 + max(rows, 4)


def _ours(rows: int, R: int, C: int, k_tiles: int, n_tiles: int) -> int:
    spec = load_spec("tiny")
    one_cycle = replace(spec.pe, multiply_latency=1, add_latency=1)
    spec = replace(spec, array=replace(spec.array, rows=R, cols=C), pe=one_cycle)
    mapping = ArrayMapping(dataflow=Dataflow.WS, pattern=DENSE, interleave=1)
    return array_cycles(spec, Gemm(m=rows, k=R * k_tiles, n=C * n_tiles), mapping).total


@given(SIDES, SIDES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 300))
def test_tiles_of_many_rows_differ_by_a_constant(R, C, k_tiles, n_tiles, more):
    """Theirs reads weights before the first tile, ours only shifts them in: R - 3 cycles, whatever the product."""
    rows = 2 * R - 1 + more

    assert _onnxim(rows, R, C, k_tiles * n_tiles) - _ours(rows, R, C, k_tiles, n_tiles) == R - 3


@given(SIDES, SIDES, st.integers(2, 4), st.integers(1, 4), st.data())
def test_tiles_of_few_rows_wait_for_weights_at_most_twice_as_long(R, C, k_tiles, n_tiles, data):
    rows = data.draw(st.integers(4, 2 * R - 2))
    tiles = k_tiles * n_tiles
    theirs, ours = _onnxim(rows, R, C, tiles), _ours(rows, R, C, k_tiles, n_tiles)

    assert ours - theirs == (tiles - 1) * (2 * R - 1 - max(rows, R)) - (R - 3)
    assert ours < 2 * theirs
