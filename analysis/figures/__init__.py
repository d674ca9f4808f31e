"""Figures of results, light and dark. No global state, no window: save them with ``figure.savefig``."""

from __future__ import annotations

from .comparison import comparison_figure
from .dram import dram_figure
from .energy import energy_figure
from .layers import layers_figure
from .need import need_figure
from .promise import promise_figure
from .regret import regret_figure
from .roofline import roofline_figure
from .rtl_training import rtl_training_figure
from .study import study_figure
from .study_costs import cost_figure
from .sweep import sweep_figure

__all__ = [
    "comparison_figure",
    "cost_figure",
    "dram_figure",
    "energy_figure",
    "layers_figure",
    "need_figure",
    "promise_figure",
    "regret_figure",
    "roofline_figure",
    "rtl_training_figure",
    "study_figure",
    "sweep_figure",
]
