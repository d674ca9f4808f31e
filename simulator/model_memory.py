"""What of a model is in DRAM from step to step: weights in every form that is read, optimizer state, caches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.beside import copies_made, copy_bytes, dense_bytes, machine_bytes
from ..dataflow.fusion.rules import CASTS
from ..dataflow.lifetimes import originals
from ..dataflow.operand import FP32
from ..workloads.copies import PackedCopy
from ..workloads.gemm import Pass
from ..workloads.operand import DTYPE_BYTES, Gathered, Operand, Role
from ..workloads.schemes.annotate import copy_key
from ..workloads.step import MatrixOp, UpdateOp, VectorOp, Workload

__all__ = ["ModelBytes", "model_bytes", "model_tensors", "read_beside"]


class ModelBytes(NamedTuple):
    """As in `memory.py:MemoryNeed`."""

    frozen_weights: int
    master_weights: int
    optimizer_state: int
    weight_copies: int
    kv_cache: int


class _Forms(NamedTuple):
    """How products read a weight: dense or not, and the bytes of every other form."""

    dense: bool
    others: int


def model_bytes(workload: Workload, spec: AcceleratorSpec) -> ModelBytes:
    """Of one step on ``spec``, in its formats."""
    word, updates = spec.pe.operand, [op for op in workload.ops if isinstance(op, UpdateOp)]
    parameters = sum(op.elements for op in updates)
    held, forms = _frozen(workload), _forms(workload, spec)
    dropped = {name for name, form in forms.items() if not form.dense}
    dropped -= read_beside(workload, dropped)
    return ModelBytes(
        frozen_weights=sum(
            machine_bytes(d, n * DTYPE_BYTES[d], word) for x, (d, n) in held.items() if x not in dropped
        ),
        master_weights=FP32.size(parameters),
        optimizer_state=FP32.size(parameters * len(workload.rule.state)),
        weight_copies=sum(_copies(op, spec) for op in updates) + sum(form.others for form in forms.values()),
        kv_cache=sum(
            machine_bytes(one.dtype, one.bytes, word) if one.grows else one.bytes for one in workload.phase.cached
        ),
    )


def model_tensors(workload: Workload) -> Counter[int]:
    """How many tensors of the model there are that a step does not write before its updates, by elements."""
    trained = (op.elements for op in workload.ops if isinstance(op, UpdateOp))
    return Counter([*trained, *(elements for _, elements in _frozen(workload).values())])


def _copies(op: UpdateOp, spec: AcceleratorSpec) -> int:
    """Forms of a trained weight: compact and packed ones where they are made in advance, dense where something reads
    it so."""
    copies = sum(copy_bytes(copy, spec.pe.operand) for copy in copies_made(op, spec))
    return dense_bytes(op, spec) + copies + FP32.size(op.scales)


def _trained(workload: Workload) -> set[str]:
    return {op.name for op in workload.ops if isinstance(op, UpdateOp)}


def _weight(op: MatrixOp) -> Operand | None:
    """The weight that a product reads, of a parameter."""
    if op.parameter is None or op.pass_ is Pass.WU:
        return None
    return next((x for x in (op.a, op.b) if x.role is Role.WEIGHT), None)


def _frozen(workload: Workload) -> dict[str, tuple[str, int]]:
    """Format and elements by name of what the step reads and does not train: what the workload lists, and weights of
    products that no update names. A weight made of several (``a+b``) is a result of the step, not of the model."""
    held = {t.name: (t.dtype, t.elements) for t in workload.frozen}
    known = held.keys() | _trained(workload)
    for op in workload.matrix_ops:
        weight = _weight(op)
        if weight is not None and op.parameter is not None and op.parameter not in known and "+" not in op.parameter:
            most = max(held.get(op.parameter, ("", 0))[1], weight.elements)
            held[op.parameter] = weight.dtype if "float" in weight.dtype else "float16", most
    return held


def _forms(workload: Workload, spec: AcceleratorSpec) -> dict[str, _Forms]:
    """How products read weights that nothing trains, by name: compact where the machine makes copies in advance,
    packed, and stored without a pattern; each made once."""
    word, trained = spec.pe.operand, _trained(workload)
    dense = set[str]()
    others: dict[str, dict[object, int]] = {}
    for op in workload.matrix_ops:
        if op.parameter is None or op.pass_ is Pass.WU or not trained.isdisjoint(op.parameter.split("+")):
            continue
        forms, copy = others.setdefault(op.parameter, {}), op.copy
        if isinstance(op.sparse, Gathered) and not op.sparse.online:
            forms[op.sparse] = op.sparse.bytes(op.gemm, word.bits)
        elif copy is not None and (spec.wuve.pregenerate or isinstance(copy, PackedCopy)):
            forms[copy if isinstance(copy, PackedCopy) else copy_key(op)] = copy_bytes(copy, word)
        else:
            dense.add(op.parameter)
    return {name: _Forms(name in dense, sum(forms.values())) for name, forms in others.items()}


def read_beside(workload: Workload, names: Iterable[str]) -> set[str]:
    """Those of ``names``, of frozen weights, that vector work reads, as it does an embedding that is tied to the head:
    by the trace's tensors, and without them by the modules that hold the weight and have other work than products."""
    held = _frozen(workload)
    products = {op.name for op in workload.matrix_ops}
    first_of = originals(workload.tensors)
    found = set[str]()
    for name in held.keys() & set(names):
        holders = {part.rpartition(".")[0] for part in name.split("=")}
        if not workload.tensors:
            beside = {op.name for op in workload.ops if isinstance(op, VectorOp)}
            found.update({name} if (holders - products) & beside else ())
            continue
        for number, tensor in enumerate(workload.tensors):
            if workload.tensors[first_of[number]].made >= 0 or tensor.elements != held[name][1]:
                continue
            readers = [workload.ops[i] for i in tensor.read]
            ours = any(isinstance(op, MatrixOp) and op.parameter == name for op in readers)
            beside = {op.name for op in readers if isinstance(op, VectorOp) and not _casts(op)}
            if beside and (ours or beside & holders):
                found.add(name)
    return found


def _casts(op: VectorOp) -> bool:
    return op.op.removeprefix("aten.").removesuffix("_") in CASTS
