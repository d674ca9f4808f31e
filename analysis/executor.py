"""Whatever calls a function for many tasks: this process, or a cluster (:mod:`weft.analysis.cluster`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..workloads.errors import InputError
from ..workloads.files import sources_digest

__all__ = ["Executor", "Serial", "TasksLost", "sources"]

T = TypeVar("T")


class Executor(Protocol):
    """Whatever calls a function for many tasks."""

    def each(self, do: Callable[[T], bytes], tasks: Sequence[T]) -> Iterator[tuple[T, bytes]]:
        """Task and result, in the order in which they come; :class:`TasksLost` after all others, if some never came.

        What ``do`` raises ends it at once.
        """
        ...


class TasksLost(InputError):  # noqa: N818
    """Tasks whose processes died, again and again; all others are done."""

    def __init__(self, said: str, tasks: Sequence[Any]) -> None:
        super().__init__(said)
        self.tasks = tuple(tasks)


class Serial:
    """One after the other, in this process."""

    def each(self, do: Callable[[T], bytes], tasks: Sequence[T]) -> Iterator[tuple[T, bytes]]:
        """Task and result, in order."""
        for task in tasks:
            yield task, do(task)


@cache
def sources() -> str:
    """Digest of all that has a part in the numbers of a task."""
    root = Path(__file__).parents[1]
    digests = [sources_digest(root / name) for name in ("workloads", "dataflow", "simulator", "analysis")]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
