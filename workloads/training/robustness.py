"""How a trained model does on test images that are not as clean as those it was trained on."""

from __future__ import annotations

from ..data import open_data
from ..data.corrupted import CORRUPTIONS, SEVERITIES, Corrupted
from ..models.classifier import image_side
from .spec import TrainResult

__all__ = ["accuracy_under_corruption"]


def accuracy_under_corruption(result: TrainResult) -> dict[str, tuple[float, ...]]:
    """Share of the test images that is classified right under each of `CORRUPTIONS`, one for each of `SEVERITIES`.

    As the accuracy of the test set: reported, and nothing is chosen by it.
    """
    data = open_data(result.spec.data, image_side(result.spec.model))

    def accuracy(name: str, severity: int) -> float:
        images = Corrupted(images=data.test, white=data.white, name=name, severity=severity)
        return result.measure(f"test set with {name} of strength {severity}", images)[1]

    return {name: tuple(accuracy(name, severity) for severity in SEVERITIES) for name in CORRUPTIONS}
