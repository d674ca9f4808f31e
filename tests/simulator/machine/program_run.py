"""Compiled steps on the model of the machine, beside the same steps node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.program.checker import check
from weft.dataflow.program.compiler import CompiledStep, compile_step
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import Target
from weft.simulator.engines import run_wuve
from weft.simulator.machine.chip import Chip
from weft.simulator.machine.host import Host
from weft.simulator.machine.step import Execution
from weft.simulator.update_settings import Sgd, UpdateSettings
from weft.workloads.catalog import trace_module
from weft.workloads.graph import Graph, annotated
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.tracing.graph import step_graph

Settings = Callable[[int], UpdateSettings]


def momentum(_: int) -> Sgd:
    return Sgd(rate=0.05, momentum=0.9, inverse_scale=0.25)


def held_of(model: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: x.detach().numpy().copy() for name, x in named if x.is_floating_point()}


def graph_of(model: nn.Module, shape: Sequence[int], pattern: NMPattern | None = None) -> Graph:
    """The step of a model; with a pattern under BDWP."""
    pixels = torch.zeros(*shape)
    if pattern is None:
        return step_graph(model, pixels, name="model")
    dense = trace_module(model, pixels, loss=lambda scores: scores.sum())
    return annotated(step_graph(model, pixels, name=dense.model), annotate(dense, "bdwp", pattern))


def require_same(name: str, found: Any, wanted: Any) -> None:
    assert found.dtype == wanted.dtype and found.shape == wanted.shape, name
    kind = f"u{found.itemsize}"
    same = np.ascontiguousarray(found).view(kind), np.ascontiguousarray(wanted).view(kind)
    np.testing.assert_array_equal(*same, err_msg=name)


def train(
    model: nn.Module,
    shape: Sequence[int],
    spec: AcceleratorSpec,
    *,
    settings: Settings = momentum,
    pattern: NMPattern | None = None,
    steps: int = 1,
    broken: int | None = None,
) -> CompiledStep:
    """Train by programs and node by node; every bit of scores, parameters, state and buffers is the same.

    In step ``broken`` an element of the gradient is Inf, and nothing is updated.
    """
    graph, rule = graph_of(model, shape, pattern), settings(1).rule
    step = compile_step(graph, Target(spec=spec, rule=rule, pattern=pattern))
    for program in step.programs.values():
        assert check(program, step.target, step.window) > 0 or step.carried
    held, rng = held_of(model), np.random.default_rng(0)
    state = {p.name: tuple(np.zeros(r.shape, np.float32) for r in p.state) for p in step.parameters}
    chip = Chip(step.target, np.full(step.window, 255, np.uint8))
    host = Host(step, chip.memory)

    def run(program: Program) -> bool:
        chip.run(program.instructions)
        return chip.nonfinite

    host.begin(held)
    for number in range(1, steps + 1):
        pixels = rng.standard_normal(shape).astype(np.float32)
        witness = Execution(graph, held, pixels, spec.pe.format)
        scores = witness.forward()
        gradient = (0.3 * rng.standard_normal(scores.shape)).astype(np.float32)
        if number == broken:
            gradient.flat[1] = np.inf
        gradients, buffers = witness.backward(gradient)
        for name, value in gradients.items() if number != broken else ():
            made = run_wuve(spec, settings(number), held[name].ravel(), value.ravel(), _flat(state[name]))
            shaped = value.shape
            held[name] = made.master.reshape(shaped)
            state[name] = tuple(x.reshape(shaped) for x in made.state)
        held |= buffers

        host.put_input(pixels)
        host.put_settings(settings(number))
        host.run("forward", run)
        require_same("scores", host.scores(), scores)
        host.put_gradient(gradient)
        host.run("backward", run)
        assert chip.nonfinite is (number == broken)
        for name, value in (host.masters() | host.buffers()).items():
            require_same(f"{name}, step {number}", value, held[name])
        for name, value in host.weights().items():
            require_same(f"operands of {name}", value, held[name].astype(value.dtype))
        for name, values in host.states().items():
            for found, wanted in zip(values, state[name], strict=True):
                require_same(f"state of {name}", found, wanted)
    assert broken is None or steps > 1
    return step


def _flat(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(array.ravel() for array in arrays)
