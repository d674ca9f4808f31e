"""Simulator, RTL and PyTorch held against each other: `weft.verify`.

The one part of the analysis that sees simulator and RTL at once.
"""

from .blocks import Case, Verification, build_seconds, verify
from .difference import Difference, Distance
from .step import GemmCheck, StepVerification, require_machine, verify_step

__all__ = [
    "Case",
    "Difference",
    "Distance",
    "GemmCheck",
    "StepVerification",
    "Verification",
    "build_seconds",
    "require_machine",
    "verify",
    "verify_step",
]
