"""Machines that several tests of the cost model share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec


@pytest.fixture(scope="session")
def sat() -> AcceleratorSpec:
    return load_spec("sat-vcu1525")


@pytest.fixture(scope="session")
def port_bound(sat) -> AcceleratorSpec:
    """32 x 32 with one-word ports and an adder that needs no interleave."""
    return replace(sat, name="port-bound", pe=replace(sat.pe, add_latency=1, accumulators=1))
