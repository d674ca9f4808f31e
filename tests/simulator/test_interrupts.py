"""Kernels let go of Python's lock, so that a thread can end a process that is deep in one (`_cli/interrupts.py`)."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from numba.core.dispatcher import Dispatcher

import weft.dataflow
import weft.simulator.kernels
import weft.workloads.schemes


def kernels() -> Iterator[tuple[str, Dispatcher]]:
    for package in (weft.dataflow, weft.simulator.kernels, weft.workloads.schemes):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, Dispatcher):
                    yield f"{module.name}.{name}", value


def test_every_kernel_lets_go_of_the_lock() -> None:
    found = dict(kernels())
    if not found:
        pytest.skip("NUMBA_DISABLE_JIT leaves no kernels")
    assert len(found) > 40
    assert [name for name, kernel in found.items() if not kernel.targetoptions.get("nogil")] == []
