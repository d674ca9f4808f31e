"""A folder of `weft run -o` read back: its step and machine, and the same result from them again, checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.config_io import load_spec, spec_hash
from ..dataflow.schedule import Objective
from ..simulator.memory import require_capacity
from ..simulator.step import simulate
from ..simulator.system import simulate_system
from ..workloads.errors import InputError, reading
from ..workloads.io import load_workload
from ..workloads.step import Workload
from ..workloads.strict import read_file
from .energy import energy
from .level import AnyResult, cycles_of
from .scheduling import scheduled

__all__ = ["SavedRun", "saved_run"]

_LEVELS = ("step", "system")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """What a folder of `weft run -o` says it holds; ``cycles`` are those of ``level``."""

    folder: Path
    workload: Workload
    spec: str
    spec_hash: str
    objective: str
    joules: float
    cycles: int
    level: str
    command: str
    weft_version: str

    def require(self, spec: AcceleratorSpec) -> None:
        """Refuse another machine than the one that ran."""
        if spec_hash(spec) != self.spec_hash:
            raise InputError(
                f"{self.folder}: was run on {self.spec!r} ({self.spec_hash}), not {spec.name!r} ({spec_hash(spec)}); "
                "give the same --arch and --pregenerate"
            )

    def machine(self) -> AcceleratorSpec:
        """The machine that ran, as the folder keeps it."""
        place = self.folder / "machine.toml"
        if not place.exists():
            raise InputError(f"{place}: is missing, as in folders of older versions{self._again}")
        spec = load_spec(place)
        if spec_hash(spec) != self.spec_hash:
            raise InputError(
                f"{place}: is not the machine of result.json ({self.spec!r}, {self.spec_hash}){self._again}"
            )
        return spec

    def simulated(self, progress: Callable[[int, int], None] | None = None) -> AnyResult:
        """The result that the folder was written from, to the cycle and the joule, or an InputError."""
        result = self.simulated_on(self.machine(), progress)
        cycles, joules = cycles_of(result), energy(result).joules
        if (cycles, joules) != (self.cycles, self.joules):
            raise InputError(
                f"{self.folder}: holds {self.cycles} cycles and {self.joules:.6g} J, but this version simulates "
                f"{cycles} and {joules:.6g} J: it was written by another version "
                f"(weft {self.weft_version}) or changed{self._again}"
            )
        return result

    def simulated_on(self, spec: AcceleratorSpec, progress: Callable[[int, int], None] | None = None) -> AnyResult:
        """What this version makes of the step of the folder at its level, on the machine that ran."""
        self.require(spec)
        if self.objective not in tuple(Objective):
            raise InputError(f"{self.folder}: objective {self.objective!r} is unknown{self._again}")
        if self.level == "system":
            require_capacity(self.workload, spec)
        chosen = scheduled(self.workload, spec, self.objective, progress)
        return simulate_system(chosen) if self.level == "system" else simulate(chosen)

    @property
    def _again(self) -> str:
        return f"; make it again with: {self.command}" if self.command else "; make it again with `weft run -o`"


def _kept(place: Path) -> bytes:
    try:
        return read_file(place)
    except InputError as error:
        raise InputError(f"{error}; give a folder of `weft run -o`") from None


def saved_run(folder: Path) -> SavedRun:
    """Read a folder of results; its workload is annotated already."""
    place = folder / "result.json"
    raw = _kept(place)
    with reading(str(place), "a result of `weft run -o`"):
        found = json.loads(raw)
        known = {key: str(found[key]) for key in ("spec", "spec_hash", "objective", "command", "weft_version")}
        joules, cycles, level = float(found["energy_j"]), int(found["cycles"]), found.get("level", "step")
    if level not in _LEVELS:
        raise InputError(f"{place}: level {level!r} is none of this version ({', '.join(_LEVELS)})")
    return SavedRun(
        folder=folder, workload=load_workload(folder / "workload.json"), joules=joules, cycles=cycles, level=level,
        **known,
    )  # fmt: skip
