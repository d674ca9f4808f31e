"""The vector work of a scheme of few values, put into a step around the products of the layers at work, and taken out.

Of a layer, in its order: ``norm`` and ``quantise`` of X before FF, ``scale`` of Y behind it; ``scale gradient`` of dY
before BP, ``estimator gradient`` and ``norm backward`` of dX behind it; ``scale gradient`` of dY before WU, ``estimator
gradient`` of dW behind it. Each is an op of its own, as in eager PyTorch, with the bytes that it reads and writes; what
a `VectorWork` says is not needed is not there. A weight that is made in the step is quantised before FF, too; those of
others are packed by their update.

A tensor of FF is quantised once in all forms that FF and WU read, and for all planes of a weight. Backward goes through
the uses of a layer the other way round, so that WU and BP have the tensors of the last FF of the layer that none of
theirs had before. Parts of attention are quantised before the product of FF that reads them, scores and sums are scaled
behind it, and their gradients go through an estimator each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from ..copies import PackedCopy
from ..gemm import Pass
from ..levels import Levels
from ..operand import Operand, Role
from ..step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from .description import Scheme
from .vector_work import ScaleOf, VectorWork

__all__ = ["with_vector_work", "without_vector_work"]

Name = Literal["norm", "quantise", "scale", "scale gradient", "estimator gradient", "norm backward"]
_BEFORE: Final[tuple[Name, ...]] = ("norm", "quantise", "scale gradient")
"""What a product waits for; whoever waits for the product waits for the others."""
_FP32 = 4
_MOMENTS = 2
"""Of a row that is normalised: mean and deviation."""
_FIRES = frozenset(f"aten.{name}" for name in ("ge", "gt", "le", "lt"))
_AS_THEY_ARE = frozenset(f"aten.{name}" for name in ("_to_copy", "stack", "cat", "clone", "copy_", "constant_pad_nd"))
"""What leaves spikes that a model's own neurons fired as they are."""
_FIRED: Final = VectorWork(gradient=0)
"""Of those: they are packed, and nothing else."""


@dataclass(slots=True)
class _Forward:
    """What one FF of a layer left: the ops that made X as it was quantised, its rows, and what packed X and W."""

    made: set[int]
    rows: int
    work: VectorWork | None
    quantised: int | None = None
    weight: int | None = None


@dataclass(slots=True)
class _Weave:
    chosen: Scheme
    batch: int
    ops: list[Op] = field(default_factory=list)
    after: list[set[int]] = field(default_factory=list)
    left: dict[tuple[str, str, Pass], list[_Forward]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    filters: dict[str, int] = field(default_factory=dict)
    attention: dict[tuple[object, ...], list[int]] = field(default_factory=dict)
    """What quantised the parts of attention, by module, levels and elements."""

    def add(self, op: Op, after: Iterable[int]) -> int:
        self.ops.append(op)
        self.after.append(set(after))
        return len(self.ops) - 1

    def vector(self, product: MatrixOp, name: Name, of: Operand, after: Iterable[int], **own: object) -> int:
        """Adds an op that goes over ``of`` once, reading and writing it, but for what ``own`` says."""
        given = {"elements": of.elements, "read_bytes": of.bytes, "write_bytes": of.bytes, **own}
        op = VectorOp(
            name=product.name,
            op=name,
            pass_=product.pass_,
            dtype=of.dtype,
            recompute=product.recompute,
            parameter=product.parameter or product.name,
            **given,  # type: ignore[arg-type]
        )
        return self.add(op, after)

    def scales(self, product: MatrixOp, role: Role, work: VectorWork | None) -> int:
        """FP32 numbers beside the tensor of ``role``."""
        match None if work is None else work.scale:
            case None | ScaleOf.CONSTANT:
                return 0
            case ScaleOf.LAYER:
                return 1
            case ScaleOf.FILTER:
                return self.filters[_parameter(product)]
            case ScaleOf.ROW:
                return self.rows[_parameter(product)]

    def pack(self, at: int | None, copy: PackedCopy | None) -> None:
        """Has the op at ``at`` write one more form, unless it does."""
        op = None if at is None else self.ops[at]
        if at is not None and isinstance(op, VectorOp) and copy is not None and copy not in op.packs:
            self.ops[at] = replace(op, packs=(*op.packs, copy))

    # The three passes of a layer at work; each returns the op that others wait for.

    def forward(self, op: MatrixOp, after: set[int]) -> int:
        x, w = self._work_of_input(op, after), self.chosen.work_of(Role.WEIGHT)
        if op.plane:
            left = self.left[op.name, _parameter(op), Pass.WU][-1]
        else:
            self._measure(op)
            left = self._prepared(op, x, after)
            for pass_ in (Pass.BP, Pass.WU):
                self.left.setdefault((op.name, _parameter(op), pass_), []).append(left)
        if "+" in _parameter(op) and (copy := op.packed(Role.WEIGHT)) is not None:
            weight = _operand(op, Role.WEIGHT)
            left.weight = self._quantise(op, weight, Role.WEIGHT, w, after, copy)
        ready = {i for i in (left.quantised, left.weight) if i is not None}
        made = self.add(op, after | ready | (left.made if left.quantised is None else set()))
        scaled = [(role, work) for role, work in ((Role.WEIGHT, w), (Role.ACTIVATION, x)) if work and work.scale]
        if not scaled:
            return made
        beside = sum(self.scales(op, role, work) for role, work in scaled)
        # An edge has a constant for each channel, so none for each row.
        edge = all(work.scale is not ScaleOf.ROW for _, work in scaled)
        return self.vector(op, "scale", op.c, {made, *ready}, wide_read=beside * _FP32, edge=edge)

    def _work_of_input(self, op: MatrixOp, after: set[int]) -> VectorWork | None:
        """What the input of a layer takes; spikes that neurons of the model fired need no neuron of the scheme."""
        spikes = self.chosen.levels.get(Pass.FF, {}).get(Role.ACTIVATION) is Levels.SPIKE
        return _FIRED if spikes and self._fired(after) else self.chosen.work_of(Role.ACTIVATION)

    def _fired(self, after: Iterable[int]) -> bool:
        """Whether what an op waits for is a comparison, or its results as they are."""
        made = [op for op in (self.ops[i] for i in after) if isinstance(op, VectorOp)]
        if any(op.op in _FIRES for op in made):
            return True
        further = (i for i in after if getattr(self.ops[i], "op", None) in _AS_THEY_ARE)
        return any(self._fired(self.after[i]) for i in further)

    def backward(self, op: MatrixOp, after: set[int]) -> int:
        left, w = self._left(op), self.chosen.work_of(Role.WEIGHT)
        x = left.work if left else self.chosen.work_of(Role.ACTIVATION)
        if left is None:
            self._measure(op)
        scaled = self._scaled_gradient(op, Role.WEIGHT, w, after)
        self.pack(left.weight if left else None, op.packed(Role.WEIGHT))
        end = self.add(op, after | scaled | ({left.weight} if left and left.weight is not None else set()))
        made = left.made if left else set()
        if x is not None and x.gradient:
            trips = x.gradient
            end = self.vector(
                op, "estimator gradient", op.c, {end, *made}, elements=op.c.elements * trips,
                read_bytes=2 * op.c.bytes * trips,
            )  # fmt: skip
        if x is not None and x.norm:
            moments = self.rows[_parameter(op)] * _MOMENTS * _FP32
            end = self.vector(
                op, "norm backward", op.c, {end, *made}, read_bytes=2 * op.c.bytes, wide_read=moments
            )  # fmt: skip
        return end

    def update(self, op: MatrixOp, after: set[int]) -> int:
        copy, left, w = op.packed(Role.ACTIVATION), self._left(op), self.chosen.work_of(Role.WEIGHT)
        x = left.work if left else self.chosen.work_of(Role.ACTIVATION)
        if left is None:
            self._measure(op)
        if left is None and copy is not None:
            left = self._prepared(op, x, after)
        self.pack(left.quantised if left else None, copy)
        ready = {left.quantised} if left and left.quantised is not None else set(left.made if left else ())
        scaled = self._scaled_gradient(op, Role.ACTIVATION, x, after | ready)
        end = self.add(op, after | ready | scaled)
        if w is None or not w.gradient:
            return end
        # The weight is the FP32 master, which is what WUVE is about to update.
        wide = (op.c.elements * w.gradient + self.scales(op, Role.WEIGHT, w)) * _FP32
        return self.vector(
            op, "estimator gradient", op.c, {end}, elements=op.c.elements * w.gradient,
            read_bytes=op.c.bytes * w.gradient, wide_read=wide,
        )  # fmt: skip

    # Products of attention. All rows have a scale and are gone over once before, as much as any scheme here needs.

    def attended(self, op: MatrixOp, after: set[int]) -> int:
        few = [x for x in (op.a, op.b) if x.levels is not None]
        scales = sum(x.elements // op.gemm.k for x in few) * _FP32
        if op.pass_ is Pass.FF:
            own = {self._quantised_part(op, x, after) for x in few}
            end = self.add(op, after | own)
            return self.vector(op, "scale", op.c, {end}, wide_read=scales)
        own = {i for x in few for i in self._packed_part(op, x)}
        dy = next(x for x in (op.a, op.b) if x.levels is None)
        own.add(self.vector(op, "scale gradient", dy, after, wide_read=scales))
        end = self.add(op, after | own)
        return self.vector(op, "estimator gradient", op.c, {end}, read_bytes=2 * op.c.bytes)

    def _quantised_part(self, op: MatrixOp, x: Operand, after: set[int]) -> int:
        made = self.vector(
            op, "quantise", x, after, elements=2 * x.elements, read_bytes=2 * x.bytes, write_bytes=0,
            packs=(op.packed_as(x),), wide_write=x.elements // op.gemm.k * _FP32,
        )  # fmt: skip
        self.attention.setdefault((op.name, x.levels, x.elements), []).append(made)
        return made

    def _packed_part(self, op: MatrixOp, x: Operand) -> list[int]:
        """What quantised ``x``, or an operand just like it, of which one more has this form from now on."""
        made, copy = self.attention.get((op.name, x.levels, x.elements), []), op.packed_as(x)
        packs = {i: one.packs for i in made if isinstance(one := self.ops[i], VectorOp)}
        without = [i for i in made if copy not in packs[i]]
        self.pack(min(without, key=lambda i: len(packs[i]), default=None), copy)
        return made

    def _measure(self, op: MatrixOp) -> None:
        """Rows and outputs of a layer by any of its products."""
        g, of = op.gemm, _parameter(op)
        if op.pass_ is Pass.FF:
            x, along = _operand(op, Role.ACTIVATION), g.k
            outputs = g.n if op.b.role is Role.WEIGHT else g.m
        else:
            x = _operand(op, Role.GRADIENT)
            side = g.m if op.a is x else g.n
            outputs = along = g.k if op.pass_ is Pass.BP else side
        self.rows[of] = self.batch if op.convolution else max(x.elements // (along * g.groups), 1)
        self.filters.setdefault(of, g.groups * outputs)

    def _prepared(self, op: MatrixOp, work: VectorWork | None, after: set[int]) -> _Forward:
        left = _Forward(set(after), self.rows[_parameter(op)], work)
        if work is None:
            return left
        x = _operand(op, Role.ACTIVATION)
        if work.norm:
            moments = self.rows[_parameter(op)] * _MOMENTS * _FP32
            left.made = {self.vector(op, "norm", x, after, wide_write=moments)}
        copy = op.packed(Role.ACTIVATION)
        if copy is not None:
            left.quantised = self._quantise(op, x, Role.ACTIVATION, work, left.made, copy)
        return left

    def _quantise(
        self, op: MatrixOp, x: Operand, role: Role, work: VectorWork | None, after: set[int], copy: PackedCopy
    ) -> int:
        trips = 1 + (work.looks if work else 0)
        scales = self.scales(op, role, work) * _FP32
        return self.vector(
            op, "quantise", x, after, elements=x.elements * trips, read_bytes=x.bytes * trips, write_bytes=0,
            packs=(copy,), wide_write=scales,
        )  # fmt: skip

    def _scaled_gradient(self, op: MatrixOp, role: Role, work: VectorWork | None, after: set[int]) -> set[int]:
        if work is None or work.scale is None:
            return set()
        dy = _operand(op, Role.GRADIENT)
        return {self.vector(op, "scale gradient", dy, after, wide_read=self.scales(op, role, work) * _FP32)}

    def _left(self, op: MatrixOp) -> _Forward | None:
        uses = self.left.get((op.name, _parameter(op), op.pass_))
        if not uses:
            return None
        self.rows[_parameter(op)] = uses[-1].rows
        return uses.pop()


def with_vector_work(workload: Workload, chosen: Scheme) -> Workload:
    """``workload``, whose operands have the levels of ``chosen``, with what that takes beside the products."""
    layers = {op.parameter for op in workload.matrix_ops if _has_levels(op, chosen)}
    weave = _Weave(chosen, workload.batch)
    last: list[int] = []
    for i, op in enumerate(workload.ops):
        after = {last[j] for j in workload.after[i]} if workload.after else set[int]()
        if isinstance(op, MatrixOp) and op.parameter is None and _has_levels(op, chosen):
            last.append(weave.attended(op, after))
        elif not isinstance(op, MatrixOp) or op.parameter not in layers or op.kept_dense or op.parameter is None:
            last.append(weave.add(_with_scales(op, weave, layers), after))
        elif op.pass_ is Pass.FF:
            last.append(weave.forward(op, after))
        elif op.pass_ is Pass.BP:
            last.append(weave.backward(op, after))
        else:
            last.append(weave.update(op, after))
    after_all = tuple(tuple(sorted(one)) for one in weave.after) if workload.after else ()
    return replace(workload, ops=tuple(weave.ops), after=after_all, tensors=())


def without_vector_work(workload: Workload) -> Workload:
    """``workload`` without the ops that `with_vector_work` put in."""
    ops: list[Op] = []
    place: list[int | None] = []
    for op in workload.ops:
        if not isinstance(op, VectorOp) or op.parameter is None:
            place.append(len(ops))
            ops.append(op)
        else:
            place.append(None if op.op in _BEFORE else len(ops) - 1)
    if len(ops) == len(workload.ops):
        return workload
    kept = [i for i, op in enumerate(workload.ops) if not isinstance(op, VectorOp) or op.parameter is None]
    after = (sorted({j for j in map(place.__getitem__, workload.after[i]) if j is not None}) for i in kept)
    after_all = tuple(map(tuple, after)) if workload.after else ()
    return replace(workload, ops=tuple(ops), after=after_all, tensors=())


def _with_scales(op: Op, weave: _Weave, layers: Sequence[str | None] | set[str | None]) -> Op:
    work = weave.chosen.work_of(Role.WEIGHT)
    if not isinstance(op, UpdateOp) or op.name not in layers or work is None:
        return op
    scales = {ScaleOf.LAYER: 1, ScaleOf.FILTER: weave.filters.get(op.name, 0)}
    planes = max(len(weave.chosen.planes), 1)
    return replace(op, looks=work.looks, scales=planes * scales.get(work.scale, 0) if work.scale else 0)


def _has_levels(op: MatrixOp, chosen: Scheme) -> bool:
    return op.pass_ in chosen.levels and not op.kept_dense and (op.a.levels or op.b.levels) is not None


def _operand(op: MatrixOp, role: Role) -> Operand:
    return next(x for x in (op.a, op.b) if x.role is role)


def _parameter(op: MatrixOp) -> str:
    assert op.parameter is not None, "a layer at work has a weight"
    return op.parameter
