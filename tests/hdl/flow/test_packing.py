"""Fields of a payload in a port, against shifts of Python's integers."""

from __future__ import annotations

import numpy as np
from amaranth.lib import data
from hypothesis import given
from hypothesis import strategies as st

from weft.hdl.blocks.payload import places_of
from weft.hdl.flow.packing import integers, pack, unpack


@given(
    widths=st.lists(st.integers(1, 32), min_size=1, max_size=8), lanes=st.integers(1, 3), seed=st.integers(0, 2**32 - 1)
)
def test_fields_stand_where_the_layout_says_and_come_back(widths, lanes, seed):
    layout = data.StructLayout({f"f{i}": data.ArrayLayout(width, lanes) for i, width in enumerate(widths)})
    cycles, random = 5, np.random.default_rng(seed)
    places = places_of(layout)
    fields = {name: random.integers(0, 1 << width, cycles, np.uint64) for name, (_, width) in places.items()}

    port = pack(layout, fields, cycles)

    expected = [sum(int(words[t]) << places[name][0] for name, words in fields.items()) for t in range(cycles)]
    assert integers(port) == expected
    assert port.dtype == (np.uint64 if 32 < layout.size <= 64 else np.uint32)
    assert port.shape == ((cycles,) if layout.size <= 64 else (cycles, -(-layout.size // 32)))
    found = unpack(layout, port)
    assert {name: words.tolist() for name, words in found.items()} == {n: w.tolist() for n, w in fields.items()}
