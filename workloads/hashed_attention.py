"""EcoFormer's attention: queries and keys are codes of a few signs, so that it is linear in the tokens and mostly adds.

Liu et al., NeurIPS 2022, arXiv 2209.09004; repository ziplab/EcoFormer, `pvt/hashing/ksh.py` and `pvt/performer.py`,
read. As there, queries and keys are one tensor of unit rows, hashed by one set of functions for each head. Different
here: anchors are tokens of any image of the batch, not of its first one alone, as an image may have fewer tokens than
there are anchors; a sum of 0 is coded +1, not 0; functions are learned every so many steps, not epochs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import InputError, require_int
from .levels import Levels
from .own_levels import of_levels

__all__ = ["HashedAttention", "KernelHashing", "code", "hashing_loss", "linear_attention", "similar_pairs"]

BITS, ANCHORS, PAIRS = 16, 25, 10
"""EcoFormer's: signs of a code, anchors of the kernel, tokens that count as most and as least similar to one."""
_RATE, _MOMENTUM, _STEPS = 5e-4, 0.9, 100
"""EcoFormer's, of the SGD (Nesterov) that learns the function of one bit."""
_MOST = 4096


class _Code(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return torch.where(y >= 0, 1.0, -1.0).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        by_y: Tensor = g * (y.abs() < 1)
        return by_y


def code(y: Tensor) -> Tensor:
    """The sign of ``y``, +1 for 0, with the gradient of ``y`` clipped to [-1, 1]; any shape, of a float dtype.

    A traced step knows that it is binary (:func:`.own_levels.of_levels`).
    """
    found: Tensor = _Code.apply(y)  # type: ignore[no-untyped-call]
    return of_levels(found, Levels.BINARY)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(Q (K^T V) + c V) / (Q sum(K) + c n), c one more than the bits, so that no divisor is below n.

    ``q`` and ``k`` [..., n, bits] of -1 and +1, ``v`` [..., n, width], all of one float dtype; the result is as ``v``.
    K^T V, of bits x width, comes first: nothing here is n x n. The term c V is the repository's: a token adds its own
    value c times, where a kernel Q K^T + c would add the sum of all values.
    """
    tokens, bits = k.shape[-2:]
    shift = bits + 1
    mixed = q @ (k.mT @ v) + shift * v
    return mixed / (q @ k.sum(-2).unsqueeze(-1) + shift * tokens)


def similar_pairs(x: Tensor, pairs: int) -> Tensor:
    """What hashing learns from: 1 for the ``pairs`` tokens of largest product with each, -1 for those of the smallest.

    ``x`` [..., n, width] of any float dtype; the result [..., n, n] of the same, rows are tokens. Where both
    overlap, in images of fewer than 2 ``pairs`` tokens, -1 holds, as in the repository.
    """
    products = x @ x.mT
    found = torch.zeros_like(products)
    for largest, value in ((True, 1.0), (False, -1.0)):
        found.scatter_(-1, products.topk(pairs, -1, largest=largest).indices, value)
    return found


class KernelHashing(nn.Module):
    """Kernel-based supervised hashing (Liu et al., CVPR 2012): bits are signs of sums of RBF kernels at anchors.

    Bit r of a row x of head h is the sign of sum_j weights[h, r, j] (k(x, anchors[h, j]) - offsets[h, j]), k(x, a) =
    exp(-|x - a|^2 / 2 s) with s the mean of |x - a|^2 over an image's rows and anchors. Rows and anchors have length 1.
    All three are buffers: no gradient reaches them, :meth:`learn` sets them. Until then they are drawn at random.
    """

    def __init__(self, heads: int, width: int, *, bits: int = BITS, anchors: int = ANCHORS) -> None:
        super().__init__()
        for name, value in (("heads", heads), ("width of a head", width), ("bits", bits), ("anchors", anchors)):
            require_int(f"{name} of hashing", value, 1, _MOST)
        self.anchors: Tensor
        self.offsets: Tensor
        self.weights: Tensor
        self.register_buffer("anchors", functional.normalize(torch.randn(heads, anchors, width), dim=-1))
        self.register_buffer("offsets", torch.zeros(heads, 1, anchors))
        self.register_buffer("weights", torch.randn(heads, bits, anchors))

    def kernel(self, x: Tensor) -> Tensor:
        """k(x, a) [batch, heads, n, anchors] of rows ``x`` [batch, heads, n, width] of length 1, of one float dtype."""
        distances = 2 - 2 * (x @ self.anchors.mT)
        return torch.exp(distances / (-2 * distances.mean((-2, -1), keepdim=True)))

    def forward(self, x: Tensor) -> Tensor:
        """Codes [batch, heads, n, bits] of ``x``, as :meth:`kernel` takes it, of its dtype."""
        return code((self.kernel(x) - self.offsets) @ self.weights.mT)

    @torch.no_grad()
    def learn(self, x: Tensor, pairs: int = PAIRS, steps: int = _STEPS, rate: float = _RATE) -> None:
        """Choose anchors among the rows of ``x`` by torch's random numbers, and learn a function a bit, in their order.

        Bit after bit minimises -mean(y^T S y) / (n bits) over images and heads, y = tanh(sum / 2) in the place of its
        sign, in ``steps`` of SGD at ``rate``; S is what the bits before left of bits times :func:`similar_pairs`. What
        is no better for the signs themselves than what was there is not taken. ``x`` is as :meth:`kernel` takes it,
        [batch, heads, n, width]; all is done in the dtype of the buffers, also where products around it are of another.
        """
        with torch.autocast(x.device.type, enabled=False):
            self._learn(x.to(self.weights.dtype), pairs, steps, rate)

    def _learn(self, x: Tensor, pairs: int, steps: int, rate: float) -> None:
        batch, heads, tokens, width = x.shape
        require_int("pairs of hashing", pairs, 1, tokens)
        count = self.anchors.shape[1]
        rows = x.transpose(0, 1).reshape(heads, batch * tokens, width)
        if count > rows.shape[1]:
            raise InputError(
                f"hashing: {count} anchors are chosen among tokens, but a batch has {rows.shape[1]} of them; take at "
                f"most {rows.shape[1]} anchors"
            )
        self.anchors.copy_(rows[:, torch.randperm(rows.shape[1], device=x.device)[:count]])
        kernel = self.kernel(x)
        self.offsets.copy_(kernel.mean((0, 2)).unsqueeze(1))
        kernel -= self.offsets
        bits = self.weights.shape[1]
        left = bits * similar_pairs(x, pairs)
        for bit in range(bits):
            before = self.weights[:, bit]
            learned = _learned(kernel, left, before.clone(), bits, steps, rate)
            old, new = (torch.where(_sums(kernel, w) > 0, 1.0, -1.0).to(x.dtype) for w in (before, learned))
            better = bool(hashing_loss(new, left, bits) < hashing_loss(old, left, bits))
            y = new if better else old
            if better:
                before.copy_(learned)
            left -= y.unsqueeze(-1) * y.unsqueeze(-2)


def _sums(kernel: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bhnm,hm->bhn", kernel, weights)


def hashing_loss(y: Tensor, similar: Tensor, bits: int) -> Tensor:
    """-y^T S y / (n bits), mean over images and heads: ``y`` [batch, heads, n], ``similar`` [batch, heads, n, n],
    all of one float dtype."""
    return -torch.einsum("bhn,bhnl,bhl->bh", y, similar, y).mean() / (y.shape[-1] * bits)


def _learned(kernel: Tensor, similar: Tensor, weights: Tensor, bits: int, steps: int, rate: float) -> Tensor:
    """The weights [heads, anchors] of one bit after ``steps`` of SGD, from ``weights`` on, which change."""
    batch, heads, tokens, _ = kernel.shape
    optimizer = torch.optim.SGD([weights], lr=rate, momentum=_MOMENTUM, nesterov=True)
    both = (similar + similar.mT) / -(batch * heads * tokens * bits)
    for _ in range(steps):
        y = torch.tanh(_sums(kernel, weights) / 2)
        by_sum = (1 - y * y) / 2 * (both @ y.unsqueeze(-1)).squeeze(-1)
        weights.grad = torch.einsum("bhn,bhnm->hm", by_sum, kernel)
        optimizer.step()
    return weights


class HashedAttention(nn.Module):
    """Multi-head self-attention over codes; queries and keys are one projection.

    ``every``: training steps from one learning of the hash functions to the next, the first of which is before the
    first step. A traced step has none: learning takes place between steps, as the images of one come in.
    """

    def __init__(
        self, width: int, heads: int, *, bits: int = BITS, anchors: int = ANCHORS, pairs: int = PAIRS, every: int = 100
    ) -> None:
        super().__init__()
        require_int("heads of attention", heads, 1, width)
        require_int("steps from one learning of hash functions to the next", every, 1, 2**31)
        if width % heads:
            raise InputError(f"attention {width} wide cannot have {heads} heads: width must be a multiple of heads")
        self.heads, self.pairs, self.every = heads, pairs, every
        self.query_key, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.hashing = KernelHashing(heads, width // heads, bits=bits, anchors=anchors)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] of ``x``, as large, both of one float dtype."""
        both, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query_key, self.value))
        both = functional.normalize(both, dim=-1)
        # What checkpointing does again in backward is no step of its own, and must find the same functions.
        if self.training and not x.is_meta and torch._C._current_graph_task_id() == -1:
            if int(self.calls) % self.every == 0:
                self.hashing.learn(both.detach(), self.pairs)
            self.calls += 1
        codes = self.hashing(both)
        found: Tensor = self.out(linear_attention(codes, codes, v).transpose(1, 2).flatten(2))
        return found
