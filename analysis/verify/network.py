"""A trained binary network in PyTorch, on the stepped engine and in the RTL: the same classes, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.xnor.mapping import require_xnor
from ...simulator.network import LayerRun, NetworkRun, run_network
from ...workloads.errors import InputError, require_int
from ...workloads.integer_network import Forward, IntegerLayer, IntegerNetwork, Made
from ...workloads.one_line import OneLine
from ...workloads.words import named, seconds
from .binary_program import MOST_IN_PROGRAM, ProgramCycles, WholeMachine

if TYPE_CHECKING:
    from ...hdl.drivers.xnor import XnorDriver
    from ...workloads.training import Deployed, Evaluated, TrainSpec

__all__ = ["MOST_IN_BATCH", "Agreement", "Classification", "LayerCycles", "classify"]

MOST_IN_BATCH = 512
"""Images of a batch where none is given: windows of a convolution are as many times as large in the host's memory."""
_AFTERWARDS = 8
"""Cycles that the RTL is watched after a run."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Agreement(OneLine):
    """The stepped engine beside another place: ``what``, which is ``exact`` where it has integers as well.

    ``bits``: that the layers behind the first one read, of all images. ``unequal``: images whose class differs;
    ``odd``: what bits do, by image, layer and place. ``cycles``: products, or
    programs, that took others; None: none were told.
    """

    what: str
    exact: bool
    images: int
    bits: int
    unequal: tuple[int, ...]
    odd: tuple[tuple[int, str, int], ...]
    cycles: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class LayerCycles(OneLine):
    """A layer over all batches: ``array`` cycles as stepped, ``cycles`` with buffers and DRAM; ``first`` batch."""

    first: LayerRun
    array: int
    cycles: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Classification(OneLine):
    """Test images classified by the stepped engine of ``spec``: ``classes`` and ``labels``, int64 [images]."""

    spec: AcceleratorSpec
    trained: TrainSpec
    batch: int
    classes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    layers: tuple[LayerCycles, ...]
    agreements: tuple[Agreement, ...]
    program: ProgramCycles | None = None

    @property
    def images(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified right."""
        return float((self.classes == self.labels).mean())

    @property
    def cycles(self) -> int:
        """Of all layers and batches, one after the other."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def seconds(self) -> float:
        """At the machine's clock."""
        return self.cycles / self.spec.clock_hz

    @property
    def equal(self) -> bool:
        """Every class is that of PyTorch, and the RTL did the same in the same cycles."""
        return not any(found.unequal or (found.exact and (found.odd or found.cycles)) for found in self.agreements)

    def _said(self) -> str:
        return (
            f"{self.images:,} images of {named(self.trained.data)} by {named(self.trained.model)} under "
            f"{named(self.trained.scheme)} on {named(self.spec.name)}: {100 * self.accuracy:.2f} % right, "
            f"{self.cycles:,} cycles, {seconds(self.seconds)}, {'equal' if self.equal else 'not equal'} to "
            + ", ".join(found.what for found in self.agreements)
        )


def classify(
    folder: Path,
    spec: AcceleratorSpec,
    *,
    images: int | None = None,
    batch: int | None = None,
    rtl: bool = False,
    program: bool = False,
    asked: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Classification:
    """The first ``images`` of the test set of the finished training in ``folder``, ``batch`` at a time.

    ``asked`` as of `workloads.training.resume`. With ``rtl`` the RTL of the engine runs every product as well, each on
    the bits that it made itself. With ``program`` the network is compiled as well and runs as a program of the whole
    machine, on the model of the chip and, with ``rtl``, in its RTL. A network that thresholds cannot hold is an
    `InputError`.
    """
    from ...workloads.training import deploy, trained

    require_xnor(spec)
    run = trained(folder, asked)
    there = len(run.data.test.labels)
    count = there if images is None else images
    require_int(f"images, of {there} in the test set of {run.spec.data!r},", count, 1, there)
    size = min(count, MOST_IN_BATCH) if batch is None else batch
    require_int("batch", size, 1, count)
    made, driver = deploy(run), _driver(spec) if rtl else None
    whole = WholeMachine(spec, made.network, min(size, MOST_IN_PROGRAM), run.data.shape, rtl=rtl) if program else None
    parts = list[_Part]()
    for start in range(0, count, size):
        parts.append(_part(spec, made, start, min(start + size, count), driver, whole))
        if progress is not None:
            progress(min(start + size, count), count)
    return Classification(
        spec=spec,
        trained=run.spec,
        batch=size,
        classes=np.concatenate([part.run.forward.classes for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        layers=_cycles([part.run for part in parts]),
        agreements=tuple(_joined(list(each)) for each in zip(*(part.agreements for part in parts), strict=True)),
        program=None if whole is None else whole.cycles,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    run: NetworkRun
    labels: npt.NDArray[np.int64]
    agreements: tuple[Agreement, ...]


def _part(
    spec: AcceleratorSpec, made: Deployed, start: int, stop: int, driver: XnorDriver | None, whole: WholeMachine | None
) -> _Part:
    pixels, labels = made.images(start, stop)
    run = run_network(spec, made.network, pixels)
    single = made.single(pixels)
    if not np.array_equal(single.inputs[0].ravel(), run.forward.inputs[0].ravel()):
        raise InputError(
            f"layer {made.network.layers[0].name!r} makes of a pixel what depends on others; a table of pixels is all "
            "that stands in front of the machine"
        )
    found = [
        _agreement("PyTorch, FP32", run.forward, single, made.network, start),
        _agreement("PyTorch, FP64", run.forward, made.double(pixels), made.network, start),
    ]
    if driver is not None:
        forward, wrong = _in_rtl(driver, made.network, run, pixels)
        found.append(_agreement("RTL", run.forward, forward, made.network, start, exact=True, cycles=wrong))
    if whole is not None:
        for what, (as_program, differ) in whole.run(pixels).items():
            found.append(_agreement(what, run.forward, as_program, made.network, start, exact=True, cycles=differ))
    return _Part(run=run, labels=labels, agreements=tuple(found))


def _driver(spec: AcceleratorSpec) -> XnorDriver:
    from ...hdl.drivers.xnor import XnorDriver

    return XnorDriver(spec)


def _in_rtl(
    driver: XnorDriver, network: IntegerNetwork, run: NetworkRun, pixels: npt.NDArray[np.uint8]
) -> tuple[Forward, int]:
    """The same images on the RTL, and how many layers took other cycles than stepped ones."""
    stepped, wrong = iter(run.layers), list[str]()

    def product(layer: IntegerLayer, a: npt.NDArray[np.int8]) -> tuple[Made, npt.NDArray[np.bool_]]:
        want = next(stepped)
        gemm, at = layer.gemm(len(pixels)), want.threshold
        got = driver.run(
            want.mapping, gemm, layer.levels, a, layer.weights, cycles=want.array + _AFTERWARDS, thresholds=at
        )
        wrong.extend([layer.name] * (got.cycles != want.array))
        return Made(got.result, got.passed), np.zeros(gemm.n, np.bool_) if at is None else at.flip

    return network.run(pixels, product), len(wrong)


def _agreement(
    what: str,
    stepped: Forward,
    other: Forward | Evaluated,
    network: IntegerNetwork,
    start: int,
    *,
    exact: bool = False,
    cycles: int | None = None,
) -> Agreement:
    odd = list[tuple[int, str, int]]()
    bits = 0
    for layer, one, two in zip(network.layers[1:], stepped.inputs[1:], other.inputs[1:], strict=True):
        flat = one.reshape(len(one), -1)
        bits += flat.size
        odd += [(start + int(i), layer.name, int(bit)) for i, bit in np.argwhere(flat != two.reshape(flat.shape))]
    return Agreement(
        what=what,
        exact=exact,
        images=len(stepped.classes),
        bits=bits,
        unequal=tuple(start + int(i) for i in np.flatnonzero(stepped.classes != other.classes)),
        odd=tuple(sorted(odd, key=lambda found: found[0])),
        cycles=cycles,
    )


def _joined(parts: Sequence[Agreement]) -> Agreement:
    return Agreement(
        what=parts[0].what,
        exact=parts[0].exact,
        images=sum(part.images for part in parts),
        bits=sum(part.bits for part in parts),
        unequal=tuple(i for part in parts for i in part.unequal),
        odd=tuple(found for part in parts for found in part.odd),
        cycles=None if parts[0].cycles is None else sum(part.cycles or 0 for part in parts),
    )


def _cycles(runs: Sequence[NetworkRun]) -> tuple[LayerCycles, ...]:
    return tuple(
        LayerCycles(
            first=each[0],
            array=sum(layer.array for layer in each),
            cycles=sum(layer.placement.cycles.total for layer in each),
        )
        for each in zip(*(run.layers for run in runs), strict=True)
    )
