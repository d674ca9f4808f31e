"""Weft: from a PyTorch training step to cycles, bytes and joules on an N:M-sparse accelerator.

    import weft
    step = weft.trace("resnet18@64", batch=512)
    sparse = weft.sparsify(step, "bdwp", "2:8")
    result = weft.simulate(weft.schedule(sparse, "sat-vcu1525"))
    print(result.cycles.total, result.utilization)

Everything else is in the five folders: weft.workloads, weft.dataflow, weft.simulator, weft.hdl, weft.analysis.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from .simulator.shown import presented_by
from .workloads.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas
    from torch import nn

    from .analysis.compare import Comparison
    from .analysis.explore.space import Space
    from .analysis.need import Need
    from .analysis.verify.network import Classification
    from .dataflow.accelerator import AcceleratorSpec
    from .dataflow.constraint import MappingFile
    from .dataflow.engine import Engine
    from .dataflow.schedule import Schedule
    from .simulator.result import SimResult
    from .simulator.shown import Presenter
    from .workloads.joined import Fusion
    from .workloads.phase import Use
    from .workloads.recorded import Recorded
    from .workloads.schemes.description import Scheme
    from .workloads.schemes.technique import Technique
    from .workloads.shrinking import Shrunk, SlicedText
    from .workloads.sparsity import Asked, NMPattern
    from .workloads.step import Workload
    from .workloads.training import TrainResult
    from .workloads.windows import Attention

    __version__: str

__all__ = [
    "trace",
    "fuse",
    "sparsify",
    "skip_rows",
    "machine",
    "schedule",
    "simulate",
    "compare",
    "need",
    "train",
    "record",
    "shrink",
    "narrow",
    "classify",
    "explore",
    "register_engine",
    "register_scheme",
    "count_as_vector_work",
    "InputError",
    "__version__",
]

# What a verb needs is imported when it is called, so that `import weft` and `weft --help` load neither torch nor numba.


def trace(
    model: str | Path | nn.Module,
    inputs: Any = None,
    *,
    batch: int | None = None,
    seq: int | None = None,
    optimizer: str | None = None,
    loss: Any = None,
    recompute: Sequence[str] = (),
    freeze: Sequence[str] = (),
    attention: Attention = "full",
    dims: Mapping[str, int] | None = None,
    use: Use = "train",
    context: int | None = None,
) -> Workload:
    """One step of a model, of training unless ``use`` says else, as a list of ops.

    ``model`` is a built-in name (``"resnet18@64"``), ``"file.py:function"``, a Hugging Face ``config.json``, an ONNX or
    a workload file; or a module, with example ``inputs`` and perhaps a ``loss`` of its output. ``recompute``: paths of
    modules, ``*`` matches, whose activations are made again in the backward pass instead of kept.
    ``freeze``: names of parameters that are not trained, likewise. ``attention``: over the ``"full"`` square, or by the
    ``"window"`` of layers with one. ``dims``: sizes of the symbolic axes of an ONNX file, such as ``{"height": 640}``.
    ``use``, of a model by name: ``"infer"``, one call; ``"prefill"``, a prompt of ``context`` tokens; ``"decode"``, one
    token behind so many (docs/inference.md).
    """
    from .workloads import catalog

    if isinstance(model, str | os.PathLike):
        if inputs is not None or loss is not None:
            raise InputError("inputs and loss are for a module in memory; a model by name or file brings its own")
        return catalog.open_model(
            str(model),
            batch=batch,
            seq=seq,
            optimizer=optimizer,
            recompute=recompute,
            freeze=freeze,
            attention=attention,
            dims=dims,
            use=use,
            context=context,
        )
    if use != "train" or context is not None:
        raise InputError("use and context are for a model by name or file; a module in memory is traced as it trains")
    if dims:
        raise InputError("dims are sizes of the axes of an ONNX file; a module in memory has those of its inputs")
    if batch is not None or seq is not None:
        raise InputError("a module in memory is traced at the sizes of its inputs; leave batch and seq out")
    return catalog.trace_module(
        model, inputs, loss=loss, optimizer=optimizer, recompute=recompute, freeze=freeze, attention=attention
    )


def fuse(workload: Workload, fusion: Fusion | str = "full") -> Workload:
    """``workload``, as traced, with its vector work joined to what makes its tensors (docs/fusion.md): ``none`` of it,
    ``elementwise`` work, or all that a rule covers, ``full``. Before :func:`sparsify`."""
    from .dataflow.fusion.fuse import fuse as joined

    return joined(workload, fusion)


def sparsify(workload: Workload, scheme: str | Recorded, nm: Asked = None) -> Workload:
    """``workload`` under a training scheme (docs/schemes.md), such as ``"bdwp"``, with a pattern such as ``"2:8"``, or
    ``"xnor"``, whose operands of few values take none.

    By layer: ``{"*": "2:8", "layer4.*": "1:8", "fc": "dense"}`` or ``["2:8", "layer4.*=1:8", "fc=dense"]``, shell
    wildcards over module paths; of the rules that match a layer the last one holds. Or a policy and its budget, as
    ``"erk@0.25"`` or ``"fisher@0.25:scores.json"`` (docs/by-layer.md). In the place of a scheme a record of a training
    (:func:`record`), whose masks the weights of a step of use then have.
    """
    from .workloads.recorded import Recorded, with_masks
    from .workloads.schemes.annotate import annotate
    from .workloads.schemes.policies import patterns_of

    if isinstance(scheme, Recorded):
        if nm is not None:
            raise InputError(f"pattern {nm} is decided by the training that was recorded; leave it out")
        return with_masks(workload, scheme)
    return annotate(workload, scheme, patterns_of(nm, workload))


def skip_rows(workload: Workload, rows: str) -> Workload:
    """``workload``, a dense step of use, with the rows of its weights left out that no token of its batch keeps, and
    the work of finding out which put in: ``"teal@0.5"``, ``"teal@0.5:0.2"`` with a correlation of tokens, or
    ``"relu@rows.npz"`` (docs/rows.md)."""
    from .workloads.skip_rows import skip_rows as smaller

    return smaller(workload, rows)


def machine(name: str | Path) -> AcceleratorSpec:
    """A machine by its preset name or from a ``.toml`` file."""
    from .dataflow.config_io import load_spec

    return load_spec(name)


def schedule(
    workload: Workload,
    machine: AcceleratorSpec | str,
    objective: str = "thrift",
    mapping: str | Path | MappingFile | None = None,
) -> Schedule:
    """The offline choice of a mapping for every op that costs the least ``cycles``, ``energy`` or ``edp``; ``thrift``:
    the fewest DRAM bytes within 1/128 of the least cycles.

    ``mapping``: rules that fix or restrict it, or their file (docs/by-layer.md).
    """
    from .analysis.scheduling import scheduled
    from .dataflow.config_io import load_spec
    from .dataflow.constraint import MappingFile, mapping_file

    rules = mapping if mapping is None or isinstance(mapping, MappingFile) else mapping_file(mapping)
    spec = load_spec(machine) if isinstance(machine, str) else machine
    return scheduled(workload, spec, objective, mapping=rules)


def simulate(schedule: Schedule, *, witness: bool = False) -> SimResult:
    """Run a scheduled step: cycles by cause, actions and bytes of every op.

    ``witness``: step the phases of every product as well; AssertionError where they do not come to the same.
    """
    from .simulator.step import simulate as run

    return run(schedule, witness=witness)


def count_as_vector_work(*operators: str) -> None:
    """Declare operators that Weft cannot look into to be element-wise work of the bytes that they touch.

    ``operators``: ``"namespace.name"``, ``*`` matches. A workload lists those that it met as assumed.
    """
    from .workloads.tracing import known

    known.count_as_vector_work(*operators)


def register_engine(name: str, make: Callable[[AcceleratorSpec], Engine | None]) -> None:
    """Let machines have an engine called ``name`` beside their own, in this process: ``make`` gives that of a machine,
    None if it has none.

    The scheduler gives a product to the engine on which it costs least; ``weft.dataflow.engine.Engine`` is what one is.
    """
    from .dataflow import engines

    engines.register_engine(name, make)


def register_scheme(scheme: Scheme, technique: type[Technique]) -> None:
    """Let ``technique`` train, and ``scheme`` annotate, under the name of ``scheme`` in this process.

    Elsewhere, as in the processes of a study, name it as ``file.py:Class``, or install it under the entry points
    ``weft.schemes``; the class then says its ``scheme`` itself.
    """
    from .workloads.schemes.outside import register
    from .workloads.schemes.scheme import SCHEMES

    register(scheme, technique, taken=SCHEMES)


def compare(
    workload: Workload,
    machine: AcceleratorSpec | str,
    schemes: Sequence[str] = ("dense", "bdwp"),
    nm: Asked = "2:8",
    objective: str = "thrift",
) -> Comparison:
    """The same step under several schemes on one machine, side by side; ``nm`` as for :func:`sparsify`, for those of
    them that have a use for it."""
    from .analysis.compare import compare as side_by_side
    from .workloads.schemes.policies import patterns_of
    from .workloads.schemes.scheme import scheme

    having = [name for name in schemes if scheme(name).takes_pattern or scheme(name).takes_integers]
    asked = patterns_of(nm, workload) if having else None
    integers = asked is not None and bool(asked.integers)
    useful = [name for name in having if scheme(name).takes_pattern or integers]
    steps = [sparsify(workload, name, asked if name in useful else None) for name in schemes]
    return side_by_side([simulate(schedule(step, machine, objective)) for step in steps])


def need(
    workload: Workload, machine: AcceleratorSpec | str, resource: str, within: float = 0.01, objective: str = "cycles"
) -> Need:
    """The least ``"dram"`` bandwidth, ``"buffers"`` or ``"array"`` of a machine with which a step takes at most
    ``within``, a share, longer than with any amount of it (docs/need.md)."""
    from .analysis.need import need as needed
    from .dataflow.config_io import load_spec

    spec = load_spec(machine) if isinstance(machine, str) else machine
    return needed(workload, spec, resource, within, objective)


def train(
    model: str,
    scheme: str = "bdwp",
    nm: str | NMPattern | None = None,
    *,
    folder: str | Path | None = None,
    **spec: Any,
) -> TrainResult:
    """Train an image classifier under a scheme, on the digits unless ``data`` names others.

    ``spec``: other fields of :class:`weft.workloads.training.TrainSpec`, such as ``epochs``, ``batch`` or ``seed``.
    """
    from pathlib import Path

    from .simulator.machine.numerics import machine_numerics
    from .workloads import training
    from .workloads.sparsity import NMPattern

    pattern = NMPattern.parse(nm) if isinstance(nm, str) else nm
    plan = training.plan(model, scheme=scheme, pattern=pattern, **spec)
    return training.train(plan, None if folder is None else Path(folder), numerics=machine_numerics)


def record(model: str | Path, scheme: str = "erk", nm: str | NMPattern | None = None, **spec: Any) -> Recorded:
    """Train as :func:`train` does, or take the finished training in the folder ``model``, and keep the masks of its
    weights, and of inputs of layers that hold zeros; ``save`` and ``read`` of it write and read files (docs/rows.md).

    ``spec``: as of :func:`train`, none beside a folder.
    """
    from pathlib import Path

    from .workloads.sparsity import NMPattern
    from .workloads.training import plan, recording

    if Path(model).is_dir():
        return recording.record_folder(Path(model), asked=spec)
    pattern = NMPattern.parse(nm) if isinstance(nm, str) else nm
    return recording.record(plan(str(model), scheme=scheme, pattern=pattern, **spec))


def shrink(model: str, by: str, **spec: Any) -> Shrunk | SlicedText:
    """Train an image classifier, make its shapes smaller ``by`` ``"channels@0.5"``, ``"rank@0.9"`` or another form
    (docs/shrinking.md), and train it on for ``tune`` epochs; or train ``"characters"`` and delete a part of its stream,
    by ``"slice@0.75"``. ``module`` of the result is the small model, ``step()`` its step.

    ``spec``: as of :func:`train`, without a scheme, and ``tune``; of ``"characters"`` its ``steps`` and ``seed``.
    """
    from .workloads import shrinking
    from .workloads.training.text_spec import MODEL

    return shrinking.slice_characters(by, **spec) if model == MODEL else shrinking.shrink(model, by, **spec)


def narrow(workload: Workload, share: float) -> Workload:
    """``workload``, a dense step of use of a transformer, with a ``share`` of its residual stream, and the products
    around every block that this takes (SliceGPT, docs/shrinking.md)."""
    from .workloads.sliced import sliced

    return sliced(workload, share)


def classify(
    folder: str | Path,
    machine: AcceleratorSpec | str = "bnn-ecp5",
    *,
    images: int | None = None,
    batch: int | None = None,
    rtl: bool = False,
    program: bool = False,
    **asked: Any,
) -> Classification:
    """Test images by the finished training in ``folder``, binary throughout, stepped on the XNOR engine of ``machine``
    beside PyTorch, and with ``rtl`` in RTL simulation; with ``program`` as a program of the whole machine, too.

    ``asked``: fields of the training that are expected; a model, scheme or data of a file must be named here.
    """
    from pathlib import Path

    from .analysis.verify.network import classify as run
    from .dataflow.config_io import load_spec

    spec = load_spec(machine) if isinstance(machine, str) else machine
    return run(Path(folder), spec, images=images, batch=batch, rtl=rtl, program=program, asked=asked)


def explore(space: Space | Mapping[str, Any] | str | Path, folder: str | Path | None = None) -> pandas.DataFrame:
    """Every point of a space of machines and work, a row each, as `weft explore` makes them (docs/explore.md).

    ``space``: its fields as a mapping, a ``.toml`` file, or ``file.py:function``. ``folder``: where the points are
    kept, and where an earlier call goes on; ``weft.analysis.explore.saved.read_explored`` has its front.
    """
    from .analysis.explore.session import explored

    return explored(space, folder)


def _presenter() -> Presenter:
    """Results are shown by what stands above them (`weft.simulator.shown`)."""
    from .analysis import notebook

    return notebook


presented_by(_presenter)


class _OtherNames(MetaPathFinder, Loader):
    """Packages that users import by a shorter name than that of their place."""

    homes: ClassVar = {
        f"{__name__}.verify": f"{__name__}.analysis.verify",
        f"{__name__}.testing": f"{__name__}.analysis.verify.conformance",
    }

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in self.homes else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self._module = importlib.import_module(self.homes[spec.name])
        self._spec = self._module.__spec__
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the other one there


sys.meta_path.insert(0, _OtherNames())


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("weft")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
