"""Place and route for ECP5 with nextpnr; nothing has run on a board, and a frequency is nextpnr's estimate."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amaranth import Cat, ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.accelerator import AcceleratorSpec
from ...workloads.update_rule import SGD
from ..block import Block, usual_pattern
from .devices import Resources, resources_of
from .synthesis import STAGES, TOP, Progress, by_module, design, script_of, synthesize
from .tools import cached, require_tool, run_tool, tool_version

__all__ = ["CriticalPath", "Routed", "netlist", "options_of", "parse_report", "place_and_route"]

_HARNESS = "harness"


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPath:
    """From register to register: hierarchical names, nanoseconds, and what the path goes through."""

    source: str
    sink: str
    logic_ns: float
    routing_ns: float
    through: tuple[str, ...]

    @property
    def ns(self) -> float:
        return self.logic_ns + self.routing_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """A placed and routed block; ``harness`` is what of ``used`` the registers around the block take."""

    tools: str
    asked_mhz: int
    mhz: float
    critical: CriticalPath
    used: Mapping[str, int]
    harness: Resources


def place_and_route(spec: AcceleratorSpec, block: Block, mhz: int = 100, progress: Progress | None = None) -> Routed:
    """Place and route ``block`` of ``spec`` for ECP5, between registers that stand for what surrounds it.

    A block has more ports than the device pins: its inputs come from one long shift register, its outputs go into
    registers that are folded into one bit, so that nothing can be left out. The buffers are not there: a bank that
    answers out of a memory block instead of a register adds the access time of that block.
    """
    require_tool("nextpnr-ecp5")
    synthesize(spec, block, "ecp5", mhz, progress)  # refuses what does not fit
    text, script = netlist(spec, block, mhz)
    options = [*options_of(mhz), "--json", "design.json", "--report", "report.json", "--seed", "1"]
    tools = f"{tool_version('yosys')}, {tool_version('nextpnr-ecp5')}"

    def make(folder: Path) -> None:
        (folder / "design.il").write_text(text)
        run_tool("yosys", ["-q", "-p", "; ".join(script)], folder)
        run_tool("nextpnr-ecp5", options, folder, None if progress is None else _Stages(progress))
        stat = json.loads((folder / "stat.json").read_text())
        own = by_module(stat, _HARNESS, "ecp5")[_HARNESS]
        report = json.loads((folder / "report.json").read_text())
        result = {"report": report, "harness": asdict(resources_of(own[1], own[2]))}
        (folder / "result.json").write_text(json.dumps(result))

    material = [text, *script, *options, tools]
    kept_result = json.loads(cached("synth", material, "result.json", make).read_text())
    routed = parse_report(kept_result["report"])
    return Routed(
        tools=tools,
        asked_mhz=mhz,
        mhz=routed[0],
        critical=routed[1],
        used=routed[2],
        harness=Resources(**kept_result["harness"]),
    )


def netlist(spec: AcceleratorSpec, block: Block, mhz: int) -> tuple[str, list[str]]:
    """RTLIL of ``block`` between its registers, and the script of Yosys that makes design.json of it."""
    text, kept = design(spec, block)
    harness = rtlil.convert(_Harness(block.make(spec, usual_pattern(spec), SGD)), name=_HARNESS, emit_src=False)
    script = [
        *script_of(text_file="design.il", kept=[*kept, TOP], top=_HARNESS, target="ecp5", mhz=mhz),
        "tee -q -o stat.json stat -json",
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean",
        "check -assert",
        "write_json design.json",
    ]
    return text + harness, script


def options_of(mhz: int) -> list[str]:
    """Of nextpnr: the device, and a clock that may be missed."""
    return ["--85k", "--package", "CABGA756", "--speed", "6", "--freq", str(mhz), "--timing-allow-fail"]


def parse_report(report: Mapping[str, Any]) -> tuple[float, CriticalPath, dict[str, int]]:
    """Fmax in MHz, the path that sets it, and the sites used, of nextpnr's ``--report``."""
    (clock,) = report["fmax"]
    mhz = float(report["fmax"][clock]["achieved"])
    path = next(p["path"] for p in report["critical_paths"] if p["from"].endswith(clock) and p["to"].endswith(clock))
    logic = sum(step["delay"] for step in path if step["type"] != "routing")
    routing = sum(step["delay"] for step in path if step["type"] == "routing")
    names = [_register(step["to"]["cell"]) for step in path if step["type"] == "routing"]
    through = tuple(dict.fromkeys(names[:-1]))
    critical = CriticalPath(
        source=_register(path[0]["from"]["cell"]),
        sink=names[-1],
        logic_ns=round(logic, 2),
        routing_ns=round(routing, 2),
        through=through,
    )
    used = {kind: int(site["used"]) for kind, site in report["utilization"].items() if site["used"]}
    return round(mhz, 2), critical, used


class _Stages:
    """Progress of nextpnr by the lines in which it begins its stages."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stage = progress, 1

    def __call__(self, line: str) -> None:
        following = next((i for i, stage in enumerate(STAGES) if i > self._stage and stage in line), None)
        if following is not None:
            self._stage = following
            self._progress(following, len(STAGES))


_CELL_SUFFIX = re.compile(r"(_(TRELLIS_FF|LUT4|PFUMX|L6MUX21|CCU2C|MULT18X18D|DPR16X4|DO|DI|RAD)(_.*|\$.*)?|\$.*)$")


def _register(cell: str) -> str:
    """The signal or memory of the design that Yosys named a cell after."""
    short = _CELL_SUFFIX.sub("", cell)
    return re.sub(r"(\.\d+)+$", "", short.removeprefix("dut.")) or cell


class _Harness(wiring.Component):
    """A block whose inputs are registers of one shift register, and whose outputs are registered and folded."""

    def __init__(self, component: Any) -> None:
        self._component = component
        super().__init__({"scan": In(1), "fold": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pins: dict[str, Any] = {}
        inputs: list[Any] = []
        outputs: list[Any] = []
        signature = self._component.signature
        for path, member, port in signature.flatten(signature.create(path=("dut",))):
            name, value = "__".join(map(str, path)), Value.cast(port)
            entering = member.flow == In
            pins[f"{'i' if entering else 'o'}_{name}"] = value
            (inputs if entering else outputs).append(value)
        scanned = Signal(len(Cat(inputs)), reset_less=True)
        m.d.sync += scanned.eq(Cat(self.scan, scanned))
        m.d.comb += Cat(inputs).eq(scanned)
        m.submodules.dut = Instance(TOP, i_clk=ClockSignal(), i_rst=ResetSignal(), **pins)
        folded: Any = Cat(outputs)
        for level in range(16):
            register = Signal(len(folded), reset_less=True, name=f"fold_{level}")
            m.d.sync += register.eq(folded)
            if len(register) == 1:
                break
            folded = Cat(register[i : i + 4].xor() for i in range(0, len(register), 4))
        m.d.comb += self.fold.eq(register)
        return m
