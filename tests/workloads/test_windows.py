"""Attention counted by its sliding window: which layers have one, and products, bytes and gradients by the mask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.step import VectorOp, Workload
from weft.workloads.windows import padded_pairs, windows_of

SEQ, HEADS, HEAD, BATCH = 64, 4, 16, 2
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": HEAD,
    "vocab_size": 50,
    "max_position_embeddings": 128,
    "num_hidden_layers": 2,
    "sliding_window": 24,
    "pad_token_id": 0,
}
MODELS = {
    "mistral": ({"architectures": ["MistralForCausalLM"]}, [24, 24]),
    "phi3": ({"architectures": ["Phi3ForCausalLM"]}, [24, 24]),
    "gemma2": (
        {"architectures": ["Gemma2ForCausalLM"], "layer_types": ["sliding_attention", "full_attention"]},
        [24, None],
    ),
    "qwen2": ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "max_window_layers": 1}, [None, 24]),
    "modernbert": (
        {
            "architectures": ["ModernBertForMaskedLM"],
            "sliding_window": 12,
            "layer_types": ["full_attention", "sliding_attention"],
        },
        [None, 25],
    ),
}
"""With the keys that a query of each layer sees, by the documentation of the model."""


def traced(folder: Path, name: str, attention: str, **changes: object) -> Workload:
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": name, **TEXT, **MODELS[name][0], **changes}))
    return weft.trace(path, batch=BATCH, seq=SEQ, attention=attention)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_products_of_attention_by_hand(tmp_path: Path, name: str) -> None:
    """In FF two products of S x W keys a head, in BP four; all else is as over the full square."""
    full, found = traced(tmp_path, name, "full"), traced(tmp_path, name, "window")
    saved = sum((SEQ - window) * SEQ * HEAD * HEADS * BATCH for window in MODELS[name][1] if window is not None)
    assert full.dense_macs[Pass.FF] - found.dense_macs[Pass.FF] == 2 * saved
    assert full.dense_macs[Pass.BP] - found.dense_macs[Pass.BP] == 4 * saved
    assert full.dense_macs[Pass.WU] == found.dense_macs[Pass.WU]
    assert found.input.endswith("attention by window") and "window" not in full.input
    for one, other in zip(full.ops, found.ops, strict=True):
        assert (one.name, one.pass_) == (other.name, other.pass_)
        if one != other and isinstance(one, VectorOp) and isinstance(other, VectorOp):
            assert one.elements == BATCH * HEADS * SEQ * SEQ
            assert one.elements * other.read_bytes == other.elements * one.read_bytes
    weft.simulate(weft.schedule(weft.sparsify(found, "bdwp", "2:8"), "tiny"))


def test_a_window_as_long_as_the_sequence_is_the_full_square(tmp_path: Path) -> None:
    full = traced(tmp_path, "mistral", "full", sliding_window=SEQ)
    assert traced(tmp_path, "mistral", "window", sliding_window=SEQ).ops == full.ops
    assert traced(tmp_path, "mistral", "window", sliding_window=1000).ops == full.ops


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_pairs_against_the_mask(queries: int, width: int, causal: bool) -> None:
    """Pairs that the mask of transformers allows, one by one, and those counted before the first or behind the last."""
    window = min(width, queries) if causal else 2 * min(width, (queries + 1) // 2) - 1
    reach = window if causal else window // 2 + 1
    allowed = sum(
        (0 <= q - key < reach) if causal else abs(q - key) < reach for q in range(queries) for key in range(queries)
    )
    assert queries * window == allowed + padded_pairs(window, queries, causal=causal)


def test_the_masks_of_transformers_are_those_counted() -> None:
    from transformers.masking_utils import (
        sliding_window_bidirectional_mask_function,
        sliding_window_causal_mask_function,
    )

    causal, both = sliding_window_causal_mask_function(24), sliding_window_bidirectional_mask_function(12)
    q = torch.tensor(40)
    assert sum(bool(causal(0, 0, q, torch.tensor(k))) for k in range(64)) == 24
    assert sum(bool(both(0, 0, q, torch.tensor(k))) for k in range(64)) == 25


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no attention layer of .* names a sliding window"):
        traced(tmp_path, "mistral", "window", sliding_window=None)
    with pytest.raises(InputError, match=r"no attention layer of .* names a sliding window"):
        weft.trace("resnet9", batch=1, attention="window")
    with pytest.raises(InputError, match="attention is 'windw': did you mean 'window'"):
        traced(tmp_path, "mistral", "windw")
    assert windows_of(torch.nn.Linear(2, 2).named_modules()) == {}
