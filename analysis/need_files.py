"""What a step needs, as a table, as JSON, and as a folder: a CSV file and a picture a resource."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dataflow.config_io import spec_hash
from .grown import Point
from .need import Line, Need
from .need_words import needs_words
from .pictures import LIGHT, picture_names, pictures
from .resources import Resource
from .theme import THEMES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["need_frame", "needs_dict", "require_free_for_needs", "save_needs"]

_KIND, _DOCUMENT = "need", "need.json"


def need_frame(found: Need) -> pd.DataFrame:
    """A row a point of every line, then the machine itself: fields by their path, size in the resource's unit, cycles,
    seconds, the share that it takes longer than the line's asymptote, DRAM bytes, and what it is.

    What does not run has no cycles.
    """
    import pandas as pd

    rows = [_row(found, line, point) for line in found.lines for point in line.points]
    rows.append({**_row(found, found.lines[0], found.own), "line": "machine", "is": ""})
    columns = {"cycles": "Int64", "dram_bytes": "Int64", "seconds": "float64", "slower": "float64"}
    return pd.DataFrame.from_records(rows).astype(columns)


def _row(found: Need, line: Line, point: Point) -> dict[str, Any]:
    special = {"least": line.least, "knee": line.knee, "stays": line.stays, "asymptote": line.asymptote}
    return {
        "line": line.name,
        **dict(zip(found.resource.paths, point.setting, strict=True)),
        "size": point.size,
        "cycles": point.cycles,
        "seconds": found.seconds(point),
        "slower": found.slower(point, line),
        "dram_bytes": point.dram_bytes,
        "is": " ".join(name for name, one in special.items() if one == point),
    }


def needs_dict(needs: Sequence[Need], command: str = "") -> dict[str, Any]:
    """The JSON of what one step on one machine needs of several resources."""
    first = needs[0]
    work = first.workload
    return {
        "weft_version": version("weft"),
        "command": command,
        "model": work.model,
        "batch": work.batch,
        "input": work.input,
        "scheme": work.scheme,
        "pattern": None if work.pattern is None else str(work.pattern),
        "machine": first.spec.name,
        "spec_hash": spec_hash(first.spec),
        "clock_hz": first.spec.clock_hz,
        "objective": str(first.objective),
        "within": first.within,
        "needs": {str(found.resource): _need_dict(found) for found in needs},
    }


def _need_dict(found: Need) -> dict[str, Any]:
    return {
        "words": list(needs_words(found)),
        "unit": found.resource.unit,
        "exact": found.exact,
        "bound_cycles": found.bound,
        "machine": _point(found, found.own),
        "lines": [_line(found, line) for line in found.lines],
    }


def _line(found: Need, line: Line) -> dict[str, Any]:
    single = {"asymptote": line.asymptote, "least": line.least, "below": line.below}
    single |= {"stays": line.stays, "knee": line.knee}
    return {
        "name": line.name,
        **{name: None if one is None else _point(found, one) for name, one in single.items()},
        "points": [_point(found, point) for point in line.points],
    }


def _point(found: Need, point: Point) -> dict[str, Any]:
    return {
        **dict(zip(found.resource.paths, point.setting, strict=True)),
        "size": point.size,
        "cycles": point.cycles,
        "seconds": found.seconds(point),
        "dram_bytes": point.dram_bytes,
    }


def _stem(resource: Resource) -> str:
    return f"need-{resource}"


def require_free_for_needs(folder: Path, resources: Sequence[Resource], draw_all: bool = False) -> None:
    """Refuse before the work what :func:`save_needs` would refuse after it."""
    from .publish import require_free

    themes = THEMES if draw_all else LIGHT
    names = [name for each in resources for name in (f"{_stem(each)}.csv", *picture_names(_stem(each), themes))]
    require_free(folder, (_DOCUMENT, *names))


def save_needs(needs: Sequence[Need], folder: Path, command: str, draw_all: bool = False) -> None:
    """Write ``need.json``, and ``need-RESOURCE.csv`` and ``.png`` of each."""
    from .figures import need_figure
    from .frames import csv_text
    from .publish import publish

    document = json.dumps(needs_dict(needs, command), indent=1, allow_nan=False) + "\n"
    files = {_DOCUMENT: document.encode()}
    for found in needs:
        stem = _stem(found.resource)
        files[f"{stem}.csv"] = csv_text(need_frame(found), index=False).encode()
        files |= pictures(stem, partial(need_figure, found), THEMES if draw_all else LIGHT)
    publish(folder, _KIND, files)
