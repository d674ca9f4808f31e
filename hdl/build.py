# amaranth: UnusedElaboratable=no
# A component is also made for its signature alone.
"""Synthesis of a machine's blocks with Yosys, and place and route for ECP5 with nextpnr.

Counts are Yosys' own after mapping to the cells of the device family. They are not Vivado's, nothing has run on a
board, and a frequency is nextpnr's estimate after routing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from amaranth import Cat, ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.accelerator import AcceleratorSpec
from ..workloads.errors import InputError, nearest, require_int
from ..workloads.sparsity import NMPattern
from .array import Stce
from .emit import verilog
from .pe import Uspe
from .sorter import Sore
from .tools import cached, require_tool, run_tool, tool_version
from .update import Wuve

__all__ = [
    "BLOCKS", "DEVICES", "Block", "BlockName", "CriticalPath", "Device", "Resources", "Routed", "Synthesis", "Target",
    "parse_report", "place_and_route", "refuse_what_cannot_fit", "synthesize", "vivado_project",
]  # fmt: skip

Target = Literal["ecp5", "ice40", "xcup"]
BlockName = Literal["stce", "pe", "sore", "wuve"]
BLOCKS: tuple[BlockName, ...] = get_args(BlockName)
Progress = Callable[[int, int], object]

_TOP = "weft"
_HARNESS = "harness"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """``lut``: LUT4, in xcup LUT6 with pairs of small functions in one; ``memory_lut``: LUTs used as memory or shift
    register; ``carry``: CCU2C (2 bits), SB_CARRY (1) or CARRY4; ``bram``: EBR or BRAM36."""

    lut: int = 0
    memory_lut: int = 0
    ff: int = 0
    carry: int = 0
    dsp: int = 0
    bram: int = 0
    uram: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(**{name: count + getattr(other, name) for name, count in asdict(self).items()})

    def __mul__(self, times: int) -> Resources:
        return Resources(**{name: count * times for name, count in asdict(self).items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a device holds. ``lut`` counts all LUT sites, those that memories and ECP5's carries take too."""

    name: str
    has: Resources
    carry_luts: int
    """LUT sites that one carry cell takes for itself."""

    def sites(self, used: Resources) -> int:
        return used.lut + used.memory_lut + self.carry_luts * used.carry


DEVICES: dict[Target, Device] = {
    # nextpnr's device database, as it prints it: 83,640 TRELLIS_COMB, 156 MULT18X18D, 208 DP16KD of 18 kbit
    "ecp5": Device(name="LFE5U-85F", has=Resources(lut=83_640, ff=83_640, dsp=156, bram=208), carry_luts=2),
    # nextpnr's device database: 5,280 ICESTORM_LC, 8 ICESTORM_DSP, 30 ICESTORM_RAM of 4 kbit
    "ice40": Device(name="iCE40UP5K", has=Resources(lut=5_280, ff=5_280, dsp=8, bram=30), carry_luts=0),
    # build scripts of two public repositories for the VCU1525 (docs/results/synthesis.md)
    "xcup": Device(
        name="XCVU9P", has=Resources(lut=1_182_240, ff=2_364_480, dsp=6_840, bram=2_160, uram=960), carry_luts=0
    ),
}

_LEAST: dict[Target, Resources] = {
    "ecp5": Resources(lut=600, dsp=1),
    "ice40": Resources(lut=1_000, dsp=1),
    "xcup": Resources(lut=400, dsp=1),
}
"""Less than any PE measured took (docs/results/synthesis.md): enough to refuse an array before hours of work."""

_CELLS: dict[str, tuple[str, int]] = {
    "LUT4": ("lut", 1), "CCU2C": ("carry", 1), "TRELLIS_DPR16X4": ("memory_lut", 6), "TRELLIS_FF": ("ff", 1),
    "MULT18X18D": ("dsp", 1), "DP16KD": ("bram", 1), "PDPW16KD": ("bram", 1),
    "SB_LUT4": ("lut", 1), "SB_CARRY": ("carry", 1), "SB_MAC16": ("dsp", 1), "SB_RAM40_4K": ("bram", 1),
    "CARRY4": ("carry", 1), "CARRY8": ("carry", 1), "FDRE": ("ff", 1), "FDSE": ("ff", 1), "FDCE": ("ff", 1),
    "FDPE": ("ff", 1), "DSP48E2": ("dsp", 1), "RAMB36E2": ("bram", 1), "URAM288": ("uram", 1),
    "SRL16E": ("memory_lut", 1), "SRLC32E": ("memory_lut", 1), "RAM32M": ("memory_lut", 4),
    "RAM64M": ("memory_lut", 4), "RAM32M16": ("memory_lut", 8), "RAM64M8": ("memory_lut", 8),
    "RAM32X1D": ("memory_lut", 2), "RAM64X1D": ("memory_lut", 2), "RAM128X1D": ("memory_lut", 4),
}  # fmt: skip
"""What a cell takes. A DPR16X4 is four LUTs of memory and two that its write port occupies."""
_FREE = re.compile(r"\$scopeinfo|PFUMX|L6MUX21|MUXF[789]|INV|LUT[1-6]|SB_DFF\w*|VCC|GND|SB_RGBA_DRV")
"""Cells in no count of their own; LUT1..LUT6 are in Yosys' estimate for Xilinx, SB_DFF* are counted by their prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """``count`` equal modules of ``each``."""

    name: str
    count: int
    each: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """A block on a target, by the modules that it is made of; ``cells`` of the whole as Yosys names them."""

    block: BlockName
    target: Target
    tools: str
    blocks: tuple[Block, ...]
    cells: Mapping[str, int]

    @property
    def total(self) -> Resources:
        return sum((b.each * b.count for b in self.blocks), Resources())


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


def synthesize(
    spec: AcceleratorSpec, block: BlockName, target: Target, mhz: int = 100, progress: Progress | None = None
) -> Synthesis:
    """Count what ``block`` of ``spec`` takes on ``target``, from the cache where it was counted before.

    ``mhz`` tells Yosys which paths need not be any faster, so that it saves LUTs on them. SORE is that of 2:8, or of
    the largest group below it that the machine holds; WUVE updates by SGD. Latches and loops of gates are errors.
    """
    _require_names(block, target)
    require_int("--mhz", mhz, 1, 1000)
    refuse_what_cannot_fit(spec, block, target)
    require_tool("yosys")
    text, kept = _design(spec, block)
    found = _count(text, kept, _TOP, target, mhz, progress)
    counted = [
        Block(name=_name(module, block), count=count, each=_resources(cells, lut))
        for module, (count, cells, lut) in found.items()
    ]
    made = Synthesis(
        block=block,
        target=target,
        tools=tool_version("yosys"),
        blocks=tuple(b for b in counted if b.each != Resources()),
        cells=_all_cells(found),
    )
    _refuse_too_large(made)
    return made


def place_and_route(
    spec: AcceleratorSpec, block: BlockName, mhz: int = 100, progress: Progress | None = None
) -> Routed:
    """Place and route ``block`` of ``spec`` for ECP5, between registers that stand for what surrounds it.

    A block has more ports than the device pins: its inputs come from one long shift register, its outputs go into
    registers that are folded into one bit, so that nothing can be left out. The buffers are not there: a bank that
    answers out of a memory block instead of a register adds the access time of that block.
    """
    require_tool("nextpnr-ecp5")
    synthesize(spec, block, "ecp5", mhz, progress)  # refuses what does not fit
    text, kept = _design(spec, block)
    harness = rtlil.convert(_Harness(_component(spec, block)), name=_HARNESS, emit_src=False)
    script = [
        *_script(text_file="design.il", kept=[*kept, _TOP], top=_HARNESS, target="ecp5", mhz=mhz),
        "tee -q -o stat.json stat -json",
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean",
        "check -assert",
        "write_json design.json",
    ]
    options = [
        "--85k", "--package", "CABGA756", "--speed", "6", "--json", "design.json", "--report", "report.json",
        "--freq", str(mhz), "--timing-allow-fail", "--seed", "1",
    ]  # fmt: skip
    tools = f"{tool_version('yosys')}, {tool_version('nextpnr-ecp5')}"

    def make(folder: Path) -> None:
        (folder / "design.il").write_text(text + harness)
        run_tool("yosys", ["-q", "-p", "; ".join(script)], folder)
        run_tool("nextpnr-ecp5", options, folder, None if progress is None else _Stages(progress))
        stat = json.loads((folder / "stat.json").read_text())
        own = _by_module(stat, _HARNESS, "ecp5")[_HARNESS]
        report = json.loads((folder / "report.json").read_text())
        result = {"report": report, "harness": asdict(_resources(own[1], own[2]))}
        (folder / "result.json").write_text(json.dumps(result))

    material = [text, harness, *script, *options, tools]
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


def refuse_what_cannot_fit(spec: AcceleratorSpec, block: BlockName, target: Target) -> None:
    """Refuse, before anything is elaborated, an array of more PEs than the device can hold whatever they take."""
    if block != "stce":
        return
    device, least, count = DEVICES[target], _LEAST[target], spec.macs_per_cycle
    for name, unit in (("dsp", "multipliers"), ("lut", "LUTs")):
        has, needs = getattr(device.has, name), getattr(least, name)
        if count * needs > has:
            at_most = min(device.has.dsp // least.dsp, device.has.lut // least.lut)
            side = int(at_most**0.5)
            raise InputError(
                f"{spec.name} has {spec.array.rows} x {spec.array.cols} PEs of at least {needs} {unit} each, "
                f"{device.name} ({target}) has {has:,}; at most {at_most} PEs can fit, as {side} x {side}"
                + ("; --block pe takes one PE" if target == "ice40" else "")
            )


def _require_names(block: str, target: str) -> None:
    if block not in BLOCKS:
        raise InputError(f"--block: there is no block {block!r}; {nearest(block, BLOCKS)}")
    if target not in DEVICES:
        raise InputError(f"--target: there is no target {target!r}; {nearest(target, DEVICES)}")


def _refuse_too_large(made: Synthesis) -> None:
    device, total = DEVICES[made.target], made.total
    needs = {"lut": device.sites(total)} | {name: getattr(total, name) for name in ("ff", "dsp", "bram", "uram")}
    units = {
        "lut": "LUT sites",
        "ff": "registers",
        "dsp": "multipliers",
        "bram": "memory blocks",
        "uram": "URAM blocks",
    }
    for name, count in needs.items():
        has = getattr(device.has, name)
        if count > has:
            part = max(made.blocks, key=lambda b: getattr(b.each, name) * b.count)
            raise InputError(
                f"--block {made.block} takes {count:,} {units[name]}, {device.name} ({made.target}) has {has:,}; "
                f"the most are those of {part.count} {part.name}, about {part.count * has // count} of which would fit"
            )


def _component(spec: AcceleratorSpec, block: BlockName) -> Any:
    if block == "pe":
        return Uspe(spec)
    if block == "stce":
        return Stce(spec, blackbox=True)
    if block == "wuve":
        return Wuve(spec, blackbox=True)
    group = min(8, spec.pe.max_group)
    return Sore(spec, NMPattern(keep=max(1, group // 4), group=group), blackbox=True)


def _design(spec: AcceleratorSpec, block: BlockName) -> tuple[str, list[str]]:
    """RTLIL of a block as module ``weft``, and the modules in it that are counted apart."""
    component = _component(spec, block)
    parts = getattr(component, "parts", {})
    texts = [rtlil.convert(part, name=name, emit_src=False) for name, part in parts.items()]
    text = "".join([*texts, rtlil.convert(component, name=_TOP, emit_src=False)])
    inner = [f"{_TOP}.control"] if block == "stce" else []
    return text, [*parts, *inner]


def _name(module: str, block: BlockName) -> str:
    """A module as reports call it; what is left of the top when its parts are taken out are its edges."""
    if module == _TOP:
        return block if block == "pe" else "edges"
    return module.removeprefix(f"{_TOP}.")


def _script(*, text_file: str, kept: list[str], top: str, target: Target, mhz: int) -> list[str]:
    synthesis = {
        "ecp5": f"synth_ecp5 -top {top}",
        "ice40": f"synth_ice40 -device u -dsp -top {top}",
        "xcup": f"synth_xilinx -family xcup -flatten -noiopad -noclkbuf -top {top}",
    }[target]
    return [
        f"read_rtlil {text_file}",
        f"hierarchy -check -top {top}",
        *(f"setattr -mod -set keep_hierarchy 1 {module}" for module in kept),
        "proc",
        "check -assert",  # neither loops of gates nor wires with two drivers
        "select -assert-none t:$dlatch t:$adlatch t:$dlatchsr t:$sr",
        # without a period ABC buys speed with LUTs even where nothing is gained by it
        f"scratchpad -set abc9.D {1_000_000 // mhz}",
        synthesis,
        "check -assert",
    ]


Counted = dict[str, tuple[int, dict[str, int], int]]
"""By module: how often it is there, its own cells, and the LUTs that Yosys thinks they take on Xilinx."""


def _count(text: str, kept: list[str], top: str, target: Target, mhz: int, progress: Progress | None) -> Counted:
    script = _script(text_file="design.il", kept=kept, top=top, target=target, mhz=mhz)
    script.append(f"tee -q -o stat.json stat {'-tech xilinx ' if target == 'xcup' else ''}-json")

    def make(folder: Path) -> None:
        (folder / "design.il").write_text(text)
        run_tool("yosys", ["-q", "-p", "; ".join(script)], folder)

    if progress is not None:
        progress(0, len(_STAGES))
    stat = json.loads(cached("synth", [text, *script, tool_version("yosys")], "stat.json", make).read_text())
    return _by_module(stat, top, target)


def _by_module(stat: Mapping[str, Any], top: str, target: Target) -> Counted:
    modules = {name.removeprefix("\\"): module for name, module in stat["modules"].items()}
    instances = dict.fromkeys(modules, 0)

    def visit(name: str, times: int) -> None:
        instances[name] += times
        for cell, count in _cells(modules[name]).items():
            if cell in modules:
                visit(cell, times * count)

    def estimated(name: str) -> int:
        """LUTs of a module alone: the estimate of Yosys includes the modules in it."""
        inside = sum(count * whole(cell) for cell, count in _cells(modules[name]).items() if cell in modules)
        return whole(name) - inside

    def whole(name: str) -> int:
        return int(modules[name]["estimated_num_lc"]) if target == "xcup" else 0

    visit(top, 1)
    return {
        name: (
            instances[name],
            {cell: count for cell, count in _cells(module).items() if cell not in modules},
            estimated(name),
        )
        for name, module in modules.items()
        if instances[name]
    }


def _cells(module: Mapping[str, Any]) -> dict[str, int]:
    cells = {**module["num_cells_by_type"], **module.get("num_submodules_by_type", {})}
    return {name.removeprefix("\\"): int(count) for name, count in cells.items()}


def _resources(cells: Mapping[str, int], lut: int) -> Resources:
    counts = {"lut": lut}
    for cell, count in cells.items():
        kind, worth = _CELLS.get(cell, ("ff", 1) if cell.startswith("SB_DFF") else ("", 0))
        if cell == "LUT4" and lut:
            continue
        if kind:
            counts[kind] = counts.get(kind, 0) + count * worth
        elif not _FREE.fullmatch(cell):
            raise RuntimeError(f"hdl/build.py does not know what a cell {cell} takes")
    return Resources(**counts)


def _all_cells(found: Counted) -> dict[str, int]:
    total: dict[str, int] = {}
    for count, cells, _ in found.values():
        for cell, number in cells.items():
            total[cell] = total.get(cell, 0) + count * number
    return dict(sorted(total.items()))


_STAGES = ("synthesis", "Packing", "Running main analytical placer", "Running detailed", "Routing", "Program finished")


class _Stages:
    """Progress of nextpnr by the lines in which it begins its stages."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stage = progress, 1

    def __call__(self, line: str) -> None:
        following = next((i for i, stage in enumerate(_STAGES) if i > self._stage and stage in line), None)
        if following is not None:
            self._stage = following
            self._progress(following, len(_STAGES))


_CELL_SUFFIX = re.compile(r"(_(TRELLIS_FF|LUT4|PFUMX|L6MUX21|CCU2C|MULT18X18D|DPR16X4|DO|DI|RAD)(_.*|\$.*)?|\$.*)$")


def _register(cell: str) -> str:
    """The signal or memory of the design that Yosys named a cell after."""
    short = _CELL_SUFFIX.sub("", cell)
    return re.sub(r"(\.\d+)+$", "", short.removeprefix("dut.")) or cell


_TCL = """# Vivado project of {block} of {machine}, out of context: its ports are the banks of the buffers, not pins.
# Written by Weft and never run through Vivado: expect to repair it. Run: vivado -mode batch -source {top}.tcl
create_project {top} vivado -part {part} -force
read_verilog {top}.v
read_xdc {top}.xdc
synth_design -top {top} -part {part} -mode out_of_context
report_utilization -hierarchical -file {top}_utilization_synth.rpt
opt_design
place_design
phys_opt_design
route_design
report_utilization -hierarchical -file {top}_utilization.rpt
report_timing_summary -file {top}_timing.rpt
report_power -file {top}_power.rpt
write_checkpoint -force {top}.dcp
"""

_XDC = """# {mhz} MHz. Ports are timed against the same clock, half a period each way.
create_clock -name clk -period {period:.3f} [get_ports clk]
set_input_delay -clock clk {half:.3f} [get_ports -filter {{DIRECTION == IN && NAME != clk}}]
set_output_delay -clock clk {half:.3f} [get_ports -filter {{DIRECTION == OUT}}]
"""

VIVADO_PART = "xcvu9p-fsgd2104-2L-e"
"""The device of the VCU1525 board."""


def vivado_project(spec: AcceleratorSpec, block: BlockName, mhz: int) -> dict[str, str]:
    """Files of a Vivado project of ``block`` for the VCU1525, by name; nobody has run one."""
    _require_names(block, "xcup")
    require_int("--mhz", mhz, 1, 1000)
    refuse_what_cannot_fit(spec, block, "xcup")
    require_tool("yosys")
    values = {"block": block, "machine": spec.name, "top": block, "part": VIVADO_PART, "mhz": mhz}
    period = 1000 / mhz
    return {
        f"{block}.v": verilog(spec, _component(spec, block), block).text,
        f"{block}.xdc": _XDC.format(**values, period=period, half=period / 2),
        f"{block}.tcl": _TCL.format(**values),
    }


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
        m.submodules.dut = Instance(_TOP, i_clk=ClockSignal(), i_rst=ResetSignal(), **pins)
        folded: Any = Cat(outputs)
        for level in range(16):
            register = Signal(len(folded), reset_less=True, name=f"fold_{level}")
            m.d.sync += register.eq(folded)
            if len(register) == 1:
                break
            folded = Cat(register[i : i + 4].xor() for i in range(0, len(register), 4))
        m.d.comb += self.fold.eq(register)
        return m
