"""A space explored from Python: its points as a frame."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .saved import read_explored
from .space import Space, read_space
from .sweep import sweep

__all__ = ["explored"]


def explored(space: Space | Mapping[str, Any] | str | Path, folder: str | Path | None = None) -> pd.DataFrame:
    """All points of ``space``; in ``folder``, or kept nowhere."""
    read = read_space(space)
    if folder is not None:
        sweep(read, Path(folder))
        return read_explored(Path(folder)).frame()
    with tempfile.TemporaryDirectory() as made:
        sweep(read, Path(made))
        return read_explored(Path(made)).frame()
