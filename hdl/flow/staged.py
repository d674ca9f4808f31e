"""Place and route of what may not finish: stage by stage, each bounded in processor time, and each kept."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...dataflow.accelerator import AcceleratorSpec
from ..block import Block
from .route import CriticalPath, netlist, options_of, parse_report
from .tools import OutOfTimeError, cache_key, cached, require_tool, run_tool, tool_version

__all__ = ["Attempt", "Router", "Stage", "attempt"]

Router = Literal["router1", "router2"]
"""Of nextpnr: one that rips up an arc at a time, and one that lets arcs share wires and makes sharing ever dearer."""

_SAYS_HOW_FAR = re.compile(r"iteration|iter=|\d+ \|| time ")
_PLACED = re.compile(r"Max frequency for clock .*: ([\d.]+) MHz")
_SITES = re.compile(r"(TRELLIS_COMB|TRELLIS_FF|TRELLIS_RAMW|MULT18X18D|DP16KD): +(\d+)/ *(\d+)")
_USED_ROUTER = re.compile(rb'"router": "router[12]"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Placing or routing: the processor time it took, and whether it finished; ``said``: the last that nextpnr said of
    how far it was."""

    processor_s: int
    finished: bool
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A design that was placed and perhaps routed: ``rtl`` names its RTL, ``sites`` are used of those the device has.

    ``placed_mhz`` is nextpnr's estimate before there are routes, ``mhz`` and ``critical`` what the routes gave. A stage
    that was not begun is None.
    """

    rtl: str
    tools: str
    asked_mhz: int
    router: Router
    sites: dict[str, tuple[int, int]]
    placed: Stage
    placed_mhz: float | None
    routed: Stage | None
    mhz: float | None
    critical: CriticalPath | None


def attempt(
    spec: AcceleratorSpec, block: Block, mhz: int, router: Router, processor_s: int, heard: Callable[[str], object]
) -> Attempt:
    """``block`` of ``spec`` on an LFE5U-85F between registers, as `place_and_route` has it, with seed 1.

    Either stage may use ``processor_s`` seconds of processor time. A finished placement is kept, whatever router comes
    after it; ``heard`` gets every line that nextpnr says.
    """
    require_tool("nextpnr-ecp5")
    text, script = netlist(spec, block, mhz)
    name = cache_key([text])[:12]
    tools = f"{tool_version('yosys')}, {tool_version('nextpnr-ecp5')}"
    common = [*options_of(mhz), "--seed", "1"]

    def synthesized(folder: Path) -> None:
        (folder / "design.il").write_text(text)
        run_tool("yosys", ["-q", "-p", "; ".join(script)], folder)

    design = cached("route", [text, *script, tools], "design.json", synthesized)
    place = [*common, "--json", "design.json", "--no-route", "--write", "placed.json"]
    report: list[str] = []

    def placing(folder: Path) -> None:
        shutil.copyfile(design, folder / "design.json")  # YoWASP follows no link out of its folder
        stage, said = _stage(place, folder, processor_s, heard)
        report.append(said)
        if not stage.finished:
            raise _UnfinishedError(stage)
        head = json.dumps([stage.processor_s, stage.said, said]).encode()
        (folder / "result.json").write_bytes(head + b"\n" + (folder / "placed.json").read_bytes())

    try:
        kept = cached("route", [text, *script, *place, tools], "result.json", placing)
    except _UnfinishedError as unfinished:
        return Attempt(
            rtl=name,
            tools=tools,
            asked_mhz=mhz,
            router=router,
            sites=_sites(report[0]),
            placed=unfinished.stage,
            placed_mhz=None,
            routed=None,
            mhz=None,
            critical=None,
        )
    head, _, placed = kept.read_bytes().partition(b"\n")
    seconds, last, said = json.loads(head)
    (estimate,) = _PLACED.findall(said)[-1:]

    def routing(folder: Path) -> None:
        # nextpnr takes the router from the file that it reads before it looks at its options
        (folder / "placed.json").write_bytes(_USED_ROUTER.sub(f'"router": "{router}"'.encode(), placed))
        options = [*common, "--json", "placed.json", "--no-pack", "--no-place", "--report", "report.json"]
        stage, _ = _stage(options, folder, processor_s, heard)
        found = json.loads((folder / "report.json").read_text()) if stage.finished else None
        (folder / "result.json").write_text(json.dumps([stage.processor_s, stage.finished, stage.said, found]))

    material = [text, *script, *place, tools, router, str(processor_s)]
    spent, finished, reached, found = json.loads(cached("route", material, "result.json", routing).read_text())
    clock, critical = parse_report(found)[:2] if finished else (None, None)
    return Attempt(
        rtl=name,
        tools=tools,
        asked_mhz=mhz,
        router=router,
        sites=_sites(said),
        placed=Stage(processor_s=seconds, finished=True, said=last),
        placed_mhz=float(estimate),
        routed=Stage(processor_s=spent, finished=finished, said=reached),
        mhz=clock,
        critical=critical,
    )


class _UnfinishedError(Exception):
    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage


def _stage(options: list[str], folder: Path, processor_s: int, heard: Callable[[str], object]) -> tuple[Stage, str]:
    """nextpnr with ``options``, and all that it said."""
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        heard(line)

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        run_tool("nextpnr-ecp5", options, folder, hear, processor_s)
        finished = True
    except OutOfTimeError:
        finished = False
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = next((line for line in reversed(said) if _SAYS_HOW_FAR.search(line)), "")
    words = " ".join(last.removeprefix("Info:").split())
    return Stage(processor_s=round(spent), finished=finished, said=words), "".join(said)


def _sites(said: str) -> dict[str, tuple[int, int]]:
    return {kind: (int(used), int(has)) for kind, used, has in _SITES.findall(said)}
