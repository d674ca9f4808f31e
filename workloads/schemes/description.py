"""A training scheme as the machine sees it, and the phases of a training.

Importing this must not import torch, so that saved workloads open quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import InputError, nearest
from ..gemm import Pass
from ..levels import INTEGERS, Levels
from ..operand import Role
from ..sparsity import LayerPatterns, NMPattern
from .attention import Part
from .vector_work import NORM_ALONE, UNDECLARED, VectorWork

__all__ = ["EVERY_STEP", "FIRST_LAYER", "LAST_LAYER", "Phase", "Scheme", "dense_until"]

EVERY_STEP = "every step"
FIRST_LAYER, LAST_LAYER = "first layer", "last layer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training: its share of the steps, and the scheme and pattern that annotate a step of it."""

    share: float
    scheme: str
    pattern: NMPattern | None

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise InputError(f"share of a training phase must be from 0 to 1, not {self.share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A training technique as the machine sees it.

    ``sparse``: role of the N:M operand in each pass that has one; one made of data of the step is selected online.
    ``unstructured``: role of operands whose zeros follow no N:M pattern; in a step of use a gather engine skips them.
    ``levels``: which few values operands have by role, in each pass; ``full_precision``: the layers that keep all of
    theirs, of `FIRST_LAYER` and `LAST_LAYER`; the first convolution always does. ``vector_work``: by role, what that
    adds to the products; of a role that it leaves out, what `work_of` takes for it. ``planes``: of a weight that is a
    sum of planes in FF, the values of each; ``levels`` then have no weight there. ``attention``: the few values of its
    parts, in FF and in the gradients that read them; parts that are not named are numbers.
    ``refresh`` and ``unit``: how often the operands are re-made, and by what. ``recalled``: details of ``paper`` that
    are from memory. ``technique``: ``file.Class`` beside this file that trains so, empty for a scheme of others.
    ``schedule``: phases of training under a pattern and the options of the technique; one phase throughout unless
    given. ``wide``: the model is built wider to begin with (:func:`widening`). ``groups``: the shape of what is kept
    whole or not at all, as 1x16, where zeros are not single ones; ``level``: every row keeps as many of them.
    """

    name: str
    title: str
    sparse: dict[Pass, Role] = field(default_factory=dict)
    technique: str = ""
    paper: str = ""
    refresh: str = EVERY_STEP
    unit: str = "SORE"
    recalled: str = ""
    unstructured: dict[Pass, Role] = field(default_factory=dict)
    levels: dict[Pass, dict[Role, Levels]] = field(default_factory=dict)
    full_precision: tuple[str, ...] = ()
    vector_work: dict[Role, VectorWork] = field(default_factory=dict)
    planes: tuple[Levels, ...] = ()
    attention: dict[Part, Levels] = field(default_factory=dict)
    schedule: Callable[..., tuple[Phase, ...]] | None = None
    wide: bool = False
    groups: str = ""
    level: bool = False

    def __post_init__(self) -> None:
        if self.levels and self.takes_pattern:
            raise InputError(f"scheme {self.name!r} has operands of few values and sparse ones; a scheme has either")
        if self.attention and not {Pass.FF, Pass.BP} <= self.levels.keys():
            raise InputError(
                f"scheme {self.name!r} has levels of attention, but none of layers in FF and BP beside them"
            )
        self._check_vector_work()
        if self.planes and (len(self.planes) < 2 or Role.WEIGHT in self.levels.get(Pass.FF, {Role.WEIGHT: None})):
            raise InputError(
                f"planes of scheme {self.name!r} must be two at least, in the place of levels of a weight in FF, which "
                f"other operands have there, or none: levels={{Pass.FF: {{}}}}; not {[str(p) for p in self.planes]}"
            )
        for layer in self.full_precision:
            if layer not in (FIRST_LAYER, LAST_LAYER):
                hint = nearest(layer, (FIRST_LAYER, LAST_LAYER))
                raise InputError(f"full_precision of scheme {self.name!r} names {layer!r}: {hint}")

    def _check_vector_work(self) -> None:
        if self.vector_work and not self.levels:
            raise InputError(f"vector_work of scheme {self.name!r} is that of operands of few values: give it levels")
        for role, work in self.vector_work.items():
            if role is Role.GRADIENT:
                raise InputError(f"vector_work of scheme {self.name!r} is of weights and activations, not of {role}s")
            if work.norm and role is not Role.ACTIVATION:
                raise InputError(f"vector_work of scheme {self.name!r} has a norm of {role}s; rows are of activations")

    def work_of(self, role: Role) -> VectorWork | None:
        """What operands of ``role`` take besides the products: as declared, else rather more than less; None: none."""
        few = any(role in roles for roles in self.levels.values())
        if few or (self.planes and role is Role.WEIGHT):
            return self.vector_work.get(role, UNDECLARED[role])
        return self.vector_work.get(role, NORM_ALONE if self.levels and role is Role.ACTIVATION else None)

    @property
    def takes_pattern(self) -> bool:
        """Whether an N:M pattern, or the share of the weights that one keeps, is any of its business."""
        return bool(self.sparse or self.unstructured)

    @property
    def takes_integers(self) -> bool:
        """Whether the weights of a layer may be integers of other widths than those of ``levels``."""
        return self.levels.get(Pass.FF, {}).get(Role.WEIGHT) in INTEGERS.values()

    def require_no_pattern(self, pattern: object) -> None:
        """Refuse a ``pattern`` for operands of few values; who names several schemes at once asks those that have a
        use for it."""
        if isinstance(pattern, LayerPatterns):
            self._require_integers(pattern)
            pattern = ", ".join(map(str, pattern.patterns)) if self.takes_integers else str(pattern)
        if self.levels and pattern:
            raise InputError(
                f"scheme {self.name!r} takes no N:M pattern, but {pattern} is given: its operands have few values and "
                "no zeros of a pattern; leave it out"
            )

    def _require_integers(self, asked: LayerPatterns) -> None:
        if asked.integers and not self.takes_integers:
            raise InputError(
                f"scheme {self.name!r} takes no integers of weights by layer, but {asked.integers[0]} is given; those "
                "are for scheme 'integer'"
            )

    @property
    def online(self) -> frozenset[Pass]:
        """Passes whose N:M operand depends on data of the very step, so that nothing can pre-generate it."""
        return frozenset(p for p, role in self.sparse.items() if role != Role.WEIGHT)


def dense_until(name: str, share: float) -> Callable[..., tuple[Phase, ...]]:
    """Schedule of a technique whose FF is dense up to the share ``until`` of the steps, ``share`` by default."""

    def schedule(pattern: NMPattern | None, *, until: float = share) -> tuple[Phase, ...]:
        return (
            Phase(share=until, scheme="dense", pattern=None),
            Phase(share=1.0 - until, scheme=name, pattern=pattern),
        )

    return schedule
