"""Bitstreams: the same flow for a core of a few registers, and for a whole machine in the full tests."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.isa import BEAT_BYTES
from weft.dataflow.program.spaces import Target
from weft.hdl.boards.board import BOARDS, find_board
from weft.hdl.flow import bitstream as flow
from weft.hdl.flow.bitstream import STEPS, bitstream
from weft.hdl.flow.devices import Resources
from weft.hdl.flow.tools import run_tool
from weft.workloads.errors import InputError
from weft.workloads.update_rule import SGD

from ..proof import TOOLS

STUB = """
module weft_top (input clk, input [3:0] d, output reg [3:0] q);
  always @(posedge clk) q <= d + q;
endmodule
module weft (input clk, input rst, input rx, output tx, output busy, output error, output talks);
  reg [3:0] held;
  wire [3:0] sum;
  always @(posedge clk) if (rst) held <= 0; else held <= {held[2:0], rx};
  weft_top top (.clk(clk), .d(held), .q(sum));
  assign {tx, busy, error, talks} = sum;
endmodule
"""
"""The core's ports around nothing much."""
DEVICES = {"ulx3s": "LFE5U-85F", "ecpix5": "LFE5UM5G-85F"}


def stubbed(name: str) -> tuple[dict[str, bytes], str]:
    board = find_board(name)
    top, pins = flow._around(board, board.shape())
    return flow._netlist(STUB, top, board.shape()), pins


def test_a_core_is_mapped_with_the_top_around_it_and_counted_as_a_tree() -> None:
    netlist, _ = stubbed("ulx3s")
    modules = flow._modules(json.loads(netlist["stat.json"]))

    assert [(m.name, m.inside, m.count, m.each.ff) for m in modules] == [
        ("board", "", 1, 2),  # two registers of the reset
        ("core", "board", 1, 4),
        ("top", "core", 1, 4),
    ]
    top = json.loads(netlist["netlist.json"])["modules"]["top"]
    assert {cell["type"] for cell in top["cells"].values()} >= {"TRELLIS_IO", "TRELLIS_FF"}
    assert len(top["ports"]) == 9


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_what_is_packed_is_for_the_device_of_the_board(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Project Trellis unpacks it again: the device, and the pins that were placed."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))  # a build that is kept says no steps
    board, heard = find_board(name), []
    netlist, pins = stubbed(name)
    made = flow._routed(netlist["netlist.json"], pins, board, lambda step, all: heard.append((step, all)))
    (tmp_path / "weft.bit").write_bytes(made["weft.bit"])
    subprocess.run([TOOLS / "yowasp-ecpunpack", "weft.bit", "weft.config"], cwd=tmp_path, check=True)
    text = (tmp_path / "weft.config").read_text()

    assert text.splitlines()[0] == f".device {DEVICES[name]}"
    assert "EHXPLL" in text
    # Trellis names a pin's standard by its bits, which several share once a drive strength is among them, so that a pin
    # comes back as SSTL or LVTTL; that they are those of LVCMOS33 shows when they are packed again
    standards = re.compile(r"(BASE_TYPE (?:INPUT|OUTPUT))_\w+")
    assert len(standards.findall(text)) >= 9
    for standard, same in (("LVCMOS33", True), ("LVCMOS18", False)):
        (tmp_path / "again.config").write_text(standards.sub(rf"\1_{standard}", text))
        run_tool("ecppack", ["--compress", "again.config", "again.bit"], tmp_path)
        assert ((tmp_path / "again.bit").read_bytes() == made["weft.bit"]) is same
    assert made["weft.svf"].count(b"SIR") > 3 and b"SDR" in made["weft.svf"]
    assert [step for step, _ in heard] == sorted(step for step, _ in heard)
    assert {all for _, all in heard} == {len(STEPS)}


Router = Callable[[str, list[str], Path, Callable[[str], object]], None]


def router(shared: Mapping[str, Sequence[int]], ran: list[str]) -> Router:
    """In nextpnr's place: a placement is its seed; by seed, the wires that are shared after each round; it has routed
    once there are none."""

    def run(tool: str, options: list[str], folder: Path, heard: Callable[[str], object] = print) -> None:
        if "--no-route" in options:
            seed = options[options.index("--seed") + 1]
            ran.append(f"place {seed}")
            (folder / "placed.json").write_text(f'{{"settings": {{\n"seed": "{seed}"}}}}')
            return
        settings = json.loads((folder / "placed.json").read_text())["settings"]
        seed = settings.pop("seed")
        assert settings == flow._ROUTER
        ran.append(f"{'route' if tool == 'nextpnr-ecp5' else 'pack'} {seed}")
        if tool == "ecppack":
            for name in ("weft.bit", "weft.svf"):
                (folder / name).write_text(seed)
            return
        for round, count in enumerate(shared[seed], 1):
            heard(f"Info:     iter={round} wires=1234674 overused={count} overuse={count} archfail=NA\n")
        (folder / "report.json").write_text(seed)

    return run


STUCK = [99, 40, *range(41, 41 + flow._ROUNDS), 0]
"""So many rounds without as few as after the second; that one more would have routed it is not waited for."""


def test_a_placement_that_the_router_gets_no_further_with_is_given_up_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    longest = range(41, 40 + flow._ROUNDS)
    slowly = [99, 40, *longest, 40, *longest, 39, 0]
    ran: list[str] = []
    monkeypatch.setattr(flow, "run_tool", router({"1": STUCK, "2": slowly}, ran))

    made = flow._routed(b"a netlist", "pins", find_board("ulx3s"), None)
    assert ran == ["place 1", "route 1", "place 2", "route 2", "pack 2"]
    assert made["report.json"] == b"2"

    ran.clear()
    monkeypatch.setattr(flow, "run_tool", router(dict.fromkeys("123", STUCK), ran))
    with pytest.raises(InputError, match=r"^ulx3s: 3 placements could not be routed, the last with 60 wires still"):
        flow._routed(b"another netlist", "pins", find_board("ulx3s"), None)
    assert ran == [f"{stage} {seed}" for seed in "123" for stage in ("place", "route")]


def test_a_placement_is_kept_when_its_routing_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    ran: list[str] = []
    whole = router({"1": [5, 0]}, ran)

    def broken(tool: str, options: list[str], folder: Path, heard: Callable[[str], object] = print) -> None:
        if "--no-place" in options:
            raise KeyboardInterrupt
        whole(tool, options, folder, heard)

    monkeypatch.setattr(flow, "run_tool", broken)
    with pytest.raises(KeyboardInterrupt):
        flow._routed(b"a netlist", "pins", find_board("ulx3s"), None)
    monkeypatch.setattr(flow, "run_tool", whole)
    flow._routed(b"a netlist", "pins", find_board("ulx3s"), None)
    assert ran == ["place 1", "route 1", "pack 1"]


@pytest.mark.slow
def test_a_whole_machine_on_a_ulx3s() -> None:
    """Placed and routed, it bears its clock; the figures are those of docs/results/synthesis.md."""
    board = find_board("ulx3s")
    built = bitstream(Target(spec=load_spec("tiny-ecp5"), rule=SGD), board)

    assert built.closes and built.mhz > board.mhz
    assert {m.name: m.count for m in built.modules} | {"pe": 4, "stce_row": 2, "vector_lane": 1} == {
        m.name: m.count for m in built.modules
    }
    assert built.used["DP16KD"][0] == 116 and built.used["MULT18X18D"][0] == 2 * 16 + 4 + 4
    assert built.files["weft.bit"][:2] == b"\xff\x00"
    assert b"module weft (" in built.files["weft.v"]
    assert bitstream(Target(spec=load_spec("tiny-ecp5"), rule=SGD), board) == built, "from the cache"


@pytest.mark.slow
def test_a_machine_with_an_xnor_engine_on_a_ulx3s() -> None:
    """For trained binary networks, by the same command; the figures are those of docs/results/synthesis.md."""
    board = find_board("ulx3s")
    spec = load_spec(str(Path(__file__).parents[3] / "examples" / "tiny-xnor.toml"))
    built = bitstream(Target(spec=spec, rule=SGD), board)

    assert built.closes and built.mhz > board.mhz
    counts = {m.name: m.count for m in built.modules}
    assert counts | {"xnor_unit": 1, "xnor_pe": 2, "xnor_row": 1, "pe": 1} == counts
    assert built.used["DP16KD"][0] == 120 and built.used["MULT18X18D"][0] == 2 * 16 + 1 + 4


@pytest.mark.slow
def test_a_machine_that_does_not_fit_is_refused_before_it_is_placed() -> None:
    with pytest.raises(InputError, match=r"tiny on ulx3s takes \d+,\d+ LUT sites, LFE5U-85F has 83,640 \(1\d\d%\)"):
        bitstream(Target(spec=load_spec("tiny"), rule=SGD), find_board("ulx3s"))


def test_too_large_is_said_with_what_takes_most() -> None:
    board = find_board("ecpix5")
    modules = (
        flow.Module(name="top", inside="", count=1, each=Resources(bram=9)),
        flow.Module(name="lane", inside="top", count=40, each=Resources(lut=2_000, carry=100, bram=5)),
    )
    for machine, fits in (("tiny", "tiny-ecp5"), ("bnn-ecp5", "examples/tiny-xnor.toml")):
        with pytest.raises(InputError) as refused:
            flow._refuse_too_large(Target(spec=load_spec(machine), rule=SGD), board, modules)
        assert str(refused.value) == (
            f"{machine} on ecpix5 takes 88,000 LUT sites, LFE5UM5G-85F has 83,640 (105%); the most are those of 40 "
            f"lane; {fits} fits"
        )
    assert BEAT_BYTES == 8
