"""An ONNX inference graph as one training step: shapes by inference, a rule per operator, gradients by propagation.

Stored floating-point tensors are the parameters; the inputs of the graph need no gradient. No weight is read, and an
operator without a rule is refused rather than guessed.
"""

from __future__ import annotations

from .training import onnx_workload

__all__ = ["onnx_workload"]
