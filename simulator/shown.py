"""Results as a user looks at them: a line, a table, a picture, a page of a notebook.

Tables and pictures are made in `analysis/`, which this folder may not know. So a result asks a presenter; which one the
front door says (`weft/__init__.py`), through which whatever is imported of Weft has come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..workloads.one_line import OneLine

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Presenter", "Shown", "presented_by"]


class Presenter(Protocol):
    """Makes tables, pictures and pages of results, each of a :class:`Shown` that it knows."""

    def frame(self, result: Any) -> pd.DataFrame: ...

    def plot(self, result: Any, theme: str) -> Figure: ...

    def html(self, result: Any) -> str: ...


_found: Callable[[], Presenter] | None = None


def presented_by(find: Callable[[], Presenter]) -> None:
    """Have results shown by what ``find`` gives; it is called when one is looked at, not before."""
    global _found
    _found = find


def _presenter() -> Presenter:
    assert _found is not None, "the front door names a presenter before anything of Weft is imported"
    return _found()


class Shown(OneLine):
    """A result: what it is in one line, as a table, as a picture, and as Jupyter shows it."""

    __slots__ = ()

    def frame(self) -> pd.DataFrame:
        """As a pandas table: of a step one row an op, of a need one row a machine, else one row a run."""
        return _presenter().frame(self)

    def plot(self, theme: str = "light") -> Figure:
        """As the figure that Weft's folders of results hold, ``"light"`` or ``"dark"``; ``savefig`` writes it.

        No window is opened and pyplot knows nothing of it.
        """
        return _presenter().plot(self, theme)

    def _repr_html_(self) -> str:
        return _presenter().html(self)
