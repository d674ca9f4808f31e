"""Processes that work on one item after the other, and are replaced when they die."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import InputError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["attempt", "run_each"]

T = TypeVar("T")

_TIDY_SECONDS = 20.0
_GLANCE_SECONDS = 0.2
"""How long a process may take to end its step and write its checkpoint after Ctrl-C."""


def run_each(
    items: Sequence[T],
    jobs: int,
    *,
    begin: Callable[[], str],
    do: Callable[[T], None],
    took: Callable[[T, str | None], None],
    stop: Callable[[], bool],
    nice: int,
) -> None:
    """``do`` every item, ``jobs`` processes at ``nice`` at a time; ``took`` is told of each, and why it failed.

    ``begin`` and ``do`` are pickled. What ``begin`` says in a new process, if anything, is why it does no item. Once
    ``stop`` says so no item is begun, those at work hear SIGINT themselves, and KeyboardInterrupt is raised.
    """
    left = list(items)[::-1]
    pool = [_Worker(begin, do, nice) for _ in range(min(jobs, len(left)))]
    try:
        _drain(pool, left, took, stop)
    finally:
        _end(pool)


def _drain(
    pool: list[_Worker[T]], left: list[T], took: Callable[[T, str | None], None], stop: Callable[[], bool]
) -> None:
    """Hand out what is ``left``, from its end, until everything is taken or it is to ``stop``."""
    busy: dict[Connection, _Worker[T]] = {}
    for worker in pool:
        worker.give(left.pop())
        busy[worker.connection] = worker
    while busy:
        found = wait(list(busy), _GLANCE_SECONDS)
        if stop():
            raise KeyboardInterrupt
        for ready in found:
            worker = busy.pop(ready)  # type: ignore[call-overload]
            took(*worker.take())
            if left:
                worker.give(left.pop())
                busy[worker.connection] = worker


def _end(pool: Sequence[_Worker[Any]]) -> None:
    limit = time.monotonic() + _TIDY_SECONDS
    for worker in pool:
        worker.connection.close()
    for worker in pool:
        worker.process.join(max(0.0, limit - time.monotonic()))
        if worker.process.is_alive():
            worker.process.terminate()
            worker.process.join()


class _Worker(Generic[T]):
    """A process, and the item that it works on."""

    def __init__(self, begin: Callable[[], str], do: Callable[[T], None], nice: int) -> None:
        self._target = begin, do, nice
        self._item: list[T] = []
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, *self._target), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, item: T) -> None:
        self._item = [item]
        if self.process.exitcode is not None:
            self.connection.close()
            self._start()
        self.connection.send(item)

    def take(self) -> tuple[T, str | None]:
        """The item, and why it failed; None if it is done."""
        (item,) = self._item
        try:
            failure: str | None = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(_TIDY_SECONDS)
            failure = f"its process ended with exit code {self.process.exitcode}"
        return item, failure


def _work(connection: Connection, begin: Callable[[], str], do: Callable[[Any], None], nice: int) -> None:
    """Body of a process: works on what it is given until there is no more."""
    # What models print must not mix with a document on our standard output.
    os.dup2(2, 1)
    os.nice(nice)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        hindered = begin()
        while True:
            item = connection.recv()
            connection.send(hindered or attempt(do, item))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def attempt(do: Callable[[Any], None], item: Any) -> str | None:
    """``do`` an item; why it failed, or None."""
    try:
        do(item)
    except InputError as error:
        return str(error)
    except SystemExit as error:
        return f"its code ended the program with exit code {error.code}"
    except Exception as error:
        first = str(error).strip().partition("\n")[0][:300]
        return f"{type(error).__name__}: {first}"
    return None
