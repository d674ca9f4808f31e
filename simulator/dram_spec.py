"""A DRAM memory as data: organization, JEDEC timing, controller, power; every number with its origin. See memories/."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from ..workloads.errors import InputError, nearest, require_int, require_positive
from ..workloads.mark import Mark
from ..workloads.strict import read_text, read_toml

__all__ = [
    "BitPower",
    "Controller",
    "IddPower",
    "MemorySpec",
    "Organization",
    "Provenance",
    "Timing",
    "load_memory",
    "memory_names",
    "parse_memory",
]

_STRICT = {"extra": "forbid"}
_MOST_BANKS = 64
"""Of a channel: the number of a bank has six bits in the kernel's choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """What there is, in powers of two; ``banks`` in a bank group, ``columns`` of one device, widths in bits."""

    __pydantic_config__ = _STRICT
    channels: int
    ranks: int
    bank_groups: int
    banks: int
    rows: int
    columns: int
    device_width: int
    bus_width: int
    burst_length: int
    mega_transfers: int
    """Transfers a second on each data pin, in millions; the clock runs at half of it."""

    def __post_init__(self) -> None:
        for name, most in (
            ("channels", 64),
            ("ranks", 8),
            ("bank_groups", 16),
            ("banks", 16),
            ("rows", 2**20),
            ("columns", 2**14),
            ("device_width", 128),
            ("bus_width", 1024),
            ("burst_length", 32),
        ):
            value = getattr(self, name)
            require_int(f"organization.{name}", value, 1, most)
            if value & (value - 1):
                raise InputError(f"organization.{name} must be a power of two, not {value}")
        require_int("organization.mega_transfers", self.mega_transfers, 100, 100_000)
        if self.channel_banks > _MOST_BANKS:
            raise InputError(f"organization: {self.channel_banks} banks in a channel, at most {_MOST_BANKS}")
        if self.burst_length < 2 or self.burst_length > self.columns or self.bus_width < max(8, self.device_width):
            raise InputError("organization: a burst takes 2 to columns transfers and the bus is as wide as a device")

    @property
    def channel_banks(self) -> int:
        """Banks behind one channel."""
        return self.ranks * self.bank_groups * self.banks

    @property
    def line_bytes(self) -> int:
        """Bytes of one burst: the unit of every request."""
        return self.bus_width * self.burst_length // 8

    @property
    def row_lines(self) -> int:
        """Bursts in an open row."""
        return self.columns // self.burst_length

    @property
    def lines(self) -> int:
        """Capacity in bursts."""
        return self.channels * self.channel_banks * self.rows * self.row_lines

    @property
    def burst_cycles(self) -> int:
        """Clock cycles a burst holds the data bus."""
        return self.burst_length // 2

    @property
    def clock_hz(self) -> int:
        """Clock cycles a second, two transfers each."""
        return self.mega_transfers * 500_000

    @property
    def cycle_ns(self) -> float:
        """One clock cycle."""
        return 2000 / self.mega_transfers

    @property
    def bytes_per_cycle(self) -> int:
        """Peak of all channels in one clock cycle."""
        return self.channels * self.bus_width // 4

    @property
    def bytes_per_second(self) -> int:
        """Peak of all channels."""
        return self.bytes_per_cycle * self.clock_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """JEDEC timing in clock cycles, by JEDEC's names without the t; S is between bank groups, L within one.

    ``RPA`` precharges all banks. ``RTW_GAP`` is how long the data bus rests between read and write data, ``RANK_GAP``
    between two ranks.
    """

    __pydantic_config__ = _STRICT
    CL: int
    CWL: int
    RCD: int
    RP: int
    RPA: int
    RAS: int
    RRD_S: int
    RRD_L: int
    CCD_S: int
    CCD_L: int
    WTR_S: int
    WTR_L: int
    FAW: int
    WR: int
    RTP: int
    RFC: int
    REFI: int
    RTW_GAP: int
    RANK_GAP: int

    def __post_init__(self) -> None:
        for field in fields(self):
            require_int(f"timing.{field.name}", getattr(self, field.name), 1, 100_000 if field.name == "REFI" else 4096)
        if self.RRD_L < self.RRD_S or self.CCD_L < self.CCD_S or self.WTR_L < self.WTR_S or self.RPA < self.RP:
            raise InputError("timing: within a bank group (_L), and for all banks (RPA), nothing is faster")

    @property
    def RC(self) -> int:  # noqa: N802
        """Activate to activate of one bank."""
        return self.RAS + self.RP


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """One a channel: FR-FCFS over two queues, open pages, writes in bursts. Depths in requests.

    Writes start when ``drain_from`` wait or no read does, and stop at ``drain_to``. After ``hit_limit`` columns of a
    row an older request for another row of that bank closes it.
    """

    __pydantic_config__ = _STRICT
    read_queue: int
    write_queue: int
    drain_from: int
    drain_to: int
    hit_limit: int

    def __post_init__(self) -> None:
        require_int("controller.read_queue", self.read_queue, 1, 4096)
        require_int("controller.write_queue", self.write_queue, 1, 4096)
        require_int("controller.drain_from", self.drain_from, 1, self.write_queue)
        require_int("controller.drain_to", self.drain_to, 0, self.drain_from - 1)
        require_int("controller.hit_limit", self.hit_limit, 1, 2**20)


@dataclass(frozen=True, slots=True, kw_only=True)
class IddPower:
    """Supply currents of one device in mA at ``vdd`` volts: energy by command and by what the banks hold open."""

    __pydantic_config__ = _STRICT
    kind: Literal["idd"] = "idd"
    vdd: float
    idd0: float
    idd2n: float
    idd3n: float
    idd4r: float
    idd4w: float
    idd5ab: float

    def check_commands(self, t: Timing) -> None:
        """Refuse currents by which a command would give energy back."""
        for name in ("idd4r", "idd4w", "idd5ab"):
            if getattr(self, name) <= self.idd3n:
                raise InputError(f"power.{name} must be above the standby current idd3n, {self.idd3n:g}")
        standby = (self.idd3n * t.RAS + self.idd2n * t.RP) / t.RC
        if self.idd0 <= standby:
            raise InputError(f"power.idd0 must be above {standby:.1f}, the standby current of a row cycle")


@dataclass(frozen=True, slots=True, kw_only=True)
class BitPower:
    """Energy of a bit moved, where no currents are public: the same for every pattern."""

    __pydantic_config__ = _STRICT
    kind: Literal["bit"] = "bit"
    read_pj: float
    write_pj: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the figures in ``of`` (as ``table.name``) come from and how far to trust them."""

    __pydantic_config__ = _STRICT
    mark: Mark
    source: str
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySpec:
    """A memory of identical channels; hashable, so it is its own cache key. Every figure has exactly one provenance."""

    __pydantic_config__ = _STRICT
    name: str
    title: str
    organization: Organization
    timing: Timing
    controller: Controller
    power: IddPower | BitPower
    provenance: tuple[Provenance, ...]

    def __post_init__(self) -> None:
        o, t = self.organization, self.timing
        # A bank must get some work done between two refreshes, or the run never ends.
        least = t.RFC + 2 * (t.RC + t.RPA + t.CL + t.CWL + o.burst_cycles + t.WR)
        if least > t.REFI:
            raise InputError(f"timing.REFI must be at least {least}: RFC and time for two rows, not {t.REFI}")
        if t.CL + o.burst_cycles + t.RTW_GAP <= t.CWL:
            raise InputError("timing.CWL must be shorter than CL with a burst: writes follow reads")
        for figure in fields(self.power)[1:]:
            require_positive(f"power.{figure.name}", getattr(self.power, figure.name))
        if isinstance(self.power, IddPower):
            self.power.check_commands(t)
        named = Counter(name for p in self.provenance for name in p.of)
        known = [
            f"{table}.{f.name}"
            for table in ("organization", "timing", "controller", "power")
            for f in fields(getattr(self, table))
            if f.name != "kind"
        ]
        for name, times in named.items():
            if name not in known:
                raise InputError(f"provenance of {name!r}, which is no figure: {nearest(name, known)}")
            if times > 1:
                raise InputError(f"{name} has more than one provenance")
        for name in known:
            if name not in named:
                raise InputError(f"{name} has no provenance: name it in the list of one [[provenance]]")


@cache
def memory_names() -> tuple[str, ...]:
    """Memories that ship."""
    folder = resources.files(__package__) / "memories"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_memory(name: str | Path) -> MemorySpec:
    """Memory of a shipped name or of a path that ends in ``.toml``."""
    path = Path(name)
    return parse_memory(read_text(path), str(path)) if path.suffix == ".toml" else _shipped(str(name))


@cache
def _shipped(name: str) -> MemorySpec:
    if name not in memory_names():
        raise InputError(f"memory {name!r} is neither one that ships nor a .toml file: {nearest(name, memory_names())}")
    shipped = resources.files(__package__) / "memories" / f"{name}.toml"
    return parse_memory(shipped.read_text(encoding="utf-8"), f"{name}.toml")


def parse_memory(text: str, source: str) -> MemorySpec:
    """Memory of TOML text; ``source`` names it in errors."""
    return read_toml(MemorySpec, text, source)
