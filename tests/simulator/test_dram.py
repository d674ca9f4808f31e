"""DRAM: the kernel against the stepped reference and a JEDEC witness, ceilings, maps, requests, efficiency, energy."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import DramSpec
from weft.simulator.dram import gaps, memory_of, run_memory, shape, transfer_efficiency
from weft.simulator.dram_map import MAPS, locate
from weft.simulator.dram_requests import PATTERNS, Requests, lines_of, nest, pattern
from weft.simulator.dram_spec import Controller, MemorySpec, load_memory, memory_names, parse_memory
from weft.simulator.kernels.dram import Gaps, run_channel
from weft.simulator.reference import Command, channel_reference, jedec_violations
from weft.workloads.errors import InputError

from ..examples_drawn import examples
from ..strategies import memories

KINDS = ("ACT", "PRE", "RD", "WR", "PREA", "REF")
X8 = load_memory("ddr4-2400-x8")


def logged(
    memory: MemorySpec, requests: list[tuple[int, int, int, bool, int]], between: Gaps | None = None
) -> tuple[list[Command], list[int], list[int]]:
    """Commands of one channel, and when each request entered and was done, as the kernel has it."""
    bank, row, column, write, time = (np.array(x) for x in zip(*requests, strict=True))
    entered, done = np.zeros((2, len(requests)), np.int64)
    between = between or gaps(memory)
    log = np.zeros((20 * len(requests) + 10_000, 4), np.int64)
    totals = run_channel(bank, row, column, write, time, between, shape(memory), entered, done, log)
    assert totals.commands <= len(log)
    per_rank = memory.organization.bank_groups * memory.organization.banks
    commands = [
        Command(t, KINDS[kind], target, -1, -1)
        if kind >= 4
        else Command(t, KINDS[kind], target // per_rank, target, row if kind != 1 else -1)
        for t, kind, target, row in log[: totals.commands].tolist()
    ]
    return commands, entered.tolist(), done.tolist()


def traffic(memory: MemorySpec, longest: int) -> st.SearchStrategy[list[tuple[int, int, int, bool, int]]]:
    """Requests with rows and columns close enough to hit, to conflict and to meet the same line."""
    banks = memory.organization.channel_banks

    def timed(requests: list[tuple[int, int, int, bool, int]]) -> list[tuple[int, int, int, bool, int]]:
        clock, result = 0, []
        for bank, row, column, write, gap in requests:
            clock += gap
            result.append((bank, row, column, write, clock))
        return result

    gap = st.one_of(st.just(0), st.integers(0, 30), st.sampled_from([0, 0, 200, 900]))
    one = st.tuples(st.integers(0, banks - 1), st.integers(0, 2), st.integers(0, 3), st.booleans(), gap)
    return st.lists(one, min_size=1, max_size=longest).map(timed)


@settings(max_examples=examples(80))
@given(st.data())
def test_every_command_and_cycle_is_that_of_the_stepped_channel(data: st.DataObject) -> None:
    memory = data.draw(memories())
    requests = data.draw(traffic(memory, 40))
    expected = channel_reference(memory, requests)
    commands, entered, done = logged(memory, requests)
    assert commands == expected.commands
    assert entered == [expected.entered[i] for i in range(len(requests))]
    assert done == [expected.done[i] for i in range(len(requests))]


@settings(max_examples=examples(60))
@given(st.data())
def test_no_command_breaks_a_jedec_rule(data: st.DataObject) -> None:
    memory = data.draw(memories())
    commands, _, _ = logged(memory, data.draw(traffic(memory, 150)))
    assert jedec_violations(memory, commands) == []


@pytest.mark.parametrize("name", memory_names())
@pytest.mark.parametrize("stream", ["seq_read", "rand_rw_64B", "copy_1r1w_block1"])
def test_no_shipped_memory_breaks_a_jedec_rule(name: str, stream: str) -> None:
    memory = load_memory(name)
    requests = pattern(stream, memory, 1200)
    place = locate(requests.line, memory, "bg-interleaved")
    mine = place.channel == 0
    rows = zip(
        place.bank[mine], place.row[mine], place.column[mine], requests.write[mine], requests.time[mine], strict=True
    )
    assert jedec_violations(memory, logged(memory, list(rows))[0]) == []


@pytest.mark.parametrize(
    "gap",
    [
        "act_column",
        "act_pre",
        "act_act_group",
        "act_act_rank",
        "four_act",
        "pre_act",
        "pre_all_act",
        "column_group",
        "column_rank",
        "column_switch",
        "read_pre",
        "write_pre",
        "read_write",
        "write_read_group",
        "write_read_rank",
        "refresh",
    ],
)
def test_a_channel_that_is_one_cycle_early_is_caught(gap: str) -> None:
    """The witness bites: a controller with any one gap too short makes commands it objects to."""
    ranks = 1 if gap in ("four_act", "write_read_rank") else 2
    organization = replace(X8.organization, ranks=ranks, bank_groups=4 // ranks, banks=4 // ranks)
    memory = replace(X8, organization=organization, timing=replace(X8.timing, RPA=20, REFI=1500))
    rng = np.random.default_rng(0)
    n, banks, rows = 1500, organization.channel_banks, 200 if gap == "four_act" else 3
    drawn = (
        rng.integers(0, banks, n),
        rng.integers(0, rows, n),
        rng.integers(0, 20, n),
        (rng.random(n // 10) < 0.4).repeat(10),
    )
    requests = list(zip(*(x.tolist() for x in drawn), np.cumsum(rng.integers(0, 5, n)).tolist(), strict=True))
    assert jedec_violations(memory, logged(memory, requests)[0]) == []
    early = gaps(memory)._replace(**{gap: getattr(gaps(memory), gap) - 1})
    assert jedec_violations(memory, logged(memory, requests, early)[0]) != []


def test_the_witness_objects_to_each_rule() -> None:
    """Every gap shortened by one cycle is seen: the boundary pair of each rule."""
    t, burst = X8.timing, 4
    act, col = (0, "ACT", 0, 0, 5), t.RCD
    for rule, legal in {
        "RCD": [act, (t.RCD, "RD", 0, 0, 5)],
        "RAS": [act, (t.RAS, "PRE", 0, 0, -1)],
        "RP": [act, (t.RAS + 5, "PRE", 0, 0, -1), (t.RAS + 5 + t.RP, "ACT", 0, 0, 6)],
        "RRD_S": [act, (t.RRD_S, "ACT", 0, 4, 5)],
        "RRD_L": [act, (t.RRD_L, "ACT", 0, 1, 5)],
        "FAW": [act, (4, "ACT", 0, 4, 5), (8, "ACT", 0, 8, 5), (12, "ACT", 0, 12, 5), (t.FAW, "ACT", 0, 1, 5)],
        "CCD_L": [act, (col, "RD", 0, 0, 5), (col + t.CCD_L, "RD", 0, 0, 5)],
        "CCD_S": [act, (4, "ACT", 0, 4, 5), (40, "RD", 0, 0, 5), (40 + t.CCD_S, "RD", 0, 4, 5)],
        "RTP": [act, (col + 20, "RD", 0, 0, 5), (col + 20 + t.RTP, "PRE", 0, 0, -1)],
        "WR": [act, (col, "WR", 0, 0, 5), (col + t.CWL + burst + t.WR, "PRE", 0, 0, -1)],
        "RTW": [act, (col, "RD", 0, 0, 5), (col + t.CL + burst + t.RTW_GAP - t.CWL, "WR", 0, 0, 5)],
        "WTR": [act, (col, "WR", 0, 0, 5), (col + t.CWL + burst + t.WTR_L, "RD", 0, 0, 5)],
    }.items():
        commands = [Command(*c) for c in legal]
        assert jedec_violations(X8, commands) == [], rule
        early = commands[-1]._replace(cycle=commands[-1].cycle - 1)
        assert jedec_violations(X8, [*commands[:-1], early]) != [], rule
    assert jedec_violations(X8, [Command(0, "RD", 0, 0, 1)]) != []
    late = [Command(3 * t.REFI, "ACT", 0, 0, 1)]
    assert len(jedec_violations(X8, late)) == 2


CEILING = 1 - Fraction(X8.timing.RFC, X8.timing.REFI)


def share(name: str, memory: MemorySpec = X8, order: str = "bg-interleaved", count: int = 40_000) -> float:
    return float(run_memory(memory, pattern(name, memory, count), order).share_of_peak)


def test_refresh_bounds_a_sequential_stream() -> None:
    for name in ("seq_read", "seq_write"):
        assert 0.99 * CEILING < share(name, count=200_000) <= CEILING


@pytest.mark.parametrize("name", ["ddr4-2400-x4", "ddr4-2400-x8", "ddr4-2400-x16"])
def test_four_activates_bound_random_lines(name: str) -> None:
    memory = load_memory(name)
    bound = min(Fraction(1), Fraction(16, memory.timing.FAW)) * CEILING
    assert share("rand_read_64B", memory) <= bound
    if name != "ddr4-2400-x4":
        assert share("rand_read_64B", memory) > 0.9 * bound


def test_one_bank_serves_a_row_in_each_row_cycle() -> None:
    assert abs(share("stride_128KB_read") - Fraction(4, X8.timing.RC) * CEILING) < 0.002


def test_one_bank_group_is_bound_by_ccd_l() -> None:
    # In order of arrival: a queue of one request cannot reorder.
    serial = replace(X8, controller=Controller(read_queue=1, write_queue=1, drain_from=1, drain_to=0, hit_limit=1))
    bound = Fraction(4, X8.timing.CCD_L) * CEILING
    assert share("seq_read", serial, "column-low") <= bound
    assert bound < share("seq_read", order="column-low") < CEILING
    assert 0.98 * bound < share("stride_8KB_read") <= bound


@settings(max_examples=examples(60))
@given(st.data())
def test_a_map_gives_every_line_its_own_place(data: st.DataObject) -> None:
    o = replace(X8.organization, channels=2, ranks=2, rows=4, columns=32)
    memory = replace(X8, organization=o)
    fields = data.draw(st.permutations(["row", "rank", "bank", "bankgroup", "column", "channel"]))
    order = ",".join(fields)
    if data.draw(st.booleans()):
        order = order.replace("column", "column:1") + ",column"
    place = locate(np.arange(o.lines), memory, order)
    assert len(set(zip(*(x.tolist() for x in place), strict=True))) == o.lines
    sizes = (o.channels, o.channel_banks, o.rows, o.row_lines)
    assert [int(x.max()) + 1 for x in place] == list(sizes)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("bg-interleave", "did you mean 'bg-interleaved'"),
        ("row,bank,column", "leaves out 2 bits of bankgroup"),
        ("row,rank,bank,bankgroups,column,channel", "did you mean 'bankgroup'"),
        ("row,rank,bank,bankgroup,column:9,channel", "more bits of column than its 7"),
    ],
)
def test_a_wrong_map_is_named(order: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        locate(np.arange(4), X8, order)


def test_neighbours_lie_as_the_maps_say() -> None:
    spread, low = (locate(np.arange(4), X8, MAPS[name]) for name in ("bg-interleaved", "column-low"))
    assert (spread.bank // 4).tolist() == [0, 1, 2, 3]
    assert low.bank.tolist() == [0] * 4 and low.column.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", memory_names())
def test_every_memory_and_pattern_runs_below_its_peak(name: str) -> None:
    memory = load_memory(name)
    for each in PATTERNS:
        run = run_memory(memory, pattern(each, memory, 3000))
        assert 0 < run.share_of_peak <= 1
        assert run.reads + run.writes + run.forwarded + run.merged == 3000
        assert (run.done > run.entered).all() and (run.entered >= run.requests.time).all()
        assert run.hits + run.activates >= run.reads + run.writes
        assert run.pj_per_bit > 0


def test_a_queued_write_answers_reads_and_takes_writes() -> None:
    requests = Requests(
        line=np.array([0, 0, 0, 9]), write=np.array([True, False, True, False]), time=np.zeros(4, np.int64)
    )
    # Another read keeps the writes in their queue.
    run = run_memory(X8, replace(requests, line=np.array([9, 0, 0, 0]), write=np.array([False, True, False, True])))
    assert (run.reads, run.writes, run.forwarded, run.merged) == (1, 1, 1, 1)
    assert run.done[2] == run.entered[2] + 1


@pytest.mark.parametrize("name", ["seq", "rand_read_100B", "stride_0B_read", "x_0r0w_block4", "copy_1r1w_block0"])
def test_an_unknown_pattern_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="pattern"):
        pattern(name, X8, 10)


@given(
    st.integers(0, 500), st.lists(st.tuples(st.integers(1, 4), st.integers(0, 700)), max_size=3), st.integers(1, 300)
)
def test_a_nest_touches_the_lines_of_its_bytes(base: int, loops: list[tuple[int, int]], run: int) -> None:
    starts = [base]
    for count, pitch in loops:
        starts = [s + i * pitch for s in starts for i in range(count)]
    expected: list[int] = []
    for start in starts:
        for line in range(start // 64, (start + run - 1) // 64 + 1):
            if not expected or expected[-1] != line:
                expected.append(line)
    assert nest(base, [c for c, _ in loops], [p for _, p in loops], run, 64).tolist() == expected


@settings(max_examples=examples(25))
@given(st.integers(1, 4096), st.integers(0, 8192), st.booleans())
def test_efficiency_is_a_share(row_bytes: int, rest: int, write: bool) -> None:
    assert 0 < transfer_efficiency(X8, row_bytes, row_bytes + rest, write) <= 1


@settings(max_examples=20)
@given(st.integers(1, 64), st.integers(1, 63), st.sampled_from([128, 512, 4096, 8192, 131072]), st.booleans())
def test_more_bytes_of_the_same_line_are_as_much_better(part: int, more: int, pitch: int, write: bool) -> None:
    whole = min(part + more, 64)
    small, large = (transfer_efficiency(X8, size, pitch, write) for size in (part, whole))
    assert small * whole == large * part


@settings(max_examples=20)
@given(st.integers(1, 200), st.integers(1, 60), st.booleans())
def test_nothing_is_faster_than_what_touches(lines: int, apart: int, write: bool) -> None:
    row = 64 * lines
    assert transfer_efficiency(X8, row, row, write) >= transfer_efficiency(X8, row, row + 64 * apart, write) - 0.01


@pytest.mark.parametrize("name", memory_names())
def test_what_touches_runs_as_a_sequential_stream(name: str) -> None:
    memory = load_memory(name)
    long = float(run_memory(memory, pattern("seq_read", memory, 400_000)).share_of_peak)
    assert float(transfer_efficiency(memory, 4096, 4096, False)) == pytest.approx(long, abs=0.01)
    assert transfer_efficiency(memory, 64, 64, False) == transfer_efficiency(memory, 4096, 4096, False)


def test_rows_of_one_bank_wait_for_its_row_cycle() -> None:
    bound = Fraction(4, X8.timing.RC) * CEILING
    assert abs(transfer_efficiency(X8, 64, 131_072, False) - bound) < 0.002


def test_one_channel_of_eight_gets_an_eighth() -> None:
    memory = load_memory("hbm2")
    # Every eighth line lies in the same channel.
    assert transfer_efficiency(memory, 64, 512, False) <= Fraction(1, 8)


def test_a_transfer_that_overlaps_itself_is_refused() -> None:
    with pytest.raises(InputError, match="must not overlap"):
        transfer_efficiency(X8, 65, 64, False)


def test_a_machine_names_its_memory() -> None:
    memory = memory_of(DramSpec(kind="ddr4-2400-x4", bytes_per_second=76_800_000_000))
    assert memory.organization.channels == 4
    assert memory.organization.bytes_per_second == 76_800_000_000
    assert float(run_memory(memory, pattern("seq_read", memory, 80_000)).share_of_peak) > 0.94
    for rate, channels in ((1_600_000_000, 1), (19_200_000_000, 1), (20_000_000_000, 2), (76_800_000_001, 8)):
        narrow = memory_of(DramSpec(kind="ddr4-2400-x4", bytes_per_second=rate))
        assert narrow.organization.channels == channels


def toml(name: str) -> str:
    return (Path(__file__).parents[2] / "simulator" / "memories" / f"{name}.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("CL = 17", "CL = 0", "timing.CL must be an integer from 1"),
        ("banks = 4\nrows", "banks = 3\nrows", "organization.banks must be a power of two"),
        ('"timing.FAW", ', "", "timing.FAW has no provenance"),
        ('"timing.FAW"', '"timing.FAV"', "did you mean 'timing.FAW'"),
        ('"timing.FAW"', '"timing.FAW", "timing.CL"', "timing.CL has more than one provenance"),
        ("REFI = 9360", "REFI = 500", "timing.REFI must be at least"),
        ("drain_to = 9", "drain_to = 36", "controller.drain_to"),
        ("vdd = 1.2", "vdd = -1.2", "power.*vdd must be a positive number"),
        ("idd4r = 135", "idd4r = 35", "power.idd4r must be above the standby current idd3n, 43"),
        ("idd0 = 48", "idd0 = 40", "power.idd0 must be above 40.3, the standby current of a row cycle"),
        ("ranks = 1", "ranks = 8", "at most 64"),
        ('mark = "assumed"', 'mark = "guessed"', "provenance"),
    ],
)
def test_a_bad_memory_is_refused(old: str, new: str, said: str) -> None:
    text = toml("ddr4-2400-x8")
    assert old in text
    with pytest.raises(InputError, match=said):
        parse_memory(text.replace(old, new, 1), "mine.toml")


@pytest.mark.parametrize("energy", ["-8.0", "0.0", "inf", "nan"])
def test_a_bit_that_costs_nothing_is_refused(energy: str) -> None:
    with pytest.raises(InputError, match=r"power\.read_pj must be a positive number"):
        parse_memory(toml("lpddr4-2400").replace("read_pj = 8.0", f"read_pj = {energy}"), "mine.toml")


def test_an_unknown_memory_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'ddr4-2400-x8'"):
        load_memory("ddr4-2400-8")


def test_lines_of_are_there_at_once() -> None:
    assert lines_of(np.arange(3), False).time.tolist() == [0, 0, 0]


def test_a_random_block_is_read_or_written_as_a_whole() -> None:
    asked = pattern("rand_rw_1KB", X8, 16 * 500)
    blocks = asked.write.reshape(500, 16)

    assert (blocks == blocks[:, :1]).all()
    assert 0.4 < blocks.mean() < 0.6
    assert (np.diff(asked.line.reshape(500, 16), axis=1) == 1).all()
