"""`weft trace`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import get_console, heading, make_table, si
from .options import AttentionBy, Batch, Context, Dims, For, Freeze, InputShape, Json, Model, Optimizer, Recompute, Seq
from .outputs import print_json, require_writable_file
from .pipeline import open_workload

if TYPE_CHECKING:
    from ..workloads.step import Workload

__all__ = ["trace"]


def trace(
    model: Model,
    batch: Batch = None,
    seq: Seq = None,
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    dims: Dims = None,
    recompute: Recompute = None,
    freeze: Freeze = None,
    attention: AttentionBy = "full",
    use: For = "train",
    context: Context = None,
    output: Annotated[Path | None, typer.Option("-o", metavar="FILE.json", help="Write the workload here.")] = None,
    as_json: Json = False,
) -> None:
    """Trace one step of a model, of training or of use: its GEMMs, passes and bytes."""
    if output is not None:
        require_writable_file(output)
    workload = open_workload(
        model, batch, seq, optimizer, input_shape, recompute, freeze, attention, dims, use=use, context=context
    )
    if output is not None:
        from ..workloads.io import save_workload

        save_workload(workload, output)
    path = None if output is None else str(output)
    if as_json:
        print_json(_document(workload, path))
        return
    _show(workload, path)


def _document(workload: Workload, path: str | None) -> dict[str, Any]:
    return {
        "model": workload.model,
        "batch": workload.batch,
        "input": workload.input,
        "optimizer": workload.optimizer,
        "scheme": workload.scheme,
        "macs": {str(p): n for p, n in workload.dense_macs.items()},
        "recomputed_macs": workload.recomputed_macs,
        "parameters": workload.parameters,
        "for": workload.phase.use,
        "context": workload.phase.context,
        "kv_cache_bytes": sum(held.bytes for held in workload.phase.cached),
        "ops": len(workload.ops),
        "matrix_ops": len(workload.matrix_ops),
        "assumed": list(workload.assumed),
        "path": path,
    }


def _show(workload: Workload, path: str | None) -> None:
    from ..analysis.words import percents_of

    console = get_console()
    console.print(heading(workload), style="bold")
    macs = workload.dense_macs
    total = sum(macs.values())
    rows = [(str(p), f"{macs[p]:,}", f"{share} %") for p, share in percents_of(macs).items()]
    rows.append(("all", f"{total:,}", ""))
    if workload.recomputed_macs:
        rows.append(("recomputed FF", f"{workload.recomputed_macs:,}", ""))
    console.print(make_table("", ("pass", "multiply-accumulates", "share"), rows))
    frozen = f", {sum(t.elements for t in workload.frozen):,} elements frozen" if workload.frozen else ""
    trained = f"{workload.parameters:,} parameters trained with {workload.optimizer}{frozen}"
    use = trained if workload.phase.trains else f"nothing trained{frozen}"
    console.print(f"{len(workload.ops):,} ops, {len(workload.matrix_ops):,} of them GEMMs; {use}")
    if workload.phase.cached:
        held = sum(tensor.bytes for tensor in workload.phase.cached)
        console.print(f"Keys and values kept after it: {si(held, 'B')}, {len(workload.phase.cached)} tensors")
    for answer in workload.assumed:
        console.print(f"Assumed: {answer}")
    if path is not None:
        console.print(f"Written to {path}")
