"""Which pass a recorded op belongs to, which parameter it is about, and what its operands are in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..gemm import Gemm, Pass
from ..operand import Operand, Role
from ..step import MatrixOp, VectorOp
from .products import Product
from .provenance import Ledger, Origin, Provenance, stored_bytes
from .traffic import dtype_name

__all__ = ["ForwardOp", "Record", "Roles", "Weight", "operands", "pass_and_parameter", "roles", "settle", "weight_of"]

_ROLES = {
    Origin.CONSTANT: Role.ACTIVATION,
    Origin.PARAMETER: Role.WEIGHT,
    Origin.LEARNED: Role.ACTIVATION,
    Origin.DATA: Role.ACTIVATION,
    Origin.GRADIENT: Role.GRADIENT,
}

_SUMS = ("aten.add", "aten.add_")


@dataclass(frozen=True, slots=True)
class Weight:
    """The weights among the operands of a product: how many, their names, elements of each.

    ``derived`` names an operand that is made of parameters too but stands for an activation: a learned query, say, that
    enters a linear layer. ``chosen`` says that data chose them, as it chooses the experts of a token.
    """

    count: int
    parameter: str | None
    elements: tuple[int, ...]
    derived: str | None = None
    chosen: bool = False


@dataclass(slots=True)
class ForwardOp:
    """What a forward op leaves for its gradient: its module, whether its result is data, the weight of each product.

    ``custom`` is that of an autograd function of the model's own, which is made of several ops.
    """

    path: str
    custom: bool
    makes_data: bool = False
    weights: list[Weight] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """One op of the step, with the storages it reads and writes, and its autograd node.

    ``of_data`` tells that this node takes in the gradient of a tensor that depends on data.
    """

    op: MatrixOp | VectorOp
    reads: Sequence[Provenance]
    writes: Sequence[Provenance]
    node: int
    of_data: bool


_NO_WEIGHT = Weight(0, None, ())


def weight_of(tensors: Iterable[Tensor], ledger: Ledger) -> Weight:
    """What of ``tensors``, the operands of one product, is a weight.

    Everything made of parameters alone but the input of a layer; else the one operand that data chose from parameters.
    """
    given = list(tensors)
    sources = [ledger.of(tensor) for tensor in given]
    if not any(source.is_parameter or source.chosen for source in sources):
        return _NO_WEIGHT
    if len(given) == 2 and sources[0].is_parameter is not sources[1].is_parameter:
        place = 0 if sources[0].is_parameter else 1
        if sources[1 - place].origin > Origin.PARAMETER:
            return Weight(1, _names(given[place : place + 1], ledger), (given[place].numel(),))
    entered = ledger.layer_input(*given) if len(given) == 2 else None
    found = [tensor for tensor, source in zip(given, sources, strict=True) if source.is_parameter]
    chosen = [tensor for tensor, source in zip(given, sources, strict=True) if source.chosen]
    if not found and len(chosen) == 1:
        return Weight(1, _names(chosen, ledger), (chosen[0].numel(),), chosen=True)
    derived = [tensor for tensor in found if tensor is entered]
    weights = [tensor for tensor in found if tensor is not entered]
    elements = tuple(tensor.numel() for tensor in weights)
    return Weight(len(weights), _names(weights, ledger), elements, _names(derived, ledger))


def _names(tensors: Iterable[Tensor], ledger: Ledger) -> str | None:
    found = [ledger.of(tensor) for tensor in tensors]
    return "+".join(dict.fromkeys(name for each in found for name in each.parameters or each.chosen)) or None


def _derived(forward: ForwardOp | None) -> set[str]:
    """Names of the parameter-made operands that are activations of a forward op."""
    return {weight.derived for weight in forward.weights if weight.derived} if forward else set()


def pass_and_parameter(
    product: Product, read: Weight, forward: ForwardOp | None, ledger: Ledger, *, backward: bool
) -> tuple[Pass, str | None]:
    """Pass and parameter of a product, from the classes of its operands and of those of its forward product.

    ``read`` is what of its operands is a weight. Matching the saved tensors instead would mis-file recomputed
    activations.
    """
    if not backward:
        return Pass.FF, read.parameter
    if product.gradient_of is not None and product.other is not None:
        target = weight_of((product.gradient_of,), ledger)
        beside = target.chosen and not weight_of((product.gradient_of, product.other), ledger).chosen
        if target.count and not beside and target.parameter not in _derived(forward):
            return Pass.WU, target.parameter
        return Pass.BP, weight_of((product.other,), ledger).parameter
    weights = [weight for weight in (forward.weights if forward else ()) if weight.count]
    if not weights:
        # The gradient of what is made of parameters alone (the inverse in an orthogonal weight) is on its way to them.
        weight_space = forward is not None and not forward.makes_data
        return Pass.WU if weight_space else Pass.BP, read.parameter
    sole = [weight for weight in weights if weight.count == 1 and weight.chosen == read.chosen]
    if read.count and any(weight.derived != read.parameter for weight in sole):
        return Pass.BP, read.parameter
    size = product.gemm.groups * product.gemm.m * product.gemm.n // (1 + product.c.is_complex())
    # A node of several products (a custom autograd function): the weight whose gradient has this size.
    chosen = next((weight for weight in weights if size in weight.elements), weights[0])
    return Pass.WU, chosen.parameter


Roles = tuple[Role, Role, Role]


def roles(product: Product, read: Weight, forward: ForwardOp | None, ledger: Ledger, *, backward: bool) -> Roles:
    """What operands a, b and c of a product are."""
    derived = _derived(forward) if backward else {read.derived}
    first, second = [
        Role.ACTIVATION if derived and _names([tensor], ledger) in derived else _ROLES[ledger.of(tensor).origin]
        for tensor in (product.a, product.b)
    ]
    made = Role.WEIGHT if first is second is Role.WEIGHT else Role.ACTIVATION
    return first, second, Role.GRADIENT if backward else made


def operands(product: Product, roles: Roles) -> tuple[Operand, Operand, Operand]:
    """Operands a, b and c of a product with format and bytes as stored."""
    gemm, a, b, c = product.gemm, product.a, product.b, product.c
    sizes = _part_sizes(gemm) if product.partial else (None, None, None)
    first, second, third = (
        Operand(
            role=role,
            dtype=dtype_name(tensor.dtype),
            bytes=stored_bytes(tensor) if size is None else size * tensor.element_size(),
        )
        for tensor, role, size in zip((a, b, c), roles, sizes, strict=True)
    )
    return first, second, third


def _part_sizes(gemm: Gemm) -> tuple[int, int, int]:
    g = gemm.groups
    return g * gemm.m * gemm.k, g * gemm.k * gemm.n, g * gemm.m * gemm.n


def settle(records: Sequence[Record], gradients: set[Provenance]) -> None:
    """Move to WU the backward vector ops whose results only reach the parameters' ``gradients``.

    Walks backwards: what only a weight-update op reads was made for the weight update, unless it is the gradient of
    a tensor that depends on data, which comes in from another node. Sums of gradients belong to what they sum.
    """
    maker = {storage: record.node for record in records for storage in record.writes}
    update_only, needed = set(gradients), set[Provenance]()
    moved: dict[int, tuple[MatrixOp | VectorOp, VectorOp]] = {}  # equal ops are one object
    for record in reversed(records):
        op, writes = record.op, record.writes
        undecided = isinstance(op, VectorOp) and op.pass_ is Pass.BP and needed.isdisjoint(writes)
        if isinstance(op, VectorOp) and undecided and not update_only.isdisjoint(writes):
            if id(op) not in moved:
                moved[id(op)] = op, replace(op, pass_=Pass.WU)
            record.op = moved[id(op)][1]
            whole = op.op in _SUMS or not record.of_data
            inner = {storage for storage in record.reads if whole or maker.get(storage) == record.node}
            update_only |= inner
            needed.update(set(record.reads) - inner)
        else:
            needed.update(record.reads)
