"""Options that several commands have, each declared once, and their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from typer.core import TyperCommand

from ..workloads.update_rule import RuleName
from .interrupts import CommandInterrupt

__all__ = [
    "DATA_HELP",
    "DEFAULT_ARCH",
    "DEFAULT_NM",
    "DEFAULT_OBJECTIVE",
    "DEFAULT_SCHEME",
    "Arch",
    "AttentionBy",
    "Batch",
    "Cluster",
    "Command",
    "Context",
    "DrawAll",
    "Folder",
    "For",
    "Freeze",
    "FuseBy",
    "InputShape",
    "Insecure",
    "Json",
    "MappingRules",
    "Masks",
    "Model",
    "Objective",
    "Optimizer",
    "Pattern",
    "Patterns",
    "Pregenerate",
    "Recompute",
    "RowsBy",
    "Scheme",
    "Seq",
    "SliceTo",
    "TrainedScheme",
]

DEFAULT_ARCH = "sat-vcu1525"
DEFAULT_OBJECTIVE: Final = "thrift"
DEFAULT_SCHEME, DEFAULT_NM = "bdwp", "2:8"
DATA_HELP = (
    "digits or mnist5k (bundled; digits if none), cifar10:PATH, cifar100:PATH, imagefolder:PATH, or file.py:function; "
    "with ,nomirror before the colon pictures are not mirrored."
)


class Command(TyperCommand):
    """A command whose help names every training scheme where an option says ``SCHEMES``, and that Ctrl-C may end.

    Their registry takes longer to import than all of the command line, so only when that help is asked for.
    """

    def invoke(self, *args: Any) -> Any:
        try:
            return super().invoke(*args)
        except KeyboardInterrupt as error:
            raise CommandInterrupt(str(error)) from error

    def format_help(self, *args: Any) -> None:
        from ..workloads.schemes.scheme import SCHEMES

        for option in self.params:
            shown = getattr(option, "help", None)
            if shown and "SCHEMES" in shown:
                option.help = shown.replace("SCHEMES", ", ".join(SCHEMES))  # type: ignore[attr-defined]
        super().format_help(*args)


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Built-in name (see `weft models`), file.py:function, Hugging Face config.json, model.onnx, or a workload "
        "written by `weft trace`.",
    ),
]
Batch = Annotated[int | None, typer.Option(help="Samples in one training step; each model has its own default.")]
Seq = Annotated[int | None, typer.Option(help="Tokens in one sample of a text model.")]
For = Annotated[
    Literal["train", "infer", "prefill", "decode"],
    typer.Option("--for", help="A training step, or one of use: a call, a prompt, a token behind --context others."),
]
Context = Annotated[
    int | None,
    typer.Option("--context", help="Tokens of the prompt, or before the one that is made, for prefill and decode."),
]
Scheme = Annotated[
    str | None,
    typer.Option(help=f"SCHEMES; {DEFAULT_SCHEME} unless a workload names its own, dense on a dense machine."),
]
TrainedScheme = Annotated[
    str | None, typer.Option("--scheme", help=f"Training scheme: SCHEMES; {DEFAULT_SCHEME} if none.")
]
Pattern = Annotated[str | None, typer.Option(metavar="KEEP:GROUP", help=f"N:M pattern; {DEFAULT_NM} if none.")]
Patterns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LAYERS=]KEEP:GROUP",
        help=f"N:M pattern, {DEFAULT_NM} if none; of some layers, as layer4.*=1:8 or fc=dense: the last rule that "
        "matches holds; repeatable. Or a policy and its budget, as erk@0.25 or fisher@0.25:scores.json; under integer "
        "integer: int2 to int8.",
    ),
]
Optimizer = Annotated[RuleName | None, typer.Option(help="Update rule; sgd, which has momentum, by default.")]
InputShape = Annotated[
    str | None, typer.Option("--input", metavar="3x64x64", help="Shape of one sample, for file.py:function and ONNX.")
]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", metavar="NAME=SIZE", help="Size of a symbolic axis of an ONNX file; repeatable."),
]
Recompute = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="Modules to make activations of again, not keep; * matches; repeatable."),
]
Freeze = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Parameters not to train; * matches; repeatable.")
]
AttentionBy = Annotated[
    str,
    typer.Option(
        "--attention",
        metavar="full|window|PATTERN",
        help="Over the full square; in training by the sliding window of layers with one; in use by a pattern, as "
        "best-blocks@8/128, or by one and random features, as scatterbrain@128+window@512/128: "
        "docs/results/attention.md.",
    ),
]
FuseBy = Annotated[
    Literal["none", "elementwise", "full"],
    typer.Option("--fusion", help="Vector work joined to what makes its tensor, as docs/fusion.md has it."),
]
Resident = Annotated[
    str | None,
    typer.Option(
        "--resident", metavar="SIZE", help="On-chip memory for whole tensors between ops, as 16MiB; else the machine's."
    ),
]
Arch = Annotated[str, typer.Option(metavar="NAME|FILE.toml", help="Machine; `weft archs` lists those that ship.")]
Pregenerate = Annotated[
    bool | None,
    typer.Option(
        "--pregenerate/--no-pregenerate", help="Compress weights behind the update, whatever the machine says."
    ),
]
Objective = Annotated[
    Literal["thrift", "cycles", "energy", "edp"],
    typer.Option(help="What the scheduler minimises, op by op; thrift: DRAM bytes within 1/128 of the least cycles."),
]
MappingRules = Annotated[
    Path | None,
    typer.Option("--mapping", metavar="FILE.toml", help="Fix or restrict mappings by layer: docs/by-layer.md."),
]
Masks = Annotated[
    Path | None,
    typer.Option("--masks", metavar="FILE.npz", help="Weights with the masks of `weft record`, under its scheme."),
]
RowsBy = Annotated[
    str | None,
    typer.Option(
        "--rows",
        metavar="FORM@DENSITY[:CORRELATION]|FORM@FILE.npz",
        help="Read only those rows of weights that tokens keep, as teal@0.5 or relu@0.1:0.3: docs/rows.md.",
    ),
]
SliceTo = Annotated[
    float | None,
    typer.Option("--slice", metavar="SHARE", help="Keep so much of the residual stream, as 0.75: docs/shrinking.md."),
]
Folder = Annotated[Path | None, typer.Option("-o", metavar="DIR", help="Write results and pictures to this folder.")]
DrawAll = Annotated[bool, typer.Option("--draw-all", help="With -o: draw every run, and all for dark pages too.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="local|tcp://..|tls://..", help="Dask: a worker a core here, or those of a scheduler."),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow plain TCP to another host.")]
