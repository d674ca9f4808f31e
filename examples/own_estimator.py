"""A binary network of one's own: the sign, with the derivative of tanh(s x) in its place.

weft train mlp --scheme examples/own_estimator.py:TanhNet --option steepness=3
weft run resnet9 --scheme examples/own_estimator.py:TanhNet
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.schemes.estimated import Estimated, EstimatedOptions
from weft.workloads.schemes.estimator import Estimator, Few, sign
from weft.workloads.schemes.scheme import Scheme
from weft.workloads.schemes.vector_work import VectorWork


@dataclass(frozen=True)
class Tanh(Estimator):
    """sign(x) forward, tanh(s x) backward."""

    steepness: float

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * self.steepness / (self.steepness * x).cosh() ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TanhOptions(EstimatedOptions):
    """``steepness``: s."""

    steepness: float = 2.0


class TanhNet(Estimated):
    """Weights and activations alike, without scales."""

    scheme = Scheme(
        name="tanh",
        title="binary, gradient of a tanh",
        levels={
            Pass.FF: {Role.WEIGHT: Levels.BINARY, Role.ACTIVATION: Levels.BINARY},
            Pass.BP: {Role.WEIGHT: Levels.BINARY},
            Pass.WU: {Role.ACTIVATION: Levels.BINARY},
        },
        full_precision=("first layer", "last layer"),
        vector_work={Role.WEIGHT: VectorWork(), Role.ACTIVATION: VectorWork(norm=True)},
    )
    options_type: ClassVar[type[EstimatedOptions]] = TanhOptions
    options: TanhOptions

    def weight_estimator(self) -> Estimator:
        return Tanh(self.options.steepness)

    activation_estimator = weight_estimator


if __name__ == "__main__":
    import weft.testing

    print(weft.testing.check_scheme(f"{__file__}:TanhNet"))
