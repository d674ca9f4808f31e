"""What each layer costs on a machine under each candidate, so that a choice by layer may have a budget of cycles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.objective import Objective
from ..simulator.result import OpResult
from ..simulator.step import simulate
from ..workloads.errors import InputError
from ..workloads.gemm import Pass
from ..workloads.one_line import OneLine
from ..workloads.schemes.annotate import annotate, layer_names
from ..workloads.schemes.policies import DENSE, LayerChoice, layer_choices, rules_of
from ..workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from .scheduling import scheduled

__all__ = ["LayerCosts", "layer_costs"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LayerCosts(OneLine):
    """``cycles`` of each layer, its update among them, under each candidate, and the ``rest`` of the step, which no
    choice changes: of any choice they add up to the cycles of its step, op after op."""

    layers: tuple[LayerChoice, ...]
    cycles: dict[str, dict[str, int]]
    rest: int

    def of(self, choice: dict[str, str]) -> int:
        """Cycles of the step under ``choice``, a candidate a layer."""
        return self.rest + sum(self.cycles[layer][c] for layer, c in choice.items())

    def _said(self) -> str:
        return f"{len(self.cycles)} layers, {self.rest:,} cycles beside them"


def layer_costs(
    workload: Workload,
    scheme: str,
    candidates: Sequence[str],
    spec: AcceleratorSpec,
    objective: Objective | str = Objective.CYCLES,
    passes: Collection[Pass] = tuple(Pass),
    progress: Callable[[int, int], None] | None = None,
) -> LayerCosts:
    """The costs of the layers of ``workload`` that have a choice, ``dense`` among it, under ``scheme`` on ``spec``, in
    ``passes``: FF alone is what inference takes.

    One schedule a candidate, all layers under it: the scheduler looks at one layer at a time, so what it takes in one
    depends on no other.
    """
    layers = layer_choices(workload, candidates)
    if not layers:
        raise InputError(f"no layer of {workload.model!r} can have any of {', '.join(candidates)}")
    parameter = {names: found for found, names in layer_names(workload).items()}
    owners = {parameter[layer.names]: layer.layer for layer in layers}
    cycles: dict[str, dict[str, int]] = {layer.layer: {} for layer in layers}
    rest = set[int]()
    for done, text in enumerate((DENSE, *candidates), start=1):
        # Layers that cannot have it are left dense, which their own entry says; a rule for them would be refused.
        able = {layer.layer for layer in layers if text in layer.kept}
        step = annotate(workload, "dense", None) if text == DENSE else _under(workload, scheme, layers, text)
        sums = dict.fromkeys(("", *cycles), 0)
        for op in simulate(scheduled(step, spec, objective)).ops:
            if op.op.pass_ in passes:
                sums[owners.get(_parameter(op), "")] += op.cycles.total
        for layer in able:
            cycles[layer][text] = sums[layer]
        rest.add(sums[""])
        if progress is not None:
            progress(done, 1 + len(candidates))
    assert len(rest) == 1, "what belongs to no layer does not depend on the choice"
    return LayerCosts(layers=tuple(layers), cycles=cycles, rest=rest.pop())


def _under(workload: Workload, scheme: str, layers: Sequence[LayerChoice], text: str) -> Workload:
    chosen = {layer.layer: text if text in layer.kept else DENSE for layer in layers}

    return annotate(workload, scheme, rules_of(layers, chosen))


def _parameter(result: OpResult) -> str:
    """The parameter that an op works for, "" if none alone."""
    match result.op:
        case UpdateOp(name=name):
            return name
        case MatrixOp(parameter=parameter) | VectorOp(parameter=parameter):
            return parameter or ""
