"""A network trained by the RTL, held against the model of the machine bit for bit and cycle for cycle.

Forward, backward and update run in the compiled RTL of the whole accelerator; the loss is the host's. Beside it the
model executes the graph of the same step (`simulator/machine/step.py`), and the program's cycles are predicted command
by command. The first bit or cycle that differs ends it, named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.program.command_time import command_cycles
from ...dataflow.program.commands import Command
from ...dataflow.program.compiler import CompiledStep, compile_step
from ...dataflow.program.layout import Region
from ...dataflow.program.placement import Parameter
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import Target
from ...hdl.drivers.accelerator import Accelerator, AcceleratorRun
from ...simulator.machine.host import get, put
from ...simulator.machine.numerics import updated
from ...simulator.machine.sequencer import Timeline, timeline
from ...simulator.machine.step import Execution
from ...simulator.operand import narrow
from ...simulator.update_settings import Sgd, UpdateSettings
from ...workloads.errors import InputError
from ...workloads.training.prepared import Batch, Prepared

__all__ = ["DifferenceError", "RtlStep", "RtlTraining", "rtl_train"]

Single = npt.NDArray[np.float32]
_LATENCY = 4


class DifferenceError(AssertionError):
    """The RTL and the model differ; the message names tensor and index, or command and cycle, and both values."""


@dataclass(frozen=True, slots=True)
class RtlStep:
    """One step: the loss on the host, and cycles of both programs, counted by the RTL and predicted."""

    loss: float
    cycles: int
    predicted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RtlTraining:
    """A training in RTL, equal to the model's in every bit and cycle: ``accuracy`` on the test images, by the RTL."""

    steps: tuple[RtlStep, ...]
    accuracy: float
    instructions: int
    window: int
    counters: Mapping[str, int] = field(default_factory=dict)


def rtl_train(
    work: Prepared,
    target: Target,
    steps: int,
    *,
    rate: float,
    momentum: float = 0.9,
    loss_scale: float = 1024.0,
    progress: Callable[[int, int], None] | None = None,
) -> RtlTraining:
    """Train ``steps`` steps of ``work`` on the RTL of ``target``, by SGD with a constant ``rate``.

    A bit or cycle in which RTL and model differ is a `DifferenceError`.
    """
    if target.rule.name != "sgd":
        raise InputError(f"the RTL is trained by sgd, not by {target.rule.name}")
    compiled = compile_step(work.graph, target)
    both = _Both(work, compiled, Sgd(rate=rate, momentum=momentum, inverse_scale=1.0 / loss_scale))
    made: list[RtlStep] = []
    for step, batch in zip(range(steps), work.batches(), strict=False):
        made.append(both.step(batch, loss_scale))
        if progress is not None:
            progress(step + 1, steps)
    lengths = [len(p.instructions) for p in (compiled.forward, compiled.backward)]
    return RtlTraining(
        steps=tuple(made),
        accuracy=both.accuracy(work.test),
        instructions=sum(lengths),
        window=compiled.window,
        counters=both.counters,
    )


class _Both:
    """The RTL and the model, side by side."""

    def __init__(self, work: Prepared, compiled: CompiledStep, settings: UpdateSettings) -> None:
        self.work, self.compiled, self.settings = work, compiled, settings
        target = compiled.target
        self.format = target.spec.pe.format
        self.held = {name: value.copy() for name, value in work.held.items()}
        self.state = {p.name: [np.zeros(at.shape, np.float32) for at in p.state] for p in compiled.parameters}
        room = max(len(p.instructions) for p in (compiled.forward, compiled.backward))
        self.rtl = Accelerator(target, compiled.window, room, latency=_LATENCY)
        self.predicted = {id(program): self._predict(program) for program in (compiled.forward, compiled.backward)}
        self.counters: dict[str, int] = {}
        self.rtl.write(0, np.zeros(compiled.window, np.uint8))
        for parameter in compiled.parameters:
            for at in (parameter.master, parameter.weight):
                if at is not None:
                    self._put(at, self.held[parameter.name])
        for name, at in compiled.buffers.items():
            self._put(at, self.held[name])
        self._put(compiled.constants, np.array(settings.constants, np.float32))

    def step(self, batch: Batch, loss_scale: float) -> RtlStep:
        """One step on both."""
        compiled = self.compiled
        model = Execution(self.work.graph, self.held, batch.pixels, self.format)
        scores = model.forward()
        forward = self._forward(batch.pixels)
        self._same("scores", compiled.output, scores)
        loss, gradient = _loss(scores.astype(np.float32), batch.labels, loss_scale)
        gradients, buffers = model.backward(gradient)
        self._put(compiled.gradient, gradient)
        backward = self._run(compiled.backward)
        for parameter in compiled.parameters:
            if parameter.name in gradients:
                self._update(parameter, gradients[parameter.name])
        self.held |= buffers
        for name, at in compiled.buffers.items():
            self._same(f"buffer {name}", at, self.held[name])
        return RtlStep(loss, forward.cycles + backward.cycles, sum(said.cycles for said in self.predicted.values()))

    def accuracy(self, test: Batch) -> float:
        """Share of the test images that the RTL classes right; it scores them as a batch of training."""
        size, right = self.work.spec.batch, 0
        for begin in range(0, len(test.labels), size):
            part = test.pixels[begin : begin + size]
            full = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
            self._forward(full)
            scores = Execution(self.work.graph, self.held, full, self.format).forward()
            self._same("scores of test images", self.compiled.output, scores)
            found = scores.astype(np.float32).argmax(axis=1)[: len(part)]
            right += int((found == test.labels[begin : begin + size]).sum())
        return right / len(test.labels)

    def _forward(self, pixels: Single) -> AcceleratorRun:
        self._put(self.compiled.input, pixels)
        return self._run(self.compiled.forward)

    def _update(self, parameter: Parameter, gradient: Any) -> None:
        """The model's update of a parameter, and the RTL's beside it."""
        name = parameter.name
        master, *state = updated(self.settings, self.held[name], gradient, tuple(self.state[name]))
        self.held[name], self.state[name] = master, list(state)
        assert parameter.master is not None, "what is trained has a master"
        self._same(f"weight {name}", parameter.master, master)
        for held, at, value in zip(self.compiled.target.rule.state, parameter.state, state, strict=True):
            self._same(f"{held.name} of {name}", at, value)
        if parameter.weight is not None:
            self._same(f"operand copy of {name}", parameter.weight, narrow(master, self.format))

    def _run(self, program: Program) -> AcceleratorRun:
        """A program on the RTL, every command of it in the cycles that were predicted."""
        ran, said = self.rtl.run(program), self.predicted[id(program)]
        wanted = sorted((r.command.unit, r.took, r.last) for r in said.ran)
        found = sorted((r.unit, r.took, r.last) for r in ran.commands)
        for own, theirs in zip(wanted, found, strict=False):
            if own != theirs:
                raise DifferenceError(
                    f"{own[0].name}: a command was to be taken in cycle {own[1]} and end in {own[2]}, but in the RTL "
                    f"{theirs[0].name} took one in {theirs[1]}, which ended in {theirs[2]}"
                )
        if (len(wanted), said.cycles) != (len(found), ran.cycles):
            raise DifferenceError(
                f"{len(found)} commands ended in {ran.cycles} cycles of the RTL, but {len(wanted)} in {said.cycles} "
                f"were predicted"
            )
        self.counters = {name: self.counters.get(name, 0) + n for name, n in ran.counters.items()}
        return ran

    def _predict(self, program: Program) -> Timeline:
        target, rtl = self.compiled.target, self.rtl

        def duration(command: Command) -> int:
            return command_cycles(command, target, rtl.beat_bytes, rtl.latency)

        return timeline(program.instructions, duration, rtl.latency)

    def _put(self, region: Region, value: Single) -> None:
        memory = np.array(self.rtl.read(region.address, region.bytes))
        put(memory, replace(region, address=0), value, self.format)
        self.rtl.write(region.address, memory)

    def _same(self, what: str, region: Region, value: Any) -> None:
        wanted = np.ascontiguousarray(value)
        found = get(self.rtl.read(region.address, region.bytes), replace(region, address=0), self.format)
        bits = np.dtype(f"u{wanted.dtype.itemsize}")
        differs = wanted.view(bits) != found.view(bits)
        if differs.any():
            index = tuple(int(i) for i in np.argwhere(differs)[0])
            raise DifferenceError(
                f"{what}{list(index)} is {found[index]} ({found.view(bits)[index]:#x}) in the RTL, but "
                f"{wanted[index]} ({wanted.view(bits)[index]:#x}) in the model; {int(differs.sum())} differ"
            )


def _loss(scores: Single, labels: npt.NDArray[np.int64], scale: float) -> tuple[float, Single]:
    """Mean cross-entropy, and its gradient times ``scale``: in double precision, rounded to FP32."""
    wide = scores.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    share = e / e.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float(-np.log(share[rows, labels]).mean())
    share[rows, labels] -= 1.0
    return loss, (share * (scale / len(labels))).astype(np.float32)
