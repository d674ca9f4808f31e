"""Mixtures of experts that route by values, as people write them: each beside real tensors that are routed evenly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .oracle_configs import routed_config
from .oracles import Case


class Mixture(nn.Module):
    """A layer in front, a gate, experts, and a function that puts them to work."""

    def __init__(self, call: Callable[..., Tensor], experts: int, chosen: int) -> None:
        super().__init__()
        self.front, self.gate, self.chosen = nn.Linear(16, 16), nn.Linear(16, experts, bias=False), chosen
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(experts)
        )
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x).flatten(0, 1)
        return self.call(self, x, *self.gate(x).softmax(-1).topk(self.chosen))


def hit_experts(self: Any, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """Mixtral's: where of a one-hot mask, for the experts that anyone chose."""
    out, mask = torch.zeros_like(x), functional.one_hot(chosen, len(self.experts)).permute(2, 1, 0)
    for expert in torch.greater(mask.sum(dim=(-1, -2)), 0).nonzero():
        place, token = torch.where(mask[expert].squeeze(0))
        out.index_add_(0, token, self.experts[expert](x[token]) * weights[token, place, None])
    return out


def boolean_masks(self: Any, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for number, expert in enumerate(self.experts):
        mask = (chosen == number).any(-1)
        if mask.any():
            out[mask] += expert(x[mask]) * weights[chosen == number][:, None]
    return out


def sorted_and_split(self: Any, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    flat = chosen.view(-1)
    order = flat.argsort()
    token = order // self.chosen
    parts = x[token].split(torch.bincount(flat, minlength=len(self.experts)).tolist())
    made = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
    return torch.zeros_like(x).index_add(0, token, made * weights.view(-1)[order, None])


def counted_and_found(self: Any, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """DeepSeek's own: counts, and where of a comparison."""
    out, counts = torch.zeros_like(x), torch.bincount(chosen.flatten(), minlength=len(self.experts)).tolist()
    for number, expert in enumerate(self.experts):
        if counts[number]:
            token, place = torch.where(chosen == number)
            out[token] += expert(x[token]) * weights[token, place, None]
    return out


def ends_in_numpy(self: Any, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """DeepSeek's inference code: counts by scatter, ends in numpy."""
    counts = chosen.new_zeros((len(chosen), len(self.experts))).scatter_(1, chosen, 1)
    order, start, outs = chosen.view(-1).argsort(), 0, []
    rows = x[order // self.chosen]
    for expert, count in zip(self.experts, counts.sum(0).cpu().numpy(), strict=True):
        outs.append(expert(rows[start : start + count]))
        start += count
    out = torch.empty_like(rows)
    out[order] = torch.cat(outs)
    return (out.view(*chosen.shape, -1) * weights.unsqueeze(-1)).sum(1)


def up_to_a_capacity(self: Any, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """Tokens beyond the room of an expert are dropped: here four at most, fewer than the share of the first."""
    mask = functional.one_hot(chosen[:, 0], len(self.experts))
    kept = (mask.cumsum(0) <= 4) & mask.bool()
    out = x.clone()
    for number, expert in enumerate(self.experts):
        token = kept[:, number].nonzero().squeeze(1)
        out = out.index_copy(0, token, expert(x.index_select(0, token)) * weights[token, :1])
    return out


def one_after_the_other(self: Any, x: Tensor, _weights: Tensor, _chosen: Tensor) -> Tensor:
    """GShard's: the best, and the best of what is left."""
    scores = self.gate(x)
    first = functional.one_hot(scores.argmax(-1), len(self.experts))
    second = functional.one_hot(scores.masked_fill(first.bool(), -torch.inf).argmax(-1), len(self.experts))
    out, both = x.clone(), first + second
    for number, expert in enumerate(self.experts):
        token = both[:, number].nonzero().squeeze(1)
        out[token] += expert(x[token]) * scores[token, number, None]
    return out


def _mixture(call: Callable[..., Tensor], experts: int = 4, chosen: int = 2) -> Case:
    return Case(
        build=lambda: Mixture(call, experts, chosen), inputs=lambda: ((torch.zeros(2, 9, 16),), {}), routed=True
    )


ROUTED: dict[str, Case] = {
    "one-hot mask and where": _mixture(hit_experts),
    "boolean masks": _mixture(boolean_masks),
    "sorted and split": _mixture(sorted_and_split),
    "counts and where": _mixture(counted_and_found),
    "ends in numpy": _mixture(ends_in_numpy),
    "capacity": _mixture(up_to_a_capacity),
    "one after the other": _mixture(one_after_the_other),
    "more experts than shares": _mixture(hit_experts, 16, 1),
    "a remainder": _mixture(boolean_masks, 7, 3),
    "jetmoe": routed_config("JetMoeForCausalLM", kv_channels=8),
    "mixtral": routed_config("MixtralForCausalLM"),
    "qwen2_moe": routed_config("Qwen2MoeForCausalLM", shared_expert_intermediate_size=16),
    "switch_transformers": routed_config(
        "SwitchTransformersForConditionalGeneration", "pair", num_sparse_encoder_layers=1, num_sparse_decoder_layers=1
    ),
    "deepseek_v3": routed_config(
        "DeepseekV3ForCausalLM",
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        q_lora_rank=16,
        kv_lora_rank=16,
        num_key_value_heads=4,
    ),
    "granitemoe": routed_config("GraniteMoeForCausalLM"),
    "nllb_moe": routed_config("NllbMoeForConditionalGeneration", "pair", encoder_sparse_step=2, decoder_sparse_step=2),
}
"""Cases whose experts get their shares of values."""
