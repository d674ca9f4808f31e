"""Weft commands that are killed, at one of their file operations or at any time.

Run as a program it imports all that commands need once and forks for each of them, so that hundreds of kills cost less
than the imports of ten. A child counts what it does to files below ``watched`` and ends itself, by SIGKILL, before the
``at``-th operation; or it is killed from outside ``after`` seconds.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow
import torch

from weft.cli import main

__all__ = ["Ended", "Job", "Warm", "warm_process"]

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "fcntl.flock"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command and when it is killed, if at all; ``setup`` is Python that runs before it."""

    args: tuple[str, ...]
    watched: str
    at: int | None = None
    after: float | None = None
    setup: str = ""
    warms: bool = False
    """Run it in the process that the others are forked from, so that they find everything imported and loaded."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: by its exit code, None if it was killed; its file operations, seconds, and last words."""

    code: int | None
    operations: int
    seconds: float
    said: str


class Warm:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *jobs: Job) -> list[Ended]:
        """Run ``jobs`` at the same time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._process.stdin.flush()
        return [Ended(**found) for found in json.loads(self._process.stdout.readline())]


@contextmanager
def warm_process() -> Iterator[Warm]:
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield Warm(process)
    finally:
        process.kill()
        process.communicate()


def _serve() -> None:
    torch.set_num_threads(1)
    pyarrow.set_cpu_count(1)
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        jobs = [Job(**job) for job in json.loads(line)]
        ended = [_here(job) for job in jobs] if jobs[0].warms else _all(jobs)
        talk.write(json.dumps([asdict(found) for found in ended]) + "\n")
        talk.flush()


def _here(job: Job) -> Ended:
    begun, code, said = time.monotonic(), *_command(job)
    return Ended(code=code, operations=0, seconds=time.monotonic() - begun, said=said)


def _command(job: Job) -> tuple[int, str]:
    """Exit code and last words."""
    said, code = io.StringIO(), 99
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            exec(job.setup, {})
            code = main(list(job.args))
    except BaseException:
        said.write(traceback.format_exc())
    return code, said.getvalue()[-2000:]


def _all(jobs: Sequence[Job]) -> list[Ended]:
    begun, left = time.monotonic(), {}
    for number, job in enumerate(jobs):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _child(job, writing)
        os.close(writing)
        left[pid] = (number, job, reading)
    ended: dict[int, Ended] = {}
    while left:
        for pid, (number, job, reading) in list(left.items()):
            seconds = time.monotonic() - begun
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                with os.fdopen(reading) as file:
                    told = file.read()
                del left[pid]
                count, _, said = told.partition("\n")
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
                ended[number] = Ended(code=code, operations=int(count or 0), seconds=seconds, said=said)
            elif job.after is not None and seconds >= job.after:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
    return [ended[number] for number in range(len(jobs))]


def _child(job: Job, telling: int) -> None:
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if _counts(event, arguments, job.watched):
            count += 1
            if count == job.at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    code, said = _command(job)
    with os.fdopen(telling, "w") as file:
        file.write(f"{count}\n{said}")
    os._exit(code)


def _counts(event: str, arguments: tuple[Any, ...], watched: str) -> bool:
    if event == "fcntl.flock":
        return True
    if event not in _CHANGES and not (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
        return False
    path = arguments[0]
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    # A name alone is relative to a folder that is open, as shutil.rmtree has it.
    return isinstance(path, str) and (path.startswith(watched) or "/" not in path)


if __name__ == "__main__":
    _serve()
