"""Which sources a training runs: those that it imports, and what they import."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from ..workloads.schemes.scheme import scheme

__all__ = ["WORKLOADS", "closure"]

WORKLOADS = Path(__file__).parents[1] / "workloads"
_ALWAYS = ("training/__init__.py", "models/hf/__init__.py")
"""Where a training begins; the second is imported only when it is needed."""


@cache
def closure(name: str) -> frozenset[str]:
    """Sources that a training under scheme ``name`` runs: what its loop and its technique import, all the way; all
    techniques where it is somebody else's."""
    family = scheme(name).technique.partition(".")[0] or "*"
    own = sorted((WORKLOADS / "schemes").glob(f"{family}.py"))
    open_, seen = [*(WORKLOADS / root for root in _ALWAYS), *own], set[Path]()
    while open_:
        path = open_.pop()
        if path not in seen:
            seen.add(path)
            open_ += _imports(path)
    return frozenset(path.relative_to(WORKLOADS).as_posix() for path in seen)


def _imports(path: Path) -> list[Path]:
    """Modules of ``workloads/`` that a module imports at its top level, and the packages that they are in."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        parts = [base, *(base / alias.name for alias in node.names)]
        found += [file for part in parts for file in (part.with_suffix(".py"), part / "__init__.py")]
        found += [parent / "__init__.py" for parent in (base, *base.parents) if parent.is_relative_to(WORKLOADS)]
    return [file for file in found if file.is_file()]
