"""Workload files: versioned JSON that round-trips exactly and loads no code."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic_core import from_json

from .files import write_atomically
from .step import SCHEMA, Workload
from .strict import dump_json, read_json, read_text

__all__ = ["dumps_workload", "load_workload", "loads_workload", "save_workload"]


def dumps_workload(workload: Workload) -> bytes:
    """JSON of a workload; equal workloads give equal bytes."""
    # Most workloads have none of these.
    unused = {
        key: True
        for key in ("frozen", "measured", "layer_patterns", "assumed", "tensors")
        if not getattr(workload, key)
    }
    return dump_json(Workload, workload, unused or None)


def loads_workload(text: str | bytes, source: str = "workload") -> Workload:
    """Workload of JSON text of this schema or of 1; ``source`` names it in errors."""
    return read_json(Workload, _of_this_schema(text), source)


def save_workload(workload: Workload, path: Path) -> None:
    """Write a workload file, whole or not at all."""
    write_atomically(path, dumps_workload(workload))


def load_workload(path: Path) -> Workload:
    """Read a workload file; a file that breaks a rule is refused with the place and the rule."""
    return loads_workload(read_text(path), str(path))


def _of_this_schema(text: str | bytes) -> str | bytes:
    """Text of schema 1, whose operands knew no form but N:M, with the form named; any other text as it is."""
    try:
        table = from_json(text)
    except ValueError:
        return text  # whose reader says what is wrong with it
    if not isinstance(table, dict) or type(table.get("schema")) is not int or table["schema"] != 1:
        return text
    table["schema"] = SCHEMA
    ops = table.get("ops")
    for op in ops if isinstance(ops, list) else ():
        if isinstance(op, dict) and isinstance(op.get("sparse"), dict):
            op["sparse"] = {"kind": "nm", **op["sparse"]}
    return json.dumps(table)
