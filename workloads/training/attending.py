"""Attention of the trained model of characters by a pattern of `blocks`, so that what a pattern costs is measured.

Each function says which keys the queries of a call see, bool [samples, heads, queries, keys], from the queries and keys
themselves. A query always sees itself and never what comes behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..attended import PROBES
from ..blocks import BestBlocks, Blocks, Causal, Routed, SparkKeys, TopKeys, VerticalSlash, Window
from ..data.text import TextData
from ..errors import InputError
from .characters import CALIBRATED, bits, pieces
from .random_features import directions, scattered
from .top_k import statistical_top_k

__all__ = ["bits_attending", "seen"]

_NAME = "weft_blocks"
_ROUNDS = 10
"""Of k-means."""


def seen(blocks: Blocks, q: Tensor, k: Tensor, *, heavy: Tensor | None = None, centres: Tensor | None = None) -> Tensor:
    """Which keys ``k`` each query of ``q`` sees, both float [samples, heads, tokens, channels]: bool [samples, heads,
    queries, keys].

    ``heavy``: of `TopKeys`, channels by head, int [heads, channels]; ``centres``: of `Routed`, float [heads, clusters,
    channels].
    """
    n = q.shape[2]
    place = torch.arange(n)
    behind = place[:, None] - place[None]
    match blocks.pattern:
        case Causal():
            found = torch.ones(n, n, dtype=torch.bool)
        case Window(keys=width, sinks=sinks):
            found = (behind < width) | (place < sinks)
        case BestBlocks(keep=keep):
            found = _by_block(_best_blocks(q, k, keep, blocks.block), blocks.block, n)
        case VerticalSlash(verticals=verticals, slashes=slashes):
            found = _by_block(_upright_and_slanted(q, k, verticals, slashes, blocks.block), blocks.block, n)
        case TopKeys(keep=keep):
            assert heavy is not None, "calibrated before"
            found = _top_keys(q, k, heavy, keep)
        case SparkKeys(keep=keep, channels=channels):
            _require_channels(blocks.pattern, q.shape[-1])
            found = _spark_keys(q[..., :channels] @ k[..., :channels].mT, keep)
        case Routed():
            assert centres is not None, "calibrated before"
            found = _routed(q, k, centres)
        case _:
            assert_never(blocks.pattern)
    return ((found & (behind >= 0)) | (behind == 0)).expand(*q.shape[:2], n, n)


def _by_block(met: Tensor, block: int, tokens: int) -> Tensor:
    """Tokens of blocks, from which tile meets which block."""
    return met.repeat_interleave(block, -2).repeat_interleave(block, -1)[..., :tokens, :tokens]


def _pooled(x: Tensor, block: int) -> Tensor:
    """Means of blocks of tokens."""
    return torch.stack([part.mean(2) for part in torch.split(x, block, 2)], 2)


def _largest(scores: Tensor, many: int) -> Tensor:
    """Whether each is one of the ``many`` largest of the last axis."""
    found = torch.zeros_like(scores, dtype=torch.bool)
    return found.scatter(-1, scores.topk(min(many, scores.shape[-1]), -1).indices, True)


def _best_blocks(q: Tensor, k: Tensor, keep: int, block: int) -> Tensor:
    scores = _pooled(q, block) @ _pooled(k, block).mT
    blocks = torch.arange(scores.shape[-1])
    after = blocks[None] > blocks[:, None]
    scores = scores.masked_fill(after, -math.inf).masked_fill(torch.eye(len(blocks), dtype=torch.bool), math.inf)
    return _largest(scores, keep) & ~after


def _upright_and_slanted(q: Tensor, k: Tensor, verticals: int, slashes: int, block: int) -> Tensor:
    n = q.shape[2]
    probed = q[:, :, -PROBES:]
    place = torch.arange(n)
    scores = probed @ k.mT / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(place[None] > place[n - probed.shape[2] :, None], -math.inf).softmax(-1)
    many = -(-n // block)
    column = weights.sum(2) @ _of_block(place // block, many, q.dtype)
    distance = (place[n - probed.shape[2] :, None] // block - place[None] // block).clamp_min(0)
    slanted = (weights.flatten(2) @ _of_block(distance.flatten(), many, q.dtype)).index_fill(
        -1, torch.tensor(0), math.inf
    )
    t, j = torch.arange(many)[:, None], torch.arange(many)[None]
    upright = _largest(column, verticals) if verticals else torch.zeros_like(column, dtype=torch.bool)
    return upright[:, :, None, :] | _largest(slanted, slashes)[:, :, (t - j).clamp_min(0)]


def _of_block(number: Tensor, many: int, dtype: torch.dtype) -> Tensor:
    """A sum by number as a product, [numbers, many] of 0 and 1."""
    return (number[:, None] == torch.arange(many)[None]).to(dtype)


def _top_keys(q: Tensor, k: Tensor, heavy: Tensor, keep: int) -> Tensor:
    picked = heavy[None, :, None, :].expand(len(q), -1, q.shape[2], -1)
    scores = q.gather(-1, picked) @ k.gather(-1, picked).mT
    place = torch.arange(q.shape[2])
    return _largest(scores.masked_fill(place[None] > place[:, None], -math.inf), keep)


def _spark_keys(scores: Tensor, keep: int) -> Tensor:
    """Of the scores up to a query those above its threshold, and all of them where there are no more than ``keep``."""
    found = torch.zeros_like(scores, dtype=torch.bool)
    for last in range(scores.shape[-1]):
        own = scores[..., last, : last + 1]
        found[..., last, : last + 1] = True if last < keep else own > statistical_top_k(own, keep / (last + 1))
    return found


def _require_channels(pattern: TopKeys | SparkKeys, width: int) -> None:
    if pattern.channels > width:
        raise InputError(
            f"channels of {pattern.kind.replace('-', ' ')} are {pattern.channels}, but a head has {width}; choose from "
            f"1 to {width}"
        )


def _routed(q: Tensor, k: Tensor, centres: Tensor) -> Tensor:
    """Queries and keys of a cluster see one another; each cluster takes its share of both, those nearest to it."""
    share = -(-q.shape[2] // centres.shape[1])
    of_q, of_k = (_largest(centres[None] @ nn.functional.normalize(x, dim=-1).mT, share).float() for x in (q, k))
    return (of_q.mT @ of_k) > 0


@torch.no_grad()
def bits_attending(model: nn.Module, text: TextData, blocks: Blocks, *, seed: int = 0) -> tuple[float, float]:
    """Bits a character of the test text with attention by ``blocks``, and the share of all causal pairs that is seen.

    ``model`` is that of `characters.trained_characters`, trained on ``text`` with all of its attention; heavy channels
    and centres of clusters are of the training text. Random features, of double precision, are drawn once a layer, by
    ``seed``.
    """
    learned = _learned(model, text, blocks)
    shares: list[Tensor] = []

    def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        mask = seen(blocks, q, k, **learned.get(module.layer_idx, {}))
        shares.append(mask.float().sum() / mask.shape[:2].numel() / (q.shape[2] * (q.shape[2] + 1) / 2))
        if not blocks.features:
            return _attended(q, k, v, mask), None
        along = directions(blocks.features, q.shape[-1], seed + module.layer_idx)
        made = scattered(q.double(), k.double(), v.double(), mask, along, blocks.block).to(v.dtype)
        return made.transpose(1, 2).contiguous(), None

    with _attention(model, attend):
        found = bits(model, text)
    return found, float(torch.stack(shares).mean())


def _attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Of queries that come scaled, [samples, tokens, heads, channels]."""
    weights = (q @ k.mT).masked_fill(~mask, -math.inf).softmax(-1)
    return (weights @ v).transpose(1, 2).contiguous()


def _learned(model: nn.Module, text: TextData, blocks: Blocks) -> dict[int, dict[str, Tensor]]:
    """By layer, what a pattern takes from queries and keys of the training text."""
    pattern = blocks.pattern
    if not isinstance(pattern, TopKeys | Routed):
        return {}
    found: dict[int, dict[str, Tensor]] = {}

    def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        width = q.shape[-1]
        if isinstance(pattern, TopKeys):
            _require_channels(pattern, width)
            heavy = (q.abs().mean((0, 2)) * k.abs().mean((0, 2))).topk(pattern.channels).indices
            found[module.layer_idx] = {"heavy": heavy}
        else:
            both = torch.cat([q, k], 2).transpose(0, 1).flatten(1, 2)
            found[module.layer_idx] = {"centres": _centres(nn.functional.normalize(both, dim=-1), pattern.clusters)}
        return _attended(q, k, v, seen(Blocks(pattern=Causal()), q, k)), None

    with _attention(model, attend):
        model(input_ids=pieces(text.train, CALIBRATED)[:, :-1])
    return found


def _centres(points: Tensor, many: int) -> Tensor:
    """Spherical k-means of ``points``, of length 1, float [heads, points, channels], from points evenly apart."""
    first = torch.linspace(0, points.shape[1] - 1, many).long()
    centres = points[:, first]
    for _ in range(_ROUNDS):
        mine = nn.functional.one_hot((points @ centres.mT).argmax(-1), many).to(points.dtype)
        # A cluster without a point stays where it is.
        centres = nn.functional.normalize(mine.mT @ points + 1e-6 * centres, dim=-1)
    return centres


@contextmanager
def _attention(model: nn.Module, attend: Any) -> Iterator[None]:
    config: Any = model.config
    before = config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[_NAME] = attend
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        del ALL_ATTENTION_FUNCTIONS[_NAME]
