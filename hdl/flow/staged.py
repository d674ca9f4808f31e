"""Place and route of what may not finish: stage by stage, each bounded in processor time, and each kept."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ...dataflow.accelerator import AcceleratorSpec
from ..block import Block
from .route import CriticalPath, netlist, options_of, parse_report
from .tools import OutOfTimeError, cache_key, cached, require_tool, run_tool, tool_version

__all__ = ["Attempt", "Placer", "Router", "Stage", "attempt"]

Router = Literal["router1", "router2"]
"""Of nextpnr: one that rips up an arc at a time, and one that lets arcs share wires and makes sharing ever dearer."""

Placer = Literal["heap", "static"]
"""Of nextpnr: its default, which legalises in every round, and one whose cells repel each other as charges do."""

_SAYS_HOW_FAR = re.compile(r"iteration|iter[= ]|\d+ \|| time ")
_PLACED = re.compile(r"Max frequency for clock .*: ([\d.]+) MHz")
_SITES = re.compile(r"(TRELLIS_COMB|TRELLIS_FF|TRELLIS_RAMW|MULT18X18D|DP16KD): +(\d+)/ *(\d+)")
_Run = Callable[[list[str], Path], tuple["Stage", str]]
"""nextpnr with options in a folder: the stage, and all that it said."""
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
    placer: Placer
    router: Router
    sites: dict[str, tuple[int, int]]
    placed: Stage
    placed_mhz: float | None
    routed: Stage | None
    mhz: float | None
    critical: CriticalPath | None


def attempt(
    spec: AcceleratorSpec,
    block: Block,
    mhz: int,
    by: tuple[Placer, Router],
    processor_s: int,
    heard: Callable[[str], object],
) -> Attempt:
    """``block`` of ``spec`` on an LFE5U-85F between registers, as `place_and_route` has it, with seed 1.

    Either stage may use ``processor_s`` seconds of processor time. A finished placement is kept, whatever router comes
    after it; ``heard`` gets every line that nextpnr says.
    """
    require_tool("nextpnr-ecp5")
    text, script = netlist(spec, block, mhz)
    tools = f"{tool_version('yosys')}, {tool_version('nextpnr-ecp5')}"
    run = partial(_stage, processor_s=processor_s, heard=heard)
    common = [*options_of(mhz), "--seed", "1"]
    placer, router = by
    placing = [*common, "--placer", placer, "--json", "design.json", "--no-route", "--write", "placed.json"]
    routing = [*common, "--json", "placed.json", "--no-pack", "--no-place", "--report", "report.json"]
    made = partial(Attempt, rtl=cache_key([text])[:12], tools=tools, asked_mhz=mhz, placer=placer, router=router)

    try:
        placed, said, design = _placed(text, script, placing, tools, run)
    except _UnfinishedError as unfinished:
        sites = _sites(unfinished.said)
        return made(sites=sites, placed=unfinished.stage, placed_mhz=None, routed=None, mhz=None, critical=None)
    material = [text, *script, *placing, tools, router, str(processor_s)]
    routed, report = _routed(material, design, router, routing, run)
    clock, critical = (None, None) if report is None else parse_report(report)[:2]
    estimate = float(_PLACED.findall(said)[-1])
    return made(sites=_sites(said), placed=placed, placed_mhz=estimate, routed=routed, mhz=clock, critical=critical)


def _placed(text: str, script: list[str], options: list[str], tools: str, run: _Run) -> tuple[Stage, str, bytes]:
    """The stage, what nextpnr said, and the design with its placement; an `_UnfinishedError` if it took too long."""

    def synthesize(folder: Path) -> None:
        (folder / "design.il").write_text(text)
        run_tool("yosys", ["-q", "-p", "; ".join(script)], folder)

    def place(folder: Path) -> None:
        shutil.copyfile(design, folder / "design.json")  # YoWASP follows no link out of its folder
        stage, said = run(options, folder)
        if not stage.finished:
            raise _UnfinishedError(stage, said)
        head = json.dumps([stage.processor_s, stage.said, said]).encode()
        (folder / "result.json").write_bytes(head + b"\n" + (folder / "placed.json").read_bytes())

    design = cached("route", [text, *script, tools], "design.json", synthesize)
    kept = cached("route", [text, *script, *options, tools], "result.json", place)
    head, _, placed = kept.read_bytes().partition(b"\n")
    seconds, last, said = json.loads(head)
    return Stage(processor_s=seconds, finished=True, said=last), said, placed


def _routed(
    material: list[str], design: bytes, router: Router, options: list[str], run: _Run
) -> tuple[Stage, dict[str, Any] | None]:
    """The stage, and nextpnr's report if it finished."""

    def route(folder: Path) -> None:
        # nextpnr takes the router from the file that it reads before it looks at its options
        chosen, times = _USED_ROUTER.subn(f'"router": "{router}"'.encode(), design)
        assert times == 1, "a placed design names its router once"
        (folder / "placed.json").write_bytes(chosen)
        stage, _ = run(options, folder)
        report = json.loads((folder / "report.json").read_text()) if stage.finished else None
        (folder / "result.json").write_text(json.dumps([stage.processor_s, stage.finished, stage.said, report]))

    spent, finished, said, report = json.loads(cached("route", material, "result.json", route).read_text())
    return Stage(processor_s=spent, finished=finished, said=said), report


class _UnfinishedError(Exception):
    def __init__(self, stage: Stage, said: str) -> None:
        super().__init__()
        self.stage, self.said = stage, said


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
