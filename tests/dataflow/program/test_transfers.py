"""Lines and places against loops written out, and against the buffers that the array is proved with."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.commands import Command
from weft.dataflow.program.derived import run_registers_of
from weft.dataflow.program.isa import REGISTERS, Unit
from weft.dataflow.program.legal import check_command, words_of_product
from weft.dataflow.program.rectangles import meet, rectangles_of
from weft.dataflow.program.spaces import Form, Space, place
from weft.dataflow.program.transfers import Lines, indices_of, line_addresses, line_places, lines_of
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.hdl.blocks.banks import BUBBLE, banks, run_registers
from weft.simulator.compact import compress
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

from ...examples_drawn import examples
from .interleavings import tiny

BANK = place(1)


def command(unit: Unit, **values: int) -> Command:
    """A command of these registers, all others as at the start."""
    held = {r.name: r.reset for r in REGISTERS[unit]} | values
    return Command(0, unit, tuple(held.values()), 0, 0, 0, 0)


def load(space: Space, **values: int) -> Command:
    return command(Unit.LOAD, **{"space": space, "form": Form.OPERAND, "words": 1, "address": 0, **values})


counts = st.integers(1, 4)
steps = st.integers(-70, 70)


@given(
    st.tuples(*[counts] * 4),
    st.tuples(*[steps] * 4),
    st.tuples(*[counts] * 4),
    st.tuples(*[steps] * 6),
    st.integers(1, 9),
)
def test_lines_and_places_are_those_of_loops(count, step, inner, places, words):
    """Counters that go on and carry, as hardware has them."""
    names = ("inner0_step", "inner1_step", "inner2_step", "outer0_step", "outer1_step", "outer2_step")
    values = {f"count{i}": count[i] for i in range(4)} | {f"step{i}": step[i] for i in range(4)}
    values |= dict(zip(names, places, strict=True)) | dict(
        zip(("inner1", "inner2", "outer1", "outer2"), inner, strict=True)
    )
    c = load(Space.W2E, words=words, address=5000, place=9000, **values)

    def odometer(turns: int, one: int, two: int, by: tuple[int, ...]):
        sums, at = [0, 0, 0], [0, 0]
        for _ in range(turns):
            yield sum(sums)
            at[1], sums[2] = at[1] + 1, sums[2] + by[2]
            if at[1] == two:
                at, sums[1], sums[2] = [at[0] + 1, 0], sums[1] + by[1], 0
                if at[0] == one:
                    at[0], sums[0], sums[1] = 0, sums[0] + by[0], 0

    lines = [5000 + sum(i * s for i, s in zip(at, step, strict=True)) for at in itertools.product(*map(range, count))]
    outer = list(odometer(len(lines), inner[2], inner[3], places[3:]))
    assert line_addresses(c).tolist() == lines
    assert line_places(c, tiny()).tolist() == [
        [(9000 + line + word) % 2**32 for word in odometer(words, inner[0], inner[1], places[:3])] for line in outer
    ]


both = st.tuples(st.sampled_from((0, 0, 1, -1)), st.sampled_from((0, 1, -1, 3, 40))).map(lambda s: s[0] * BANK + s[1])


@settings(max_examples=examples(200), deadline=None)
@given(st.tuples(*[st.integers(1, 5)] * 4), st.tuples(*[both] * 6), st.integers(1, 30), st.integers(1, 9), st.data())
def test_rectangles_are_all_places_and_no_others(inner, by, words, lines, data):
    """Steps along banks or addresses, both at once, down below 0; counts that do not come out even."""
    names = ("inner0_step", "inner1_step", "inner2_step", "outer0_step", "outer1_step", "outer2_step")
    values = dict(zip(names, by, strict=True)) | dict(zip(("inner1", "inner2", "outer1", "outer2"), inner, strict=True))
    start = place(data.draw(st.integers(0, 40)), data.draw(st.integers(0, 60)))
    c = load(Space.W2E, words=words, count3=lines, place=start, **values)
    found = rectangles_of(c, tiny())
    places = {int(b) << 20 | int(a) for each in found for b in each.banks for a in each.addresses}
    assert places == set(line_places(c, tiny()).ravel().tolist())
    other = load(Space.W2E, words=words, place=start + data.draw(st.sampled_from((1, 7, BANK, -BANK))) % 2**32)
    shared = places & set(line_places(other, tiny()).ravel().tolist())
    assert meet(found, rectangles_of(other, tiny())) is bool(shared)


lines_drawn = st.builds(
    Lines, st.integers(0, 60), st.integers(1, 9), st.tuples(counts, counts), st.tuples(st.integers(-30, 30), steps)
)


@given(lines_drawn, lines_drawn)
def test_lines_meet_where_they_share_a_byte(a, b):
    def bytes_of(lines: Lines) -> set[int]:
        turns = itertools.product(*map(range, lines.counts))
        starts = [lines.address + sum(i * s for i, s in zip(at, lines.steps, strict=True)) for at in turns]
        return {start + i for start in starts for i in range(lines.bytes)}

    assert a.meets(b) == bool(bytes_of(a) & bytes_of(b))
    assert (a.first, a.last) == (min(bytes_of(a)), max(bytes_of(a)) + 1)


@pytest.mark.parametrize(("words", "size"), [(1, 4), (8, 20), (16, 38), (7, 18)])
def test_a_pair_has_a_value_and_an_index_of_three_bits(words, size):
    c = load(Space.N2S, form=Form.PAIR, words=words)

    assert lines_of(c, tiny()).bytes == size == -(-words * 19 // 16) * 2


@pytest.mark.parametrize(("across", "shape"), [(0, (3, 6)), (1, (2, 20))])
def test_through_sore_there_are_fewer_words_or_lines(across, shape):
    """2:8 of 20 words: two groups of 8 and one of 4; of three lines one group."""
    c = load(Space.N2S, words=20, count3=3, run=20, reduce=1, across=across)

    assert line_places(c, tiny()).shape == shape


def layout(m: int, k: int, n: int, mapping: ArrayMapping, run: int) -> tuple[list[Command], list[Command]]:
    """Loads of A [m, k], row after row in memory, and of B, kept as [n, k]: all that a dense product needs."""
    rows, cols = tiny().spec.array.rows, tiny().spec.array.cols
    width, contexts = mapping.pattern.group, mapping.interleave
    if mapping.dataflow == Dataflow.OS:
        west = [
            load(
                Space.W2E,
                words=k,
                count3=m,
                step3=2 * k,
                inner2=65535,
                inner2_step=1,
                outer2=rows,
                outer2_step=BANK,
                outer1=65535,
                outer1_step=k,
            )
        ]
        north = [
            load(
                Space.N2S,
                words=k,
                count3=n,
                step3=2 * k,
                inner2=65535,
                inner2_step=contexts,
                outer2=cols,
                outer2_step=BANK,
                outer1=contexts,
                outer1_step=1,
                outer0_step=k * contexts,
            )
        ]
        return west, north
    tile = rows * width
    down, batches = -(-k // tile), -(-m // contexts) * contexts
    across = -(-n // cols)
    turns = {"outer2": cols, "outer2_step": BANK, "outer1": 65535, "outer1_step": tile}
    west, north = [], []
    for d in range(down):
        words = min(tile, k - d * tile)
        west.append(
            load(
                Space.W2E,
                words=words,
                address=2 * d * tile,
                count3=m,
                step3=2 * k,
                place=d * batches * width,
                inner2=width,
                inner2_step=1,
                inner1=65535,
                inner1_step=BANK,
                outer2=65535,
                outer2_step=width,
            )
        )
        first = d * across * tile + tile - 1
        north.append(
            load(
                Space.N2S,
                words=words,
                address=2 * d * tile,
                count3=n,
                step3=2 * k,
                place=first,
                group=width,
                run=run,
                inner2=65535,
                inner2_step=-1,
                **turns,
            )
        )
    if k % tile:
        left = tile - k % tile
        north.append(
            load(
                Space.N2S,
                form=Form.BLANK,
                words=left,
                count3=n,
                place=(down - 1) * across * tile + left - 1,
                inner2=65535,
                inner2_step=-1,
                **turns,
            )
        )
    return west, north


@pytest.mark.parametrize(("m", "k", "n"), [(5, 9, 7), (4, 16, 4), (13, 24, 19), (1, 3, 1)])
@pytest.mark.parametrize(
    "mapping",
    [
        ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=3),
        ArrayMapping(dataflow=Dataflow.WS, pattern=NMPattern(keep=2, group=2), interleave=2),
    ],
)
def test_loads_fill_the_buffers_as_the_array_reads_them(m, k, n, mapping):
    """`banks` lays out what the RTL of the array is proved with; here lines and counts of loads do."""
    gen = np.random.default_rng(m * k * n)
    a, b = (gen.standard_normal(shape).astype(np.float16) for shape in ((m, k), (k, n)))
    gemm = Gemm(m=m, k=k, n=n)
    compact = compress(b, mapping.pattern if mapping.dataflow == Dataflow.WS else DENSE)
    wanted = banks(tiny().spec, mapping, gemm, a.view(np.uint16), compact.values.view(np.uint16), compact.indices)
    memory = {Space.W2E: a.view(np.uint16).ravel(), Space.N2S: np.ascontiguousarray(b.T).view(np.uint16).ravel()}

    west, north = layout(m, k, n, mapping, k)
    values = {space: np.full((4, tiny().size(space).depth), 0x7FFF, np.int64) for space in memory}
    index = np.full(values[Space.N2S].shape, -1)
    for c in (*west, *north):
        check_command(c, tiny(), 2**20)
        at = line_places(c, tiny())
        if c.form == Form.BLANK:
            index[at >> 20, at & 0xFFFFF] = BUBBLE
            continue
        word = line_addresses(c)[:, None] // 2 + np.arange(c.words)
        values[c.space][at >> 20, at & 0xFFFFF] = memory[c.space][word]
        if c.space == Space.N2S:
            index[at >> 20, at & 0xFFFFF] = indices_of(c)

    meant = wanted.west != 0x7FFF
    assert (values[Space.W2E][:, : wanted.west.shape[1]][meant] == wanted.west[meant]).all()
    there = index[:, : wanted.indices.shape[1]]
    meant = wanted.indices != BUBBLE
    assert (there[meant] == wanted.indices[meant]).all()
    assert (values[Space.N2S][:, : wanted.values.shape[1]][meant] == wanted.values[meant]).all()
    if mapping.dataflow == Dataflow.WS:
        # Of columns that are there, bubbles are bubbles; of others nothing is kept.
        column = (
            np.arange(wanted.indices.shape[1]) // (4 * mapping.pattern.keep) % -(-n // 4) * 4 + np.arange(4)[:, None]
        )
        assert (there[(column < n) & ~meant] == BUBBLE).all()


def product_of(gemm: Gemm, mapping: ArrayMapping) -> Command:
    """The command of a product, by what a compiler knows of it."""
    (keep, group), contexts = (mapping.pattern.keep, mapping.pattern.group), mapping.interleave
    rows, cols = tiny().spec.array.rows, tiny().spec.array.cols
    groups, runs = -(-gemm.run // group), gemm.k // gemm.run
    shared = {"keep": keep, "group": group, "interleave": contexts}
    if mapping.dataflow == Dataflow.WS:
        counts = {"parts": -(-gemm.m // contexts), "runs": 1, "across": -(-gemm.n // cols)}
        down = -(-groups * runs // rows)
        return command(Unit.PRODUCT, stationary=1, rest=group, rows=rows, down=down, **counts, **shared)
    rest = gemm.run - (groups - 1) * group
    counts = {"parts": groups, "runs": runs, "across": -(-gemm.n // (cols * contexts)), "down": -(-gemm.m // rows)}
    return command(Unit.PRODUCT, stationary=0, rest=rest, rows=min(rows, gemm.m), **counts, **shared)


MAPPINGS = [
    ArrayMapping(dataflow=dataflow, pattern=NMPattern(keep=keep, group=group), interleave=interleave)
    for dataflow, keep, group, interleave in (
        *((Dataflow.OS, 1, 1, i) for i in (1, 2, 4)),
        *((Dataflow.OS, 2, 8, i) for i in (1, 4)),
        *((Dataflow.WS, 2, 2, i) for i in (1, 3)),
        *((Dataflow.WS, 2, 8, i) for i in (1, 2)),
    )
]


@given(st.sampled_from(MAPPINGS), st.integers(1, 14), st.integers(1, 3), st.integers(1, 12), st.integers(1, 14))
def test_a_product_has_the_registers_and_the_words_of_its_array(mapping, m, runs, run, n):
    """Those that the array's driver computes on its own, and banks as it fills them."""
    gemm = Gemm(m=m, k=runs * run, n=n, run=run)
    c = product_of(gemm, mapping)
    check_command(c, tiny(), 0)

    assert run_registers_of(c, tiny().spec) == run_registers(tiny().spec, mapping, gemm)
    a, b = np.ones((m, gemm.k), np.float16), np.ones((gemm.k, n), np.float16)
    compact = compress(b, mapping.pattern, run)
    held = banks(tiny().spec, mapping, gemm, a.view(np.uint16), compact.values.view(np.uint16), compact.indices)
    used = words_of_product(c, tiny())
    assert (used[Space.W2E], used[Space.N2S]) == (held.west.shape[1], held.values.shape[1])
