"""A network trained by the RTL, held against the model of the machine bit for bit and cycle for cycle.

Forward, backward and update run in the compiled RTL of the whole accelerator; the loss is the host's. Beside it the
model executes the graph of the same step (`simulator/machine/step.py`), and the program's cycles are predicted command
by command. The first bit or cycle that differs ends it, named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...dataflow.program.compiler import compile_step
from ...dataflow.program.isa import BEAT_BYTES, LATENCY
from ...dataflow.program.layout import Region
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import Target
from ...hdl.drivers.accelerator import Accelerator, AcceleratorRun
from ...simulator.machine.host import Host
from ...simulator.machine.numerics import updated
from ...simulator.machine.program_time import program_time
from ...simulator.machine.step import Execution
from ...simulator.operand import narrow
from ...simulator.update_settings import Sgd
from ...workloads.errors import InputError, require_int
from .rtl_difference import DifferenceError, Executed, first_wrong_write, require_cycles, require_same

if TYPE_CHECKING:
    from ...workloads.training.prepared import Batch, Prepared

__all__ = ["DifferenceError", "RtlStep", "RtlTrainer", "RtlTraining", "rtl_train"]

Single = npt.NDArray[np.float32]
_LARGEST_SCALE = 2.0**24


@dataclass(frozen=True, slots=True)
class RtlStep:
    """One step: the loss of the RTL's scores and of the model's, cycles of both programs counted and predicted.

    ``skipped``: a gradient was not finite, so no weight was changed.
    """

    loss: float
    model_loss: float
    cycles: int
    predicted: int
    skipped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RtlTraining:
    """A training in RTL, equal to the model's in every bit and cycle.

    ``accuracy``: share of the test images that the RTL's weights and running statistics class right, by the machine's
    arithmetic on the host. ``commands``: of a step. ``counters``: the machine's, of all steps.
    """

    steps: tuple[RtlStep, ...]
    accuracy: float
    instructions: int
    commands: int
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

    ``progress`` is told the cycles run and those that there will be. A bit or cycle in which RTL and model differ is a
    `DifferenceError`.
    """
    trainer = RtlTrainer(work, target, steps, rate=rate, momentum=momentum, loss_scale=loss_scale)
    return trainer.train(progress)


class RtlTrainer:
    """A training as `rtl_train` has it, compiled; what cannot be trained is an InputError here already.

    ``made``: the steps that are done. ``memory``: the RTL's, uint8 [bytes], by what it wrote on its bus.
    """

    def __init__(
        self,
        work: Prepared,
        target: Target,
        steps: int,
        *,
        rate: float,
        momentum: float = 0.9,
        loss_scale: float = 1024.0,
    ) -> None:
        require_int("steps", steps, 1, 10**6)
        _require_settings(work, target, rate, momentum, loss_scale)
        self.work, self.target, self.asked, self.loss_scale = work, target, steps, loss_scale
        self.format = target.spec.pe.format
        self.settings = Sgd(rate=rate, momentum=momentum, inverse_scale=1.0 / loss_scale)
        self.compiled = compiled = compile_step(work.graph, target)
        self.programs = compiled.forward, compiled.backward
        self.predicted = {id(program): program_time(program, target, BEAT_BYTES, LATENCY) for program in self.programs}
        self.held = {name: value.copy() for name, value in work.held.items()}
        self.state = {p.name: [np.zeros_like(self.held[p.name]) for _ in p.state] for p in compiled.parameters}
        self.made: list[RtlStep] = []
        self.skips = False
        self.counters: dict[str, int] = {}
        self.memory = np.zeros(compiled.window, np.uint8)
        self.host = Host(compiled, self.memory)
        self.host.begin(self.held)
        self.host.put_settings(self.settings)
        self._step: list[Executed] = []

    @property
    def step_cycles(self) -> int:
        """Of a step, as predicted."""
        return sum(said.cycles for said in self.predicted.values())

    @property
    def instructions(self) -> int:
        """Of both programs."""
        return sum(len(p.instructions) for p in self.programs)

    @property
    def commands(self) -> int:
        """Of a step."""
        return sum(len(said.ran) for said in self.predicted.values())

    def train(
        self,
        progress: Callable[[int, int], None] | None = None,
        after: Callable[[], None] = lambda: None,
        rtl: Accelerator | None = None,
    ) -> RtlTraining:
        """Build the RTL and train what is left; ``after`` is called after each step."""
        self.build(rtl)
        for batch in islice(self.work.batches(), len(self.made), self.asked):
            self.step(batch, progress)
            after()
        return self.result()

    def repeat(self, steps: Sequence[RtlStep], counters: Mapping[str, int]) -> Iterator[float | None]:
        """Make the first ``steps``, which the RTL has done before, by the model alone, before `build`; of each the loss
        of the model if it is another than it was."""
        for step, batch in zip(steps, self.work.batches(), strict=False):
            model = Execution(self.work.graph, self.held, batch.pixels, self.format)
            loss, gradient = _loss(model.forward().astype(np.float32), batch.labels, self.loss_scale)
            self._become(*model.backward(gradient))
            self.made.append(step)
            yield None if loss == step.model_loss else loss
        self.counters = dict(counters)
        self.host.begin(self.held)
        self.host.put_states(self.state)
        self.host.put_settings(self.settings)

    def build(self, rtl: Accelerator | None = None) -> None:
        """The RTL, compiled unless it is given, with parameters in its memory."""
        window = self.compiled.window
        if rtl is None:
            room = max(len(p.instructions) for p in self.programs)
            rtl = Accelerator(self.target, window, room)
        rtl.reset(window=window)
        rtl.write(0, self.memory)
        self.rtl = rtl

    def result(self) -> RtlTraining:
        """What the steps that are done came to; the RTL's memory must hold what it wrote."""
        require_same("memory", self.rtl.read(0, len(self.memory)), self.memory)
        return RtlTraining(
            steps=tuple(self.made),
            accuracy=self.accuracy(),
            instructions=self.instructions,
            commands=self.commands,
            window=self.compiled.window,
            counters=self.counters,
        )

    def step(self, batch: Batch, progress: Callable[[int, int], None] | None = None) -> None:
        """One step on both."""
        self._step = []
        try:
            self._both(batch, progress)
        except DifferenceError as error:
            raise DifferenceError(f"step {len(self.made) + 1}: {error}{self._where()}") from None

    def accuracy(self) -> float:
        """Share of the test images that are classed right by what lies in the RTL's memory; nothing there changes."""
        masters, weights = self.host.masters(), self.host.weights()
        held = {name: value.astype(np.float32) for name, value in weights.items()} | masters | self.host.buffers()
        test, size, right = self.work.test, self.work.spec.batch, 0
        for begin in range(0, len(test.labels), size):
            part = test.pixels[begin : begin + size]
            # images do not meet in evaluation, so a batch can be filled up
            full = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
            scores = Execution(self.work.scoring, held, full, self.format).forward().astype(np.float32)
            right += int((scores.argmax(axis=1)[: len(part)] == test.labels[begin : begin + size]).sum())
        return right / len(test.labels)

    def _both(self, batch: Batch, progress: Callable[[int, int], None] | None) -> None:
        self.host.put_input(batch.pixels)
        self._send(self.compiled.input)
        forward = self._run(self.compiled.forward, progress)
        model = Execution(self.work.graph, self.held, batch.pixels, self.format)
        scores, wanted = self.host.scores(), model.forward()
        require_same("scores", scores, wanted)
        loss, gradient = _loss(scores.astype(np.float32), batch.labels, self.loss_scale)
        model_loss, model_gradient = _loss(wanted.astype(np.float32), batch.labels, self.loss_scale)
        self.host.put_gradient(gradient)
        self._send(self.compiled.gradient)
        backward = self._run(self.compiled.backward, progress)
        self._become(*model.backward(model_gradient))
        self._require_updated()
        cycles = forward.cycles + backward.cycles
        self.made.append(RtlStep(loss, model_loss, cycles, self.step_cycles, self.skips))

    def _become(self, gradients: Mapping[str, Any], buffers: Mapping[str, Single]) -> None:
        """Weights, state and running statistics as the model makes them; a gradient that is Inf or NaN anywhere has
        every update skipped."""
        self.skips = not all(np.isfinite(gradient.astype(np.float32)).all() for gradient in gradients.values())
        for name, gradient in gradients.items():
            if self.skips:
                break
            master, *state = updated(self.settings, self.held[name], gradient, tuple(self.state[name]))
            self.held[name], self.state[name] = master, list(state)
        self.held |= buffers

    def _require_updated(self) -> None:
        """What the RTL has of weights, state and running statistics is what the model has."""
        masters, weights, states = self.host.masters(), self.host.weights(), self.host.states()
        for parameter in self.compiled.parameters:
            name = parameter.name
            if name in masters:
                require_same(f"weight {name}", masters[name], self.held[name])
            if name in weights:
                require_same(f"operand copy of {name}", weights[name], narrow(self.held[name], self.format))
            for held, own, value in zip(self.target.rule.state, states[name], self.state[name], strict=True):
                require_same(f"{held.name} of {name}", own, value)
        for name, value in self.host.buffers().items():
            require_same(f"buffer {name}", value, self.held[name])

    def _send(self, region: Region) -> None:
        """What the host has put there to the RTL's memory."""
        self.rtl.write(region.address, self.memory[region.address : region.address + region.bytes])

    def _run(self, program: Program, progress: Callable[[int, int], None] | None) -> AcceleratorRun:
        """A program on the RTL, every command of it in the cycles that were predicted."""
        done = sum(step.cycles for step in self.made) + sum(own.ran.cycles for own in self._step)

        def heard(cycles: int) -> None:
            if progress is not None:
                progress(done + cycles, self.asked * self.step_cycles)

        before = self.memory.copy()
        ran, said = self.rtl.run(program, heard=heard), self.predicted[id(program)]
        self._step.append(Executed(program, before, ran))
        ran.writes.apply(self.memory)
        require_cycles(said, ran)
        self.counters = {name: self.counters.get(name, 0) + n for name, n in ran.counters.items()}
        return ran

    def _where(self) -> str:
        """The first word that the RTL wrote wrong in this step."""
        found = first_wrong_write(self.work.graph, self.target, self._step)
        return f"; {found}" if found else "; every word that the RTL wrote in this step is what its memory asked for"


def _require_settings(work: Prepared, target: Target, rate: float, momentum: float, loss_scale: float) -> None:
    if target.rule.name != "sgd":
        raise InputError(f"the RTL is trained by sgd, not by {target.rule.name}")
    if not (math.isfinite(rate) and 0 < rate <= 1e6):
        raise InputError(f"learning rate must be a number above 0 to 1e6, not {rate!r}")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum must be a number from 0 to below 1, not {momentum!r}")
    if not (1 <= loss_scale <= _LARGEST_SCALE and math.frexp(loss_scale)[0] == 0.5):
        raise InputError(f"loss scale must be a power of two from 1 to 2^24, not {loss_scale!r}")


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
