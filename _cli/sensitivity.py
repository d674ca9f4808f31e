"""`weft sensitivity`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import announce, bar, get_console, make_table, name_of
from .inputs import split_names
from .options import Json
from .outputs import print_json, require_writable_file
from .pipeline import users_code

if TYPE_CHECKING:
    from ..workloads.schemes.scores import Scores

__all__ = ["sensitivity"]


def sensitivity(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Folder of a finished `weft train --scheme dense -o RUN_DIR`.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE.json", help="Write the scores here, for --nm fisher@0.25:FILE.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--method", help="Of fisher, hessian-trace, zeroq, zeroq-distilled, magnitude, wanda, loss; all if none."
        ),
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(help="What layers may be brought to, as 1:8,2:8,int4; a usual choice if none.")
    ] = None,
    images: Annotated[int, typer.Option(help="Of the training set, that are looked at, or distilled.")] = 256,
    probes: Annotated[int, typer.Option(help="Random vectors that a Hessian trace is estimated by.")] = 32,
    seed: Annotated[int, typer.Option(help="Of images and vectors.")] = 0,
    model: Annotated[str | None, typer.Option(help="The model that was trained; of a file.py:function needed.")] = None,
    data: Annotated[str | None, typer.Option(help="Its data, likewise, or where they lie now.")] = None,
    as_json: Json = False,
) -> None:
    """Score each layer of a trained network for each N:M pattern and bit width: which can spare most."""
    from ..workloads.training.scored import CANDIDATES, score

    if output is not None:
        require_writable_file(output)
    asked = {name: text for name, text in (("model", model), ("data", data)) if text is not None}
    with users_code(model or str(run_dir)), bar("scoring") as progress:
        found = score(
            run_dir,
            CANDIDATES if candidates is None else split_names(candidates),
            None if methods is None else split_names(methods),
            images=images,
            probes=probes,
            seed=seed,
            asked=asked,
            progress=progress,
        )
    if output is not None:
        found.save(output)
    print_json(_document(found)) if as_json else _show(found, output)


def _kinds(found: Scores) -> dict[str, list[str]]:
    """The candidates that stand for each other: patterns, and bits."""
    every = dict.fromkeys(c for layer in found.layers for by in layer.scores.values() for c in by)
    kinds = {"N:M": [c for c in every if ":" in c], "bits": [c for c in every if ":" not in c]}
    return {kind: chosen for kind, chosen in kinds.items() if chosen}


def _document(found: Scores) -> dict[str, Any]:
    from ..workloads.schemes.scores import MEASURED_LOSS

    agreement = {
        method: {kind: found.agreement(method, chosen) for kind, chosen in _kinds(found).items()}
        for method in found.methods
        if MEASURED_LOSS in found.methods
    }
    return {**found.document(), "agreement": agreement}


def _show(found: Scores, output: Path | None) -> None:
    from ..workloads.schemes.scores import MEASURED_LOSS

    console = get_console()
    title = f"{name_of(found.model)} on {name_of(found.data)}, {found.images:,} images, seed {found.seed}"
    console.print(title, style="bold")
    for kind, chosen in _kinds(found).items():
        for method in found.methods:
            title = f"{method}, {kind}"
            if method != MEASURED_LOSS and MEASURED_LOSS in found.methods:
                title += f"; rank correlation with the loss {found.agreement(method, chosen):.2f}"
            console.print(title, style="bold")
            console.print(make_table("", ("layer", "weights", *chosen), _rows(found, method, chosen)))
    console.print("More is worse; in scores of one method layers add up (docs/by-layer.md).")
    if output is not None:
        announce(f"Scores: {output}")


def _rows(found: Scores, method: str, chosen: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        (
            name_of(layer.layer),
            f"{layer.weights:,}",
            *(f"{layer.scores[method][c]:.3g}" if c in layer.scores[method] else "" for c in chosen),
        )
        for layer in found.layers
    ]
