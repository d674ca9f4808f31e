"""Preloaded by the processes of a local cluster: each ends with whoever holds the other end of its standard input."""

from __future__ import annotations

import os
import shutil
import threading
from multiprocessing import active_children
from typing import Any

__all__ = ["FOLDER", "dask_setup"]

FOLDER = "WEFT_CLUSTER_FOLDER"
"""Environment variable with what is to be removed at the end."""


def dask_setup(server: Any) -> None:
    """Called by Dask with the scheduler, or with the nanny of a worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # The kernel closes the other end however that process ends, by SIGKILL too.
    os.read(0, 1)
    # Workers are children of a nanny; what tracks its semaphores is none, and ends when it has removed them.
    for child in active_children():
        child.kill()
        child.join(1)
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
    os._exit(0)
