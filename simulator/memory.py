"""What a step needs of DRAM: what is there from step to step, and what the step makes, placed by when it is wanted."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.allocation import ALIGNMENT, Packed, pack
from ..dataflow.config_io import load_spec, preset_names
from ..dataflow.fallback import ungathered
from ..dataflow.lifetimes import Live, lives
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.gemm import Pass
from ..workloads.step import MatrixOp, Op, UpdateOp, Workload
from .eager_memory import eager_bound
from .model_memory import model_bytes, model_tensors
from .regions import compact_bytes

__all__ = ["MemoryNeed", "exceeds", "memory_need", "require_capacity", "require_room"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes of DRAM by kind; ``total`` is what holds the step.

    From step to step: ``frozen_weights``, which the step reads of the model and does not train, in operands where they
    are floating; ``weight_copies``, what FF and BP read of trained weights, with their scales, and compact, packed and
    gathered forms of all; FP32 ``master_weights`` and ``optimizer_state``; ``kv_cache``, keys and values after the
    step. A frozen weight that is read in such forms alone is not kept beside them.

    When most is alive, ops one after the other: ``activations`` (the batch, what is kept running, results of FF),
    ``gradients`` of them, ``weight_gradients``, ``scratch`` (compact forms that a product makes and reads again).
    ``fragmentation``: what the static allocator takes beyond that, to places of 64 bytes. ``traced``: lifetimes are
    those of the trace; without one what eager training keeps is counted, an upper bound.
    """

    frozen_weights: int
    master_weights: int
    optimizer_state: int
    weight_copies: int
    weight_gradients: int
    activations: int
    gradients: int
    scratch: int = 0
    kv_cache: int = 0
    fragmentation: int = 0
    traced: bool = True

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by kind in words, without those of which there is nothing."""
        kinds = (f.name for f in fields(self) if f.name != "traced")
        return {kind.replace("_", " "): getattr(self, kind) for kind in kinds if getattr(self, kind)}

    @property
    def fixed(self) -> int:
        """What of the model is there from step to step."""
        return self.frozen_weights + self.master_weights + self.optimizer_state + self.weight_copies

    @property
    def words(self) -> str:
        """What it is a table of."""
        by = "as placed by lifetimes" if self.traced else "at most, as no trace tells lifetimes"
        return f"DRAM at the peak of the step, {by}"

    @property
    def alive(self) -> int:
        """The most that is there at a time, which no placement goes below."""
        return self.total - self.fragmentation

    @property
    def total(self) -> int:
        """All of it, as it is placed."""
        return sum(self.parts.values())


def memory_need(workload: Workload, spec: AcceleratorSpec, chosen: Schedule | None = None) -> MemoryNeed:
    """The need of one step on ``spec``, in its formats.

    ``chosen``: its schedule, which tells what stays on chip of what the step makes, and what products put down for
    themselves. Weights that stay on chip keep their place in DRAM.
    """
    workload = ungathered(workload, spec)
    model = model_bytes(workload, spec)
    if not workload.tensors:
        eager = eager_bound(workload.ops, spec)
        return MemoryNeed(
            **model._asdict(),
            weight_gradients=spec.pe.operand.size(workload.parameters),
            activations=eager.kept,
            gradients=eager.working,
            scratch=max((one.size for _, one in _scratch(chosen)), default=0),
            traced=False,
        )
    found = _alive(workload, spec, chosen)
    placed = _placed([one for _, one in found])
    kinds = dict.fromkeys(_KINDS, 0)
    for kind, one in found:
        if one.first <= placed.busiest <= one.last:
            kinds[kind] += one.size
    return MemoryNeed(
        **model._asdict(),
        weight_gradients=kinds["weight_gradients"],
        activations=kinds["activations"],
        gradients=kinds["gradients"],
        scratch=kinds["scratch"],
        fragmentation=placed.peak - sum(kinds.values()),
    )


def require_capacity(workload: Workload, spec: AcceleratorSpec, chosen: Schedule | None = None) -> MemoryNeed:
    """What a step needs of DRAM; refused, with what would fit, where it is more than its machine has."""
    need = memory_need(workload, spec, chosen)
    found = exceeds(workload, spec, need, chosen)
    if found is not None:
        raise InputError(found)
    return need


def require_room(workload: Workload, spec: AcceleratorSpec) -> None:
    """As `require_capacity`, for who asks no need: where all that a step makes fits at once, nothing is placed."""
    capacity, held = spec.dram.capacity_bytes, ungathered(workload, spec)
    if capacity is None:
        return
    if held.tensors:
        made = sum(one.size + ALIGNMENT for _, one in _alive(held, spec, None))
        if sum(model_bytes(held, spec)) + made <= capacity:
            return
    require_capacity(workload, spec)


def exceeds(workload: Workload, spec: AcceleratorSpec, need: MemoryNeed, chosen: Schedule | None = None) -> str | None:
    """In words, by how much a step exceeds the DRAM of its machine and what could hold it; None where it fits, and
    where it may once a schedule (``chosen``) keeps tensors on chip."""
    capacity = spec.dram.capacity_bytes
    spared = 0 if chosen is not None else spec.buffers.resident_bytes
    if capacity is None or (need.alive - spared if spared else need.total) <= capacity:
        return None
    parts = ", ".join(f"{kind} {_size(size)}" for kind, size in need.parts.items())
    fits = _at_batch(workload, spec, need, chosen)
    advice = [_batch_words(workload.batch, capacity, fits)]
    if need.kv_cache:
        # Keys and values grow with the tokens alone; what else the step wants is taken as it is.
        tokens = workload.phase.context + workload.phase.tokens
        most = tokens * (capacity - (need.total - need.kv_cache)) // need.kv_cache
        if need.total - need.kv_cache < capacity:
            advice.append(f"at this batch the cache holds {most:,} of {tokens:,} tokens a sample")
    elif workload.phase.trains and fits(0) < capacity and not any(_again(op) for op in workload.ops):
        advice.append("with layers recomputed (--recompute PATH, or trace(..., recompute=)) it keeps fewer activations")
    advice += _larger(workload, spec)
    at_most = "" if need.traced else "at most "
    return (
        f"a step of {workload.model!r} at batch {workload.batch} needs {at_most}{_size(need.total)} of DRAM ({parts}), "
        f"but dram.capacity_bytes of {spec.name!r} is {_size(capacity)}: {'; '.join(advice)}"
    )


_KINDS = ("activations", "gradients", "weight_gradients", "scratch")
_KIND_OF: Mapping[str, str] = dict(
    zip(Pass, ("activations", "gradients", "weight_gradients", "weight_gradients"), strict=True)
)
"""What ops of a pass make."""


def _again(op: Op) -> bool:
    return not isinstance(op, UpdateOp) and op.recompute


def _alive(workload: Workload, spec: AcceleratorSpec, chosen: Schedule | None) -> list[tuple[str, Live]]:
    """What the step makes, and the batch, by kind."""
    on_chip = _on_chip(workload, chosen)
    made = lives(workload, model_tensors(workload), spec.pe.operand, on_chip)
    return [*((_kind(one, workload.ops), one) for one in made), *_scratch(chosen)]


def _kind(one: Live, ops: Sequence[Op]) -> str:
    return _KIND_OF[ops[one.made].pass_] if one.made >= 0 else "activations"


def _on_chip(workload: Workload, chosen: Schedule | None) -> set[int]:
    """The tensors of the step that never are in DRAM."""
    if chosen is None or chosen.residency is None:
        return set()
    found, products = set[int](), set[int]()
    for kept in chosen.residency.kept:
        if kept.tensor is not None:
            found.add(kept.tensor)
        elif kept.kind == "gradient":
            products.update(use.op for use in kept.uses if use.part == "c")
    return found | {number for number, tensor in enumerate(workload.tensors) if tensor.made in products}


def _scratch(chosen: Schedule | None) -> list[tuple[str, Live]]:
    """Compact forms that a product keeps in DRAM between its uses."""
    found = list[tuple[str, Live]]()
    for i, placement in enumerate(chosen.placements if chosen is not None else ()):
        if placement is not None and placement.mapping.compact == "memory":
            assert chosen is not None, "it has placements"
            op = chosen.as_run.ops[i]
            assert isinstance(op, MatrixOp), "only products are placed"
            size = compact_bytes(op, chosen.spec.pe.operand)
            found.append(("scratch", Live(size=size, first=i, last=i, made=i)))
    return found


def _placed(found: Sequence[Live]) -> Packed:
    return pack([one.size for one in found], [one.first for one in found], [one.last for one in found])


def _batch_words(of: int, capacity: int, fits: Callable[[int], int]) -> str:
    """Which batch below ``of`` the DRAM would hold."""
    if fits(0) >= capacity:
        return f"no batch fits, as what does not grow with it takes {_size(fits(0))}"
    batch = bisect_left(range(1, of), True, key=lambda batch: fits(batch) > capacity)
    return f"a batch of {batch} fits" if batch else "not even a batch of 1 fits"


def _at_batch(
    workload: Workload, spec: AcceleratorSpec, need: MemoryNeed, chosen: Schedule | None
) -> Callable[[int], int]:
    """The need at other batches. Of a trace what has a multiple of the batch in bytes grows with it, but for gradients
    of weights; without one all that the step makes."""
    of, fixed = workload.batch, need.fixed
    if not need.traced:
        fixed += need.weight_gradients
        return lambda batch: fixed + (need.total - fixed) * batch // of
    found = _alive(workload, spec, chosen)

    def at(batch: int) -> int:
        scaled = [
            one._replace(size=one.size // of * batch) if kind != "weight_gradients" and one.size % of == 0 else one
            for kind, one in found
        ]
        return fixed + need.kv_cache * batch // of + _placed([one for one in scaled if one.size]).peak

    return at


def _larger(workload: Workload, spec: AcceleratorSpec) -> list[str]:
    """The smallest machine of those that ship which holds the step."""
    others = [load_spec(name) for name in preset_names()]
    able = [
        (other.dram.capacity_bytes, other.name)
        for other in others
        if other.dram.capacity_bytes is not None
        and other.dram.capacity_bytes > (spec.dram.capacity_bytes or 0)
        and memory_need(workload, other).total <= other.dram.capacity_bytes
    ]
    return [f"the DRAM of {name!r}, {_size(size)}, holds it" for size, name in sorted(able)[:1]]


def _size(size: int) -> str:
    units = ((10**15, "PB"), (10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
    scale, unit = next(((s, u) for s, u in units if size >= s), (1, "B"))
    return f"{size / scale:.3g} {unit}"
