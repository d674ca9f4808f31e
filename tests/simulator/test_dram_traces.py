"""Traces of requests: every form that is read gives the same requests, and what is none is refused with its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.simulator.dram import run_memory
from weft.simulator.dram_requests import Requests
from weft.simulator.dram_spec import load_memory
from weft.simulator.dram_traces import FORMS, Form, read_trace, write_trace
from weft.workloads.errors import InputError

X8 = load_memory("ddr4-2400-x8")
LINE = X8.organization.line_bytes


def read(folder: Path, text: str | bytes) -> tuple[list[int], list[bool], list[int]]:
    path = folder / "trace"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    requests = read_trace(path, X8).requests
    return requests.line.tolist(), requests.write.tolist(), requests.time.tolist()


def test_time_in_a_trace_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("address,op,time\n# two rows of one bank\n0,R,0\n\n0x20000,w,100\n131072,R,100000\n")
    requests = read_trace(path, X8).requests
    assert requests.line.tolist() == [0, 2048, 2048]
    run = run_memory(X8, requests)
    assert run.done[0] == X8.timing.RCD + X8.timing.CL + 4
    assert run.entered.tolist() == [0, 100, 100_000] and run.refreshes == 10


@pytest.mark.parametrize(
    ("text", "address", "write", "time"),
    [
        # Ramulator 2's loadstore_trace.cpp and Ramulator 1's README.
        ("LD 0x229f6f80\nST 0xda5e700\n", [0x229F6F80, 0xDA5E700], [False, True], [0, 0]),
        ("LD 64\nST 100\n", [64, 100], [False, True], [0, 0]),
        ("0x12345680 R\n0x4cbd56c0 W\n", [0x12345680, 0x4CBD56C0], [False, True], [0, 0]),
        # DRAMsim3's example.trace; common.cc reads an address as hexadecimal, with 0x or without.
        ("0x12345680 READ 0\n0x4cbd56c0 WRITE 3\n", [0x12345680, 0x4CBD56C0], [False, True], [0, 3]),
        ("12345680 READ 0\n4cbd56c0 write 3", [0x12345680, 0x4CBD56C0], [False, True], [0, 3]),
        # DRAMSim2's traces: k6 and mase.
        (
            "0x00D6A0C0 P_FETCH 11\n0x40 P_MEM_RD 12\n0x80 P_MEM_WR 13\n0xC0 BOFF 14\n0x40 P_LOCK_RD 15\n"
            "0x40 P_LOCK_WR 16\n",
            [0xD6A0C0, 0x40, 0x80, 0xC0, 0x40, 0x40],
            [False, False, True, True, False, False],
            [11, 12, 13, 14, 15, 16],
        ),
        ("0x7FC0 IFETCH 4\n0x7FC0 WRITE 9\n", [0x7FC0, 0x7FC0], [False, True], [4, 9]),
        ("\ufeff0,R\n", [0], [False], [0]),
        ('\ufeffaddress;op\r\n64;"W"\r\n', [64], [True], [0]),
        ("Address,op\r0x40 , r\r# end", [64], [False], [0]),
        ("4096,READ,7 # decimal between commas\n// and a note\n  0xFC0\tst  \n", [4096, 0xFC0], [False, True], [7, 7]),
    ],
)
def test_forms(tmp_path: Path, text: str, address: list[int], write: list[bool], time: list[int]) -> None:
    assert read(tmp_path, text) == ([a // LINE for a in address], write, time)


def ours(requests: Sequence[tuple[int, bool, int]]) -> str:
    return "".join(f"{line * LINE},{'RW'[w]},{time}\n" for line, w, time in requests)


def dramsim3(requests: Sequence[tuple[int, bool, int]]) -> str:
    return "".join(f"{line * LINE:x} {('READ', 'WRITE')[w]} {time}\n" for line, w, time in requests)


def dramsim2(requests: Sequence[tuple[int, bool, int]]) -> str:
    return "".join(f"0x{line * LINE:08X} {('P_MEM_RD', 'P_MEM_WR')[w]}   {time}\r\n" for line, w, time in requests)


def ramulator(requests: Sequence[tuple[int, bool, int]]) -> str:
    return "".join(f"{('LD', 'ST')[w]} {line * LINE}\n" for line, w, _ in requests)


@given(
    requests=st.lists(
        st.tuples(st.integers(0, X8.organization.lines - 1), st.booleans(), st.integers(0, 1000)), min_size=1
    ).map(lambda found: sorted(found, key=lambda r: r[2])),
    encoding=st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-32")),
)
def test_every_form_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[int, bool, int]], encoding: str
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    line, write, time = (list(column) for column in zip(*requests, strict=True))
    for form in (ours, dramsim3, dramsim2):
        assert read(folder, form(requests).encode(encoding)) == (line, write, time)
    assert read(folder, ramulator(requests).encode(encoding)) == (line, write, [0] * len(line))


def test_what_was_read_as_hexadecimal_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    for text, said in (("40 READ 0\n", True), ("0x40 READ 0\n", False), ("40,READ,0\n", False), ("LD 40\n", False)):
        path.write_text(text)
        assert read_trace(path, X8).hexadecimal is said


@given(
    requests=st.lists(
        st.tuples(st.integers(0, X8.organization.lines - 1), st.booleans(), st.integers(0, 1000)), min_size=1
    ).map(lambda found: sorted(found, key=lambda r: r[2])),
    form=st.sampled_from(FORMS),
    cut=st.integers(1, 9),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[int, bool, int]], form: Form, cut: int
) -> None:
    path = tmp_path_factory.mktemp("written") / "trace"
    line, write, time = (np.array(column) for column in zip(*requests, strict=True))
    whole = Requests(line=line, write=write, time=time if form != "ramulator" else np.zeros(len(line), np.int64))
    parts = [
        Requests(line=line[i : i + cut], write=write[i : i + cut], time=time[i : i + cut])
        for i in range(0, len(line), cut)
    ]
    written = write_trace(path, parts, X8, form, len(line))
    assert written == (int((~write).sum()), int(write.sum()), time[-1])
    found = read_trace(path, X8)
    assert not found.hexadecimal
    for name in ("line", "write", "time"):
        assert getattr(found.requests, name).tolist() == getattr(whole, name).tolist()
    if len(line) > 1:
        with pytest.raises(InputError, match="would hold more than"):
            write_trace(path, parts, X8, form, len(line) - 1)
        assert read_trace(path, X8).requests.line.tolist() == line.tolist(), "the old file stays"
        assert len(list(path.parent.iterdir())) == 1, "and no part"


def test_the_forms_by_hand(tmp_path: Path) -> None:
    part = Requests(line=np.array([1, 4096]), write=np.array([False, True]), time=np.array([0, 7]))
    said = {
        "dramsim3": "0x40 READ 0\n0x40000 WRITE 7\n",
        "ramulator": "LD 0x40\nST 0x40000\n",
        "csv": "address,op,cycle\n0x40,R,0\n0x40000,W,7\n",
    }
    for form in FORMS:
        write_trace(tmp_path / form, [part], X8, form, 2)
        assert (tmp_path / form).read_text() == said[form]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,R\nbogus,R\n", ":2: address must be a number"),
        ("0,R\n64,X\n", ":2: operation must be R or W, not 'X'; known too are LD, ST, READ"),
        ("0\n", ":1: 1 fields"),
        ("0,R,5\n64,R,4\n", ":2: cycle 4 is before 5"),
        ("8589934592,R\n", ":1: address 8589934592 is beyond the last one, 8589934591"),
        ("# a note\r\n200000000 READ 1\r\n", r":2: address 200000000 \(hexadecimal, 8589934592\) is beyond"),
        ("ST 0x200000000\n", ":1: address 0x200000000 is beyond"),
        ("-64,R\n", ":1: address must be"),
        ("LD -64\n", ":1: address must be"),
        ("LD 0x40 7\n", ":1: 3 fields; after LD stands one address"),
        ("R 0,0,0,12,5\n", ":1: 5 fields; after R stands one address.*places in the memory"),
        ("3 20734016\n", ":1: two numbers are a line of a processor's trace"),
        ("0x40 READ x\n", ":1: cycle must be a number"),
        ("0x40 READ 1 2\n", ":1: 4 fields"),
        ("address,op\n", "holds no request"),
        ("", "holds no request"),
        ("0,R,999999999999\n", ":1: cycle"),
        (b"\xff0,R\n", "is not UTF-8 text"),
        (b"\xff\xfe0", "is not UTF-16 text"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path, text)
