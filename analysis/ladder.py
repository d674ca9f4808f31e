"""How large an array of USPEs an LFE5U-85F places and routes, at which clock: ``tables/ladder.json``.

``python -m weft.analysis.ladder 2x2 4x4`` tries these arrays of the PEs of `tiny` and adds them to the table;
``--arch`` takes the PEs of another machine, ``--mhz`` the clock to ask for, ``--placer`` and ``--router`` those of
nextpnr, ``--minutes`` what each stage may use of one processor. What was synthesised or placed before is taken from the
cache, so that a second router, or a longer try at routing, costs no second placement.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.config_io import load_spec
from ..hdl.registry import BLOCKS
from ..workloads.errors import InputError, printable

if TYPE_CHECKING:
    from ..hdl.flow.staged import Placer, Router

__all__ = ["Rung", "ladder"]

_FILE = "ladder.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """An array of ``rows`` x ``cols`` PEs, what ``of`` a machine it was built of, and what became of it.

    ``found`` is a `weft.hdl.flow.staged.Attempt` as JSON: seconds of processor time, sites, clocks in MHz.
    """

    rows: int
    cols: int
    of: dict[str, Any]
    found: dict[str, Any]

    @property
    def mhz(self) -> float | None:
        """The clock it reached, if it was routed."""
        reached: float | None = self.found["mhz"]
        return reached

    @property
    def key(self) -> tuple[Any, ...]:
        """What a second try is a try of."""
        shape = (self.rows, self.cols, json.dumps(self.of, sort_keys=True))
        return (*shape, *(self.found[name] for name in ("asked_mhz", "placer", "router", "rtl")))


@cache
def ladder() -> tuple[Rung, ...]:
    """All that was tried."""
    text = (resources.files(__package__) / "tables" / _FILE).read_text(encoding="utf-8")
    return tuple(Rung(**row) for row in json.loads(text)["rungs"])


def _try(spec: AcceleratorSpec, mhz: int, by: tuple[Placer, Router], minutes: float) -> Rung:
    from ..hdl.flow.staged import attempt
    from .synthesised import block_fields

    block = BLOCKS["stce"]

    def heard(line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{printable(line.strip())[:100]}")
        sys.stderr.flush()

    made = attempt(spec, block, mhz, by, round(60 * minutes), heard)
    sys.stderr.write("\r\x1b[K")
    of = {name: value for name, value in block_fields(spec, block).items() if name not in ("array.rows", "array.cols")}
    return Rung(rows=spec.array.rows, cols=spec.array.cols, of=of, found=json.loads(json.dumps(asdict(made))))


def _write(rungs: list[Rung]) -> None:
    from ..workloads.files import write_atomically

    note = "measured: nextpnr's own figures, nothing has run on a board; written by python -m weft.analysis.ladder"
    rows = ",\n".join(f"  {json.dumps(asdict(rung))}" for rung in rungs)
    text = f'{{"source": {json.dumps(note)},\n "rungs": [\n{rows}\n ]}}\n'
    write_atomically(Path(__file__).parent / "tables" / _FILE, text.encode())


def _shape(text: str) -> tuple[int, int]:
    rows, by, cols = text.partition("x")
    if not (by and rows.isdecimal() and cols.isdecimal()):
        raise InputError(f"{text!r} is no array: ROWSxCOLS, as 4x4")
    return int(rows), int(cols)


def _main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m weft.analysis.ladder", description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="+", metavar="ROWSxCOLS")
    parser.add_argument("--arch", default="tiny", help="the machine whose PEs they are")
    parser.add_argument("--mhz", type=int, default=80)
    parser.add_argument("--placer", choices=("heap", "static"), default="static")
    parser.add_argument("--router", choices=("router1", "router2"), default="router1")
    parser.add_argument("--minutes", type=float, default=30.0, help="of one processor, for each stage")
    given = parser.parse_args(arguments)
    spec = load_spec(given.arch)
    found = {rung.key: rung for rung in ladder()}
    for rows, cols in [_shape(text) for text in given.shapes]:
        shaped = replace(spec, array=replace(spec.array, rows=rows, cols=cols))
        rung = _try(shaped, given.mhz, (given.placer, given.router), given.minutes)
        found[rung.key] = rung
        _write(list(found.values()))
        sys.stdout.write(f"{json.dumps(rung.found)}\n")


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except InputError as refused:
        sys.exit(printable(str(refused)))
