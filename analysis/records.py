"""A result as plain Python values: one record an op, sums by pass, and the JSON of a run."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from ..dataflow.account import declared_causes, items
from ..dataflow.config_io import spec_hash
from ..dataflow.residency import Residency
from ..simulator.result import OpResult, SimResult
from ..workloads.gemm import Pass
from ..workloads.operand import Role
from ..workloads.step import MatrixOp, Measured, UpdateOp
from .bands import Joules, banded
from .declared import columns, counts_kind, cycles_kind, losses_of
from .dram_tensors import tensor_records
from .energy import EnergyReport, energy
from .level import AnyResult, cycles_of, level_of, step_of
from .throughput import throughput

__all__ = ["constrained_sums", "dense_layers", "layer_of", "measured_means", "op_records", "pass_records", "to_dict"]


def layer_of(result: OpResult) -> str:
    """Module path of an op; a parameter belongs to the module that holds it, a tied one (``a=b``) to the first."""
    name = result.op.name
    if not isinstance(result.op, UpdateOp):
        return name
    first = name.partition("=")[0]
    return first.rpartition(".")[0] or first


def op_records(result: SimResult, report: EnergyReport | None = None) -> list[dict[str, Any]]:
    """One record an op, in order; fields that do not apply to an op are ``None``.

    A workload with measurements adds ``density`` of the layer in the pass of the op, ``flip_rate`` and ``sad``.
    """
    joules = (report or energy(result)).op_bands
    measured = result.workload.measured
    ruled, causes = result.mapping is not None, tuple(declared_causes(cycles_kind(result.ops)))
    counted = columns(counts_kind(result.ops))
    records = [
        {**_op_record(i, r, result.peak(r), j, causes, counted), **(_constrained(r) if ruled else {})}
        for i, (r, j) in enumerate(zip(result.ops, joules, strict=True))
    ]
    return [{**record, **_measured(r, measured)} for record, r in zip(records, result.ops, strict=True)]


def _constrained(r: OpResult) -> dict[str, Any]:
    """What was asked of the mapping of an op, and what the free search would have taken it to."""
    names = ("constraint", "free_cycles", "free_dram_bytes")
    than = r.constrained
    values = (None,) * 3 if than is None else (than.asked, than.free_cycles, than.free_dram_bytes)
    return dict(zip(names, values, strict=True))


def constrained_sums(result: SimResult) -> dict[str, int]:
    """Ops whose mapping was restricted, their cycles and DRAM bytes, and what the free search has in their place."""
    found = [(r, r.constrained) for r in result.ops if r.constrained is not None]
    return {
        "ops": len(found),
        "cycles": sum(r.cycles.total for r, _ in found),
        "free_cycles": sum(than.free_cycles for _, than in found),
        "dram_bytes": sum(r.counts.dram_bytes for r, _ in found),
        "free_dram_bytes": sum(than.free_dram_bytes for _, than in found),
    }


def _measured(r: OpResult, measured: tuple[Measured, ...]) -> dict[str, float | None]:
    if not measured:
        return {}
    op = r.op
    found = next((m for m in measured if m.names(op)), None) if isinstance(op, MatrixOp) else None
    if found is None:
        return {"density": None, "flip_rate": None, "sad": None}
    return {"density": found.density.get(Pass(op.pass_)), "flip_rate": found.flip_rate, "sad": found.sad}


def _op_record(
    index: int, r: OpResult, peak: int, joules: Joules, causes: tuple[str, ...], columns: tuple[str, ...]
) -> dict[str, Any]:
    """What the engine of an op does not count or wait for, another of the step does, never happened in it."""
    total, counted = r.cycles.total, {name: getattr(r.counts, name, 0) for name in columns}
    matrix = isinstance(r.op, MatrixOp)
    return {
        "index": index,
        "name": r.op.name,
        "op": r.op.kind if isinstance(r.op, UpdateOp) else r.op.op,
        "kind": r.op.kind,
        "pass": str(r.op.pass_),
        **_product(r),
        **_placement(r),
        "cycles": total,
        **{cause: getattr(r.cycles, cause, 0) for cause in causes},
        "macs": counted.pop("macs"),
        "dense_macs": r.dense_macs,
        "utilization": r.counts.macs / (total * peak) if matrix and total else None,
        "bound_cycles": r.bound_cycles if matrix else None,
        "bound_share": r.bound_cycles / total if matrix and total else None,
        **counted,
        **banded(joules),
    }


def _product(r: OpResult) -> dict[str, Any]:
    names = ("m", "k", "n", "groups", "pattern", "operand", "kept_dense")
    if not isinstance(r.op, MatrixOp):
        return dict.fromkeys(names)
    g, sparse = r.op.gemm, r.op.sparse
    pattern, operand = (str(sparse), sparse.operand) if sparse else (None, None)
    if r.op.rows is not None:
        pattern, operand = f"rows: {r.op.rows}", "b" if r.op.b.role is Role.WEIGHT else "a"
    return dict(zip(names, (g.m, g.k, g.n, g.groups, pattern, operand, r.op.kept_dense or None), strict=True))


def _placement(r: OpResult) -> dict[str, Any]:
    names = ("dataflow", "interleave", "n2s", "tile_rows", "tile_cols", "order", "resident", "compact")
    if r.mapping is None:
        return dict.fromkeys(names)
    m = r.mapping
    compact = m.compact if r.counts.sore_compares else None
    dataflow = None if m.array.dataflow is None else str(m.array.dataflow)
    values = (dataflow, m.array.interleave, m.n2s, m.tile_rows, m.tile_cols, m.order, m.resident, compact)
    return dict(zip(names, values, strict=True))


def pass_records(result: SimResult, report: EnergyReport | None = None) -> dict[Pass, dict[str, Any]]:
    """Cycles, multiply-accumulates and joules of every pass; vector work counts where it happens."""
    joules = (report or energy(result)).pass_bands
    return {
        p: {
            "cycles": sum(r.cycles.total for r in result.select(p)),
            "macs": sum(r.counts.macs for r in result.select(p)),
            **banded(joules[p]),
        }
        for p in Pass
    }


def residency_record(found: Residency) -> dict[str, Any]:
    """What stays on chip in the memory that there is, and the DRAM bytes that each tensor saves, the most first."""
    kept = [
        {
            "name": one.name,
            "kind": one.kind,
            "bytes": one.size,
            "offset": offset,
            "first": one.first,
            "last": one.last,
            "saved_read_bytes": one.read,
            "saved_write_bytes": one.write,
        }
        for one, offset in zip(found.kept, found.offsets, strict=True)
    ]
    return {
        "capacity_bytes": found.capacity,
        "peak_bytes": found.peak,
        "saved_bytes": found.saved,
        "candidates": len(found.candidates),
        "kept": kept,
    }


def dense_layers(result: SimResult) -> list[dict[str, str]]:
    """Layers that the scheme would make sparse but left dense, each reason once."""
    found: Iterable[tuple[str, str]] = dict.fromkeys(
        (r.op.name, r.op.kept_dense) for r in result.ops if isinstance(r.op, MatrixOp) and r.op.kept_dense
    )
    return [{"name": name, "reason": reason} for name, reason in found]


def measured_means(result: SimResult) -> dict[str, float]:
    """Densities by pass, ``flip_rate`` and ``sad`` that a training measured: means over the weights of its layers.

    Empty without measurements.
    """
    sums: dict[str, list[float]] = {}
    for layer in result.workload.measured:
        size = sum(op.elements for op in result.workload.ops if isinstance(op, UpdateOp) and layer.names(op))
        found = {
            **{str(p): share for p, share in layer.density.items()},
            "flip_rate": layer.flip_rate,
            "sad": layer.sad,
        }
        for key, share in found.items():
            if share is None:
                continue
            total = sums.setdefault(key, [0.0, 0.0])
            total[0] += share * size
            total[1] += size
    return {key: part / whole for key, (part, whole) in sums.items() if whole}


def to_dict(result: AnyResult, command: str = "") -> dict[str, Any]:
    """The JSON of a run. ``cycles``, speed and energy are those of its ``level``.

    ``passes``, ``stalls`` and the cycles in ``ops`` are those of each op by itself: ``stalls``, all cycles in which the
    array issues nothing, by cause, and the issuing ones add up to the cycles of the step level.
    """
    report, speed, step = energy(result), throughput(result), step_of(result)
    work, counts, lost = step.workload, items(step.counts), losses_of(cycles_kind(step.ops))
    counted = {name: counts[name] for name in columns(counts_kind(step.ops))}
    return {
        "weft_version": version("weft"),
        "command": command,
        "model": work.model,
        "batch": work.batch,
        "scheme": work.scheme,
        "pattern": str(work.pattern) if work.pattern else None,
        **({"layer_patterns": [str(rule) for rule in work.layer_patterns]} if work.layer_patterns else {}),
        "objective": str(step.objective),
        "spec": step.spec.name,
        "spec_hash": spec_hash(step.spec),
        "level": level_of(result),
        "cycles": cycles_of(result),
        "seconds": speed.seconds,
        "samples_per_s": speed.samples_per_s,
        "macs": counted.pop("macs"),
        "dense_macs": step.dense_macs,
        "utilization": speed.utilization,
        "effective_gops": speed.effective_gops,
        "dense_equivalent_gops": speed.dense_equivalent_gops,
        **banded(report.band),
        **counted,
        "passes": {str(p): record for p, record in pass_records(step, report).items()},
        "dram_tensors": tensor_records(step, report),
        "stalls": {cause: n for cause, n in items(step.cycles).items() if cause in lost},
        "dense_layers": dense_layers(step),
        **({"residency": residency_record(step.residency)} if step.residency is not None else {}),
        **({"measured": measured_means(step)} if work.measured else {}),
        **({"constrained": constrained_sums(step)} if step.mapping is not None else {}),
        "ops": op_records(step, report),
    }
