"""`weft record`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..workloads.errors import InputError
from .console import announce, bar, get_console, make_table, name_of
from .inputs import parse_pattern
from .options import DATA_HELP, Json, Pattern, TrainedScheme
from .outputs import print_json, require_writable_file
from .pipeline import users_code
from .train import Option, options_of

if TYPE_CHECKING:
    from ..workloads.recorded import Recorded

__all__ = ["record"]


def record(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN_DIR", help="What to train, as for `weft train`; or the folder of a finished training."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", metavar="FILE.npz", help="Write the masks here, for weft run --masks.")],
    scheme: TrainedScheme = None,
    nm: Pattern = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation; 0 if none.")] = None,
    option: Option = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="What layers of `characters` keep: relu, teal@0.5, wina@0.5, rsparse@0.5, delta@0.8, spark@0.1, "
            "blockffn.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of training `characters`; 600 if none.")] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep a training of `characters` here; one that is here goes on.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Rows of the test set whose inputs of layers are kept.")] = 256,
    as_json: Json = False,
) -> None:
    """Train a network, or take a trained one, and keep the masks of its weights and inputs in a file."""
    require_writable_file(output)
    given = {
        **{"data": data, "scheme": scheme, "epochs": epochs, "seed": seed},
        **{"rows": rows, "steps": steps, "folder": folder},
    }
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if nm is not None:
        asked["pattern"] = parse_pattern(nm)
    if option:
        asked["options"] = options_of(option)
    found = _recorded(model, asked, tokens)
    found.save(output)
    print_json(_document(found)) if as_json else _show(found, output)


_ONE_KIND = ("rows", "steps", "folder", "scheme", "pattern", "epochs", "options")
"""Options of a model of text, or of models of images, alone."""


def _recorded(model: str, asked: dict[str, Any], tokens: int) -> Recorded:
    from ..workloads.training import plan
    from ..workloads.training.characters import record_characters
    from ..workloads.training.recording import record, record_folder
    from ..workloads.training.text_spec import MODEL

    of_text = ("rows", "data", "steps", "seed", "folder")
    other = next((name for name in asked if (name in of_text) is not (model == MODEL) and name in _ONE_KIND), None)
    if other is not None:
        raise InputError(f"--{other} is {'not ' if model == MODEL else ''}for {MODEL}, a model of text; leave it out")

    with users_code(model), bar("training") as progress:
        if model == MODEL:
            try:
                return record_characters(**asked, tokens=tokens, progress=progress)
            except KeyboardInterrupt:
                folder = asked.get("folder")
                raise KeyboardInterrupt(f"the same command goes on from {folder}" if folder else "") from None
        if not Path(model).is_dir():
            return record(plan(model=model, **asked), tokens=tokens, progress=progress)
        if asked:
            raise InputError(f"{model}: is a finished training, which decides --{next(iter(asked))}; leave it out")
        return record_folder(Path(model), tokens=tokens)


def _document(found: Recorded) -> dict[str, Any]:
    from ..workloads.recorded import summary

    about = found.about
    return {
        "model": about.model,
        "data": about.data,
        "scheme": about.scheme,
        "pattern": None if about.pattern is None else str(about.pattern),
        "score": about.score,
        "weights": about.weights,
        "masks": [summary(of, mask) for of, mask in zip(about.of, found.masks, strict=True)],
    }


def _show(found: Recorded, output: Path) -> None:
    from ..workloads.recorded import summary

    about = found.about
    rows = []
    for of, mask in zip(about.of, found.masks, strict=True):
        said = summary(of, mask)
        spread = f"{said['least']:,} to {said['most']:,}"
        rows.append((name_of(of.layer), of.of, f"{of.lines:,} x {of.length:,}", f"{said['density']:.3f}", spread))
    under = about.scheme if about.pattern is None else f"{about.scheme} {about.pattern}"
    title = f"{name_of(about.model)} on {name_of(about.data)}, {under}, score {about.score:.4g}"
    get_console().print(make_table(title, ("layer", "of", "lines x length", "kept", "kept of a line"), rows))
    announce(f"Masks: {output}")
