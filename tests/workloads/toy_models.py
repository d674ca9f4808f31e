"""Small models that the trace tests share, and the sources that feed them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from weft.workloads.models.source import ModelSource, StepInputs
from weft.workloads.tracing.known import count_as_vector_work


def source_of(
    model: Callable[[], nn.Module],
    *inputs: Tensor,
    loss: Callable[[Any], Tensor] = lambda output: output.float().sum(),
    dtype: torch.dtype | None = None,
    name: str = "toy",
) -> ModelSource:
    """A source whose inputs are fixed and whose loss looks at the output alone."""
    return ModelSource(
        name=name,
        title=name,
        build=model,
        inputs=lambda _batch, _seq: StepInputs(args=inputs, batch=len(inputs[0]), shape=str(tuple(inputs[0].shape))),
        loss=lambda output, _: loss(output),
        dtype=dtype,
    )


def floats(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")


def tokens(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta", dtype=torch.long)


def cross_entropy(output: Tensor) -> Tensor:
    scores = output.flatten(0, -2)
    return nn.functional.cross_entropy(scores, tokens(len(scores)))


def vgg19() -> nn.Module:
    """Configuration E, as the oracle's README describes it."""
    layers: list[nn.Module] = []
    width = 3
    for count, out in ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)):
        for _ in range(count):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU(inplace=True)]
            width = out
        layers.append(nn.MaxPool2d(2))
    sizes = (512 * 49, 4096, 4096, 1000)
    head = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head[:-1])


class LstmLm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(10_000, 650)
        self.lstm = nn.LSTM(650, 650, 2)
        self.head = nn.Linear(650, 10_000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.emb(x))[0])


class OddConvs(nn.Module):
    """Strided, grouped, dilated, depthwise, transposed, one- and three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(16, 32, 3, groups=4, padding=2, dilation=2)
        self.depthwise = nn.Conv2d(32, 32, 5, stride=2, padding=2, groups=32)
        self.up = nn.ConvTranspose2d(32, 16, 3, stride=2, groups=4, padding=1, output_padding=1)
        self.line = nn.Conv1d(16, 8, 7, stride=3)
        self.head = nn.Linear(8, 8)
        self.volume = nn.Conv3d(1, 4, (2, 3, 3), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.depthwise(self.grouped(self.plain(x))))
        return self.head(self.line(x.flatten(2)).mean(-1)) + self.volume(x.unsqueeze(1)).mean()


class Tied(nn.Module):
    """A linear layer applied twice under a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(1000, 64)
        self.mid = nn.Linear(64, 64)
        self.head = nn.Linear(64, 1000, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mid(self.mid(self.emb(x))))


class Checkpointed(nn.Module):
    """Three blocks of two linear layers, each block recomputed in backward."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.first = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            if self.mode == "none":
                x = block(x)
            else:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=self.mode == "reentrant")
        return x


class NestedCheckpoints(Checkpointed):
    """The same blocks, each recomputed within a recomputed whole."""

    def __init__(self, outer: bool, inner: bool) -> None:
        super().__init__("reentrant" if inner else "early stop")
        self.outer = outer
        self.before = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(super().forward, self.before(x), use_reentrant=self.outer)


class CayleyWeight(nn.Module):
    """A linear layer whose weight is orthogonal by construction, by way of an inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.w = nn.Parameter(torch.empty(8, 8))
        count_as_vector_work("aten._linalg_solve_ex", "aten.linalg_lu_solve")

    def forward(self, x: Tensor) -> Tensor:
        skew = self.w - self.w.t()
        return self.first(x) @ torch.linalg.solve(torch.eye(8) + skew, torch.eye(8) - skew)


class ChosenExperts(nn.Module):
    """Every token multiplies the weights of its own two experts, gathered for it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate = nn.Linear(8, 8), nn.Linear(8, 4)
        self.w, self.v = nn.Parameter(torch.empty(4, 8, 16)), nn.Parameter(torch.empty(4, 16, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        share, expert = self.gate(x).softmax(-1).topk(2, -1)
        hidden = torch.einsum("td,tkdh->tkh", x, self.w[expert]).relu()
        return torch.einsum("tkh,tkhd,tk->td", hidden, self.v[expert], share)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    """A recurrent layer as the only consumer of a trained projection."""

    def __init__(self, make: Callable[[], nn.RNNBase]) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 6)
        self.rnn = make()

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.proj(x))[0]


class Lora(nn.Module):
    """A frozen linear layer with a merged low-rank update."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(12, 20, bias=False).requires_grad_(False)
        self.a = nn.Parameter(torch.empty(3, 12))
        self.b = nn.Parameter(torch.empty(20, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.base.weight + self.b @ self.a)


class Einsum(nn.Module):
    """Products written as einsum, with the weight as first operand."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(5, 6))
        self.v = nn.Parameter(torch.empty(7, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oi,bi->ob", self.v, torch.einsum("oi,bi->bo", self.w, x))


class Experts(nn.Module):
    """Four experts on rows sorted by expert, as grouped_mm computes them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.w = nn.Parameter(torch.empty(4, 16, 8))

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.empty(4, dtype=torch.int32)
        return nn.functional.grouped_mm(self.first(x), self.w, offs=ends)
