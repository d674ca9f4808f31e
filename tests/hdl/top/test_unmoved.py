"""The RTL of machines of 16 bits, to the byte: what is built for other formats must not move it.

A change that is meant moves it too: `python -m weft.tests.hdl.top.test_unmoved` then writes the hashes anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amaranth
import pytest
from amaranth.back import rtlil

from weft.dataflow.program.isa import registers_of, units_of
from weft.hdl.top.load import LoadUnit
from weft.hdl.top.product import ProductUnit
from weft.hdl.top.sequencer import Sequencer
from weft.hdl.top.store import StoreUnit
from weft.hdl.top.update import UpdateUnit

from .commands import TARGET
from .transfers import BEAT, LANES

FILE = Path(__file__).parents[2] / "golden" / "units_of_16_bits.json"
UNITS: dict[str, Callable[[], Any]] = {
    "load": lambda: LoadUnit(TARGET, BEAT),
    "store": lambda: StoreUnit(TARGET, BEAT),
    "product": lambda: ProductUnit(TARGET, LANES, blackbox=True),
    "update": lambda: UpdateUnit(TARGET, LANES, blackbox=True),
    "sequencer": lambda: Sequencer({unit: registers_of(unit, TARGET) for unit in units_of(TARGET)}),
}
"""Of `tiny` at 2:8."""


def hash_of(unit: str) -> str:
    return hashlib.sha256(rtlil.convert(UNITS[unit](), emit_src=False).encode()).hexdigest()[:16]


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_of_16_bits_is_what_it_was(unit: str) -> None:
    said = json.loads(FILE.read_text())
    # constraints.txt pins the version; another one may name and order what it emits in its own way
    if said["amaranth"] != amaranth.__version__:
        pytest.skip(f"hashes are of Amaranth {said['amaranth']}")
    assert hash_of(unit) == said[unit]


if __name__ == "__main__":
    hashes = {"amaranth": amaranth.__version__} | {unit: hash_of(unit) for unit in UNITS}
    FILE.write_text(json.dumps(hashes, indent=1) + "\n")
