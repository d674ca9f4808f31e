"""What a training step needs of DRAM: weights in every form, optimizer state, and what FF leaves for BP and WU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.beside import Work, copies_made, copy_bytes, dense_bytes, machine_bytes, vector_work
from ..dataflow.operand import FP32, OperandFormat
from ..workloads.copies import PackedCopy
from ..workloads.errors import InputError
from ..workloads.gemm import Pass
from ..workloads.operand import DTYPE_BYTES, Role
from ..workloads.schemes.annotate import weight_copies
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from .reading_order import looked_up

__all__ = ["MemoryNeed", "exceeds", "memory_need", "require_capacity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes of DRAM at the peak of a step, by kind; upper bounds of what eager training keeps.

    ``frozen_weights``: what the step reads of the model and does not train, in operands where it is floating.
    ``weight_copies``: what FF and BP read of trained weights, with their scales, and the compact and packed copies of
    all.
    ``activations``: the input and every result of FF, kept until the end, except what checkpointing makes again;
    ``recomputed``: the largest part that it makes again at a time. ``working``: the most that one op of the backward
    pass reads of gradients and writes.

    Of a step that does not train ``activations`` are the most that is alive at a time, where the trace tells lifetimes,
    and ``kv_cache`` what it leaves of keys and values. A frozen weight that is read in copies alone is not kept beside
    them.
    """

    frozen_weights: int
    master_weights: int
    optimizer_state: int
    weight_copies: int
    weight_gradients: int
    activations: int
    recomputed: int
    working: int
    kv_cache: int = 0

    @property
    def fixed(self) -> int:
        """What does not grow with the batch."""
        trained = self.master_weights + self.optimizer_state + self.weight_gradients
        return self.frozen_weights + trained + self.weight_copies

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.activations + self.recomputed + self.working + self.kv_cache


def memory_need(workload: Workload, spec: AcceleratorSpec) -> MemoryNeed:
    """The need of one step on ``spec``, in its formats."""
    updates = [op for op in workload.ops if isinstance(op, UpdateOp)]
    parameters = sum(op.elements for op in updates)
    kept, recomputed = _kept(workload.ops, spec)
    word = spec.pe.operand
    replaced = _replaced(workload, spec)
    frozen = sum(size for name, size in _frozen(workload, word).items() if name not in replaced)
    if not workload.phase.trains:
        return MemoryNeed(
            frozen_weights=frozen,
            master_weights=0,
            optimizer_state=0,
            weight_copies=_frozen_copies(workload, spec),
            weight_gradients=0,
            activations=_alive(workload, word) if workload.tensors else _input(workload.ops, spec) + kept,
            recomputed=0,
            working=0,
            kv_cache=sum(machine_bytes(held.dtype, held.bytes, word) for held in workload.phase.cached),
        )
    return MemoryNeed(
        frozen_weights=frozen,
        master_weights=FP32.size(parameters),
        optimizer_state=FP32.size(parameters * len(workload.rule.state)),
        weight_copies=sum(_copies(op, spec) for op in updates) + _frozen_copies(workload, spec),
        weight_gradients=word.size(parameters),
        activations=_input(workload.ops, spec) + kept,
        recomputed=recomputed,
        working=max((_working(op, spec) for op in workload.ops if op.pass_ in (Pass.BP, Pass.WU)), default=0),
    )


def require_capacity(workload: Workload, spec: AcceleratorSpec) -> MemoryNeed:
    """What a step needs of DRAM; refused, with what would fit, where it is more than its machine has."""
    need = memory_need(workload, spec)
    found = exceeds(workload, spec, need)
    if found is not None:
        raise InputError(found)
    return need


def exceeds(workload: Workload, spec: AcceleratorSpec, need: MemoryNeed) -> str | None:
    """In words, by how much a step exceeds the DRAM of its machine and what it could hold; None where it fits."""
    capacity = spec.dram.capacity_bytes
    if capacity is None or need.total <= capacity:
        return None
    parts = ", ".join(f"{kind.replace('_', ' ')} {_size(size)}" for kind, size in asdict(need).items() if size)
    if need.fixed >= capacity:
        advice = f"no batch fits, as what does not grow with it takes {_size(need.fixed)}"
    else:
        batch = workload.batch * (capacity - need.fixed) // (need.total - need.fixed)
        advice = f"a batch of {batch} fits" if batch else "not even a batch of 1 fits"
        if need.kv_cache:
            # Keys and values grow with the tokens alone; what else the step wants is taken as it is.
            tokens = workload.phase.context + workload.phase.tokens
            most = tokens * (capacity - (need.total - need.kv_cache)) // need.kv_cache
            advice += f"; at this batch the cache holds {max(most, 0):,} of {tokens:,} tokens a sample"
        elif workload.phase.trains and not need.recomputed:
            advice += (
                "; with layers recomputed (--recompute PATH, or trace(..., recompute=)) it keeps fewer activations"
            )
    return (
        f"a step of {workload.model!r} at batch {workload.batch} needs {_size(need.total)} of DRAM ({parts}), but "
        f"dram.capacity_bytes of {spec.name!r} is {_size(capacity)}: {advice}"
    )


def _beside(op: VectorOp, spec: AcceleratorSpec) -> Work:
    """What vector work moves, on chip or off."""
    return vector_work(replace(op, chip_read=0, chip_write=0) if op.chip_read or op.chip_write else op, spec)


def _size(size: int) -> str:
    units = ((10**15, "PB"), (10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
    scale, unit = next(((s, u) for s, u in units if size >= s), (1, "B"))
    return f"{size / scale:.3g} {unit}"


def _copies(op: UpdateOp, spec: AcceleratorSpec) -> int:
    """Forms of a weight: compact and packed ones where they are made in advance, dense where something reads it so."""
    copies = sum(copy_bytes(copy, spec.pe.operand) for copy in copies_made(op, spec))
    return dense_bytes(op, spec) + copies + FP32.size(op.scales)


def _trained(workload: Workload) -> set[str]:
    return {op.name for op in workload.ops if isinstance(op, UpdateOp)}


def _frozen(workload: Workload, word: OperandFormat) -> dict[str, int]:
    """Bytes by name of what the step reads and does not train: what the workload lists, and weights of products that
    no update names. A weight made of several (``a+b``) is a result of the step, not of the model."""
    held = {t.name: machine_bytes(t.dtype, t.elements * DTYPE_BYTES[t.dtype], word) for t in workload.frozen}
    known = held.keys() | _trained(workload)
    for op in workload.matrix_ops:
        if op.parameter is None or op.parameter in known or "+" in op.parameter or op.pass_ is Pass.WU:
            continue
        sizes = (word.size(x.elements) for x in (op.a, op.b) if x.role is Role.WEIGHT)
        held[op.parameter] = max([held.get(op.parameter, 0), *sizes])
    return held


def _frozen_copies(workload: Workload, spec: AcceleratorSpec) -> int:
    """Copies of weights that nothing trains, made once; compact ones where the machine makes any in advance."""
    trained, copies = _trained(workload), weight_copies(workload.matrix_ops)
    untrained = [copy for name, (_, made) in copies.items() if trained.isdisjoint(name.split("+")) for copy in made]
    made = (copy for copy in untrained if spec.wuve.pregenerate or isinstance(copy, PackedCopy))
    return sum(copy_bytes(copy, spec.pe.operand) for copy in made)


def _replaced(workload: Workload, spec: AcceleratorSpec) -> set[str]:
    """Weights that every product reads in a copy: dense, nothing wants those that are frozen. Other ops that read one
    (an embedding that is tied to the head) keep it."""
    if not spec.wuve.pregenerate:
        return set()
    copies = weight_copies(workload.matrix_ops)
    names = {name for name, (dense, made) in copies.items() if made and not dense}
    return names - looked_up(workload.ops, names)


def _alive(workload: Workload, word: OperandFormat) -> int:
    """The most bytes of results, and of the input, that are wanted at a time; weights and caches were there before."""
    change = [0] * (len(workload.ops) + 1)
    for tensor in workload.tensors:
        if tensor.made >= 0:
            size = machine_bytes(tensor.dtype, tensor.bytes, word)
            change[tensor.made] += size
            change[tensor.last + 1] -= size
    return max(accumulate(change), default=0)


def _result(op: Op, spec: AcceleratorSpec) -> int:
    match op:
        case MatrixOp():
            return spec.pe.operand.size(op.c.elements)
        case VectorOp():
            return _beside(op, spec).write
        case UpdateOp():
            return 0


def _input(ops: Sequence[Op], spec: AcceleratorSpec) -> int:
    """What the first op reads besides a weight."""
    match ops[0]:
        case MatrixOp(a=a, b=b):
            return sum(spec.pe.operand.size(x.elements) for x in (a, b) if x.role is Role.ACTIVATION)
        case VectorOp():
            return _beside(ops[0], spec).read
        case UpdateOp():
            return 0


def _working(op: Op, spec: AcceleratorSpec) -> int:
    match op:
        case MatrixOp(a=a, b=b):
            read = sum(spec.pe.operand.size(x.elements) for x in (a, b) if x.role is Role.GRADIENT)
            return read + _result(op, spec)
        case VectorOp():
            return _beside(op, spec).read + _beside(op, spec).write
        case UpdateOp():
            return 0


def _kept(ops: Sequence[Op], spec: AcceleratorSpec) -> tuple[int, int]:
    """Bytes of FF results kept for the backward pass, and of the largest part that is made again in it.

    What is made again is known by module, operator and size; of each part its input, the result before it, is kept.
    """
    forward = [op for op in ops if op.pass_ is Pass.FF and not op.recompute]  # type: ignore[union-attr]
    again = list(_parts(ops))
    dropped: set[int] = set()
    inputs: set[int] = set()
    for part in again:
        wanted = Counter(_key(op, spec) for op in part)
        first = -1
        for i, op in enumerate(forward):
            if i not in dropped and wanted[_key(op, spec)] > 0:
                wanted[_key(op, spec)] -= 1
                dropped.add(i)
                first = i if first < 0 else first
        if first > 0:
            inputs.add(first - 1)
    kept = sum(_result(op, spec) for i, op in enumerate(forward) if i not in dropped or i in inputs)
    return kept, max((sum(_result(op, spec) for op in part) for part in again), default=0)


def _key(op: Op, spec: AcceleratorSpec) -> tuple[str, str, int]:
    if isinstance(op, VectorOp) and op.packs:
        # What FF packs for itself alone, it packs for WU too where it is done again.
        return op.name, op.op, op.elements
    if isinstance(op, VectorOp) and op.joined is not None:
        # What is written no more may still be what is made again.
        op = replace(op, write_bytes=op.write_bytes + op.joined.write)
    return op.name, op.kind, _result(op, spec)


def _parts(ops: Sequence[Op]) -> Iterator[list[Op]]:
    """Runs of ops that checkpointing computes again, one after the other."""
    part: list[Op] = []
    for op in ops:
        if not isinstance(op, UpdateOp) and op.recompute:
            part.append(op)
        elif part:
            yield part
            part = []
    if part:
        yield part
