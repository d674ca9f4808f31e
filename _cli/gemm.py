"""`weft gemm`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..workloads.errors import InputError
from .console import get_console, make_table, name_of
from .inputs import machine, parse_pattern, parse_sizes
from .options import DEFAULT_ARCH, Json
from .outputs import print_json

if TYPE_CHECKING:
    from ..analysis.verify.product import Product
    from ..dataflow.accelerator import AcceleratorSpec
    from ..dataflow.actions import Cause
    from ..workloads.gemm import Gemm

__all__ = ["gemm"]


def gemm(
    m: Annotated[int, typer.Argument(metavar="M", help="Rows of A and C.")],
    k: Annotated[int, typer.Argument(metavar="K", help="The contraction.")],
    n: Annotated[int, typer.Argument(metavar="N", help="Columns of B and C.")],
    arch: Annotated[str | None, typer.Option(metavar="NAME|FILE.toml", help=f"{DEFAULT_ARCH} if none.")] = None,
    array: Annotated[
        str | None, typer.Option(metavar="ROWSxCOLS", help=f"{DEFAULT_ARCH} with an array of this size instead.")
    ] = None,
    dataflow: Annotated[
        Literal["os", "ws", "is", "auto"],
        typer.Option(help="What stays in the PEs: C, B or A; auto takes the quickest, over the roles of A and B too."),
    ] = "auto",
    nm: Annotated[
        str | None, typer.Option(metavar="KEEP:GROUP", help="N:M pattern of B along k; of A with --dataflow is.")
    ] = None,
    convention: Annotated[
        Literal["weft", "scalesim"], typer.Option(help="Whose cycles: this machine's, or SCALE-Sim v3's accounting.")
    ] = "weft",
    level: Annotated[
        Literal["analytic", "cycle"], typer.Option(help="Closed form, or stepped on random operands and checked.")
    ] = "analytic",
    as_json: Json = False,
) -> None:
    """Time one GEMM, C[M,N] = A[M,K] B[K,N], on the array alone, with unlimited memory."""
    from ..workloads.gemm import Gemm

    product, pattern = Gemm(m=m, k=k, n=n), None if nm is None else parse_pattern(nm)
    if arch is not None and array is not None:
        raise InputError(f"--arch {arch} and --array {array} both name a machine; give one of them")
    if convention == "scalesim":
        if nm is not None or level == "cycle":
            raise InputError(
                "the scalesim convention is a closed form of dense products: leave out --nm and --level cycle"
            )
        document = _scalesim(product, *_array_size(arch, array), dataflow)
        print_json(document) if as_json else _show_scalesim(document)
        return
    from ..analysis.verify.product import best_product, step_product

    best = best_product(_machine_of_size(arch, array), product, dataflow, pattern)
    if level == "cycle":
        step_product(best)
    print_json(_document(best, level)) if as_json else _show(best, level)


def _array_size(arch: str | None, array: str | None) -> tuple[int, int]:
    """Rows and columns; of any size, since the scalesim convention has its own limits."""
    if array is None:
        spec = machine(arch or DEFAULT_ARCH)
        return spec.array.rows, spec.array.cols
    sizes = parse_sizes("--array", array, "32x32")
    if len(sizes) != 2:
        raise InputError(f"--array {array!r} is not of the form 32x32")
    return sizes[0], sizes[1]


def _machine_of_size(arch: str | None, array: str | None) -> AcceleratorSpec:
    spec = machine(arch or DEFAULT_ARCH)
    if array is None:
        return spec
    rows, cols = _array_size(None, array)
    return replace(spec, name=f"{spec.name} with --array {array}", array=replace(spec.array, rows=rows, cols=cols))


def _scalesim(gemm: Gemm, rows: int, cols: int, dataflow: str) -> dict[str, Any]:
    from ..dataflow.scalesim import scalesim_cycles

    flows = ("os", "ws", "is") if dataflow == "auto" else (dataflow,)
    cycles, chosen = min(((scalesim_cycles(gemm, rows, cols, flow), flow) for flow in flows), key=lambda pair: pair[0])
    return {
        "m": gemm.m,
        "k": gemm.k,
        "n": gemm.n,
        "rows": rows,
        "cols": cols,
        "convention": "scalesim",
        "level": "analytic",
        "dataflow": chosen,
        "macs": gemm.macs,
        "cycles": cycles,
    }


def _document(product: Product, level: str) -> dict[str, Any]:
    g, spec, mapping, cycles = product.gemm, product.spec, product.mapping, product.cycles
    return {
        "m": g.m,
        "k": g.k,
        "n": g.n,
        "machine": spec.name,
        "rows": spec.array.rows,
        "cols": spec.array.cols,
        "convention": "weft",
        "level": level,
        "memory": "unlimited",
        "dataflow": product.dataflow,
        "n2s": product.n2s,
        "interleave": mapping.interleave,
        "pattern": str(mapping.pattern),
        "sparse": str(product.sparse) if product.sparse else None,
        "macs": product.macs,
        "utilization": product.utilization,
        "cycles": cycles.total,
        **{name: getattr(cycles, name) for name in _causes(product)},
    }


def _causes(product: Product) -> dict[str, Cause]:
    """What an array without a memory to wait for spends its cycles on."""
    from ..analysis.declared import in_figures

    return {name: cause for name, cause in in_figures(type(product.cycles)).items() if cause.alone}


def _show(product: Product, level: str) -> None:
    g, spec, cycles, mapping = product.gemm, product.spec, product.cycles, product.mapping
    console = get_console()
    what = f", {product.sparse} in {product.n2s.upper()}" if product.sparse else ""
    console.print(f"{g}{what} on {name_of(spec.name)}, {spec.array.rows} x {spec.array.cols}, memory unlimited")
    console.print(
        f"{cycles.total:,} cycles   utilisation {100 * product.utilization:.1f} %   dataflow {product.dataflow}, "
        f"interleave {mapping.interleave}, executed {mapping.pattern}",
        style="bold",
    )
    rows = [(n.replace("_", " "), of.means, f"{getattr(cycles, n):,}") for n, of in _causes(product).items()]
    console.print(make_table("", ("cause", "", "cycles"), rows, left=2))
    if level == "cycle":
        console.print(
            "Stepped on random operands: result equal to the k-order reference bit for bit, cycles to the closed form."
        )


def _show_scalesim(document: dict[str, Any]) -> None:
    d = document
    console = get_console()
    console.print(
        f"{d['m']} x {d['k']} x {d['n']} on {d['rows']} x {d['cols']}, {d['dataflow']}, as SCALE-Sim v3 counts it"
    )
    console.print(f"{d['cycles']:,} cycles", style="bold")
