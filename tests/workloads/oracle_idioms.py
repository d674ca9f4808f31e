"""Idioms of model code in a few lines each: where values come from decides what a product of theirs is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from .oracles import Case
from .toy_models import (
    Attention,
    CayleyWeight,
    Checkpointed,
    ChosenExperts,
    Experts,
    Lora,
    OddConvs,
    Recurrent,
    Tied,
    floats,
    tokens,
)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape))


class Idiom(nn.Module):
    """A module made of parts and a function of them and the input; a linear layer in front needs a gradient."""

    def __init__(self, call: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.front = nn.Linear(16, 16)
        for name, part in parts.items():
            setattr(self, name, part)
        self.call = call

    def forward(self, x: Tensor) -> Any:
        return self.call(self, self.front(x))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def linear(a: int = 16, b: int = 16, bias: bool = False) -> nn.Linear:
    return nn.Linear(a, b, bias=bias)


class CrossAttention(nn.Module):
    """Attention in heads as most files write it, without biases."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = linear(), linear(), linear(), linear()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (self.split(layer(of)) for layer, of in ((self.q, x), (self.k, context), (self.v, context)))
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DetrLayer(nn.Module):
    """Queries attend to each other, then to the picture; their content starts as zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, target: Tensor, place: Tensor, memory: Tensor) -> Tensor:
        q = target + place
        target = self.norms[0](target + self.self_attention(q, q, target, need_weights=False)[0])
        found = self.cross_attention(target + place, memory, memory, need_weights=False)[0]
        target = self.norms[1](target + found)
        return target + self.last(self.first(target).relu())


def detr(self: Any, x: Tensor) -> Tensor:
    place = self.query.weight.unsqueeze(0).repeat(len(x), 1, 1)
    target = torch.zeros_like(place)
    for layer in self.layers:
        target = layer(target, place, x)
    return self.head(target)


class RawQuery(nn.Module):
    """Everything a parameter of one module; the query comes from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk = parameter(16, 16), parameter(16, 16)

    def forward(self, q: Tensor, x: Tensor) -> Tensor:
        return self.mix(torch.einsum("nd,de->ne", q, self.wq), x @ self.wk)

    def mix(self, q: Tensor, k: Tensor) -> Tensor:
        return torch.einsum("ne,ble->bnl", q, k).softmax(-1) @ k


class RelativeKeys(RawQuery):
    """Transformer-XL's second score: the query beside keys that are projected positions."""

    def forward(self, places: Tensor, x: Tensor) -> Tensor:
        return self.mix(x @ self.wk, places @ self.wq)

    def mix(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.t()


class ClassAttention(nn.Module):
    """The class token alone asks (CaiT, XCiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.norm = linear(16, 48, bias=True), linear(bias=True), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return torch.cat([self.proj(attend(q[:, :1], k, v)), x[:, 1:]], 1)


class CrossCovariance(nn.Module):
    """XCiT: channels attend to channels."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (functional.normalize(part.transpose(1, 2), dim=-1) for part in self.qkv(x).chunk(3, -1))
        return attend(q, k, v).transpose(1, 2)


class Modulated(nn.Module):
    """StyleGAN2: the weight is scaled for every sample, and samples are the groups of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.style, self.weight = nn.Linear(16, 16), parameter(8, 16, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.style(x.mean(1))[:, None, :, None, None]
        weight = weight * weight.pow(2).sum((2, 3, 4), keepdim=True).add(1e-8).rsqrt()
        image = x.transpose(1, 2).reshape(1, -1, 4, 4)
        return functional.conv2d(image, weight.flatten(0, 1), padding=1, groups=len(x))


class StandardisedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.weight.mean((1, 2, 3), keepdim=True), self.weight.var((1, 2, 3), keepdim=True)
        return functional.conv2d(x, (self.weight - mean) / (var + 1e-5).sqrt(), self.bias, padding=1)


class Ternary(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean()
        weight = self.weight + ((self.weight / scale).round().clamp(-1, 1) * scale - self.weight).detach()
        return functional.linear(x, weight)


class AddsUpdate(nn.Module):
    """LoRA as a parametrization."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = parameter(2, 16), parameter(16, 2)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


class Rotates(nn.Module):
    """An orthogonal fine-tuning as a parametrization: a parameter times the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = parameter(16, 16)

    def forward(self, weight: Tensor) -> Tensor:
        return self.turn @ weight


def parametrized(make: Callable[[], nn.Module]) -> nn.Module:
    layer = linear()
    parametrize.register_parametrization(layer, "weight", make(), unsafe=True)
    return layer


def hyper(self: Any, x: Tensor) -> Tensor:
    return x @ self.make(self.seed).view(16, 16)


def learned_state(self: Any, x: Tensor) -> Tensor:
    state = self.state.expand(len(x), -1)
    for step in x.unbind(1):
        state = self.cell(step, state)
    return state


def learned_state_of_own(self: Any, x: Tensor) -> Tensor:
    state = self.state.expand(len(x), -1)
    for step in x.unbind(1):
        state = (step @ self.w + state @ self.u).tanh()
    return state


def image(x: Tensor) -> Tensor:
    return x.transpose(1, 2).unflatten(-1, (4, 4))


def idiom(call: Callable[..., Any], live: tuple[str, ...] = (), between: tuple[str, ...] = (), **parts: Any) -> Case:
    """Parts are made anew for every build: ``linear`` and the like are called."""
    return Case(
        build=lambda: Idiom(call, **{name: make() for name, make in parts.items()}),
        inputs=lambda: ((floats(2, 16, 16),), {}),
        live=live,
        between=between,
    )


def model(build: Callable[[], nn.Module], *shape: int, plain: Callable[[], nn.Module] | None = None) -> Case:
    return Case(build=build, inputs=lambda: ((floats(*shape),), {}), plain=plain)


def query() -> nn.Parameter:
    return parameter(5, 16)


LEARNED: dict[str, Case] = {
    "query behind its projection": idiom(
        lambda self, x: attend(self.wq(self.q).expand(len(x), -1, -1), self.wk(x), self.wk(x)),
        ("q",),
        q=query,
        wq=linear,
        wk=linear,
    ),
    "query repeated, then projected": idiom(
        lambda self, x: self.attention(self.q.repeat(len(x), 1, 1), x), ("q",), q=query, attention=CrossAttention
    ),
    "query expanded, then projected": idiom(
        lambda self, x: self.attention(self.q.expand(len(x), -1, -1), x), ("q",), q=query, attention=CrossAttention
    ),
    "query normalised, then projected": idiom(
        lambda self, x: self.attention(self.norm(self.q).expand(len(x), -1, -1), x),
        ("q",),
        q=query,
        norm=lambda: nn.LayerNorm(16),
        attention=CrossAttention,
    ),
    "query through two layers": idiom(
        lambda self, x: self.attention(self.mlp(self.q).expand(len(x), -1, -1), x),
        ("q",),
        q=query,
        mlp=lambda: nn.Sequential(linear(), nn.GELU(), linear()),
        attention=CrossAttention,
    ),
    "query from an embedding": idiom(
        lambda self, x: self.attention(self.table(torch.arange(5)).expand(len(x), -1, -1), x),
        ("table.weight",),
        table=lambda: nn.Embedding(5, 16),
        attention=CrossAttention,
    ),
    "queries attend to each other first": idiom(
        lambda self, x: self.cross(self.own(self.q[None], self.q[None]).expand(len(x), -1, -1), x),
        ("q",),
        q=query,
        own=CrossAttention,
        cross=CrossAttention,
    ),
    "query and projection raw": idiom(
        lambda self, x: self.attention(self.q, x), ("q",), ("mix",), q=query, attention=RawQuery
    ),
    "probe (SigLIP)": idiom(
        lambda self, x: self.attention(self.probe.repeat(len(x), 1, 1), x, x, need_weights=False)[0],
        ("probe",),
        probe=lambda: parameter(1, 1, 16),
        attention=lambda: nn.MultiheadAttention(16, 2, batch_first=True),
    ),
    "decoder (DETR)": idiom(
        detr,
        ("query.weight",),
        query=lambda: nn.Embedding(5, 16),
        head=linear,
        layers=lambda: nn.ModuleList(DetrLayer() for _ in range(2)),
    ),
    "latents (Perceiver)": idiom(
        lambda self, x: self.own(*[self.cross(self.latents.expand(len(x), -1, -1), x)] * 2),
        ("latents",),
        latents=query,
        cross=CrossAttention,
        own=CrossAttention,
    ),
    "class attention (XCiT)": idiom(
        lambda self, x: self.attention(torch.cat([self.token.expand(len(x), -1, -1), x], 1)),
        token=lambda: parameter(1, 1, 16),
        attention=ClassAttention,
    ),
    "positions as keys (Transformer-XL)": idiom(
        lambda self, x: self.keys(self.places, x),
        between=("mix",),
        places=lambda: parameter(9, 16),
        keys=RelativeKeys,
        live=("places",),
    ),
    "fixed positions as keys": idiom(lambda self, x: x @ self.project(torch.ones(9, 16)).t(), project=linear),
    "bias of a network (Swin v2)": idiom(
        lambda self, x: (x @ x.mT + self.mlp(torch.ones(16, 16, 2)).squeeze(-1)).softmax(-1) @ x,
        mlp=lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), linear(8, 1)),
    ),
    "learned tokens beside data": idiom(
        lambda self, x: self.layer(torch.cat([x, self.lift(self.token).expand(len(x), -1, -1)], 1)),
        ("token",),
        token=query,
        lift=linear,
        layer=linear,
    ),
    "hypernetwork": idiom(hyper, ("seed",), seed=lambda: parameter(1, 4), make=lambda: linear(4, 256)),
    "prompts as classes (CoOp)": idiom(
        lambda self, x: functional.normalize(x, dim=-1) @ functional.normalize(self.encode(self.prompt), dim=-1).t(),
        ("prompt",),
        prompt=query,
        encode=lambda: nn.Sequential(linear(), nn.ReLU(), linear()),
    ),
    "learned first state": idiom(
        learned_state, ("state",), state=lambda: parameter(1, 16), cell=lambda: nn.GRUCell(16, 16)
    ),
    "learned first state beside its own weights": idiom(
        learned_state_of_own,
        ("state",),
        state=lambda: parameter(1, 16),
        w=lambda: parameter(16, 16),
        u=lambda: parameter(16, 16),
    ),
}
"""Activations made of parameters alone."""

WEIGHTS: dict[str, Case] = {
    "merged update (LoRA)": model(Lora, 5, 12),
    "update as a parametrization": idiom(lambda self, x: self.layer(x), layer=lambda: parametrized(AddsUpdate)),
    "rotation as a parametrization": idiom(lambda self, x: self.layer(x), layer=lambda: parametrized(Rotates)),
    "update of layers (PEFT)": idiom(
        lambda self, x: functional.linear(x, self.base.weight + self.up.weight @ self.down.weight),
        base=linear,
        down=lambda: linear(16, 2),
        up=lambda: linear(2, 16),
    ),
    "update beside (LoRA)": idiom(
        lambda self, x: self.base(x) + self.up(self.down(x)),
        base=linear,
        down=lambda: linear(16, 2),
        up=lambda: linear(2, 16),
    ),
    "factors": idiom(lambda self, x: x @ (self.u @ self.v), u=lambda: parameter(16, 3), v=lambda: parameter(3, 16)),
    "factors, one scaled": idiom(
        lambda self, x: x @ (self.w + (self.u * 2) @ self.v),
        w=lambda: parameter(16, 16),
        u=lambda: parameter(16, 3),
        v=lambda: parameter(3, 16),
    ),
    "basis": idiom(
        lambda self, x: x @ (self.basis @ self.w),
        basis=lambda: nn.Buffer(torch.ones(16, 4)),
        w=lambda: parameter(4, 16),
    ),
    "weight norm": idiom(lambda self, x: self.layer(x), layer=lambda: parametrizations.weight_norm(linear())),
    "weight norm of a convolution": idiom(
        lambda self, x: self.layer(x.mT), layer=lambda: parametrizations.weight_norm(nn.Conv1d(16, 8, 3))
    ),
    "standardised weight": idiom(lambda self, x: self.layer(image(x)), layer=lambda: StandardisedConv(16, 8, 3)),
    "ternary weight": idiom(lambda self, x: self.layer(x), layer=lambda: Ternary(16, 8)),
    "orthogonal weight": model(CayleyWeight, 5, 8),
    "cosine head": idiom(
        lambda self, x: functional.normalize(x, dim=-1) @ functional.normalize(self.prototypes, dim=-1).t(),
        prototypes=query,
    ),
    "raw query": idiom(lambda self, x: (x @ self.q.t()).softmax(1).mT @ x, q=query),
    "weight tied across layers": idiom(
        lambda self, x: functional.linear(self.layer(x), self.layer.weight.t()), layer=linear
    ),
    "embedding tied to the head": Case(build=Tied, inputs=lambda: ((tokens(2, 3),), {})),
    "modulated weight (StyleGAN)": idiom(lambda self, x: self.layer(x), layer=Modulated),
    # The FLOP counter's own rule refuses every other format.
    "experts by group": Case(build=lambda: Experts().bfloat16(), inputs=lambda: ((floats(30, 16).bfloat16(),), {})),
    "experts gathered by token": model(ChosenExperts, 6, 8),
    "experts side by side": idiom(
        lambda self, x: torch.einsum(
            "bte,ebtd->btd", self.gate(x).softmax(-1), torch.einsum("btd,edf->ebtf", x, self.w)
        ),
        gate=lambda: linear(16, 4),
        w=lambda: parameter(4, 16, 16),
    ),
    "heads in an einsum": idiom(
        lambda self, x: torch.einsum("btd,hde->bhte", x, self.w), w=lambda: parameter(2, 16, 8)
    ),
    "weights before data": idiom(lambda self, x: self.mix @ x, mix=lambda: parameter(9, 16)),
    "einsum with the weight first": idiom(
        lambda self, x: torch.einsum("oi,bti->otb", self.w, x), w=lambda: parameter(8, 16)
    ),
}
"""Weights that are made before they are used, and those that are used as they are."""


def conv(make: Callable[..., nn.Module], *args: Any, **settings: Any) -> Case:
    return idiom(lambda self, x: self.layer(image(x)), layer=lambda: make(*args, **settings))


LAYERS: dict[str, Case] = {
    "odd convolutions": model(OddConvs, 4, 3, 64, 64),
    "strided": conv(nn.Conv2d, 16, 8, 3, 2, 1),
    "depthwise": conv(nn.Conv2d, 16, 16, 3, padding=1, groups=16),
    "grouped, dilated": conv(nn.Conv2d, 16, 32, 3, padding=2, dilation=2, groups=4),
    "transposed": conv(nn.ConvTranspose2d, 16, 8, 3, 2, 1, 1),
    "transposed depthwise": conv(nn.ConvTranspose2d, 16, 16, 2, 2, groups=16),
    "separable": conv(lambda: nn.Sequential(nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1, bias=False))),
    "gated": idiom(lambda self, x: self.a(x) * self.b(x).sigmoid(), a=linear, b=linear),
    "bottleneck": conv(
        lambda: nn.Sequential(nn.Conv2d(16, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(True), nn.Conv2d(4, 16, 3))
    ),
    "attention": model(Attention, 2, 5, 16),
    "encoder": model(lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2, 5, 16),
    "decoder": idiom(
        lambda self, x: self.layer(x, x), layer=lambda: nn.TransformerDecoderLayer(16, 4, 32, batch_first=True)
    ),
    "cross covariance (XCiT)": idiom(lambda self, x: self.layer(x), layer=CrossCovariance),
    "similarity": idiom(lambda self, x: functional.normalize(x, dim=-1) @ functional.normalize(x, dim=-1).mT),
    "outer product": idiom(lambda self, x: torch.einsum("bi,bj->bij", x.mean(1), x.amax(1)).flatten(1)),
    "token mixing": idiom(
        lambda self, x: x + self.mix(x.mT).mT, mix=lambda: nn.Sequential(linear(16, 8), nn.GELU(), linear(8, 16))
    ),
    "shared layer": idiom(lambda self, x: self.layer(self.layer(x).relu()), layer=linear),
    "cell": idiom(lambda self, x: self.cell(x[:, 0], (x[:, 1], x[:, 2])), cell=lambda: nn.LSTMCell(16, 16)),
    "encoder stack": model(
        lambda: nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)), 2, 5, 8
    ),
    "lstm": model(lambda: Recurrent(lambda: nn.LSTM(6, 5, 2)), 4, 3, 6),
    "bidirectional gru": model(lambda: Recurrent(lambda: nn.GRU(6, 5, bidirectional=True)), 4, 3, 6),
    "rnn": model(lambda: Recurrent(lambda: nn.RNN(6, 5)), 4, 3, 6),
    "no checkpoint": model(lambda: Checkpointed("none"), 5, 8),
    "checkpoints": model(lambda: Checkpointed("early stop"), 5, 8, plain=lambda: Checkpointed("none")),
    "reentrant checkpoints": model(lambda: Checkpointed("reentrant"), 5, 8, plain=lambda: Checkpointed("none")),
}
"""Layers and what is built of them."""
