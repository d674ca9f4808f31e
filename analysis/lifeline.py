"""Preloaded by the processes of a local cluster: each ends with whoever holds the other end of its standard input."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
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
    import psutil

    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            # What tracks semaphores and the like ends by itself, when it has removed them.
            if "resource_tracker" not in " ".join(child.cmdline()):
                child.kill()
                child.wait(1)
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
    os._exit(0)
