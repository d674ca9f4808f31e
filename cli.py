"""The command line: thin commands over the five folders, heavy imports inside the command that needs them."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .workloads.errors import InputError

if TYPE_CHECKING:
    from .analysis.product import Product
    from .dataflow.accelerator import AcceleratorSpec
    from .simulator.result import SimResult
    from .workloads.sparsity import NMPattern
    from .workloads.step import Workload

__all__ = ["app", "main"]

_DEFAULT_ARCH = "sat-vcu1525"
_DEFAULT_SCHEME, _DEFAULT_NM = "bdwp", "2:8"
_SCHEMES = "dense, srste, sdgp, sdwp or bdwp"
_INPUT, _BUG, _INTERRUPTED = 2, 1, 130
_LONGEST_ERROR = 40
"""Lines that fit on one screen."""

app = typer.Typer(
    name="weft",
    help="From a PyTorch training step to cycles, bytes and joules on an N:M-sparse accelerator.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
Optimizer = Annotated[Literal["sgd", "adam"] | None, typer.Option(help="Update rule; SGD with momentum by default.")]
InputShape = Annotated[
    str | None, typer.Option("--input", metavar="3x64x64", help="Shape of one sample, for file.py:function.")
]
Arch = Annotated[str, typer.Option(metavar="NAME|FILE.toml", help="Machine; `weft archs` lists those that ship.")]
Pregenerate = Annotated[
    bool | None,
    typer.Option(
        "--pregenerate/--no-pregenerate", help="Compress weights behind the update, whatever the machine says."
    ),
]
Objective = Annotated[Literal["cycles", "energy", "edp"], typer.Option(help="What the scheduler minimises, op by op.")]
Folder = Annotated[Path | None, typer.Option("-o", metavar="DIR", help="Write results and pictures to this folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 a fault of Weft, 2 bad input, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    try:
        code = app(args, prog_name="weft", standalone_mode=False, obj=shlex.join(["weft", *args]))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) and error.code else _BUG
    except BrokenPipeError:
        _drop_stdout()
        return _BUG
    except Exception as error:
        if isinstance(error, OSError):
            _drop_stdout()
        return _explain(error)
    return code if isinstance(code, int) else 0


def _drop_stdout() -> None:
    """Nobody reads our output, or its disk is full: the rest must not fail again when Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def _prepare_streams() -> None:
    """Let output go nowhere where it was closed, and names of layers be shown in whatever encoding there is."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> int:
    """Say on stderr what went wrong, in one screen."""
    if isinstance(error, typer.Abort):
        return _INTERRUPTED
    message, code = str(error), _INPUT
    # Typer's usage errors are known by this method alone: their class moved from click into Typer.
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "weft"
        message = f"{usage()}\nTry '{path} --help'."
    elif isinstance(error, OSError):
        # Files are checked where they are opened; what is left is a full disk or terminal.
        code = _BUG
    elif not isinstance(error, InputError):
        code = _BUG
        first = message.strip().partition("\n")[0][:500]
        message = f"{type(error).__name__}: {first}\nThis is a fault of Weft; WEFT_TRACEBACK=1 shows where."
    lines = message.splitlines()
    hidden = [f"... and {len(lines) - _LONGEST_ERROR} lines more"] if len(lines) > _LONGEST_ERROR else []
    sys.stderr.write("\n".join(["Error: " + lines[0], *lines[1:_LONGEST_ERROR], *hidden]) + "\n")
    if os.environ.get("WEFT_TRACEBACK"):
        traceback.print_exception(error)
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"weft {version('weft')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a PyTorch training step to cycles, bytes and joules on an N:M-sparse accelerator."""


@app.command()
def models(as_json: Json = False) -> None:
    """List the built-in models."""
    from .workloads.models.zoo import MODELS

    if as_json:
        _print_json({"models": [{**asdict(m), "input": m.input} for m in MODELS.values()]})
        return
    from . import _render

    _render.show_models(MODELS.values())


@app.command()
def archs(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this machine as TOML.")] = None,
    as_json: Json = False,
) -> None:
    """List the machines that ship, or print one."""
    from .dataflow.config_io import load_spec, preset_names, preset_text, spec_hash

    if name is None:
        specs = [(spec, spec_hash(spec)) for spec in map(load_spec, preset_names())]
        if as_json:
            _print_json({"archs": [{**asdict(spec), "hash": digest} for spec, digest in specs]})
            return
        from . import _render

        _render.show_archs(specs)
        return
    spec = load_spec(name)
    if as_json:
        _print_json({**asdict(spec), "hash": spec_hash(spec)})
    else:
        text = Path(name).read_text(encoding="utf-8") if name.endswith(".toml") else preset_text(name)
        typer.echo(text, nl=not text.endswith("\n"))


@app.command()
def trace(
    model: Model,
    batch: Batch = None,
    seq: Seq = None,
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    output: Annotated[Path | None, typer.Option("-o", metavar="FILE.json", help="Write the workload here.")] = None,
    as_json: Json = False,
) -> None:
    """Trace one training step of a model: its GEMMs, passes and bytes."""
    if output is not None:
        _require_writable(output, folder=False)
    workload = _open(model, batch, seq, optimizer, input_shape)
    if output is not None:
        from .workloads.io import save_workload

        save_workload(workload, output)
    path = None if output is None else str(output)
    if as_json:
        _print_json(_workload_document(workload, path))
        return
    from . import _render

    _render.show_workload(workload, path)


@app.command()
def run(
    context: typer.Context,
    model: Model,
    batch: Batch = None,
    seq: Seq = None,
    arch: Arch = _DEFAULT_ARCH,
    scheme: Annotated[
        str | None,
        typer.Option(help=f"{_SCHEMES}; {_DEFAULT_SCHEME} unless a workload names its own, dense on a dense machine."),
    ] = None,
    nm: Annotated[str | None, typer.Option(metavar="KEEP:GROUP", help=f"N:M pattern; {_DEFAULT_NM} if none.")] = None,
    objective: Objective = "cycles",
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    pregenerate: Pregenerate = None,
    output: Folder = None,
    as_json: Json = False,
) -> None:
    """Simulate one training step on a machine."""
    from .dataflow.config_io import spec_hash

    if output is not None:
        from .analysis.comparison_files import require_folder

        _require_writable(output, folder=True)
        require_folder(output)
    spec = _machine(arch, pregenerate)
    pattern = _pattern(nm)
    if scheme is not None:
        _require_schemes([scheme], pattern, spec)
    workload = _open(model, batch, seq, optimizer, input_shape)
    result = _simulate(_under(workload, scheme, None if nm is None else pattern, spec), spec, objective)
    if output is not None:
        from .analysis.save import save_run

        save_run(result, output, context.obj)
    if as_json:
        from .analysis.records import to_dict

        _print_json(to_dict(result, context.obj))
        return
    from . import _render

    _render.show_run(result, spec_hash(spec))


@app.command()
def compare(
    context: typer.Context,
    model: Model,
    schemes: Annotated[str, typer.Option(help="Schemes to put side by side, with commas.")] = "dense,srste,sdgp,bdwp",
    nm: Annotated[str, typer.Option(metavar="KEEP:GROUP", help="N:M pattern.")] = _DEFAULT_NM,
    batch: Batch = None,
    seq: Seq = None,
    arch: Arch = _DEFAULT_ARCH,
    objective: Objective = "cycles",
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    pregenerate: Pregenerate = None,
    output: Folder = None,
    as_json: Json = False,
) -> None:
    """Simulate one training step under several schemes, side by side."""
    from .analysis.compare import compare as side_by_side
    from .analysis.comparison_files import comparison_dict, ledgers, require_folder, save_comparison
    from .dataflow.config_io import spec_hash

    spec = _machine(arch, pregenerate)
    pattern, names = _pattern(nm), [name.strip() for name in schemes.split(",")]
    _require_schemes(names, pattern, spec)
    if output is not None:
        _require_writable(output, folder=True)
        require_folder(output, tuple(names))
    workload = _open(model, batch, seq, optimizer, input_shape)
    comparison = side_by_side([_simulate(_under(workload, name, pattern, spec), spec, objective) for name in names])
    if output is not None:
        save_comparison(comparison, output, context.obj)
    if as_json:
        _print_json(comparison_dict(comparison, context.obj))
        return
    from . import _render

    _render.show_comparison(comparison, ledgers(comparison), spec_hash(spec))


@app.command()
def gemm(
    m: Annotated[int, typer.Argument(metavar="M", help="Rows of A and C.")],
    k: Annotated[int, typer.Argument(metavar="K", help="The contraction.")],
    n: Annotated[int, typer.Argument(metavar="N", help="Columns of B and C.")],
    arch: Annotated[str | None, typer.Option(metavar="NAME|FILE.toml", help=f"{_DEFAULT_ARCH} if none.")] = None,
    array: Annotated[
        str | None, typer.Option(metavar="ROWSxCOLS", help=f"{_DEFAULT_ARCH} with an array of this size instead.")
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
    from .workloads.gemm import Gemm

    product, pattern = Gemm(m=m, k=k, n=n), None if nm is None else _pattern(nm)
    if arch is not None and array is not None:
        raise InputError(f"--arch {arch} and --array {array} both name a machine; give one of them")
    from . import _render

    if convention == "scalesim":
        if nm is not None or level == "cycle":
            raise InputError(
                "the scalesim convention is a closed form of dense products: leave out --nm and --level cycle"
            )
        document = _scalesim(product, *_array_size(arch, array), dataflow)
        _print_json(document) if as_json else _render.show_scalesim(document)
        return
    from .analysis.product import best_product, step_product

    best = best_product(_machine_of_size(arch, array), product, dataflow, pattern)
    if level == "cycle":
        step_product(best)
    _print_json(_product_document(best, level)) if as_json else _render.show_product(best, level)


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")


def _open(model: str, batch: int | None, seq: int | None, optimizer: str | None, input_shape: str | None) -> Workload:
    """The workload of MODEL; whatever the user's own code prints goes to stderr."""
    from . import _render
    from .workloads.catalog import open_model

    shape = None if input_shape is None else _sizes("--input", input_shape, "3x64x64")
    with redirect_stdout(sys.stderr), _render.phases(f"tracing {model}") as progress:
        try:
            return open_model(model, batch=batch, seq=seq, optimizer=optimizer, input_shape=shape, progress=progress)
        except SystemExit as error:
            raise InputError(f"{model}: its code ended the program with exit code {error.code}") from error


def _simulate(workload: Workload, spec: AcceleratorSpec, objective: str) -> SimResult:
    from . import _render
    from .analysis.energy import prices
    from .dataflow.schedule import schedule
    from .simulator.step import simulate

    with _render.bar(f"scheduling {workload.scheme}") as progress:
        chosen = schedule(workload, spec, objective, None if objective == "cycles" else prices(spec), progress)
    with _render.bar(f"simulating {workload.scheme}") as progress:
        return simulate(chosen, progress)


def _machine(arch: str, pregenerate: bool | None) -> AcceleratorSpec:
    from .dataflow.config_io import load_spec

    spec = load_spec(arch)
    return spec if pregenerate is None else replace(spec, wuve=replace(spec.wuve, pregenerate=pregenerate))


def _pattern(text: str | None) -> NMPattern:
    from .workloads.sparsity import NMPattern

    return NMPattern.parse(text or _DEFAULT_NM)


def _require_schemes(names: Sequence[str], pattern: NMPattern, spec: AcceleratorSpec) -> None:
    """Refuse before tracing what annotating would refuse after it."""
    from .workloads.schemes.nm import scheme

    for name in names:
        if scheme(name).sparse:
            spec.check_pattern(pattern)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--schemes names {twice!r} twice")


def _under(workload: Workload, scheme: str | None, pattern: NMPattern | None, spec: AcceleratorSpec) -> Workload:
    """``workload`` under the scheme asked for, else under its own, else under the default of the machine."""
    from .workloads.schemes.nm import annotate

    if scheme is None and pattern is None and workload.pattern is not None:
        return workload
    own = workload.scheme if workload.pattern is not None else None
    # A machine whose PEs hold no group has nothing to select from.
    usual = _DEFAULT_SCHEME if spec.pe.max_group > 1 or pattern is not None else "dense"
    return annotate(workload, scheme or own or usual, pattern or _pattern(None))


def _sizes(option: str, text: str, example: str) -> tuple[int, ...]:
    if not re.fullmatch(r"-?\d{1,9}(x-?\d{1,9})*", text, re.ASCII):
        raise InputError(f"{option} {text!r} is not of the form {example}")
    return tuple(int(size) for size in text.split("x"))


def _array_size(arch: str | None, array: str | None) -> tuple[int, int]:
    """Rows and columns; of any size, since the scalesim convention has its own limits."""
    if array is None:
        spec = _machine(arch or _DEFAULT_ARCH, None)
        return spec.array.rows, spec.array.cols
    sizes = _sizes("--array", array, "32x32")
    if len(sizes) != 2:
        raise InputError(f"--array {array!r} is not of the form 32x32")
    return sizes[0], sizes[1]


def _machine_of_size(arch: str | None, array: str | None) -> AcceleratorSpec:
    spec = _machine(arch or _DEFAULT_ARCH, None)
    if array is None:
        return spec
    rows, cols = _array_size(None, array)
    return replace(spec, name=f"{spec.name} with --array {array}", array=replace(spec.array, rows=rows, cols=cols))


def _scalesim(gemm: Any, rows: int, cols: int, dataflow: str) -> dict[str, Any]:
    from .dataflow.scalesim import scalesim_cycles

    flows = ("os", "ws", "is") if dataflow == "auto" else (dataflow,)
    cycles, chosen = min(((scalesim_cycles(gemm, rows, cols, flow), flow) for flow in flows), key=lambda pair: pair[0])
    return {
        "m": gemm.m, "k": gemm.k, "n": gemm.n, "rows": rows, "cols": cols, "convention": "scalesim",
        "level": "analytic", "dataflow": chosen, "macs": gemm.macs, "cycles": cycles,
    }  # fmt: skip


def _product_document(product: Product, level: str) -> dict[str, Any]:
    g, spec, mapping, cycles = product.gemm, product.spec, product.mapping, product.cycles
    return {
        "m": g.m, "k": g.k, "n": g.n, "machine": spec.name, "rows": spec.array.rows, "cols": spec.array.cols,
        "convention": "weft", "level": level, "memory": "unlimited",
        "dataflow": product.dataflow, "n2s": product.n2s, "interleave": mapping.interleave,
        "pattern": str(mapping.pattern), "sparse": str(product.sparse) if product.sparse else None,
        "macs": product.macs, "utilization": product.utilization, "cycles": cycles.total, "compute": cycles.compute,
        "interleave_stall": cycles.interleave_stall, "port_stall": cycles.port_stall, "fill_drain": cycles.fill_drain,
    }  # fmt: skip


def _workload_document(workload: Workload, path: str | None) -> dict[str, Any]:
    return {
        "model": workload.model, "batch": workload.batch, "input": workload.input, "optimizer": workload.optimizer,
        "scheme": workload.scheme, "macs": {str(p): n for p, n in workload.dense_macs.items()},
        "recomputed_macs": workload.recomputed_macs,
        "parameters": workload.parameters, "ops": len(workload.ops), "matrix_ops": len(workload.matrix_ops),
        "path": path,
    }  # fmt: skip


def _require_writable(path: Path, *, folder: bool) -> None:
    """Refuse a place that cannot be written before the long work, not after it."""
    if path.is_dir() and not folder:
        raise InputError(f"{path}: is a folder; -o takes the file to write")
    if path.exists() and folder and not path.is_dir():
        raise InputError(f"{path}: is a file; -o takes the folder to write to")
    held = next((parent for parent in (path, *path.absolute().parents) if parent.exists()), Path("/"))
    if not (held.is_dir() or held == path):
        raise InputError(f"{path}: cannot be written: {held} is not a folder")
    if not os.access(held, os.W_OK):
        raise InputError(f"{path}: cannot be written: permission denied at {held}")
