"""A shrunk model as one JSON document, without its weights."""

from __future__ import annotations

from typing import Any

from .run import Shrunk
from .text import SlicedText

__all__ = ["to_dict"]


def to_dict(shrunk: Shrunk | SlicedText) -> dict[str, Any]:
    """Plain values alone; scores are shares of the test images, or bits a character."""
    both = {"by": str(shrunk.asked), "parameters": list(shrunk.parameters)}
    if isinstance(shrunk, SlicedText):
        return {
            "model": "characters",
            "data": shrunk.data,
            **both,
            "seed": shrunk.seed,
            "steps": shrunk.steps,
            "bits": {"trained": shrunk.trained, "cut": shrunk.cut},
            "width": list(shrunk.width),
        }
    spec = shrunk.spec
    return {
        "model": spec.model,
        "data": spec.data,
        **both,
        "seed": spec.seed,
        "epochs": [spec.epochs, shrunk.tuning.epochs],
        "learning_rates": [spec.learning_rate, shrunk.tuning.learning_rate],
        "accuracy": {"trained": shrunk.trained, "cut": shrunk.cut, "tuned": shrunk.tuned},
        "layers": [
            {"layer": layer.name, "before": list(layer.before), "after": [list(shape) for shape in layer.after]}
            for layer in shrunk.layers
        ],
    }
