"""A space small enough to be scheduled many times over, and folders of it by name and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.analysis.explore.space import Space, read_space
from weft.workloads.io import save_workload

from ...test_cli import tiny_step

AXES: dict[str, Any] = {
    "array.rows": [2, 4, 8],
    "array.cols": [2, 4],
    "dram.bytes_per_second": [10**8, 10**9],
    "buffers.w2e_bytes": [64, 128, 2048],
    "pe.accumulators": [2, 8],
    "scheme": ["dense", "bdwp"],
    "batch": [8],
}


def space(folder: Path, **fields: Any) -> Space:
    """144 points of two linear layers on variants of `tiny`; ``fields`` replace those of the space."""
    path = folder / "two-layers.json"
    if not path.exists():
        save_workload(tiny_step(), path)
    return read_space(
        {"model": str(path), "arch": "tiny", "nm": "1:2", "axes": AXES, "objectives": ["cycles", "pes"], **fields}
    )


def held(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
