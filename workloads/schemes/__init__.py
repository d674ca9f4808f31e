"""Training techniques, one file a family; `attach` puts one to work on a model."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import InputError, nearest, require_int
from .outside import outside_technique
from .scheme import scheme

if TYPE_CHECKING:
    from torch import nn

    from ..sparsity import NMPattern
    from .description import Scheme
    from .technique import Technique

__all__ = ["attach", "option_names"]


def attach(
    model: nn.Module, name: str, pattern: NMPattern | None, *, seed: int = 0, steps: int, **options: Any
) -> Technique:
    """Put scheme ``name`` to work on ``model`` for a training of ``steps`` optimizer steps.

    The model stays the user's own: parameters, ``state_dict`` keys and code are untouched, and ``detach()`` of the
    result undoes it. ``options`` are the fields of the technique's ``Options``; one it has not is an `InputError`.
    """
    chosen = scheme(name)
    require_int("steps of a training", steps, 1, 2**53)
    require_int("seed of a technique", seed, 0, 2**63 - 1)
    chosen.require_no_pattern(pattern)
    if chosen.sparse and pattern is None:
        raise InputError(f"scheme {name!r} needs an N:M pattern, for example 2:8")
    made, known = _technique(chosen), option_names(name)
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "it has none"
            raise InputError(f"option {option!r} of scheme {name!r} is unknown: {hint}")
    attached: Technique = made(model, chosen, pattern, seed=seed, steps=steps, options=made.options_type(**options))
    return attached


def option_names(name: str) -> tuple[str, ...]:
    """The options that a training under scheme ``name`` takes."""
    return tuple(field.name for field in fields(_technique(scheme(name)).options_type))


def _technique(chosen: Scheme) -> type[Technique]:
    if chosen.technique:
        file, _, name = chosen.technique.partition(".")
        ours: type[Technique] = getattr(import_module(f".{file}", __name__), name)
        return ours
    from .technique import Technique

    made = outside_technique(chosen.name)
    if not (isinstance(made, type) and issubclass(made, Technique)):
        raise InputError(
            f"scheme {chosen.name!r}: {made!r} is no subclass of weft.workloads.schemes.technique.Technique"
        )
    return made
