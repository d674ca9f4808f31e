"""Foldings from a JSON file: a list in the order of the layers, a mapping by their names, or FINN's own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...workloads.errors import InputError, nearest, reading, require_choice, require_int
from ...workloads.strict import read_text
from .engine import Fabric, Folding, StreamingLayer
from .search import resolve

__all__ = ["read_foldings"]

_FORMS = "a list of [PE, SIMD], a mapping of layer names to [PE, SIMD], or a folding_config.json of FINN"
_ENGINE = re.compile(r"(MVAU|VVAU|MatrixVectorActivation|VectorVectorActivation|StreamingFCLayer|Vector_Vector).*")
"""Nodes of FINN, through its versions, that multiply; all others have a folding too, which follows from theirs here."""
_STYLES = ("auto", "block", "distributed")


def read_foldings(path: Path, layers: Sequence[StreamingLayer], fabric: Fabric) -> tuple[Folding, ...]:
    """One for each of ``layers``, refused where it is not legal.

    Where the file does not say where weights lie (FINN's ``ram_style``), they lie where they take the smaller share of
    ``fabric``.
    """
    text = read_text(path)
    with reading(str(path), "valid JSON"):
        found = json.loads(text, object_pairs_hook=partial(_once, path))
    if isinstance(found, list):
        if len(found) != len(layers):
            raise InputError(
                f"{path}: gives {len(found)} foldings, but there are {len(layers)} layers: {_named(layers)}"
            )
        given = dict(zip((layer.name for layer in layers), found, strict=True))
    elif isinstance(found, dict):
        given = _by_layer(path, found, layers)
    else:
        raise InputError(f"{path}: must hold {_FORMS}, not {_shown(found)}")
    return tuple(_folding(path, layer, given[layer.name], fabric) for layer in layers)


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping in which nothing is said twice: the last would hold, unseen."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{path}: key {key!r} stands there twice: leave one out")
        found[key] = value
    return found


def _by_layer(path: Path, found: dict[str, Any], layers: Sequence[StreamingLayer]) -> dict[str, Any]:
    names = [layer.name for layer in layers]
    engines = [key for key in found if _ENGINE.fullmatch(key)]
    if engines and not set(names) & found.keys():
        if len(engines) != len(layers):
            raise InputError(
                f"{path}: FINN's engines there are {len(engines)}, {engines[0]} to {engines[-1]}, but there are "
                f"{len(layers)} layers: {_named(layers)}"
            )
        return dict(zip(names, (found[key] for key in engines), strict=True))
    unknown = next((key for key in found if key not in names), None)
    if unknown is not None:
        raise InputError(f"{path}: layer {unknown!r} is unknown: {nearest(unknown, names)}; the file holds {_FORMS}")
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{path}: gives no folding of layer {missing[0]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f"; layers: {_named(layers)}"
        )
    return found


def _folding(path: Path, layer: StreamingLayer, value: Any, fabric: Fabric) -> Folding:
    where = f"{path}: layer {layer.name!r}"
    if isinstance(value, dict):
        if "PE" not in value or "SIMD" not in value:
            raise InputError(
                f"{where}: {_shown(value)} has no {'PE' if 'PE' not in value else 'SIMD'}; both are needed"
            )
        pe, simd = value["PE"], value["SIMD"]
        style = require_choice(f"{where}: ram_style", value.get("ram_style", "auto"), _STYLES)
        if value.get("mem_mode") == "external":
            raise InputError(f"{where}: mem_mode is external, but weights lie in the engine here: internal_decoupled")
    elif isinstance(value, list) and len(value) == 2:
        (pe, simd), style = value, "auto"
    else:
        raise InputError(f'{where}: must be [PE, SIMD] or {{"PE": .., "SIMD": ..}}, not {_shown(value)}')
    for side, number, most in (("PE", pe, layer.mh), ("SIMD", simd, layer.mw)):
        require_int(f"{where}: {side}", number, 1, most)
    layer.require_legal(Folding(pe=pe, simd=simd), f"{path}: ")
    if style == "auto":
        return resolve(layer, pe, simd, fabric)
    return Folding(pe=pe, simd=simd, ram="block" if style == "block" else "distributed")


def _named(layers: Sequence[StreamingLayer], most: int = 12) -> str:
    names = [repr(layer.name) for layer in layers]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
