"""``--cluster``: who does the work of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..workloads.errors import InputError

if TYPE_CHECKING:
    from ..analysis.executor import Executor

__all__ = ["executor_at"]


@contextmanager
def executor_at(address: str | None, insecure: bool) -> Iterator[Executor | None]:
    """What does the work at ``address``; None if no cluster is named."""
    if address is None:
        if insecure:
            raise InputError("--insecure is of a cluster: name it with --cluster")
        yield None
        return
    from ..analysis.cluster import cluster

    with cluster(address, insecure=insecure) as made:
        yield made
