"""From a machine to a board's bitstream: Verilog, Yosys, nextpnr, ecppack, each step kept by what it depends on."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...dataflow.program.spaces import Target
from ...workloads.errors import InputError
from ...workloads.files import sources_digest
from ..boards.board import CORE, Board, BoardTop
from ..boards.core import Core, CoreShape
from .devices import DEVICES, Resources, resources_of
from .emit import verilog
from .route import CriticalPath, parse_report
from .synthesis import by_module
from .tools import cached, require_tool, run_tool, tool_version

__all__ = ["STEPS", "BuiltBitstream", "Module", "bitstream", "core_verilog"]

Progress = Callable[[int, int], object]
STEPS = (
    "Verilog",
    "synthesis",
    "Packing",
    "Running Static placer",
    "Running simulated annealing placer",
    "Routing",
    "Program finished",
)
"""Of a build; from the third on as nextpnr announces them."""
_TOP = "top"
_APART = (
    *(
        "load_unit",
        "store_unit",
        "product_unit",
        "stce",
        "vector_unit",
        "update_unit",
        "sequencer",
        "control_registers",
    ),
    *("top", "bridge", "axi_memory", "axi_memory_2", "axi_share", "axi_share_2"),
    *("pe", "stce_row", "vector_lane", "wuve_lane", "sore", "sore_lane"),
    *("xnor_unit", "xnor_engine", "xnor_pe", "xnor_row"),
)
"""Modules of the core that are counted by themselves; Yosys keeps them apart."""
_FIXED = (1980, 1, 1, 0, 0, 0)
_SEEDS = (1, 2, 3)
"""Of the placements that are tried one after the other until one is routed."""
_ROUNDS = 20
"""A placement is given up after so many rounds of the router of which none leaves as few shared wires as an earlier one
did: twice the longest such stretch of one that was routed in the end."""
_ROUTER = {"router2/currCongWeightMult": "0.3", "router2/bbMargin/x": "6", "router2/bbMargin/y": "6"}
"""Settings of router2 that no option sets: how much dearer a shared wire gets from round to round, 2 unless given, and
how many tiles around its box a net may take, 3 unless given. By those a machine that fills three fifths of the device
comes to a thousand shared wires, and then to more again (docs/results/synthesis.md)."""
_SHARED = re.compile(r"iter=\d+ wires=\d+ overused=(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """``count`` modules of ``each``, without the modules in them that are counted by themselves; ``inside`` which."""

    name: str
    inside: str
    count: int
    each: Resources

    @property
    def all(self) -> Resources:
        return self.each * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltBitstream:
    """What was built for ``board``: ``files`` by name, modules as Yosys counted them, sites and clock of nextpnr.

    ``mhz`` is nextpnr's estimate of the clock that the design bears; ``asked`` is the one that it gets.
    """

    board: Board
    shape: CoreShape
    tools: tuple[str, ...]
    modules: tuple[Module, ...]
    used: Mapping[str, tuple[int, int]]
    asked: float
    mhz: float
    critical: CriticalPath
    files: Mapping[str, bytes]

    @property
    def closes(self) -> bool:
        """Whether the clock that the design gets is one that it bears."""
        return self.mhz >= self.asked


def bitstream(
    target: Target, board: Board, mhz: int | None = None, baud: int = 1_000_000, progress: Progress | None = None
) -> BuiltBitstream:
    """The bitstream of ``target`` on ``board`` at ``mhz``, the board's by default, with a line of ``baud``.

    What does not fit is refused with what takes most. A clock that is not reached is said, not refused: see `closes`.
    """
    for tool in ("yosys", "nextpnr-ecp5", "ecppack"):
        require_tool(tool)
    shape = board.shape(mhz, baud)
    _say(progress, 0)
    text = core_verilog(target, shape)
    top, pins = _around(board, shape)
    _say(progress, 1)
    netlist = _netlist(text, top, shape)
    modules = _modules(json.loads(netlist["stat.json"]))
    _refuse_too_large(target, board, modules)
    _say(progress, 2)
    routed = _routed(netlist["netlist.json"], pins, board, progress)
    report = json.loads(routed["report.json"])
    achieved, critical, _ = parse_report(report)
    used = {kind: (int(s["used"]), int(s["available"])) for kind, s in report["utilization"].items() if s["used"]}
    return BuiltBitstream(
        board=board,
        shape=shape,
        tools=(f"amaranth {version('amaranth')}", tool_version("yosys"), tool_version("nextpnr-ecp5")),
        modules=modules,
        used=used,
        asked=shape.hz / 1e6,
        mhz=achieved,
        critical=critical,
        files={
            f"{CORE}.v": text.encode(),
            "top.lpf": pins.encode(),
            "weft.bit": routed["weft.bit"],
            "weft.svf": routed["weft.svf"],
        },
    )


def core_verilog(target: Target, shape: CoreShape) -> str:
    """Verilog of the core, kept by the sources that make it."""
    root = Path(__file__).parents[2]
    sources = [sources_digest(root / folder) for folder in ("hdl", "dataflow", "workloads")]
    material = [*sources, target.hash, repr(shape), version("amaranth"), tool_version("yosys")]

    def make(folder: Path) -> None:
        core = Core(target, shape, blackbox=True)
        (folder / "core.v").write_text(verilog(target.spec, core, CORE).text)

    return cached("bitstream", ["verilog", *material], "core.v", make).read_text()


def _around(board: Board, shape: CoreShape) -> tuple[str, str]:
    """RTLIL of the board's top, and the places of its pins."""
    platform = board.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of buffers that are made for pins which the core does not have
        files = platform.prepare(BoardTop(board, shape.hz), _TOP).files
    text, pins = (files[f"{_TOP}.{kind}"] for kind in ("il", "lpf"))
    text, pins = (x.decode() if isinstance(x, bytes) else x for x in (text, pins))
    plain = [line for line in text.splitlines() if not line.lstrip().startswith(("attribute \\src", "#"))]
    return "\n".join(plain) + "\n", pins


def _netlist(text: str, top: str, shape: CoreShape) -> dict[str, bytes]:
    script = [
        "read_verilog -lib -specify +/ecp5/cells_sim.v +/ecp5/cells_bb.v",  # buffers, and the PLL
        f"read_rtlil {_TOP}.il",
        f"read_verilog {CORE}.v",
        f"hierarchy -check -top {_TOP}",
        f"setattr -mod -set keep_hierarchy 1 {CORE}",
        *(f"setattr -mod -set keep_hierarchy 1 {CORE}_{n}" for n in _APART if f"module {CORE}_{n} " in text),
        "proc",
        "check -assert",
        "select -assert-none t:$dlatch t:$adlatch t:$dlatchsr t:$sr",
        f"scratchpad -set abc9.D {10**12 // shape.hz}",
        f"synth_ecp5 -nowidelut -top {_TOP}",
        "check -assert",
        "tee -q -o stat.json stat -json",
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean",
        "write_json netlist.json",
    ]

    def make(folder: Path) -> None:
        (folder / f"{_TOP}.il").write_text(top)
        (folder / f"{CORE}.v").write_text(text)
        run_tool("yosys", ["-q", "-p", "; ".join(script)], folder)
        _pack(folder, ("netlist.json", "stat.json"))

    return _unpacked(cached("bitstream", [text, top, *script, tool_version("yosys")], "made.zip", make))


def _routed(netlist: bytes, pins: str, board: Board, progress: Progress | None) -> dict[str, bytes]:
    """The bitstream of the first placement that is routed; every placement is kept, whatever comes of it."""
    options = _nextpnr_options(board)
    routing = [
        *(*options, "--json", "placed.json", "--no-pack", "--no-place"),
        *("--textcfg", "weft.config", "--report", "report.json"),
    ]
    packing = ["--compress", "--svf", "weft.svf", "weft.config", "weft.bit"]

    def route(folder: Path) -> None:
        shared: list[int] = []

        def heard(line: str) -> None:
            _say_stage(progress, line)
            if found := _SHARED.search(line):
                shared.append(int(found[1]))
                if min(shared) < min(shared[-_ROUNDS:]):
                    raise _CongestedError(f"{shared[-1]:,} wires still shared after {len(shared)} rounds")

        run_tool("nextpnr-ecp5", routing, folder, heard)

    def make(folder: Path) -> None:
        (folder / "top.lpf").write_text(pins)
        for seed in _SEEDS:
            placed = _placed(netlist, pins, options, seed, progress)
            (folder / "placed.json").write_bytes(_with_settings(placed, _ROUTER))
            try:
                route(folder)
                break
            except _CongestedError as congested:
                said = congested
        else:
            raise InputError(
                f"{board.name}: {len(_SEEDS)} placements could not be routed, the last with {said}; ask for another "
                f"--mhz, or a smaller machine"
            )
        run_tool("ecppack", packing, folder)
        _pack(folder, ("weft.bit", "weft.svf", "report.json"))

    material = [
        netlist.decode(),
        pins,
        *routing,
        repr((_SEEDS, _ROUNDS, _ROUTER)),
        *packing,
        tool_version("nextpnr-ecp5"),
    ]
    return _unpacked(cached("bitstream", material, "made.zip", make))


def _placed(netlist: bytes, pins: str, options: list[str], seed: int, progress: Progress | None) -> bytes:
    # the default, heap, leaves a third more wire of a machine that fills three fifths of the device
    placer = [*("--placer", "static"), *("--seed", str(seed))]
    placing = [*options, *placer, "--json", "netlist.json", "--no-route", "--write", "placed.json"]

    def make(folder: Path) -> None:
        (folder / "netlist.json").write_bytes(netlist)
        (folder / "top.lpf").write_text(pins)
        run_tool("nextpnr-ecp5", placing, folder, lambda line: _say_stage(progress, line, STEPS[:-2]))
        _pack(folder, ("placed.json",))

    material = [netlist.decode(), pins, *placing, tool_version("nextpnr-ecp5")]
    return _unpacked(cached("bitstream", material, "made.zip", make))["placed.json"]


def _with_settings(placed: bytes, settings: Mapping[str, str]) -> bytes:
    """A placement that nextpnr goes on from with these settings besides its own."""
    before, found, behind = placed.partition(b'"settings": {\n')
    assert found, "nextpnr writes its settings into a placement"
    return before + found + b"".join(f'"{name}": "{value}",\n'.encode() for name, value in settings.items()) + behind


def _nextpnr_options(board: Board) -> list[str]:
    """Of placing and of routing."""
    platform = board.make()
    return [
        platform._nextpnr_device_options[platform.device],
        "--package",
        platform._nextpnr_package_options[platform.package].upper(),
        *("--speed", platform.speed, "--lpf", "top.lpf", "--timing-allow-fail"),
        # the default, router1, rips up an arc at a time: a machine of this size did not come out of it in an hour
        *("--router", "router2"),
    ]


def _say_stage(progress: Progress | None, line: str, stages: tuple[str, ...] = STEPS) -> None:
    """What nextpnr says as a step, if it is the beginning of one of ``stages``."""
    for step, stage in enumerate(stages):
        if step > 1 and stage in line:
            _say(progress, step)


class _CongestedError(Exception):
    """A placement that the router gets no further with."""


def _modules(stat: Mapping[str, Any]) -> tuple[Module, ...]:
    """Outer ones before those inside them."""
    found = by_module(stat, _TOP, "ecp5")
    inside = {
        cell.removeprefix("\\"): name.removeprefix("\\")
        for name, module in stat["modules"].items()
        for cell in {**module["num_cells_by_type"], **module.get("num_submodules_by_type", {})}
    }
    made: list[Module] = []

    def short(name: str) -> str:
        return {_TOP: "board", CORE: "core"}.get(name, name.removeprefix(f"{CORE}_"))

    def visit(name: str) -> None:
        count, cells, lut = found[name]
        around = short(inside[name]) if name in inside else ""
        made.append(Module(name=short(name), inside=around, count=count, each=resources_of(cells, lut)))
        for other in found:
            if inside.get(other) == name:
                visit(other)

    visit(_TOP)
    return tuple(made)


def _refuse_too_large(target: Target, board: Board, modules: tuple[Module, ...]) -> None:
    device = DEVICES["ecp5"]
    total = sum((m.all for m in modules), Resources())
    fits = "tiny-ecp5" if target.spec.xnor is None else "examples/tiny-xnor.toml"
    needs = {"LUT sites": device.sites(total), "multipliers": total.dsp, "block memories": total.bram}
    has = {"LUT sites": device.has.lut, "multipliers": device.has.dsp, "block memories": device.has.bram}
    for what, count in needs.items():
        if count > has[what]:
            most = max(modules, key=lambda m: device.sites(m.all) if what == "LUT sites" else m.all.bram + m.all.dsp)
            raise InputError(
                f"{target.spec.name} on {board.name} takes {count:,} {what}, {board.device} has {has[what]:,} "
                f"({count / has[what]:.0%}); the most are those of {most.count} {most.name}; {fits} fits"
            )


def _say(progress: Progress | None, step: int) -> None:
    if progress is not None:
        progress(step, len(STEPS))


def _pack(folder: Path, names: tuple[str, ...]) -> None:
    """Several files as the one that the cache keeps, the same bytes for the same contents."""
    with zipfile.ZipFile(folder / "made.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.writestr(zipfile.ZipInfo(name, _FIXED), (folder / name).read_bytes(), zipfile.ZIP_DEFLATED)


def _unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as packed:
        return {name: packed.read(name) for name in packed.namelist()}
