"""Attention by blocks: tiles against a walk over tokens, bytes of indices by hand, and how a pattern is asked for."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.workloads.blocks import BestBlocks, Blocks, Causal, Routed, SparkKeys, Tile, TopKeys, VerticalSlash, Window
from weft.workloads.errors import InputError

from ..examples_drawn import examples


def sees(pattern: Any, query: int, key: int, block: int, blocks: int) -> bool:
    """Whether a token may look at another, or whether its whole block may, token by token."""
    t, j = query // block, key // block
    match pattern:
        case Causal():
            return True
        case Window(keys=width, sinks=sinks):
            return query - key < width or key < sinks
        case BestBlocks(keep=keep):
            return t - j < keep
        case VerticalSlash(verticals=verticals, slashes=slashes):
            upright = {i * blocks // verticals for i in range(verticals)}
            return j in upright or t - j in {i * blocks // slashes for i in range(slashes)}
    raise AssertionError(pattern)


PATTERNS = st.one_of(
    st.just(Causal()),
    st.builds(Window, keys=st.integers(1, 12), sinks=st.integers(0, 5)),
    st.builds(BestBlocks, keep=st.integers(1, 5)),
    st.builds(VerticalSlash, verticals=st.integers(0, 8), slashes=st.integers(1, 8)),
)


@settings(deadline=None, max_examples=examples(150))
@given(PATTERNS, st.integers(1, 7), st.integers(1, 30), st.data())
def test_tiles_are_those_of_a_walk_over_tokens(pattern: Any, block: int, keys: int, data: st.DataObject) -> None:
    """A tile meets every block of which any of its queries sees a key not behind it."""
    queries = data.draw(st.sampled_from((1, keys)))
    blocks = Blocks(pattern=pattern, block=block)
    met: dict[int, set[int]] = {}
    for query in range(keys - queries, keys):
        for key in range(query + 1):
            if sees(pattern, query, key, block, -(-keys // block)):
                met.setdefault(query // block, set()).add(key // block)
    walked: Counter[Tile] = Counter()
    for t, found in met.items():
        rows = sum(t == query // block for query in range(keys - queries, keys))
        walked[Tile(rows, sum(key // block in found for key in range(keys)))] += 1

    assert blocks.tiles(queries, keys) == dict(walked)


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(1, 12), st.integers(1, 30), st.data())
def test_every_query_has_its_own_keys(keep: int, keys: int, data: st.DataObject) -> None:
    queries = data.draw(st.integers(1, keys))
    one_by_one = Counter(Tile(1, min(keep, query + 1)) for query in range(keys - queries, keys))

    for pattern in (TopKeys(keep=keep, channels=2), SparkKeys(keep=keep, channels=2)):
        assert Blocks(pattern=pattern).tiles(queries, keys) == dict(one_by_one)


def test_pairs_of_tokens_and_bytes_of_indices_by_hand() -> None:
    assert Blocks(pattern=Causal(), block=1).pairs(10, 10) == 55
    assert Blocks(pattern=Causal(), block=4).pairs(10, 10) == 4 * 4 + 4 * 8 + 2 * 10
    assert Blocks(pattern=Window(keys=3, sinks=1), block=1).pairs(6, 6) == 1 + 2 + 3 + 4 + 4 + 4
    assert Blocks(pattern=TopKeys(keep=3, channels=2)).pairs(5, 5) == 1 + 2 + 3 + 3 + 3
    assert Blocks(pattern=Routed(clusters=3)).tiles(10, 10) == {Tile(3, 4): 2, Tile(4, 4): 1}
    # A number of two bytes for each kept block of 1, 2 and 2; for each kept key; for each vertical and slash.
    assert Blocks(pattern=BestBlocks(keep=2), block=4).index_bytes(10, 10) == 2 * (1 + 2 + 2)
    assert Blocks(pattern=TopKeys(keep=3, channels=2)).index_bytes(5, 5) == 2 * 12
    assert Blocks(pattern=VerticalSlash(verticals=2, slashes=3), block=4).index_bytes(10, 10) == 2 * 5
    assert Blocks(pattern=Causal()).index_bytes(10, 10) == Blocks(pattern=Window(keys=2)).index_bytes(10, 10) == 0


OWN_KEYS = TopKeys(keep=6, channels=2), SparkKeys(keep=6, channels=2), Routed(clusters=4)


@given(st.one_of(PATTERNS, st.sampled_from(OWN_KEYS)), st.integers(1, 512), st.integers(0, 64))
def test_a_pattern_is_read_as_it_is_written(pattern: Any, block: int, features: int) -> None:
    blocks = Blocks(pattern=pattern, block=block, features=features)
    assert Blocks.read(str(blocks)) == blocks


def test_what_may_be_left_out_of_a_pattern_and_what_is_none() -> None:
    assert Blocks.read("window@9") == Blocks(pattern=Window(keys=9, sinks=0), block=128)
    assert Blocks.read("scatterbrain@64+causal/16") == Blocks(pattern=Causal(), block=16, features=64)
    features = "is not of the form scatterbrain@FEATURES+PATTERN/128, FEATURES from 1 and PATTERN one of causal, window"
    for text, problem in (
        ("windw@3", "pattern 'windw' is unknown: did you mean 'window'"),
        ("window", "is not of the form window@KEYS:SINKS/128, whole numbers all"),
        ("top-keys@3", "is not of the form top-keys@KEEP:CHANNELS/128"),
        ("causal@3", "is not of the form causal/128"),
        ("routed@a", "is not of the form routed@CLUSTERS/128"),
        ("routed@2/", "is not of the form routed@CLUSTERS/128"),
        ("best-blocks@0", "keep of best blocks must be"),
        ("spark-keys@3", "is not of the form spark-keys@KEEP:CHANNELS/128"),
        ("scaterbrain", "pattern 'scaterbrain' is unknown: did you mean 'scatterbrain'"),
        *((text, features) for text in ("scatterbrain", "scatterbrain@64", "scatterbrain@0+causal", "window@3+causal")),
        ("scatterbrain@64+windw@3", "pattern 'windw' is unknown: did you mean 'window'"),
        ("scatterbrain@64+window", "is not of the form window@KEYS:SINKS/128"),
    ):
        with pytest.raises(InputError, match=re.escape(problem)):
            Blocks.read(text)
