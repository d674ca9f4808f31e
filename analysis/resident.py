"""What stays on chip between ops, in words."""

from __future__ import annotations

from ..simulator.result import SimResult

__all__ = ["resident_words"]


def resident_words(result: SimResult) -> str | None:
    """How many tensors a step holds, in how much of the memory for them, and what DRAM moves no more; None without."""
    found = result.residency
    if found is None:
        return None
    read, write = sum(one.read for one in found.kept), sum(one.write for one in found.kept)
    return (
        f"Stays on chip: {len(found.kept)} of {len(found.candidates)} tensors in {_mb(found.peak)} of "
        f"{_mb(found.capacity)} MB; saves {_mb(write)} MB written, {_mb(read)} MB read"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.4g}"
