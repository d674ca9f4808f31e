"""A network trained by the RTL, held against the model of the machine bit for bit and cycle for cycle.

Forward, backward and update run in the compiled RTL of the whole accelerator; the loss is the host's. Beside it the
model executes the graph of the same step (`simulator/machine/step.py`), and the program's cycles are predicted command
by command. The first bit or cycle that differs ends it, named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...dataflow.operand import FP32
from ...dataflow.program.command_time import command_cycles
from ...dataflow.program.commands import Command
from ...dataflow.program.compiler import CompiledStep, compile_step
from ...dataflow.program.layout import Region
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import Form, Target
from ...hdl.drivers.accelerator import Accelerator, AcceleratorRun
from ...simulator.machine.host import Host
from ...simulator.machine.numerics import updated
from ...simulator.machine.sequencer import Timeline, timeline
from ...simulator.machine.step import Execution
from ...simulator.operand import narrow
from ...simulator.update_settings import Sgd, UpdateSettings
from ...workloads.errors import InputError

if TYPE_CHECKING:
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
    """The RTL and the model, side by side; ``host`` sees the RTL's memory as it was last read."""

    def __init__(self, work: Prepared, compiled: CompiledStep, settings: UpdateSettings) -> None:
        self.work, self.compiled, self.settings = work, compiled, settings
        target = compiled.target
        self.format = target.spec.pe.format
        self.held = {name: value.copy() for name, value in work.held.items()}
        self.state = {p.name: [np.zeros_like(self.held[p.name]) for _ in p.state] for p in compiled.parameters}
        programs = compiled.forward, compiled.backward
        room = max(len(p.instructions) for p in programs)
        self.rtl = Accelerator(target, compiled.window, room, latency=_LATENCY)
        self.predicted = {id(program): self._predict(program) for program in programs}
        self.counters: dict[str, int] = {}
        self.memory = np.zeros(compiled.window, np.uint8)
        self.host = Host(compiled, self.memory)
        self.host.begin(self.held)
        self.host.put_settings(settings)
        self.rtl.write(0, self.memory)

    def step(self, batch: Batch, loss_scale: float) -> RtlStep:
        """One step on both."""
        model, scores, forward = self._forward(batch.pixels, "scores")
        loss, gradient = _loss(scores.astype(np.float32), batch.labels, loss_scale)
        gradients, buffers = model.backward(gradient)
        self.host.put_gradient(gradient)
        self._send(self.compiled.gradient)
        backward = self._run(self.compiled.backward)
        self.memory[:] = self.rtl.read(0, len(self.memory))
        masters, weights, states = self.host.masters(), self.host.weights(), self.host.states()
        for parameter in self.compiled.parameters:
            name = parameter.name
            if name not in gradients:
                continue
            master, *state = updated(self.settings, self.held[name], gradients[name], tuple(self.state[name]))
            self.held[name], self.state[name] = master, list(state)
            if name in masters:
                _require_same(f"weight {name}", masters[name], master)
            if name in weights:
                _require_same(f"operand copy of {name}", weights[name], narrow(master, self.format))
            for held, own, value in zip(self.compiled.target.rule.state, states[name], state, strict=True):
                _require_same(f"{held.name} of {name}", own, value)
        for name, value in self.host.buffers().items():
            _require_same(f"buffer {name}", value, buffers[name])
        self.held |= buffers
        predicted = sum(said.cycles for said in self.predicted.values())
        return RtlStep(loss, forward.cycles + backward.cycles, predicted)

    def accuracy(self, test: Batch) -> float:
        """Share of the test images that the RTL classes right; it scores them as a batch of training."""
        size, right = self.work.spec.batch, 0
        for begin in range(0, len(test.labels), size):
            part = test.pixels[begin : begin + size]
            full = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
            _, scores, _ = self._forward(full, "scores of test images")
            found = scores.astype(np.float32).argmax(axis=1)[: len(part)]
            right += int((found == test.labels[begin : begin + size]).sum())
        return right / len(test.labels)

    def _forward(self, pixels: Single, what: str) -> tuple[Execution, Any, AcceleratorRun]:
        """Scores of a batch, by both."""
        self.host.put_input(pixels)
        self._send(self.compiled.input)
        ran = self._run(self.compiled.forward)
        first, last = _span(self.compiled.output)
        self.memory[first:last] = self.rtl.read(first, last - first)
        model = Execution(self.work.graph, self.held, pixels, self.format)
        scores = model.forward()
        _require_same(what, self.host.scores(), scores)
        return model, scores, ran

    def _send(self, region: Region) -> None:
        """What the host has put there to the RTL's memory."""
        first, last = _span(region)
        self.rtl.write(first, self.memory[first:last])

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


def _span(region: Region) -> tuple[int, int]:
    """First and last byte, exclusive, of what lies there."""
    each = 2 if region.form == Form.OPERAND else FP32.bytes
    at = region.elements()
    return region.address + each * int(at.min()), region.address + each * (int(at.max()) + 1)


def _require_same(what: str, found: Any, wanted: Any) -> None:
    bits = np.dtype(f"u{wanted.dtype.itemsize}")
    found, wanted = np.ascontiguousarray(found), np.ascontiguousarray(wanted)
    differs = wanted.view(bits) != found.view(bits)
    if differs.any():
        index = tuple(int(i) for i in np.argwhere(differs)[0])
        raise DifferenceError(
            f"{what}{list(index)} is {found[index]} ({found.view(bits)[index]:#x}) in the RTL, but {wanted[index]} "
            f"({wanted.view(bits)[index]:#x}) in the model; {int(differs.sum())} differ"
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
