"""The processor that something ran on. It decides in which order a sum of floats is taken, and so the last bits."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Host", "core_name", "processor_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """``processor``: as the system calls it; ``core``: its design, as LLVM calls it; ``vector``: the widest vectors
    that PyTorch's own kernels use on it; ``torch``: its version; ``threads``: that worked on one training."""

    __pydantic_config__ = {"extra": "forbid"}

    processor: str
    core: str
    vector: str
    torch: str
    threads: int

    def __str__(self) -> str:
        count = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        return f"{self.processor} ({self.core}, {self.vector}), PyTorch {self.torch}, {count}"


def processor_name() -> str:
    """What the system calls its processor; a virtual machine may say little."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "unknown"


def core_name() -> str:
    """LLVM's name of the processor's design, as znver4."""
    from llvmlite import binding

    return str(binding.get_host_cpu_name())
