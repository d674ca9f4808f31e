"""Transfers over AXI4: every word of every line, in order, whatever memory holds up; nothing outside of the window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .transfers import BEAT, DEPTH, LANES, LATENCY, Transfer, contents, holds, lanes_of, reader, wide, writer

WHOLE = {"base": 0, "size": DEPTH * BEAT}
SEEDS = st.none() | st.integers(0, 2**16)


@st.composite
def transfers(draw: st.DrawFn, most: int = 400) -> Transfer:
    """Lines anywhere in the memory, steps of either sign, at most ``most`` words."""
    words = draw(st.integers(1, 40) | st.integers(1, most))
    counts = []
    for _ in range(4):
        counts.append(draw(st.integers(1, max(1, most // words // int(np.prod(counts, dtype=int))))))
    steps = draw(st.tuples(*[st.integers(-600, 600).map(lambda step: 2 * step)] * 4))
    transfer = Transfer(draw(st.integers(0, DEPTH * LANES - 1)) * 2, words, tuple(counts), steps)
    places = transfer.places
    assume(places.min() >= 0 and places.max() < DEPTH * LANES)
    return transfer


def read(transfer: Transfer, seed: int | None, cycles: int, **window: int) -> dict[str, Any]:
    """What a reader does with one transfer; its receiver waits where the memory does."""
    held = holds(seed, cycles)
    ready = 1 if seed is None else np.random.default_rng(seed + 1).integers(0, 2, cycles).astype(np.uint32)
    machine = reader()
    machine.reset()
    return machine.run(
        {
            "transfer__valid": np.arange(cycles) < 1,
            "transfer__payload": wide([transfer.bits], cycles, 8),
            "beats__ready": ready,
            **(WHOLE | window),
            **held,
        },
        cycles,
    ) | {"beats__ready": np.broadcast_to(ready, cycles)}


@settings(max_examples=60)
@given(transfers(), SEEDS)
def test_a_reader_brings_each_word_in_its_place(transfer: Transfer, seed: int | None) -> None:
    cycles = 30 * transfer.beats + 200
    seen = read(transfer, seed, cycles)
    came = np.flatnonzero(seen["beats__valid"] & seen["beats__ready"])
    beats = [lanes_of(seen["beats__payload"][t]) for t in came]
    words = np.array([word for given, _ in beats for word in given])
    assert (words == contents()[transfer.places]).all()
    assert [i for i, (_, of) in enumerate(beats) if of["last"]] == [len(beats) - 1]
    assert sum(of["line_end"] for _, of in beats) == len(list(transfer.lines))
    assert not seen["failed"].any()
    assert not seen["outside"].any()


@given(transfers())
@settings(max_examples=30)
def test_without_waits_a_beat_comes_every_cycle(transfer: Transfer) -> None:
    """The first is there a fixed time after the transfer was taken: three cycles to the bus, and the memory's."""
    seen = read(transfer, None, transfer.beats + 60)
    came = np.flatnonzero(seen["beats__valid"])
    assert came[0] == LATENCY + 3
    assert (came == came[0] + np.arange(transfer.beats)).all()


@pytest.mark.parametrize(
    ("transfer", "size", "at"),
    [
        (Transfer(64, 8), 78, 64),
        (Transfer(64, 8, (1, 1, 1, 3), (0, 0, 0, 16)), 111, 96),
        (Transfer(0, 8, (2, 1, 1, 1), (-64, 0, 0, 0)), 128, 2**32 - 64),
        (Transfer(2**32 - 8, 8), 2**32 - 1, 2**32 - 8),
        (Transfer(0, 2**25 - 1), 2**26 - 4, 0),
    ],
)
def test_a_line_outside_of_the_window_is_not_asked_for(transfer: Transfer, size: int, at: int) -> None:
    seen = read(transfer, None, 80, size=size)
    assert seen["outside"][-1]
    assert seen["address"][-1] == at
    before = [line % 2**32 for line in transfer.lines].index(at)
    assert sum(len(lanes_of(x)[0]) for x in seen["beats__payload"][seen["beats__valid"] == 1]) == before * 8


@pytest.mark.parametrize("base", [0, 4096, 8192])
def test_a_line_at_the_end_of_the_window_is_read_from_its_base_on(base: int) -> None:
    seen = read(Transfer(64, 8), None, 80, base=base, size=80)
    assert not seen["outside"].any()
    words = [w for x in seen["beats__payload"][seen["beats__valid"] == 1] for w in lanes_of(x)[0]]
    assert words == contents()[base // 2 + 32 :][:8].tolist()


def test_an_answer_that_is_an_error_is_told_with_its_burst() -> None:
    """Beyond the memory, but within the window."""
    end = DEPTH * BEAT - 4096
    seen = read(Transfer(end - 16, 8, (1, 1, 1, 2), (0, 0, 0, 16)), None, 120, base=4096, size=2 * end)
    assert seen["failed"][-1]
    assert seen["address"][-1] == end
    assert seen["beats__valid"].sum() == 4


@settings(max_examples=60)
@given(transfers(), SEEDS)
def test_a_writer_writes_the_words_of_lines_and_no_other(transfer: Transfer, seed: int | None) -> None:
    """Each word of the transfer by its number, counted up lane by lane of the beats asked for; all others stay 0."""
    cycles = 60 * transfer.beats + 300
    machine = writer()
    machine.reset()
    rng = np.random.default_rng(seed)
    source = np.arange(1, cycles * LANES + 1).astype("<u2").view("<u8")
    fed = {
        "transfer__valid": np.arange(cycles) < 1,
        "transfer__payload": wide([transfer.bits], cycles, 8),
        "source__valid": 1 if seed is None else rng.integers(0, 2, cycles).astype(np.uint32),
        "asks__ready": 1 if seed is None else rng.integers(0, 2, cycles).astype(np.uint32),
        **WHOLE,
        **holds(seed, cycles),
    }
    # the source's data in a cycle depends on how many beats were taken before it, which depends on no data
    taken = machine.run(fed, cycles)["taken"]
    number = np.cumsum(taken).astype(np.int64) - taken
    machine.reset()
    seen = machine.run(fed | {"source__payload": source[number]}, cycles)
    assert (seen["taken"] == taken).all()
    assert taken.sum() == transfer.beats
    assert seen["done"].sum() == 1
    assert np.flatnonzero(seen["done"])[0] > np.flatnonzero(taken)[-1]
    expected = np.zeros(DEPTH * LANES, np.int64)
    word = 0
    for line in transfer.lines:
        first = line // 2 % LANES
        expected[line // 2 + np.arange(transfer.words)] = (word + first + np.arange(transfer.words) + 1) % 2**16
        word += -(-(first + transfer.words) // LANES) * LANES
    whole = Transfer(0, 4 * 64, (1, 1, 1, DEPTH // 64), (0, 0, 0, 64 * BEAT))
    back = machine.run(
        {
            "back__valid": np.arange(DEPTH + 60) < 1,
            "back__payload": wide([whole.bits], DEPTH + 60, 8),
            "beats__ready": 1,
            **WHOLE,
        },
        DEPTH + 60,
    )
    words = [w for x in back["beats__payload"][back["beats__valid"] == 1] for w in lanes_of(x)[0]]
    assert (np.array(words) == expected).all()
