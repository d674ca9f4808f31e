"""Schemes of others: registered from Python, installed under the entry points ``weft.schemes``, or in a file.

The class of a technique says what the machine needs to know of it in its attribute ``scheme``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any

from ..errors import InputError
from ..user_code import is_user, user_object
from .description import Scheme

__all__ = ["GROUP", "outside", "outside_names", "outside_technique", "register"]

GROUP = "weft.schemes"
"""Entry points of packages that bring schemes: ``name = "package.module:Class"``."""

_KNOWN: dict[str, tuple[Scheme, type[Any]]] = {}


def register(scheme: Scheme, technique: type[Any], taken: Collection[str] = ()) -> None:
    """Let ``technique`` train under the name of ``scheme``, in this process; names in ``taken`` are others'."""
    if not isinstance(scheme, Scheme):
        raise InputError(f"a scheme must be a weft.workloads.schemes.scheme.Scheme, not {scheme!r}")
    if scheme.name in taken or scheme.name in _KNOWN:
        raise InputError(f"scheme {scheme.name!r} exists already; choose another name")
    _KNOWN[scheme.name] = scheme, technique


def outside(name: str) -> Scheme | None:
    """The scheme of others called ``name``, if there is one."""
    if name not in _KNOWN:
        found = _found(name)
        if found is None:
            return None
        described = getattr(found, "scheme", None)
        if not isinstance(described, Scheme):
            raise InputError(
                f"scheme {name!r}: its class says nothing of itself; give it an attribute scheme = Scheme(name=..., "
                "title=..., sparse={...})"
            )
        _KNOWN[name] = replace(described, name=name), found
    return _KNOWN[name][0]


def outside_names() -> list[str]:
    """Names that are registered or installed."""
    return [*_KNOWN, *(point.name for point in entry_points(group=GROUP))]


def outside_technique(name: str) -> type[Any]:
    """The class that trains under the scheme ``name`` of others."""
    return _KNOWN[name][1]


def _found(name: str) -> Any:
    if is_user(name):
        return user_object(name, "scheme")[2]
    point = next((point for point in entry_points(group=GROUP) if point.name == name), None)
    if point is None:
        return None
    try:
        return point.load()
    except Exception as error:
        raise InputError(f"scheme {name!r}: {point.value} cannot be loaded: {type(error).__name__}: {error}") from error
