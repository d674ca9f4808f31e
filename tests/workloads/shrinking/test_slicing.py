"""A narrower stream: the rotated model against the whole one, and its shapes against a trace of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import weft
from weft.cli import main
from weft.workloads.data.text import open_text
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.models.zoo import source
from weft.workloads.shrinking import Asked, shrink, slice_characters, sliced_opt
from weft.workloads.shrinking.text import sliced_to
from weft.workloads.sliced import sliced, sliced_width
from weft.workloads.step import VectorOp
from weft.workloads.trace import trace_use
from weft.workloads.training.characters import trained_characters

pytestmark = pytest.mark.usefixtures("one_thread")


def fresh() -> tuple[nn.Module, Tensor]:
    """Scales and shifts of norms are no ones and zeros."""
    torch.manual_seed(0)
    model = source("characters").build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, torch.randint(0, 97, (4, 24))


@torch.no_grad()
def test_a_stream_that_is_rotated_and_whole_gives_what_it_gave() -> None:
    model, tokens = fresh()
    small = sliced_opt(model, tokens, 1.0)
    torch.testing.assert_close(small(input_ids=tokens).logits, model(input_ids=tokens).logits, rtol=1e-4, atol=1e-4)
    # and so it decodes, token by token behind keys and values that it keeps
    behind = small(input_ids=tokens[:, :-1], use_cache=True).past_key_values
    last = small(input_ids=tokens[:, -1:], past_key_values=behind).logits[:, 0]
    torch.testing.assert_close(last, model(input_ids=tokens).logits[:, -1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_directions_that_a_stream_never_takes_are_deleted_for_nothing() -> None:
    """A model whose stream has 64 of 128 dimensions, in a basis that nobody can see."""
    model, tokens = fresh()
    basis = torch.linalg.qr(torch.randn(128, 128))[0][:, :63]
    onto = basis @ basis.T
    decoder = model.model.decoder
    decoder.embed_tokens.weight.copy_(decoder.embed_tokens.weight @ onto)  # the scores' too: they are tied
    decoder.embed_positions.weight.copy_(decoder.embed_positions.weight @ onto)
    for layer in decoder.layers:
        for writer in (layer.self_attn.out_proj, layer.fc2):
            writer.weight.copy_(onto @ writer.weight)
            writer.bias.copy_(onto @ writer.bias)
    small = sliced_opt(model, tokens, 0.5)  # 63, and one less for the mean that a norm takes away
    torch.testing.assert_close(small(input_ids=tokens).logits, model(input_ids=tokens).logits, rtol=1e-3, atol=1e-3)
    less = sliced_opt(model, tokens, 0.25)(input_ids=tokens).logits
    assert float((less - model(input_ids=tokens).logits).abs().max()) > 0.05


@pytest.mark.parametrize("use", ["prefill", "decode"])
def test_shapes_are_those_of_the_sliced_model_traced(use: str) -> None:
    step = weft.trace("characters", use=use, context=16, batch=2)
    whole = source("characters")
    small = replace(whole, build=lambda: sliced_opt(whole.build(), None, 0.75))
    traced = trace_use(small, use, context=16, batch=2)
    narrow = sliced(step, 0.75)

    assert Counter(op.gemm for op in narrow.matrix_ops) == Counter(op.gemm for op in traced.matrix_ops)
    # Norms have no scale and shift there, and scores have a shift: 7 x 2 x 96 against 97.
    elements = [sum(held.elements for held in one.frozen) for one in (narrow, traced)]
    assert elements[0] - elements[1] == 7 * 2 * 96 - 97
    adds = [op.elements for op in narrow.ops if isinstance(op, VectorOp) and op.name.endswith("layers.1")]
    tokens = 2 * (16 if use == "prefill" else 1)
    assert adds == [tokens * 96] * 2
    assert narrow.phase == step.phase


def test_a_seven_billion_model_by_hand() -> None:
    """Of Llama-2 7B at three quarters: a block reads 3 x 3072 x 4096, 4096 x 3072, 2 x 3072 x 11008, 11008 x 3072, and
    multiplies its stream twice by 3072 x 3072."""
    narrow = weft.narrow(weft.trace("llama2_7b", use="decode", context=8), 0.75)
    block = 4 * 3072 * 4096 + 3 * 3072 * 11008 + 2 * 3072 * 3072
    attention = 32 * 2 * 32 * 9 * 128
    assert sum(narrow.dense_macs.values()) == 32 * block + attention + 3072 * 32000
    assert "a stream of 3072 of 4096" in narrow.input
    shortcut = next(i for i, op in enumerate(narrow.ops) if op.name.endswith("o_proj.shortcut"))
    assert narrow.ops[shortcut].gemm == Gemm(m=1, k=3072, n=3072)
    assert weft.simulate(weft.schedule(narrow, "hbm-asic")).cycles.total > 0


@pytest.mark.parametrize(("width", "share", "found"), [(128, 0.75, 96), (128, 0.01, 8), (768, 0.7, 536), (4, 0.5, 4)])
def test_widths_are_whole_eights(width: int, share: float, found: int) -> None:
    assert sliced_width(width, share) == found


def test_what_has_no_stream_to_slice_is_refused() -> None:
    decode = weft.trace("characters", use="decode", context=4)
    for step, said in (
        (weft.trace("characters", batch=1), "is sliced in use: trace a step with use infer, prefill or decode"),
        (weft.sparsify(decode, "wanda", "2:8"), "before anything else"),
        (weft.trace("resnet9", use="infer"), "has no residual stream of 512 that begins with an embedding"),
        (weft.trace("mixtral_8x7b", use="decode", context=4), "adds what no weight makes alone to the stream"),
    ):
        with pytest.raises(InputError, match=said):
            sliced(step, 0.5)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="share of a stream must be above 0 and at most 1"):
            sliced(decode, share)
    with pytest.raises(InputError, match="Linear is no OPT with norms before its layers"):
        sliced_opt(nn.Linear(2, 2), None, 0.5)
    with pytest.raises(InputError, match=r"slice@0\.5 is of a residual stream of a model of text, characters"):
        shrink("mlp", "slice@0.5")
    with pytest.raises(InputError, match=r"rank@0\.5 is of classifiers of images"):
        slice_characters("rank@0.5")


def test_a_sliced_text_model_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "step.json"
    asked = ["characters", "--by", "slice@0.5", "--steps", "2", "--context", "8", "-o", str(file), "--json"]
    assert main(["shrink", *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["width"] == [128, 64] and found["bits"]["trained"] < found["bits"]["cut"] + 1
    step = weft.trace(file)
    assert found["macs"] == sum(step.dense_macs.values()) and step.phase.context == 8
    expected = sum(sliced(weft.trace("characters", use="decode", context=8), 0.5).dense_macs.values())
    assert found["macs"] == expected

    assert main(["run", "characters", "--for", "decode", "--context", "8", "--slice", "0.5", "--arch", "tiny"]) == 0
    assert main(["generate", "characters", "--context", "8", "--new", "4", "--slice", "0.5", "--arch", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "a stream of 64 of 128" in said
    for wrong, why in (
        (["shrink", "characters", "--by", "slice@0.5", "--tune", "1"], "--tune is not for characters"),
        (["shrink", "mlp", "--by", "rank@0.5", "--steps", "1"], "--steps is for characters"),
        (["shrink", "mlp", "--by", "rank@0.5", "--context", "1"], "--context 1 is for characters"),
        (["run", "mlp", "--masks", "none.npz", "--slice", "0.5"], "leave out --slice 0.5"),
    ):
        assert main(wrong) == 2
        assert why in capsys.readouterr().err


@pytest.mark.slow
def test_more_of_the_stream_costs_fewer_bits() -> None:
    model = trained_characters(open_text("pydoc"))
    more, less = (sliced_to(model, Asked.read(f"slice@{share}")) for share in (0.75, 0.5))
    assert more.trained < more.cut < less.cut
    assert more.cut - more.trained < 1.0
