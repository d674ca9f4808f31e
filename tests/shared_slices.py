"""A sub-network written out on slices of the weights that it shares: what stands beside `SuperNet.on`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from weft.workloads.models.subnetwork import Subnetwork
from weft.workloads.models.supernet import SuperNet

__all__ = ["sliced"]


def sliced(model: SuperNet, path: Subnetwork, side: int, images: Tensor) -> Tensor:
    """The sub-network written out on slices of the shared weights, as autograd sees them."""
    whole = dict(model.named_parameters())
    x = functional.adaptive_avg_pool2d(images, side)
    for i, (width, depth) in enumerate(zip(path.channels, path.depths, strict=True)):
        x = functional.max_pool2d(x, 2) if i else x
        for j in range(depth):
            at = f"stages.{i}.{j}"
            weight = whole[f"{at}.conv.weight"][:width, : x.shape[1]]
            scale, shift = (whole[f"{at}.norm.{name}"][:width] for name in ("weight", "bias"))
            made = functional.conv2d(x, weight, padding=1)
            made = functional.relu(functional.batch_norm(made, None, None, scale, shift, training=True))
            x = x + made if j else made
    return functional.linear(x.mean((2, 3)), whole["head.weight"][:, : x.shape[1]], whole["head.bias"])
