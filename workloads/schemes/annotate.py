"""A workload under a scheme: which operands are N:M or of few values, why others are not, which copies updates make.

N:M helps only along the contraction of the pass that uses it, so a mask made for FF (input channels) is dense work in
BP (output channels) unless BP has its own, and in WU the contraction is the batch and the positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from ..copies import PackedCopy, WeightCopy
from ..errors import InputError, nearest
from ..gemm import Pass
from ..groups import Groups, GroupShape
from ..levels import Levels
from ..operand import NMOperand, Role
from ..sparsity import LayerPattern, LayerPatterns, NMPattern
from ..step import MatrixOp, Measured, Op, UpdateOp, Workload
from ..unstructured import Drawn, Unstructured
from .added_work import with_vector_work, without_vector_work
from .attention import Parts, attention_parts
from .description import FIRST_LAYER, LAST_LAYER
from .planes import with_planes, without_planes
from .scheme import Scheme, scheme

__all__ = [
    "EXPANDED",
    "FIRST_CONVOLUTION",
    "NO_WEIGHT",
    "OWN_LEVELS",
    "annotate",
    "asked_patterns",
    "copy_key",
    "layer_names",
    "layers_by_rule",
    "require_layers",
    "short_run",
    "unstructured",
    "weight_copies",
    "without_levels",
]

FIRST_CONVOLUTION = "first convolution"
NO_WEIGHT = "no weight operand"
OWN_LEVELS = "its operands have few values of their own"
EXPANDED = "gradient is the expanded operand of a transposed convolution"


def short_run(run: int, group: int) -> str:
    """Why a contraction whose runs are shorter than one group stays dense."""
    return f"contraction runs of {run} are shorter than a group of {group}"


def unstructured(role: Role) -> str:
    """Why an operand whose zeros follow no pattern runs as dense."""
    return f"zeros of the {role} follow no N:M pattern"


def annotate(
    workload: Workload, name: str, asked: NMPattern | LayerPatterns | None, measured: Sequence[Measured] = ()
) -> Workload:
    """``workload`` under a scheme; a workload that already carries one is annotated anew.

    ``asked``: one pattern, or patterns by layer. A layer goes by the path of the module that holds its weight, by the
    name of the weight, and by the paths of the ops that read it; all that read one weight share its pattern.

    Left dense, with the reason in ``kept_dense``: ops without a weight, the first convolution, and ops whose runs of
    channels are shorter than one group. A scheme whose training has phases is annotated as its own phase;
    :func:`.scheme.phases` names the scheme and pattern of each of the others. Zeros without a pattern leave training
    dense; in a step of use such weights are `Unstructured`, at the density of the pattern.

    A scheme of few values takes no pattern, but that of integers takes their widths by layer, INT8 unless told. Its
    operands get their ``levels``, and its vector work becomes ops of the step; in full precision stay the layers that
    it names, the first and the last by the products of FF, and those whose operands had levels before. Products of
    attention get those of their parts, where the scheme names any (:func:`.attention.attention_parts`).

    ``measured`` is what a training found. It is kept with the workload, and a layer that the training could not make
    sparse stays dense here too, for the training's reason: modules that multiply on their own do not show in the ops.
    """
    chosen = scheme(name)
    by_layer = asked if isinstance(asked, LayerPatterns) else LayerPatterns(usual=asked)
    chosen.require_no_pattern(by_layer)
    workload = without_levels(workload)
    in_use = bool(chosen.unstructured) and not workload.phase.trains
    if not chosen.sparse and not chosen.takes_integers and not in_use:
        by_layer = LayerPatterns()
    elif by_layer.usual is None and chosen.sparse:
        by_layer = replace(by_layer, usual=_named_usual(name, by_layer))
    _require_measured(workload, measured)
    first = next((op.parameter for op in workload.matrix_ops if op.convolution and op.parameter), None)
    rules = _rules_of(workload, by_layer)
    whole = _full_precision(workload, chosen, first)

    parts = attention_parts(workload) if chosen.attention else {}

    def made(i: int, op: MatrixOp) -> MatrixOp:
        if chosen.levels:
            rule = rules.get(op.parameter or "")
            return _with_levels(op, chosen, rule, whole, measured, parts.get(i, (None, None)))
        return _annotate_op(op, chosen, by_layer, rules.get(op.parameter or ""), first, measured, in_use)

    ops = tuple(made(i, op) if isinstance(op, MatrixOp) else op for i, op in enumerate(workload.ops))
    _require_effect(ops, rules)
    if chosen.planes:
        workload = with_planes(replace(workload, ops=ops), chosen.planes)
        ops = workload.ops
    copies = weight_copies(op for op in ops if isinstance(op, MatrixOp))
    made_of = replace(
        workload,
        scheme=name,
        pattern=by_layer.usual,
        ops=tuple(_with_copies(op, copies) for op in ops),
        measured=tuple(measured),
        layer_patterns=by_layer.rules,
    )
    return with_vector_work(made_of, chosen) if chosen.levels else made_of


def _require_measured(workload: Workload, measured: Sequence[Measured]) -> None:
    if measured and not any(layer.names(op) for layer in measured for op in workload.matrix_ops):
        raise InputError(
            f"no layer that was measured ({', '.join(layer.layer for layer in measured[:3])}, ...) is in workload "
            f"{workload.model!r}: the measurements are of another model"
        )


def _named_usual(name: str, by_layer: LayerPatterns) -> NMPattern:
    """The pattern that a step goes by where a rule for ``*`` leaves no layer to the usual one."""
    named = by_layer.patterns
    if not named or all(rule.layers != "*" for rule in by_layer.rules):
        raise InputError(f"scheme {name!r} needs an N:M pattern, for example 2:8")
    return named[0]


def layer_names(workload: Workload) -> dict[str, tuple[str, ...]]:
    """By parameter, the names that a layer goes by: those of all, where a weight is tied (``a=b``) or made of several
    (``a+b``)."""
    found: dict[str, dict[str, None]] = {}
    for op in workload.matrix_ops:
        if op.parameter is not None:
            parts = op.parameter.replace("+", "=").split("=")
            holders = [name.rpartition(".")[0] for name in parts]
            found.setdefault(op.parameter, {}).update(dict.fromkeys(filter(None, (*holders, op.name, *parts))))
    return {parameter: tuple(names) for parameter, names in found.items()}


def asked_patterns(workload: Workload) -> Callable[[MatrixOp], NMPattern | None]:
    """The pattern that the workload's annotation asks of an op, whether the op can have it or not; None: dense."""
    by_layer = LayerPatterns(usual=workload.pattern, rules=workload.layer_patterns)
    names = layer_names(workload) if by_layer.rules else {}

    def asked(op: MatrixOp) -> NMPattern | None:
        found = by_layer.of(names.get(op.parameter or "", (op.name,))) if by_layer.rules else by_layer.usual
        return found if isinstance(found, NMPattern) else None

    return asked


def layers_by_rule(workload: Workload) -> dict[LayerPattern, list[str]]:
    """The layers for which each rule of the annotation holds, by their first names."""
    by_layer = LayerPatterns(usual=workload.pattern, rules=workload.layer_patterns)
    found: dict[LayerPattern, list[str]] = {rule: [] for rule in by_layer.rules}
    for names in layer_names(workload).values() if found else ():
        rule = by_layer.rule_of(names)
        if rule is not None:
            found[rule].append(names[0])
    return found


def require_layers(workload: Workload, by_layer: LayerPatterns) -> None:
    """Refuse a rule that matches no layer of ``workload``."""
    names = layer_names(workload) if by_layer.rules else {}
    for rule in by_layer.rules:
        if not any(rule.matches(known) for known in names.values()):
            layers = [known[0] for known in names.values()]
            parents = {parent for layer in layers for parent in _parents(layer)}
            raise InputError(f"rule {rule} matches no layer with a weight: {nearest(rule.layers, [*layers, *parents])}")


def _rules_of(workload: Workload, by_layer: LayerPatterns) -> dict[str, LayerPattern]:
    """The rule that holds for each parameter that has one."""
    require_layers(workload, by_layer)
    names = layer_names(workload) if by_layer.rules else {}
    held = {parameter: by_layer.rule_of(known) for parameter, known in names.items()}
    return {parameter: rule for parameter, rule in held.items() if rule is not None}


def _parents(layer: str) -> Iterable[str]:
    parts = layer.split(".")
    return (".".join([*parts[:i], "*"]) for i in range(1, len(parts)))


def _require_effect(ops: Sequence[Op], rules: dict[str, LayerPattern]) -> None:
    """Refuse a pattern for layers of which none can be sparse, with the reason."""
    reasons: dict[LayerPattern, dict[str, str]] = {}
    effective = set()
    for op in ops:
        rule = rules.get(op.parameter or "") if isinstance(op, MatrixOp) else None
        if rule is None or rule.pattern is None or not isinstance(op, MatrixOp):
            continue
        if op.sparse is not None or op.a.levels is not None or op.b.levels is not None:
            effective.add(rule)
        elif op.kept_dense:
            reasons.setdefault(rule, {}).setdefault(op.name, op.kept_dense)
    for rule, why in reasons.items():
        if rule not in effective:
            name, reason = next(iter(why.items()))
            more = f", and {len(why) - 1} more" if len(why) > 1 else ""
            made = "sparse" if isinstance(rule.pattern, NMPattern) else rule.pattern
            raise InputError(f"rule {rule} makes no layer {made}: {name} stays dense ({reason}){more}")


def _annotate_op(
    op: MatrixOp,
    chosen: Scheme,
    by_layer: LayerPatterns,
    rule: LayerPattern | None,
    first: str | None,
    measured: Sequence[Measured],
    in_use: bool,
) -> MatrixOp:
    pattern = by_layer.usual if rule is None else rule.pattern
    assert not isinstance(pattern, Levels), "refused before"
    if op.parameter is not None and op.pass_ in chosen.unstructured:
        free = chosen.unstructured[op.pass_]
        return (
            _in_use(op, chosen, free, pattern, first)
            if in_use
            else replace(op, sparse=None, kept_dense=unstructured(free))
        )
    role = chosen.sparse.get(op.pass_)
    if role is None or by_layer.usual is None:
        return replace(op, sparse=None, kept_dense="")
    if pattern is None:
        return replace(op, sparse=None, kept_dense=f"asked for by {rule}")
    reason = _reason(op, role, pattern, first) or _measured_reason(op, measured)
    side = _side(op, role)
    if reason or side is None:
        return replace(op, sparse=None, kept_dense=reason or f"no {role} operand")
    # A weight made of several parameters is there in this step only: no update of one of them can leave a copy of it.
    made_here = role is Role.WEIGHT and "+" in (op.parameter or "")
    online = op.pass_ in chosen.online or made_here
    return replace(op, kept_dense="", sparse=NMOperand(operand=side, pattern=pattern, online=online))


def _in_use(op: MatrixOp, chosen: Scheme, role: Role, pattern: NMPattern | None, first: str | None) -> MatrixOp:
    """A product of a step of use, whose weight was stored without its zeros in advance.

    The budget is that of the pattern, uniform over the layers; nobody's mask is at hand, so elements, or groups, are
    kept each by itself.
    """
    side = _side(op, role)
    if pattern is None or side is None or op.parameter == first or "+" in (op.parameter or ""):
        reason = FIRST_CONVOLUTION if pattern is not None and op.parameter == first else unstructured(role)
        return replace(op, sparse=None, kept_dense=reason)
    kept = Drawn(density=pattern.density, distribution="binomial")
    if not chosen.groups:
        return replace(op, kept_dense="", sparse=Unstructured(operand=side, kept=kept, stored="bitmap"))
    made = Groups(operand=side, shape=GroupShape.parse(chosen.groups), kept=kept)
    misfit = made.misfit(op.gemm)
    if misfit:
        return replace(op, sparse=None, kept_dense=misfit)
    if chosen.level:
        columns = made.columns(op.gemm)
        level = min(max(round(pattern.density * columns), 1), columns)
        made = replace(made, level=level, kept=Drawn(density=level / columns, distribution="balanced"))
    return replace(op, kept_dense="", sparse=made)


def _measured_reason(op: MatrixOp, measured: Sequence[Measured]) -> str:
    found = (layer.kept_dense.get(op.pass_, "") for layer in measured if layer.names(op))
    return next(filter(None, found), "")


def _full_precision(workload: Workload, chosen: Scheme, first: str | None) -> dict[str, str]:
    """By parameter, why a scheme of few values leaves it alone."""
    forward = (op for op in workload.matrix_ops if op.pass_ is Pass.FF and not op.recompute)
    ends = [op.parameter for op in forward if op.parameter is not None]
    named = {FIRST_LAYER: ends[:1], LAST_LAYER: ends[-1:]}
    found = {parameter: where for where in reversed(chosen.full_precision) for parameter in named[where]}
    return found if first is None else {**found, first: FIRST_CONVOLUTION}


def _with_levels(
    op: MatrixOp,
    chosen: Scheme,
    rule: LayerPattern | None,
    whole: dict[str, str],
    measured: Sequence[Measured],
    parts: Parts,
) -> MatrixOp:
    levels = chosen.levels.get(op.pass_)
    if levels is None:
        return replace(op, sparse=None, kept_dense="")
    if rule is not None and rule.pattern is None:
        return replace(op, sparse=None, kept_dense=f"asked for by {rule}")
    if rule is not None and isinstance(rule.pattern, Levels) and Role.WEIGHT in levels:
        levels = {**levels, Role.WEIGHT: rule.pattern}
    of_parts = [None if part is None else chosen.attention.get(part) for part in parts]
    attended = any(of_parts)
    reason = NO_WEIGHT if op.parameter is None and not attended else whole.get(op.parameter or "", "")
    if op.a.levels is not None or op.b.levels is not None:
        reason = reason or OWN_LEVELS
    reason = reason or _measured_reason(op, measured)
    if reason:
        return replace(op, sparse=None, kept_dense=reason)
    named = of_parts if attended else [levels.get(x.role) for x in (op.a, op.b)]
    a, b = (replace(x, levels=found) for x, found in zip((op.a, op.b), named, strict=True))
    return replace(op, a=a, b=b, sparse=None, kept_dense="")


def without_levels(workload: Workload) -> Workload:
    """``workload`` without the levels, the planes and the vector work of its scheme, with the levels it had before."""
    workload = without_vector_work(workload)
    if not any(op.a.levels or op.b.levels for op in workload.matrix_ops):
        return workload
    levels = scheme(workload.scheme).levels

    def bare(op: Op) -> Op:
        if isinstance(op, UpdateOp):
            return replace(op, dense_copy=True, copies=(), looks=0, scales=0)
        if not isinstance(op, MatrixOp) or op.kept_dense or op.pass_ not in levels:
            return op
        a, b = (replace(x, levels=None) for x in (op.a, op.b))
        return replace(op, a=a, b=b)

    return without_planes(replace(workload, ops=tuple(map(bare, workload.ops))))


def _reason(op: MatrixOp, role: Role, pattern: NMPattern, first: str | None) -> str:
    if op.parameter is None:
        return NO_WEIGHT
    if op.parameter == first:
        return FIRST_CONVOLUTION
    if op.gemm.run < pattern.group:
        return short_run(op.gemm.run, pattern.group)
    if op.pass_ == Pass.WU and op.convolution and _side(op, role) == "b":
        # The tracer puts the operand that im2col expands on side b. An N:M tensor is no longer N:M once expanded.
        return EXPANDED
    return ""


def _side(op: MatrixOp, role: Role) -> Literal["a", "b"] | None:
    if op.b.role == role:
        return "b"
    return "a" if op.a.role == role else None


def copy_key(op: MatrixOp) -> tuple[object, ...]:
    """What two ops that read the same compact copy of a weight have in common.

    FF has it in groups along inputs, BP along outputs: of a square weight both have the same sizes, and are two.
    """
    g, sparse = op.gemm, op.sparse
    return op.pass_, g.k, g.run, g.groups * (g.n if sparse is None or sparse.operand == "b" else g.m)


def weight_copies(ops: Iterable[MatrixOp]) -> dict[str, tuple[bool, tuple[WeightCopy, ...]]]:
    """Per parameter: whether some pass reads it dense, and the distinct copies, compact or packed, of the others."""
    dense: dict[str, bool] = {}
    copies: dict[str, dict[object, WeightCopy]] = {}
    for op in ops:
        if op.parameter is None or op.pass_ == Pass.WU:
            continue
        dense.setdefault(op.parameter, False)
        made: dict[object, WeightCopy] = copies.setdefault(op.parameter, {})
        copy = op.copy
        if copy is None:
            dense[op.parameter] = True
        else:
            made[copy if isinstance(copy, PackedCopy) else copy_key(op)] = copy
    return {name: (dense[name], tuple(copies[name].values())) for name in dense}


def _with_copies(op: Op, copies: dict[str, tuple[bool, tuple[WeightCopy, ...]]]) -> Op:
    if not isinstance(op, UpdateOp):
        return op
    dense, made = copies.get(op.name, (True, ()))
    return replace(op, dense_copy=dense, copies=made, looks=0, scales=0)
