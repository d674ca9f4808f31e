"""Which ops of a step must have ended before which may start."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..dataflow.residency import Residency
from ..workloads.gemm import Pass
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload

__all__ = ["Order", "in_turn", "order_of", "role_order", "serial_order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who waits for whom: for every op the ops that must have ended, and whether its weight operand need not wait."""

    after: tuple[tuple[int, ...], ...]
    weight_ready: tuple[bool, ...]


def serial_order(workload: Workload) -> Order:
    """Every op after the one before it, as the step level runs them."""
    count = len(workload.ops)
    return Order(after=tuple((i - 1,) if i else () for i in range(count)), weight_ready=(False,) * count)


def order_of(workload: Workload) -> Order:
    """What must wait for what: by the tensors of the trace, or where there was none by role."""
    if workload.after:
        return Order(after=workload.after, weight_ready=_weights_ready(workload))
    return role_order(workload)


def in_turn(order: Order, residency: Residency | None) -> Order:
    """``order`` where whoever makes a tensor that stays on chip waits until its place is free."""
    turns = residency.turns() if residency is not None else {}
    if not turns:
        return order
    after = tuple(tuple(sorted({*ops, *turns.get(i, ())})) for i, ops in enumerate(order.after))
    return replace(order, after=after)


def role_order(workload: Workload) -> Order:
    """What must wait for what, as far as passes, names and roles tell (docs/design/machine.md, "The system")."""
    ops = workload.ops
    after: list[tuple[int, ...]] = []
    spine = side = -1
    for i, op in enumerate(ops):
        if isinstance(op, UpdateOp):
            after.append(())
        elif op.pass_ is Pass.WU:
            # The twin BP op of the same layer reads the same gradient, so what it waited for is enough.
            source = after[spine] if spine >= 0 and _twins(ops[spine], op) else (spine,)
            after.append(_known(*source, side))
            side = i
        else:
            after.append(_known(spine))
            spine = i
    gradients = _Gradients(workload, _known(spine, side))
    for i, op in enumerate(ops):
        if isinstance(op, UpdateOp):
            after[i] = gradients.of(op.name)
    return Order(after=tuple(after), weight_ready=_weights_ready(workload))


def _known(*ops: int) -> tuple[int, ...]:
    return tuple(sorted({op for op in ops if op >= 0}))


def _twins(one: Op, other: Op) -> bool:
    """Whether a BP and a WU product are the gradients of one forward product."""
    return (
        isinstance(one, MatrixOp)
        and isinstance(other, MatrixOp)
        and one.pass_ is Pass.BP
        and (one.name, one.parameter) == (other.name, other.parameter)
    )


class _Gradients:
    """The ops that an update waits for: those that make its gradient, and the last that reads the old weight."""

    def __init__(self, workload: Workload, ends: tuple[int, ...]) -> None:
        self._ends, self._model = ends, workload.model
        self._readers: dict[str, int] = {}
        self._makers: dict[str, int] = {}
        self._modules: dict[tuple[str, Pass], int] = {}
        followers: dict[int, int] = {}
        last_product = -1
        for i, op in enumerate(workload.ops):
            if isinstance(op, UpdateOp):
                continue
            if op.pass_ in (Pass.BP, Pass.WU):
                self._modules[op.name, op.pass_] = i
            if isinstance(op, MatrixOp):
                last_product = i if op.pass_ is Pass.WU else last_product
                into = self._makers if op.pass_ is Pass.WU else self._readers
                into.update(dict.fromkeys((op.parameter or "").split("+"), i))
            elif op.pass_ is Pass.WU:
                # Vector work behind a weight gradient may add to it.
                followers[last_product] = i
        self._makers = {name: followers.get(i, i) for name, i in self._makers.items()}

    def of(self, label: str) -> tuple[int, ...]:
        """Ops that the update of a parameter waits for; all of them where none is known to make its gradient."""
        modules = [name.rpartition(".")[0] or self._model for name in label.split("=")]
        last = (self._modules.get((module, p), -1) for module in modules for p in (Pass.BP, Pass.WU))
        made = [self._makers.get(label, -1), *last]
        return _known(*made, self._readers.get(label, -1)) if max(made) >= 0 else self._ends


def _weights_ready(workload: Workload) -> tuple[bool, ...]:
    """Whether the weight operand of each op is in memory from the start.

    Not where vector work of the forward pass went before in the same module or below it: it may have made the weight
    (a cast, a weight norm). What a scheme adds is for activations, or for a weight that such work made before.
    """
    made: set[str] = set()
    ready = []
    for op in workload.ops:
        ready.append(isinstance(op, MatrixOp) and op.name not in made)
        if isinstance(op, VectorOp) and op.pass_ is Pass.FF and op.parameter is None:
            parts = op.name.split(".")
            made.update(".".join(parts[: n + 1]) for n in range(len(parts)))
    return tuple(ready)
