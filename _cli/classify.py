"""`weft classify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import bar, get_console, make_table, name_of, rate, si
from .inputs import machine, require_hdl
from .options import Arch, Json
from .outputs import print_json
from .pipeline import users_code

if TYPE_CHECKING:
    from ..analysis.verify.network import Agreement, Classification

__all__ = ["classify"]


def classify(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Folder of a finished `weft train -o RUN_DIR`, binary throughout.")
    ],
    arch: Arch = "bnn-ecp5",
    images: Annotated[int | None, typer.Option(metavar="N", help="First images of the test set; all if none.")] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="Images in a product; all of up to 512 if none.")
    ] = None,
    rtl: Annotated[bool, typer.Option("--rtl", help="Run every layer in RTL simulation too.")] = False,
    program: Annotated[
        bool, typer.Option("--program", help="Compile it and run that on the model of the whole machine too.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="The model that was trained; of a file.py:function needed.")] = None,
    scheme: Annotated[str | None, typer.Option(help="Its scheme, likewise.")] = None,
    data: Annotated[str | None, typer.Option(help="Its data, likewise, or where they lie now.")] = None,
    as_json: Json = False,
) -> None:
    """Classify test images with a trained binary network on the XNOR engine, batch norm folded, beside PyTorch.

    Layers are integers: sums of bits against a threshold a channel. Exit code 1 if a class differs from PyTorch's, or
    a bit or cycle of the RTL from the stepped engine.
    """
    from ..analysis.verify.network import classify as run

    spec = machine(arch)
    if rtl:
        require_hdl("classify --rtl")
    given = {"model": model, "scheme": scheme, "data": data}
    asked = {name: text for name, text in given.items() if text is not None}
    with users_code(model or str(run_dir)), bar("classifying") as progress:
        found = run(run_dir, spec, images=images, batch=batch, rtl=rtl, program=program, asked=asked, progress=progress)
    print_json(_document(found, run_dir)) if as_json else _show(found)
    if not found.equal:
        raise typer.Exit(1)


def _document(found: Classification, folder: Path) -> dict[str, Any]:
    trained = found.trained
    return {
        "folder": str(folder),
        "model": trained.model,
        "data": trained.data,
        "scheme": trained.scheme,
        "seed": trained.seed,
        "machine": found.spec.name,
        "clock_hz": found.spec.clock_hz,
        "images": found.images,
        "batch": found.batch,
        "accuracy": found.accuracy,
        "cycles": found.cycles,
        "seconds": found.seconds,
        "layers": [
            {
                "name": layer.first.layer.name,
                "m": (gemm := layer.first.layer.gemm(layer.first.images)).m,
                "k": gemm.k,
                "n": gemm.n,
                "levels": [str(levels) for levels in layer.first.layer.levels],
                "dataflow": str(layer.first.mapping.dataflow),
                "interleave": layer.first.mapping.interleave,
                "array_cycles": layer.array,
                "cycles": layer.cycles,
            }
            for layer in found.layers
        ],
        "agreement": [
            {
                "with": other.what,
                "images": other.images,
                "classes_that_differ": list(other.unequal),
                "bits": other.bits,
                "bits_that_differ": [{"image": i, "read_by": name, "bit": bit} for i, name, bit in other.odd],
                "cycles_that_differ": other.cycles or 0,
            }
            for other in found.agreements
        ],
        "program": None
        if found.program is None
        else {
            "images": found.program.images,
            "instructions": found.program.instructions,
            "cycles": found.program.cycles,
        },
        "equal": found.equal,
        "classes": found.classes.tolist(),
        "labels": found.labels.tolist(),
    }


def _show(found: Classification) -> None:
    console, trained, count = get_console(), found.trained, found.images
    console.print(
        f"{name_of(trained.model)} on {name_of(trained.data)}, {trained.scheme}, seed {trained.seed}: {count:,} test "
        f"images on {name_of(found.spec.name)} at {si(found.spec.clock_hz, 'Hz')}, {found.batch:,} at a time",
        style="bold",
    )
    rows = [
        (
            name_of((run := layer.first).layer.name),
            str(run.layer.gemm(run.images)),
            " x ".join(map(str, run.layer.levels)),
            f"{run.mapping.dataflow} {run.mapping.interleave}",
            f"{layer.array:,}",
            f"{layer.cycles:,}",
            f"{layer.cycles / count:,.1f}",
        )
        for layer in found.layers
    ]
    array = sum(layer.array for layer in found.layers)
    rows.append(("all", "", "", "", f"{array:,}", f"{found.cycles:,}", f"{found.cycles / count:,.1f}"))
    columns = ("layer", "product", "levels", "mapping", "array", "with DRAM", "an image")
    console.print(make_table("", columns, rows, left=4))
    console.print(
        f"{100 * found.accuracy:.2f} % right; {si(found.seconds, 's')}, {rate(count / found.seconds)} images/s",
        style="bold",
    )
    if found.program is not None:
        whole = found.program
        console.print(
            f"As a program of {whole.instructions:,} instructions for {whole.images:,} images at a time: "
            f"{whole.cycles:,} cycles, {whole.cycles / whole.images:,.1f} an image, loads and stores among them"
        )
    shown = [
        (
            other.what,
            f"{other.images - len(other.unequal):,} of {other.images:,}",
            f"{other.bits - len(other.odd):,} of {other.bits:,}",
            _cycles(other),
        )
        for other in found.agreements
    ]
    console.print(make_table("", ("the same in", "classes", "bits between layers", "cycles"), shown))
    for other in found.agreements:
        if other.odd:
            image, name, bit = other.odd[0]
            console.print(f"{other.what}: of image {image} layer {name_of(name)} first reads another bit {bit}")


def _cycles(other: Agreement) -> str:
    if other.cycles is None:
        return ""
    what = "program" if other.what.startswith("program") else "product"
    return f"{other.cycles} {what}s differ" if other.cycles else f"of every {what}"
