"""Boards: every pin that is placed is one of the top, clocks are those that the tools compute, projects parse."""

from __future__ import annotations

import gc
import re
import subprocess
import warnings
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.spaces import Target
from weft.hdl.boards.board import BOARDS, find_board
from weft.hdl.boards.core import CoreShape
from weft.hdl.boards.pll import pll_settings
from weft.hdl.boards.vcu1525 import (
    CELLS,
    WRAPPER_PORTS,
    accelerator,
    beat_bytes,
    constraints,
    project_script,
    vivado_board_project,
)
from weft.hdl.flow.bitstream import _around
from weft.workloads.errors import InputError
from weft.workloads.update_rule import SGD

from ..proof import TOOLS

TARGET = Target(spec=load_spec("tiny"), rule=SGD)


@pytest.mark.parametrize("name", BOARDS)
def test_every_pin_that_is_placed_is_a_port_of_the_top(name: str) -> None:
    board = BOARDS[name]
    text, pins = _around(board, board.shape())
    top = text[text.index("module \\top\n") :]
    ports = set(re.findall(r"^  wire width 1 (?:input|output|inout) \d+ +\\(\S+)$", top[: top.index("\nend")], re.M))

    placed = re.findall(r'LOCATE COMP "(\S+)" SITE "(\w+)"', pins)

    assert {port for port, _ in placed} == ports
    assert len({site for _, site in placed}) == len(placed)
    assert set(re.findall(r'IOBUF PORT "(\S+)"', pins)) == ports
    assert {"uart_0__rx__io", "uart_0__tx__io"} < ports
    assert f'FREQUENCY PORT "{board.clock}_0__io" {float(board.hz)} HZ' in pins
    if board.hz != board.shape().hz:
        assert re.search(rf'FREQUENCY NET "pll.out" {float(board.shape().hz)} HZ', pins)
        assert "cell \\EHXPLLL" in text


@settings(max_examples=25)
@given(given=st.sampled_from([25, 100]), wanted=st.integers(1, 80).map(lambda n: 5 * n))
def test_dividers_make_the_clock_within_the_ranges_of_the_pll(given: int, wanted: int) -> None:
    try:
        found = pll_settings(given * 10**6, wanted * 10**6)
    except InputError:
        # a witness that shares no code: of all oscillators none is a multiple, or one too large
        rates = (Fraction(given, r) * n for r in range(1, given // 10 + 1) for n in range(1, 801))
        assert not any(400 <= rate <= 800 and rate % wanted == 0 and rate / wanted <= 128 for rate in rates)
        return
    assert wanted * found.output == Fraction(given, found.reference) * found.feedback * found.loop == found.vco / 10**6
    assert 10 <= given / found.reference <= 400
    assert 400 <= found.vco / 10**6 <= 800
    assert max(found.reference, found.feedback, found.loop, found.output) <= 128


def test_a_clock_that_no_dividers_make_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"does not make 33 MHz of 25 MHz; take one of 31, 32, 35"):
        pll_settings(25 * 10**6, 33 * 10**6)


@pytest.mark.slow
@pytest.mark.parametrize(("given", "wanted"), [(100, 25), (25, 40), (100, 60)])
def test_project_trellis_finds_the_same_clock(tmp_path: Path, given: int, wanted: int) -> None:
    """ecppll computes dividers on its own; ours give the same clock, and an oscillator in its range."""
    made = subprocess.run(
        [TOOLS / "yowasp-ecppll", "-i", str(given), "-o", str(wanted), "-f", "pll.v"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    text = (tmp_path / "pll.v").read_text()
    theirs = {name: int(value) for name, value in re.findall(r"\.(CLK(?:I|FB|OP)_DIV)\((\d+)\)", text)}
    ours = pll_settings(given * 10**6, wanted * 10**6)

    assert given * theirs["CLKFB_DIV"] / theirs["CLKI_DIV"] == pytest.approx(ours.hz / 1e6), made.stdout


def test_what_a_board_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"--board: there is no board 'ulx3'; did you mean 'ulx3s'"):
        find_board("ulx3")
    with pytest.raises(InputError, match="power of two from 256 on, not 300"):
        CoreShape(memory=300, instructions=256, hz=10**8)
    with pytest.raises(
        InputError, match="asks for a clock of 40,000,000 Hz or more, not 25,000,000; take at most 6,250,000"
    ):
        find_board("ulx3s").shape(mhz=25, baud=10_000_000)
    with pytest.raises(
        InputError, match=r"25,000,000 Hz by 8 is 3,125,000 baud, more than 2 % off 3,000,000; take 3,12"
    ):
        find_board("ulx3s").shape(mhz=25, baud=3_000_000)
    with pytest.raises(InputError, match="does not make 83 MHz of 100 MHz"):
        find_board("ecpix5").shape(mhz=83)


@cache
def ports() -> frozenset[str]:
    """Of the accelerator. Nothing of it is elaborated, which Amaranth would complain about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = frozenset({"clk", "rst", *accelerator(TARGET).signature.members})
        gc.collect()
    return found


@pytest.fixture(scope="module")
def commands() -> list[tuple[str, ...]]:
    return told(project_script(TARGET, 100))


def tcl_of_python() -> Any:
    """Debian and Ubuntu have it in a package of its own."""
    return pytest.importorskip("tkinter", reason="Tcl takes the project apart: apt-get install python3-tk")


def told(script: str) -> list[tuple[str, ...]]:
    """Commands of a script and of the brackets in it, as Tcl itself takes it apart; none of them is carried out."""
    tcl, found = tcl_of_python().Tcl(), []
    tcl.createcommand("heard", lambda *words: found.append(words) or " ".join(words))
    tcl.eval("proc unknown {args} {return [heard {*}$args]}")
    for name in ("open", "cd", "exec", "file", "source", "glob", "socket"):
        tcl.eval(f"rename {name} {{}}")
    tcl.eval(script)
    return found


def test_vivado_is_told_of_ports_and_cells_that_there_are(commands: list[tuple[str, ...]]) -> None:
    made = {words[-1] for words in commands if words[0] == "create_bd_cell"}
    assert made == set(CELLS)
    for words in commands:
        if words[0] in ("get_bd_cells", "get_bd_pins", "get_bd_intf_pins"):
            for name in words[1:]:
                cell, _, pin = name.partition("/")
                assert cell in CELLS, words
                if cell == "weft_0" and words[0] == "get_bd_pins":
                    assert pin in ports()
                if cell == "weft_0" and words[0] == "get_bd_intf_pins":
                    assert f"{pin}_arvalid" in ports()
    outside = {w[-1] for w in commands if w[0] in ("create_bd_port", "create_bd_intf_port")}
    asked = {w[1] for w in commands if w[0] in ("get_bd_ports", "get_bd_intf_ports")}
    assert outside == asked == {"pcie_refclk", "pcie_mgt", "pcie_perstn"}


def test_every_cell_has_its_clock_and_no_pin_two_drivers(commands: list[tuple[str, ...]]) -> None:
    joined = [[end.split()[-1] for end in words[1:]] for words in commands if words[0].startswith("connect_bd")]
    assert all(len(ends) >= 2 for ends in joined)
    driven = [end for ends in joined for end in ends[1:]]
    assert len(driven) == len(set(driven))
    assert {"weft_0/clk", "weft_0/rst", "memory/aclk", "memory/aclk1", "memory/aclk2", "control/aclk1"} < set(driven)
    wide = [[*words[2].split(), words[3].split()[-1]] for words in commands if "NUM_SI" in " ".join(words)]
    assert len(wide) == 2
    for said in wide:
        number, cell = int(said[said.index("CONFIG.NUM_SI") + 1]), said[-1]
        assert {f"{cell}/S{i:02}_AXI" for i in range(number)} == {x for x in driven if x.startswith(f"{cell}/S")}


def test_constraints_name_ports_of_the_wrapper() -> None:
    """Braces keep Tcl from taking an index for a command."""
    found = told(constraints())
    pins = []
    for words in found:
        if words[0] == "get_ports":
            name, index = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", words[1]).groups()
            assert name in WRAPPER_PORTS
            assert int(index or 0) < WRAPPER_PORTS[name]
        if words[0] == "set_property":
            pins += re.findall(r"PACKAGE_PIN (\w+)", " ".join(words))
    assert len(pins) == len(set(pins)) == 2 * 16 + 2
    known = {"set_property", "get_ports", "current_design", "create_clock", "set_false_path"}
    assert {words[0] for words in found} == known


@pytest.mark.slow
def test_the_text_has_the_ports_that_vivado_is_told_of(commands: list[tuple[str, ...]]) -> None:
    files = vivado_board_project(TARGET, 100)
    top = files["weft_axi.v"][files["weft_axi.v"].index("module weft_axi (") :]
    found = re.findall(r"^  (?:in|out)put +wire (?:\[\d+:\d+\] )?(\w+)", top[: top.index(");")], re.M)
    assert set(found) == ports()
    assert {words[-1] for words in commands if words[0] == "add_files"} < set(files)


def test_a_constraint_that_is_wrong_is_found() -> None:
    """The lint can fail: a bracket that is missing, a cell that is not there."""
    with pytest.raises(tcl_of_python().TclError, match="missing close-bracket"):
        told("create_clock -period 10 [get_ports pcie_refclk_clk_p")
    assert ("get_ports", "nothing") in told("set_false_path -from [get_ports nothing]")


def test_the_bus_is_as_wide_as_the_array() -> None:
    assert beat_bytes(TARGET) == 8
    assert beat_bytes(Target(spec=load_spec("sat-ecp5"), rule=SGD)) == 16
    assert beat_bytes(Target(spec=load_spec("sat-vcu1525"), rule=SGD)) == 64
