"""Figures of results, light and dark. No global state, no window: save them with ``figure.savefig``."""

from __future__ import annotations

from ._plot_comparison import comparison_figure
from ._plot_layers import layers_figure
from ._plot_roofline import roofline_figure
from ._plot_study import study_figure

__all__ = ["comparison_figure", "layers_figure", "roofline_figure", "study_figure"]
