"""One training step as an ordered list of ops: what the machine has to do, before anything is placed on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field

from .copies import MAX_MOVED, PackedCopy, WeightCopy, as_read, compact_copy, in_words
from .errors import InputError, require_int
from .gemm import GEMM_PASSES, Gemm, Pass
from .joined import Fusion, Joined
from .one_line import OneLine
from .operand import MAX_BYTES, Gathered, Operand, Role, SparseOperand, require_dtype
from .phase import TRAINING, Phase
from .rows import OptionalRows
from .sparsity import LayerPattern, NMPattern
from .tensors import StepTensor, require_replaced
from .update_rule import SGD, Updated, UpdateRule, update_rule
from .words import count, named, scheme_name

__all__ = ["SCHEMA", "Frozen", "MatrixOp", "Measured", "Op", "UpdateOp", "VectorOp", "Workload", "require_products"]

SCHEMA: Final = 2
"""Version of the JSON form; `io.py` turns 1 into it, a file of another version is refused."""

_STRICT = {"extra": "forbid"}
_ALIASED = {**_STRICT, "alias_generator": lambda name: name.rstrip("_")}
"""``pass`` is a keyword of Python, not of JSON."""
_UNLESS_USED = Field(exclude_if=lambda value: not value)
"""Of what most ops have none of: files do not say so."""

_STATE_BYTES = 32
"""More than an update moves each way a parameter, whatever the optimizer (Adam: 14) and the compact copies."""


def _fits(side: str, elements: int, full: int) -> bool:
    """Whether a tensor of ``elements`` can be the matrix: a dimension expanded with stride 0 is stored once."""
    return elements == full or (side != "c" and full % elements == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixOp:
    """One GEMM of the step: C = A B, with where it comes from and what of it may be sparse.

    ``name`` is the module path, ``op`` the operator that was dispatched, ``parameter`` the weight it reads (FF, BP) or
    whose gradient it makes (WU). ``kept_dense`` says why a scheme left the op as it is, dense or in full precision.
    ``plane``: which product, of a weight that is a sum of several. ``rows``: of a weight in use, which lines are read.
    """

    __pydantic_config__ = _ALIASED

    kind: Literal["matrix"] = "matrix"
    name: str
    op: str
    pass_: Pass
    gemm: Gemm
    a: Operand
    b: Operand
    c: Operand
    parameter: str | None = None
    convolution: bool = False
    recompute: bool = False
    sparse: SparseOperand | None = None
    kept_dense: str = ""
    plane: Annotated[int, Field(exclude_if=lambda plane: not plane)] = 0
    rows: OptionalRows = None

    def __post_init__(self) -> None:
        require_int(f"plane of matrix op {self.name!r}", self.plane, 0, 2**10)
        if self.pass_ not in GEMM_PASSES:
            raise InputError(f"pass of matrix op {self.name!r} must be FF, BP or WU, not {self.pass_}")
        g = self.gemm
        if isinstance(self.sparse, Gathered):
            self.sparse.check(g)
        if self.rows is not None:
            self.rows.check(self.name, g, "b" if self.b.role is Role.WEIGHT else "a", str(self.sparse or ""))
        sizes = (("a", self.a, g.m * g.k), ("b", self.b, g.k * g.n), ("c", self.c, g.m * g.n))
        odd = [(side, x.elements, g.groups * n) for side, x, n in sizes if not _fits(side, x.elements, g.groups * n)]
        # The windows of a convolution overlap, leave out or reach over the edge, on one side.
        if len(odd) > self.convolution:
            side, found, full = odd[-1]
            rule = "all of them" if side == "c" else "all of them, or a part that is repeated as a whole"
            raise InputError(
                f"operand {side} of matrix op {self.name!r} holds {found} elements, but {g} takes {full}: {rule}"
                + ("; of a convolution one operand may differ" if self.convolution else "")
            )

    def packed_as(self, operand: Operand) -> PackedCopy:
        """The packed form in which the op reads an operand of its own that has levels."""
        assert operand.levels is not None, "only an operand with levels is packed"
        return PackedCopy(
            role=operand.role,
            levels=operand.levels,
            pass_=self.pass_,
            elements=operand.elements,
            run=self.gemm.run,
            plane=self.plane if operand.role is Role.WEIGHT else 0,
        )

    @property
    def packed_operands(self) -> tuple[PackedCopy, ...]:
        """The packed forms that the op reads."""
        return tuple(self.packed_as(x) for x in (self.a, self.b) if x.levels is not None)

    def packed(self, role: Role) -> PackedCopy | None:
        """The packed operand of that role which the op reads, None where it has no levels."""
        return next((copy for copy in self.packed_operands if copy.role is role), None)

    @property
    def copy(self) -> WeightCopy | None:
        """The copy of its weight that the op reads, None where it reads the dense weight or makes the copy itself."""
        if self.parameter is None or self.pass_ is Pass.WU:
            return None
        return self.packed(Role.WEIGHT) if self.sparse is None else compact_copy(self.sparse, self.gemm)

    @property
    def macs(self) -> int:
        """Multiply-accumulates that change the result: kept elements only where an operand is sparse."""
        g = self.gemm
        return g.macs if self.sparse is None else self.sparse.macs(g)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorOp:
    """Element-wise, normalisation, softmax, pooling or copy work, as the byte traffic of its tensors.

    What a scheme of few values adds names the ``parameter`` of the layer that it is for. Besides tensors of ``dtype``
    it writes packed ones, ``packs``, and moves bytes of FP32, which every machine has, ``wide_read`` and
    ``wide_write``. ``edge``: it only scales the result of the product before, which an XNOR engine does at its edge.
    ``joined``: it is done while that op is, the latest before it of that name, and masks of a bit count as wide.
    ``chip_read``, ``chip_write``: machine bytes of all that which stay on chip between ops.
    """

    __pydantic_config__ = _ALIASED

    kind: Literal["vector"] = "vector"
    name: str
    op: str
    pass_: Pass
    dtype: str
    elements: int
    read_bytes: int
    write_bytes: int
    recompute: bool = False
    parameter: Annotated[str | None, _UNLESS_USED] = None
    packs: Annotated[tuple[PackedCopy, ...], _UNLESS_USED] = ()
    wide_read: Annotated[int, _UNLESS_USED] = 0
    wide_write: Annotated[int, _UNLESS_USED] = 0
    edge: Annotated[bool, _UNLESS_USED] = False
    joined: Annotated[Joined | None, _UNLESS_USED] = None
    chip_read: Annotated[int, _UNLESS_USED] = 0
    chip_write: Annotated[int, _UNLESS_USED] = 0

    def __post_init__(self) -> None:
        require_dtype(f"vector op {self.name!r}", self.dtype)
        for size in ("elements", "read_bytes", "write_bytes", "wide_read", "wide_write", "chip_read", "chip_write"):
            require_int(f"{size} of vector op {self.name!r}", getattr(self, size), 0, MAX_MOVED)
        # How many bytes they take is open: a tensor that is expanded is read once, an op may read many tensors.
        if self.elements and not self.moved and self.joined is None:
            raise InputError(f"vector op {self.name!r} has {self.elements} elements, but reads and writes 0 bytes")

    @property
    def lanes(self) -> int:
        """Elements that the lanes of the vector unit take."""
        return self.elements if self.joined is None else self.joined.lanes

    @property
    def moved(self) -> int:
        """Bytes read and written, of tensors of ``dtype`` as PyTorch stores them."""
        own = self.read_bytes + self.write_bytes + self.wide_read + self.wide_write
        return own + sum(copy.bytes for copy in self.packs)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOp:
    """The optimizer's step on one parameter, and the N:M or packed copies of it that the next step reads.

    ``dense_copy``: some pass still reads the dense weight. ``looks``: how often all new weights must have been seen
    before the first can be packed. ``scales``: FP32 numbers made of them and written beside the copies. ``on_chip``:
    what of its tensors stays there between ops.
    """

    __pydantic_config__ = _ALIASED

    kind: Literal["update"] = "update"
    name: str
    elements: int
    dense_copy: bool = True
    copies: tuple[WeightCopy, ...] = ()
    looks: Annotated[int, _UNLESS_USED] = 0
    scales: Annotated[int, _UNLESS_USED] = 0
    on_chip: Annotated[tuple[Updated, ...], _UNLESS_USED] = ()

    def __post_init__(self) -> None:
        require_int(f"elements of update op {self.name!r}", self.elements, 1, MAX_MOVED // _STATE_BYTES)
        require_int(f"looks of update op {self.name!r}", self.looks, 0, 64)
        planes = 1 + max((copy.plane for copy in self.copies if isinstance(copy, PackedCopy)), default=0)
        require_int(f"scales of update op {self.name!r}", self.scales, 0, planes * self.elements)

    @property
    def pass_(self) -> Pass:
        """Always the optimizer."""
        return Pass.OPT


Op = Annotated[MatrixOp | VectorOp | UpdateOp, Discriminator("kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A tensor of the model that the step reads and never writes: a parameter without gradient, a buffer."""

    __pydantic_config__ = _STRICT

    name: str
    dtype: str
    elements: int

    def __post_init__(self) -> None:
        require_dtype(f"frozen tensor {self.name!r}", self.dtype)
        require_int(f"elements of frozen tensor {self.name!r}", self.elements, 1, MAX_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a training found in one layer, which is named by its module path.

    ``density``: share of non-zeros of the weight in FF and BP and of the gradient in WU, in the last step.
    ``flip_rate``: share of the weights whose mask changed in that step. ``sad``: share of the weights whose mask
    differs from that of the first step. ``kept_dense``: why the training kept a pass of the layer dense.
    """

    __pydantic_config__ = _STRICT

    layer: str
    density: dict[Pass, float] = field(default_factory=dict, hash=False)
    flip_rate: float | None = None
    sad: float | None = None
    kept_dense: dict[Pass, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        shares: dict[str, float | None] = {f"density in {p}": share for p, share in self.density.items()}
        shares |= {"flip rate": self.flip_rate, "SAD": self.sad}
        for what, share in shares.items():
            if share is not None and not 0.0 <= share <= 1.0:
                raise InputError(f"measured {what} of layer {self.layer!r} must be from 0 to 1, not {share}")

    def names(self, op: MatrixOp | UpdateOp) -> bool:
        """Whether ``op`` works for this layer; a tied parameter (``a=b``) belongs to all that hold it."""
        parameter = op.name if isinstance(op, UpdateOp) else op.parameter
        if parameter is None:
            return False
        holders = {name.rpartition(".")[0] for name in parameter.split("=")}
        return self.layer in holders or (isinstance(op, MatrixOp) and op.name == self.layer)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Workload(OneLine):
    """The ordered ops of one step of ``model`` at ``batch`` samples, of training unless ``phase`` says another use.

    ``after``: for every op those before it that must have ended, as the tensors of the trace tell; empty where no trace
    does. ``frozen``: what of the model the step reads and does not train; files of older versions do not list it.
    ``layer_patterns``: the rules for layers under which it was annotated; ``pattern`` is that of all other layers.
    ``assumed``: what the trace answered a model that asks for values, and took what a file quantises for.
    ``tensors``: those of the trace, by which vector work can be fused; empty where no trace tells, or where a scheme
    has put ops in. ``fusion``: what was. ``measured``: what a training of the model under the scheme found. It changes
    neither cycles nor energy: the machine skips what the pattern says, and a kept element that happens to be zero is
    issued as a bubble.
    """

    __pydantic_config__ = _STRICT

    schema: Literal[2] = SCHEMA
    model: str
    batch: int
    input: str = ""
    optimizer: str = SGD.name
    scheme: str = "dense"
    pattern: NMPattern | None = None
    ops: tuple[Op, ...]
    after: tuple[tuple[int, ...], ...] = ()
    frozen: tuple[Frozen, ...] = ()
    measured: tuple[Measured, ...] = ()
    layer_patterns: tuple[LayerPattern, ...] = ()
    assumed: tuple[str, ...] = ()
    tensors: tuple[StepTensor, ...] = field(default=(), compare=False)
    fusion: Annotated[Fusion, Field(exclude_if=lambda fusion: fusion == "none")] = "none"
    phase: Annotated[Phase, Field(exclude_if=lambda phase: phase == TRAINING)] = TRAINING

    def __post_init__(self) -> None:
        require_int(f"batch of workload {self.model!r}", self.batch, 1, 2**31)
        update_rule(self.optimizer)
        if not self.ops:
            raise InputError(f"workload {self.model!r} has no ops")
        if self.after and len(self.after) != len(self.ops):
            raise InputError(f"after of workload {self.model!r} names {len(self.after)} ops, not {len(self.ops)}")
        for i, before in enumerate(self.after):
            for other in before:
                require_int(f"after of op {i} of workload {self.model!r}", other, 0, max(i - 1, -1))
        moved = sum(op.moved for op in self.ops if isinstance(op, VectorOp))
        moved += sum(2 * _STATE_BYTES * op.elements for op in self.ops if isinstance(op, UpdateOp))
        require_int(f"bytes that workload {self.model!r} moves without a product", moved, 0, 8 * MAX_MOVED)
        _require_copies(self.ops)
        if not all(-1 <= t.made <= t.last < len(self.ops) for t in self.tensors):
            raise InputError(
                f"tensors of workload {self.model!r} name ops that it has not: they are 0 to {len(self.ops) - 1}; of "
                "other ops than those that were traced tensors are ()"
            )
        require_replaced(self.model, self.tensors)
        for i, op in enumerate(self.ops):
            if isinstance(op, VectorOp) and op.edge and not (i and isinstance(self.ops[i - 1], MatrixOp)):
                raise InputError(f"vector op {op.name!r} has edge set, so it must stand right behind its product")
        seen = {op.name for op in self.ops if isinstance(op, UpdateOp)} if self.frozen else set()
        for tensor in self.frozen:
            if tensor.name in seen:
                raise InputError(
                    f"frozen tensor {tensor.name!r} of workload {self.model!r} is trained or listed before: "
                    "list it once, or leave it to its update"
                )
            seen.add(tensor.name)

    @property
    def rule(self) -> UpdateRule:
        """What ``optimizer`` names."""
        return update_rule(self.optimizer)

    @property
    def matrix_ops(self) -> tuple[MatrixOp, ...]:
        """The GEMMs alone, in order."""
        return tuple(op for op in self.ops if isinstance(op, MatrixOp))

    @property
    def dense_macs(self) -> dict[Pass, int]:
        """Multiply-accumulates per pass of the dense step, without what checkpointing computes again."""
        totals = dict.fromkeys(GEMM_PASSES, 0)
        for op in self.matrix_ops:
            if not op.recompute:
                totals[op.pass_] += op.gemm.macs
        return totals

    @property
    def recomputed_macs(self) -> int:
        """Multiply-accumulates of FF that checkpointing computes again in the backward pass."""
        return sum(op.gemm.macs for op in self.matrix_ops if op.recompute)

    @property
    def parameters(self) -> int:
        """Trained parameters."""
        return sum(op.elements for op in self.ops if isinstance(op, UpdateOp))

    @property
    def title(self) -> str:
        """Model, batch, scheme and pattern, as one line names the step."""
        fused = "" if self.fusion == "none" else f", fusion {self.fusion}"
        scheme = scheme_name(self.scheme, self.pattern, self.layer_patterns)
        use = "" if self.phase.trains else f", {self.phase.words}"
        rows = next((f", {op.rows.form} rows" for op in self.matrix_ops if op.rows), "")
        return f"{named(self.model)}, batch {self.batch}{use}, {scheme}{rows}{fused}"

    def _said(self) -> str:
        return f"{self.title}: {len(self.ops):,} ops, {count(sum(self.dense_macs.values()))} multiply-accumulates"


def require_products(model: str, ops: Iterable[MatrixOp | VectorOp | UpdateOp]) -> None:
    """Refuse a step of element-wise work alone: an array has no part in it, and no figure about it a meaning."""
    if not any(isinstance(op, MatrixOp) for op in ops):
        raise InputError(f"model {model!r} multiplies no matrices, so there is nothing to place on an array")


def _require_copies(ops: Sequence[MatrixOp | VectorOp | UpdateOp]) -> None:
    """Refuse an update whose copies are not those that the products of its parameter read, as far as there are any.

    How large the parameter is says nothing: a weight may be a slice of it, or repeat or pad it.
    """
    readers: dict[str, list[MatrixOp]] = {}
    for op in ops:
        if isinstance(op, MatrixOp) and op.parameter is not None and op.pass_ is not Pass.WU:
            readers.setdefault(op.parameter, []).append(op)
    for op in ops:
        if not isinstance(op, UpdateOp) or op.name not in readers:
            continue
        if any(isinstance(read.sparse, Gathered) and not read.sparse.online for read in readers[op.name]):
            raise InputError(f"{op.name!r} is stored without a pattern, but a step that trains it writes no such copy")
        if op.dense_copy and not op.copies:
            continue
        read = {reader.copy for reader in readers[op.name]}
        other = next((copy for copy in op.copies if as_read(copy) not in read), None)
        if other is not None:
            found = ", ".join(in_words(copy) for copy in read if copy is not None) or "none"
            raise InputError(
                f"update op {op.name!r} makes a {other.kind} copy that keeps {in_words(other)}, but the "
                f"products of {op.name!r} read {found}"
            )
        if None in read and not op.dense_copy:
            raise InputError(f"update op {op.name!r} makes no dense copy, but a product reads {op.name!r} dense")
