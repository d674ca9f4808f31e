"""Where a training runs: device and threads, repeatable arithmetic, SIGINT as a wish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..data import ImageData
from ..errors import InputError
from ..host import Host, core_name, processor_name
from ..models.classifier import SMALL_SIDE
from ..sigint import asked_to_stop

__all__ = ["controlled", "device_of", "this_host", "threads_for"]


def this_host() -> Host:
    return Host(
        processor=processor_name(),
        core=core_name(),
        vector=torch.backends.cpu.get_cpu_capability(),
        torch=str(torch.__version__),
        threads=torch.get_num_threads(),
    )


def threads_for(data: ImageData) -> int:
    """One thread for small images: threads cost more than they bring there, and sums do not depend on the machine's."""
    return 1 if data.shape[1] <= SMALL_SIDE else torch.get_num_threads()


def device_of(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is unknown; choose cpu or cuda") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device {name!r} is not there; choose cpu")
    return device


@contextmanager
def controlled(threads: int, device: torch.device) -> Iterator[Callable[[], bool]]:
    """Repeatable arithmetic, random numbers of our own, and SIGINT as a wish: yields whether it came."""
    gpu = device.type == "cuda"
    if gpu:
        # cuBLAS sums in a fixed order only with a workspace of fixed size (cuBLAS manual, results reproducibility).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads_before = torch.get_num_threads()
    # Some CUDA kernels have no repeatable form; there PyTorch warns once and goes on.
    torch.use_deterministic_algorithms(True, warn_only=gpu)
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[device] if gpu else []), asked_to_stop() as stop:
            yield stop
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.set_num_threads(threads_before)
