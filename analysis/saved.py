"""A folder of `weft run -o` read back: its step and machine, and the same result from them again, checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.config_io import spec_at, spec_hash
from ..dataflow.constraint import MappingFile, parse_mapping
from ..dataflow.objective import Objective
from ..simulator.memory import require_room
from ..simulator.step import simulate
from ..simulator.system import simulate_system
from ..workloads.errors import InputError, reading
from ..workloads.io import loads_workload
from ..workloads.step import Workload
from .energy import energy
from .energy_table import load_table
from .level import AnyResult, cycles_of
from .publish import RUN, read_published
from .scheduling import scheduled
from .tariff import tariff

__all__ = ["SavedRun", "saved_run"]

_LEVELS = ("step", "system")
_RESULT, _WORKLOAD, _MACHINE, _MAPPING = "result.json", "workload.json", "machine.toml", "mapping.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """What a folder of `weft run -o` says it holds; ``cycles`` are those of ``level``, ``by_shape`` its schedule's."""

    folder: Path
    workload: Workload
    machine_text: str | None = field(repr=False)
    mapping: MappingFile | None
    spec: str
    spec_hash: str
    objective: str
    joules: float
    cycles: int
    level: str
    by_shape: bool
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
        place = self.folder / _MACHINE
        if self.machine_text is None:
            raise InputError(f"{place}: is missing, as in folders of older versions{self._again}")
        spec = spec_at(place, self.machine_text)
        if spec_hash(spec) != self.spec_hash:
            raise InputError(
                f"{place}: is not the machine of result.json ({self.spec!r}, {self.spec_hash}){self._again}"
            )
        return spec

    def simulated(self, progress: Callable[[int, int], None] | None = None) -> AnyResult:
        """The result that the folder was written from, to the cycle and the joule, or an InputError."""
        spec = self.machine()
        try:
            tariff(load_table(spec.technology), spec)  # before the work
        except InputError as refused:
            raise InputError(f"{self.folder / _MACHINE}: {refused}") from None
        result = self.simulated_on(spec, progress)
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
            require_room(self.workload, spec)
        chosen = scheduled(self.workload, spec, self.objective, progress, self.mapping, self.by_shape)
        return simulate_system(chosen) if self.level == "system" else simulate(chosen)

    @property
    def _again(self) -> str:
        return f"; make it again with: {self.command}" if self.command else "; make it again with `weft run -o`"


def saved_run(folder: Path) -> SavedRun:
    """Read a folder of results, those of one run; its workload is annotated already."""
    place = folder / _RESULT
    files = read_published(folder, RUN, (_RESULT, _WORKLOAD, _MACHINE, _MAPPING))
    if _RESULT not in files:
        raise InputError(f"{place}: cannot be read: it is missing; give a folder of `weft run -o`")
    with reading(str(place), "a result of `weft run -o`"):
        found = json.loads(files[_RESULT])
        known = {key: str(found[key]) for key in ("spec", "spec_hash", "objective", "command", "weft_version")}
        joules, cycles, level = float(found["energy_j"]), int(found["cycles"]), found.get("level", "step")
    with reading(str(folder / _MACHINE), "UTF-8 text"):
        machine = files[_MACHINE].decode() if _MACHINE in files else None
        rules = files[_MAPPING].decode() if _MAPPING in files else None
    if level not in _LEVELS:
        raise InputError(f"{place}: level {level!r} is none of this version ({', '.join(_LEVELS)})")
    if _WORKLOAD not in files:
        raise InputError(f"{folder / _WORKLOAD}: cannot be read: it is missing; give a folder of `weft run -o`")
    return SavedRun(
        folder=folder,
        workload=loads_workload(files[_WORKLOAD], str(folder / _WORKLOAD)),
        machine_text=machine,
        mapping=None if rules is None else parse_mapping(rules, str(folder / _MAPPING)),
        joules=joules,
        cycles=cycles,
        level=level,
        by_shape=bool(found.get("by_shape", False)),
        **known,
    )
