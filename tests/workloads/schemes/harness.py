"""A small model with every kind of layer, one training step of it, and a record of what its GEMMs were given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from weft.workloads.schemes.conformance import Net
from weft.workloads.schemes.technique import Technique
from weft.workloads.sparsity import NMPattern

TWO_OF_EIGHT = NMPattern(keep=2, group=8)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def batch() -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 8, 8, generator=made), torch.randint(0, 16, (6,), generator=made)


def backward(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    x, labels = data
    loss = nn.functional.cross_entropy(model(x), labels)
    loss.backward()
    return loss.detach()


def train(
    model: nn.Module, technique: Technique, data: tuple[Tensor, Tensor], steps: range, optimizer: torch.optim.Optimizer
) -> list[float]:
    """Losses of optimizer steps ``steps`` under the protocol of a technique."""
    losses = []
    for step in steps:
        technique.before_step(step)
        optimizer.zero_grad()
        losses.append(float(backward(model, data)))
        technique.adjust_gradients(step)
        optimizer.step()
        technique.after_step(step, optimizer)
    return losses


@dataclass
class Products(TorchDispatchMode):
    """The operands of every matrix product that PyTorch dispatched, in order."""

    forward: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    input_gradient: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    weight_gradient: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    matrices: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        if name == "aten::convolution":
            self.forward.append((args[0].clone(), args[1].clone()))
        elif name == "aten::convolution_backward":
            dy, x, w, mask = args[0], args[1], args[2], args[-1]
            if mask[0]:
                self.input_gradient.append((dy.clone(), w.clone()))
            if mask[1]:
                self.weight_gradient.append((dy.clone(), x.clone()))
        elif name in ("aten::mm", "aten::addmm"):
            self.matrices.append(tuple(a.clone() for a in args[-2:]))
        return func(*args, **(kwargs or {}))


def most_kept(x: Tensor, dim: int, group: int) -> int:
    """Most non-zeros in any group of ``group`` along ``dim``, cut from its begin."""
    return max(int((part != 0).sum(dim).max()) for part in x.split(group, dim))
