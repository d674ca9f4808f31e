"""SliceGPT of an OPT: its stream rotated to principal components, the last of them deleted.

Ashkboos et al., arXiv 2401.15024. A norm without a scale gives the same rotated as it does before, so a rotation of the
stream can be put into the weights around it; what is deleted then is what a token's stream has least of.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..sliced import sliced_width
from ..training.recording import hearing

__all__ = ["StreamNorm", "sliced_opt"]


class StreamNorm(nn.Module):
    """x / root of the mean of squares, of any dtype and shape [.., width]; what was deleted counts as zeros, so the
    mean is over ``whole`` values."""

    def __init__(self, whole: int, eps: float) -> None:
        super().__init__()
        self.whole, self.eps = whole, eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) / self.whole + self.eps)


class _Block(nn.Module):
    """A decoder layer of OPT, norms before, whose stream goes through a matrix on its way around each half."""

    def __init__(self, layer: Any, widths: tuple[int, int, int], whole: int, eps: float) -> None:
        """``widths`` of the stream: before, between and behind its halves."""
        super().__init__()
        like = {"dtype": layer.fc1.weight.dtype, "device": layer.fc1.weight.device}
        before, between, behind = widths
        attention = copy.deepcopy(layer.self_attn)
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(attention, name, nn.Linear(before, attention.embed_dim, **like))
        attention.out_proj = nn.Linear(attention.embed_dim, between, **like)
        self.self_attn, self.norm = attention, StreamNorm(whole, eps)
        self.attention_shortcut = nn.Linear(before, between, bias=False, **like)
        self.fc1 = nn.Linear(between, layer.fc1.out_features, **like)
        self.activation_fn = layer.activation_fn
        self.fc2 = nn.Linear(layer.fc2.in_features, behind, **like)
        self.mlp_shortcut = nn.Linear(between, behind, bias=False, **like)

    def forward(self, hidden_states: Tensor, **given: Any) -> Tensor:
        found, _ = self.self_attn(hidden_states=self.norm(hidden_states), **given)
        x = self.attention_shortcut(hidden_states) + found
        made: Tensor = self.mlp_shortcut(x) + self.fc2(self.activation_fn(self.fc1(self.norm(x))))
        return made


def sliced_opt(model: nn.Module, tokens: Tensor | None, share: float) -> nn.Module:
    """A copy of ``model``, an OPT with norms before, whose stream is ``share`` as wide; ``tokens`` int64 [pieces,
    length] are those whose stream the rotations are of. Without any only shapes are made."""
    decoder: Any = getattr(getattr(model, "model", None), "decoder", None)
    if decoder is None or decoder.project_in is not None or decoder.final_layer_norm is None:
        raise InputError(f"{type(model).__name__} is no OPT with norms before its layers: choose characters")
    whole = decoder.config.hidden_size
    width = sliced_width(whole, share)
    small: Any = copy.deepcopy(model)
    inner, like = small.model.decoder, {"dtype": decoder.embed_tokens.weight.dtype, "device": small.device}
    eps = decoder.final_layer_norm.eps
    inner.embed_tokens = nn.Embedding(decoder.embed_tokens.num_embeddings, width, **like)
    positions = copy.deepcopy(decoder.embed_positions)
    positions.weight = nn.Parameter(torch.empty(len(positions.weight), width, **like))
    positions.embedding_dim = width
    inner.embed_positions = positions
    inner.layers = nn.ModuleList(_Block(layer, (width, width, width), whole, eps) for layer in decoder.layers)
    inner.final_layer_norm = StreamNorm(whole, eps)
    small.lm_head = nn.Linear(width, model.lm_head.out_features, **like)  # type: ignore[union-attr,arg-type]
    if tokens is not None:
        with torch.no_grad():
            _fill(small, model, _rotations(model, decoder, tokens), width)
    return small.eval()  # type: ignore[no-any-return]


def _centred(weight: Tensor) -> Tensor:
    """What writes to the stream, [.., width], without the mean of what it writes: what a norm would subtract."""
    return weight - weight.mean(-1, keepdim=True)


def _rotations(model: nn.Module, decoder: Any, tokens: Tensor) -> list[Tensor]:
    """For every norm, in order, the principal components of what comes out of it without its scale and shift, over
    all tokens: double [width, width], a component a column, that with the most first."""
    norms = [n for layer in decoder.layers for n in (layer.self_attn_layer_norm, layer.final_layer_norm)]
    norms.append(decoder.final_layer_norm)
    sums = [torch.zeros(decoder.config.hidden_size, decoder.config.hidden_size, dtype=torch.double) for _ in norms]

    def look(number: str, norm: Any, args: tuple[Tensor, ...]) -> None:
        x = _centred(args[0].double()).flatten(0, -2)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps)
        sums[int(number)] += x.T @ x

    with hearing([(str(i), norm) for i, norm in enumerate(norms)], look):
        for piece in torch.split(tokens, 32):
            model(input_ids=piece)
    return [torch.linalg.eigh(total)[1].flip(1) for total in sums]


def _fill(small: Any, model: Any, rotations: list[Tensor], width: int) -> None:
    """The weights of ``small``: those of ``model`` between norms that only divide, rotated, and cut."""
    cut = [rotation[:, :width] for rotation in rotations]
    old, new = model.model.decoder, small.model.decoder

    def write(into: Any, source: Any, q: Tensor) -> None:
        """What writes to the stream; embeddings have a row a token, layers a column an output."""
        if isinstance(source, nn.Embedding):
            into.weight.copy_(_centred(source.weight.double()) @ q)
        else:
            into.weight.copy_(q.T @ _centred(source.weight.double().T).T)
            into.bias.copy_(_centred(source.bias.double()) @ q)

    def read(into: Any, source: Any, norm: nn.LayerNorm, q: Tensor) -> None:
        """What reads it behind a norm, whose scale and shift it takes in."""
        weight = source.weight.double()
        bias = 0.0 if source.bias is None else source.bias.double()
        into.weight.copy_(weight * norm.weight.double() @ q)
        into.bias.copy_(bias + weight @ norm.bias.double())

    write(new.embed_tokens, old.embed_tokens, cut[0])
    write(new.embed_positions, old.embed_positions, cut[0])
    for i, (was, layer) in enumerate(zip(old.layers, new.layers, strict=True)):
        first, second, third = cut[2 * i : 2 * i + 3]
        for name in ("q_proj", "k_proj", "v_proj"):
            read(getattr(layer.self_attn, name), getattr(was.self_attn, name), was.self_attn_layer_norm, first)
        write(layer.self_attn.out_proj, was.self_attn.out_proj, second)
        layer.attention_shortcut.weight.copy_((first.T @ second).T)
        read(layer.fc1, was.fc1, was.final_layer_norm, second)
        write(layer.fc2, was.fc2, third)
        layer.mlp_shortcut.weight.copy_((second.T @ third).T)
    read(small.lm_head, model.lm_head, old.final_layer_norm, cut[-1])
