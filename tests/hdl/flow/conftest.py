"""A simulator that knows nothing of Amaranth or Yosys."""

from __future__ import annotations

import pytest

from ..verilating import Verilator


@pytest.fixture(scope="session")
def verilator(tmp_path_factory):
    return Verilator(tmp_path_factory.mktemp("verilated"))
