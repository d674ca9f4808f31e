"""The host of a compiled step: numbers into the machine's memory and out of it, where `CompiledStep` says they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.operand import FormatName
from ...dataflow.program.compiler import CompiledStep, HostWork, PassName
from ...dataflow.program.layout import Region
from ...dataflow.program.program import Program
from ...dataflow.program.spaces import Form
from ...workloads.errors import InputError
from ..operand import Half, narrow, operand_types
from ..update_settings import UpdateSettings
from .operators import OTHERS

__all__ = ["Host", "get", "put"]

Single = npt.NDArray[np.float32]
Memory = npt.NDArray[np.uint8]


class Host:
    """Of ``step`` on ``memory``, uint8 [bytes], which is changed in place; all arrays in the shapes of the graph."""

    def __init__(self, step: CompiledStep, memory: Memory) -> None:
        if memory.dtype != np.uint8 or memory.shape != (step.window,):
            raise InputError(f"memory must be uint8 [{step.window}], not {memory.dtype} {list(memory.shape)}")
        self.step, self.memory = step, memory
        self._format: FormatName = step.target.spec.pe.format

    def begin(self, held: Mapping[str, Single]) -> None:
        """Clear memory, and put parameters and buffers, float32 of any shape by name, where they lie; state is 0."""
        self.memory[:] = 0
        for parameter in self.step.parameters:
            for region in (parameter.master, parameter.weight):
                if region is not None:
                    self._put(region, held[parameter.name])
        for name, region in self.step.buffers.items():
            self._put(region, held[name])

    def put_states(self, states: Mapping[str, Sequence[Single]]) -> None:
        """What the update rule holds of parameters, float32 of any shape by name."""
        for parameter in self.step.parameters:
            for region, value in zip(parameter.state, states[parameter.name], strict=True):
                self._put(region, value)

    def run(self, of: PassName, run: Callable[[Program], bool]) -> None:
        """A pass: ``run`` executes a program and says whether it raised `nonfinite`; then the host does its part."""
        carried = self.step.carried
        if carried is not None and of == "backward":
            self._put(carried, np.zeros(1, np.float32))
        for part in self.step.parts:
            if part.of != of:
                continue
            if run(part.program) and carried is not None and of == "backward":
                self._put(carried, np.full(1, np.inf, np.float32))
            for work in part.then:
                self.compute(work)

    def compute(self, work: HostWork) -> None:
        """A node, by the same arithmetic as in `step.py`, in memory."""
        reads = [self._get(region) for region in work.reads]
        with np.errstate(all="ignore"):
            made = OTHERS[work.op](reads, work.settings, [region.shape for region in work.makes])
        for region, value in zip(work.makes, made, strict=True):
            self._put(region, value)

    def put_input(self, pixels: Single) -> None:
        """A batch, float32 [batch, ...]."""
        self._put(self.step.input, pixels)

    def put_gradient(self, gradient: Single) -> None:
        """Of the scores, float32 of their shape."""
        self._put(self.step.gradient, gradient)

    def put_settings(self, settings: UpdateSettings) -> None:
        """The constants of a step of the update rule that the machine is built for."""
        rule = self.step.target.rule
        if settings.rule is not rule:
            raise InputError(f"settings are of {settings.rule.name}, but WUVE of the machine is built for {rule.name}")
        self._put(self.step.constants, np.array(settings.constants, np.float32))

    def scores(self) -> Half:
        """What the forward program has left, operands of its shape."""
        scores: Half = self._get(self.step.output)
        return scores

    def masters(self) -> dict[str, Single]:
        """Of the parameters that have one, float32 of any shape by name."""
        return {p.name: self._get(p.master) for p in self.step.parameters if p.master is not None}

    def weights(self) -> dict[str, Half]:
        """Of the parameters that are read as operands, of any shape by name."""
        return {p.name: self._get(p.weight) for p in self.step.parameters if p.weight is not None}

    def states(self) -> dict[str, tuple[Single, ...]]:
        """What the update rule holds of every parameter, float32 of any shape by name."""
        return {p.name: tuple(self._get(region) for region in p.state) for p in self.step.parameters}

    def buffers(self) -> dict[str, Single]:
        """Float32 of any shape by name."""
        return {name: self._get(region) for name, region in self.step.buffers.items()}

    def _put(self, region: Region, value: Single) -> None:
        put(self.memory, region, value, self._format)

    def _get(self, region: Region) -> Any:
        return get(self.memory, region, self._format)


def put(memory: Memory, region: Region, value: Single, format: FormatName) -> None:
    """Write ``value``, float32 in the shape of ``region``, into ``memory``, uint8 [bytes]; operands are narrowed."""
    if value.shape != region.shape or value.dtype != np.float32:
        raise InputError(f"what lies there is float32 {list(region.shape)}, not {value.dtype} {list(value.shape)}")
    own = region.element
    words = narrow(value, format, gradient=own.gradient) if own.form == Form.OPERAND else value
    memory[_bytes(region, words.itemsize)] = np.ascontiguousarray(words)[..., None].view(np.uint8)


def get(memory: Memory, region: Region, format: FormatName) -> Any:
    """What lies in ``region`` of ``memory``, uint8 [bytes]: operands or float32, in its shape."""
    own = region.element
    kind = operand_types(format)[-1 if own.gradient else 0] if own.form == Form.OPERAND else np.float32
    dtype = np.dtype(kind)
    return np.ascontiguousarray(memory[_bytes(region, dtype.itemsize)]).view(dtype)[..., 0]


def _bytes(region: Region, each: int) -> npt.NDArray[np.int64]:
    """The bytes of every element, int64 [*shape, each]."""
    return region.address + each * region.elements()[..., None] + np.arange(each)
