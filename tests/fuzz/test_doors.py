"""Files of every kind that Weft reads, made worse at random: each works or is refused, in bounded time."""

from __future__ import annotations

import os
import random
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from weft.workloads.errors import InputError

from .doors import DOORS, Door

_CPU_SECONDS = 20
"""Of one input; the slowest that works takes a tenth of it. Processor time, so a busy machine fails nothing."""


@contextmanager
def bounded() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {_CPU_SECONDS} s of processor time")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
    # Inside a kernel no handler runs; there the signal's own action, the end of the process, is the last word.
    signal.setitimer(signal.ITIMER_VIRTUAL, 3 * _CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(door: Door, path: Path) -> str:
    """How reading ends: "works", "refused", or what went wrong."""
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door.read(path)
    except InputError as error:
        text = str(error)
        calm = len(text.splitlines()) < 30 and "\x1b" not in text and "fault" not in text
        return "refused" if calm else f"a message that is no message: {text!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "works"


def spoiled(door: Door, folder: Path, inputs: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """How often each end came, and the inputs (by their number) that ended in no way that is allowed."""
    whole = folder / "whole"
    whole.mkdir(parents=True)
    seeds = list(door.seeds(whole))
    assert [attempt(door, path) for path in seeds] == ["works"] * len(seeds), "what is spoiled must be whole before"
    ends: dict[str, int] = {"works": 0, "refused": 0}
    wrong = []
    for i in range(inputs):
        chance = random.Random(f"{door.name} {seed} {i}")
        source, place = chance.choice(seeds), folder / "spoiled"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        path = place / source.name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path)
        door.worsen(chance, path)
        end = attempt(door, path)
        if end in ends:
            ends[end] += 1
        else:
            wrong.append(f"input {i}: {end}")
    return ends, wrong


@pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])
def test_some_spoiled_files_work_or_are_refused(tmp_path: Path, door: Door) -> None:
    ends, wrong = spoiled(door, tmp_path, max(door.inputs // 100, 3), seed=0)
    assert not wrong
    assert ends["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])
def test_spoiled_files_work_or_are_refused(tmp_path: Path, door: Door) -> None:
    ends, wrong = spoiled(door, tmp_path, door.inputs, seed=1)
    assert not wrong
    assert ends["refused"] and ends["works"], "spoiled all alike, they would all fall at the first rule"


def test_ten_thousand_inputs() -> None:
    assert sum(door.inputs for door in DOORS) >= 10_000


@pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, door: Door) -> None:
    """Reading a pipe waits for ever, and /dev/zero has no end."""
    source = next(door.seeds(tmp_path))
    held = source / "result.json" if source.is_dir() else source
    for make in (
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        Path.mkdir,
        lambda path: path.symlink_to("gone"),
    ):
        held.unlink()
        make(held)
        assert attempt(door, source) == "refused", make
        if held.is_dir():
            held.rmdir()
            held.touch()


@pytest.mark.parametrize("door", [d for d in DOORS if d.text], ids=lambda d: d.name)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_with_a_byte_order_mark_and_other_line_ends_works(tmp_path: Path, door: Door, encoding: str) -> None:
    path = next(door.seeds(tmp_path))
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert attempt(door, path) == "works"
