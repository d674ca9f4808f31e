"""A training scheme of one's own: dW from the N largest |dY| of every M along batch and positions.

weft train mlp --scheme examples/own_scheme.py:GradientTopN --nm 2:8
weft run resnet9 --scheme examples/own_scheme.py:GradientTopN --nm 2:8
"""

from torch import Tensor

from weft.workloads.gemm import Pass
from weft.workloads.operand import Role
from weft.workloads.schemes.layer import SparseLayer
from weft.workloads.schemes.masks import largest
from weft.workloads.schemes.scheme import Scheme
from weft.workloads.schemes.technique import Technique


class GradientTopN(Technique):
    """WU: dW = X^T top(dY); FF and BP are dense. Biased, unlike ``bdwp-x``."""

    scheme = Scheme(name="gradient-top-n", title="largest gradients in WU", sparse={Pass.WU: Role.GRADIENT})

    def update_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor:
        nm = self.nm()
        return layer.along_rows(dy, nm.group, lambda rows, view: largest(rows, view, nm))


if __name__ == "__main__":
    import weft.testing

    print(weft.testing.check_scheme(f"{__file__}:GradientTopN", "2:8"))
