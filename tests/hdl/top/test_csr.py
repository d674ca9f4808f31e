"""The registers that a host sees: what each holds, who may write it, and what neither reads nor writes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.control import Access, control, control_of
from weft.dataflow.program.isa import units_of
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.csr import ControlRegisters, counters_of

from .commands import TARGET

CONTROL, COUNTERS = control_of(units_of(TARGET)), counters_of(TARGET)
"""A machine without an XNOR engine has no counters of one."""
BOTH = [r for r in CONTROL if r.access == Access.BOTH]
SLAVE_ERROR = 2


@cache
def machine() -> Cosim:
    return Cosim(ControlRegisters(TARGET))


class Host:
    """Reads and writes, one at a time; ``held`` are the machine's own signals."""

    def __init__(self) -> None:
        machine().reset()
        self.held: dict[str, Any] = {}
        self.pulses: list[str] = []

    def cycles(self, count: int, **given: Any) -> dict[str, Any]:
        seen = machine().run(self.held | given, count)
        self.pulses += [name for t in range(count) for name in ("start", "stop") if seen[name][t]]
        return seen

    def read(self, address: int, *, wait: int = 0) -> tuple[int, int]:
        """Value and response."""
        n = 5 + wait
        t = np.arange(n)
        seen = self.cycles(
            n, bus__ar__valid=t < 1, bus__ar__payload=address, bus__r__ready=(t > wait + 1).astype(np.uint32)
        )
        assert seen["bus__ar__ready"][0]
        payload = int(seen["bus__r__payload"][wait + 2])
        assert seen["bus__r__valid"].tolist() == [0, 0] + [1] * (wait + 1) + [0] * (n - wait - 3)
        return payload & 0xFFFFFFFF, payload >> 32

    def write(self, address: int, value: int, strobe: int = 15, *, late: int = 0) -> int:
        """The response; ``late``: cycles by which data comes after the address, or before it."""
        n = 6 + abs(late)
        t = np.arange(n)
        aw, w = t == max(0, -late), t == max(0, late)
        seen = self.cycles(
            n,
            bus__aw__valid=aw,
            bus__aw__payload=address,
            bus__w__valid=w,
            bus__w__payload=value | strobe << 32,
            bus__b__ready=1,
        )
        assert seen["bus__aw__ready"][aw].all()
        assert seen["bus__w__ready"][w].all()
        answered = np.flatnonzero(seen["bus__b__valid"])
        assert answered.tolist() == [abs(late) + 2]
        return int(seen["bus__b__payload"][answered[0]])


def test_every_register_holds_its_reset_and_the_machine_is_named() -> None:
    host = Host()
    host.held["drained"] = 1
    for r in CONTROL:
        value, response = host.read(r.address)
        assert response == 0
        if r.reset is not None:
            assert value == r.reset, r.name
    low, high = (host.read(control(f"machine_{half}").address)[0] for half in ("low", "high"))
    assert f"{high << 32 | low:012x}" == TARGET.hash
    assert host.read(control("pattern").address)[0] == 8 << 8 | 2
    assert host.read(control("identity").address)[0].to_bytes(4, "little") == b"WEFT"


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(BOTH), st.integers(0, 2**32 - 1), st.integers(0, 15), st.integers(-3, 3)), max_size=8
    )
)
def test_a_write_changes_the_strobed_bytes_of_its_register_alone(writes: list[Any]) -> None:
    host = Host()
    held = {r.name: r.reset or 0 for r in BOTH}
    for r, value, strobe, late in writes:
        assert host.write(r.address, value, strobe, late=late) == 0
        mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
        held[r.name] = held[r.name] & ~mask | value & mask
    for r in BOTH:
        assert host.read(r.address, wait=len(writes)) == (held[r.name], 0)


@pytest.mark.parametrize("address", [0x7C, 0xFFC, max(r.address for r in CONTROL) + 4])
def test_what_is_no_register_is_a_slave_error(address: int) -> None:
    host = Host()
    assert host.read(address) == (0, SLAVE_ERROR)
    assert host.write(address, 1) == SLAVE_ERROR


def test_start_stop_and_interrupts() -> None:
    host = Host()
    at = {name: control(name).address for name in ("control", "status", "interrupt", "interrupt_enable", "error")}
    host.write(at["control"], 1)
    host.write(at["control"], 2)
    host.write(at["control"], 1, strobe=14)
    assert host.pulses == ["start", "stop"]
    assert host.read(at["control"])[0] == 0

    host.held["busy"] = 1
    host.cycles(3)
    assert host.read(at["status"])[0] == 1
    host.held = {}
    assert not host.cycles(3)["interrupt"].any()
    assert host.read(at["status"])[0] == 2
    host.write(at["interrupt_enable"], 1)
    assert host.cycles(1)["interrupt"].all()
    host.write(at["interrupt"], 2)
    assert host.read(at["interrupt"])[0] == 1
    host.write(at["interrupt"], 1)
    assert not host.cycles(1)["interrupt"].any()

    host.held = {"busy": 1}
    host.cycles(2, nonfinite=1)
    host.held = {"error": 9, "error_instruction": 77, "error_value": 5}
    host.cycles(2)
    assert host.read(at["status"])[0] == 4 | 8
    assert host.read(at["error"])[0] == 9
    assert host.read(control("error_instruction").address)[0] == 77
    assert host.read(at["interrupt"])[0] == 2


def test_counters_grow_while_busy_and_their_upper_half_is_kept_with_the_lower() -> None:
    host = Host()
    host.held["busy"] = 1
    for i, name in enumerate(COUNTERS):
        host.cycles(i + 1, **{f"count_{name}": 1})
    host.held = {}
    host.cycles(5, **{f"count_{name}": 1 for name in COUNTERS})
    for i, name in enumerate(COUNTERS):
        assert host.read(control(f"{name}_low").address)[0] == i + 1, name
        assert host.read(control(f"{name}_high").address)[0] == 0
    host.write(control("control").address, 1)
    assert host.read(control("cycles_low").address)[0] == 1
    assert host.read(control("load_busy_low").address)[0] == 0
