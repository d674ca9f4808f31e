"""A small language model of characters: its text, what its layers keep under a form, and the record of that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from weft.cli import main
from weft.workloads.data.text import LETTERS, open_text
from weft.workloads.errors import InputError
from weft.workloads.models.zoo import source
from weft.workloads.recorded import Recorded
from weft.workloads.rows import alike_of
from weft.workloads.training import characters
from weft.workloads.training.characters import asked_form, bits, record_characters, recorded_rows, trained_characters
from weft.workloads.training.text_spec import MODEL
from weft.workloads.training.top_k import statistical_top_k

FC2 = [f"model.decoder.layers.{layer}.fc2" for layer in range(3)]


def test_a_text_has_two_parts_that_share_nothing() -> None:
    text = open_text("pydoc")
    assert len(text.train) > 8 * len(text.test) > 300_000
    assert int(text.train.max()) < LETTERS
    with pytest.raises(InputError, match="text 'pidoc' is unknown: did you mean 'pydoc'"):
        open_text("pidoc")


def test_a_statistical_threshold_leaves_its_share_of_normal_scores() -> None:
    torch.manual_seed(1)
    scores = 3 * torch.randn(4, 50_000) - 7
    kept = (scores > statistical_top_k(scores, 0.08)).float().mean(1)
    assert kept.tolist() == pytest.approx([0.08] * 4, abs=0.004)


@torch.no_grad()
def test_an_input_that_has_not_changed_is_read_as_it_was() -> None:
    torch.manual_seed(2)
    x, limit = torch.randn(3 * 64, 5), 0.8  # three pieces, as a layer behind a reshape reads them
    changed = characters._changed(limit, x)
    expected, fresh = torch.empty_like(x), torch.zeros_like(x, dtype=torch.bool)
    for piece in range(3):
        for column in range(5):
            held = 0.0
            for t in range(piece * 64, piece * 64 + 64):
                value = float(x[t, column])
                if abs(value - held) > limit:
                    held, fresh[t, column] = value, True
                expected[t, column] = held
    assert torch.equal(changed, fresh) and torch.equal(characters._held(x, changed), expected)
    assert float((expected - x).abs().max()) <= limit
    asked = characters._limit_of_changes(x, 0.3)
    assert float(characters._changed(asked, x).float().mean()) == pytest.approx(0.3, abs=0.01)


@torch.no_grad()
def test_the_rest_of_the_inputs_goes_through_the_nearest_matrix_of_low_rank() -> None:
    """One layer of a network, by NumPy."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(18, 16), torch.nn.Linear(16, 2))
    x = torch.randn(4, 18)
    w, b = (p.detach().double().numpy() for p in model[0].parameters())
    u, s, v = np.linalg.svd(w)
    low = (u[:, :2] * s[:2]) @ v[:2]  # an eighth of 16 outputs
    mask = (x.abs() > 0.5).numpy()
    first = np.where(mask, x, 0) @ w.T + np.where(mask, 0, x) @ low.T + b
    with characters._leaving_out(model, {"0": lambda y: y.abs() > 0.5}, "low rank"):
        found = model(x)
    second, bias = (p.detach().double().numpy() for p in model[1].parameters())
    np.testing.assert_allclose(found.numpy(), first @ second.T + bias, rtol=1e-4, atol=1e-5)
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


@pytest.mark.slow
def test_layers_keep_what_their_form_says() -> None:
    """Of a model that nobody trained."""
    torch.manual_seed(0)
    model, text = source(MODEL).build().eval(), open_text("pydoc")
    assert model.config.vocab_size == LETTERS
    relu, teal, wina = (recorded_rows(model, text, rows, 64) for rows in ("relu", "teal@0.5", "wina@0.3"))
    assert list(relu.inputs) == FC2
    assert len(teal.inputs) == len(wina.inputs) == 18  # all but the scores of the letters
    assert all(mask.shape == (64, 512 if name in FC2 else 128) for name, mask in wina.inputs.items())
    assert float(np.mean([mask.mean() for name, mask in teal.inputs.items() if name not in FC2])) == pytest.approx(
        0.5, abs=0.05
    )
    assert float(np.mean([mask.mean() for name, mask in wina.inputs.items() if name not in FC2])) == pytest.approx(
        0.3, abs=0.05
    )
    # What a ReLU cut is not read anyway, and what lies under a threshold changes the scores.
    assert relu.about.score == bits(model, text)
    assert teal.about.score != relu.about.score
    assert 0.3 < alike_of(relu.inputs[FC2[0]]).density < 0.7


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("cats@0.5", "form 'cats' is not recorded of characters; choose one of relu, teal, wina, rsparse, delta"),
        ("rely", "form 'rely' is unknown"),
        ("relu@0.5", "what a ReLU leaves is measured; write relu"),
        ("teal", "is not of the form teal@0.5"),
        ("teal@1.5", "density of rows must be above 0 to 1"),
    ],
)
def test_what_is_not_recorded_is_refused(asked: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        asked_form(asked)


@pytest.mark.slow
def test_the_same_seed_is_the_same_model_and_training_helps() -> None:
    text = open_text("pydoc")
    one, same, other = (trained_characters(text, steps=steps, seed=seed) for steps, seed in ((8, 0), (8, 0), (8, 1)))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert bits(one, text) == bits(same, text) != bits(other, text)
    assert bits(one, text) < bits(trained_characters(text, steps=1), text)


@pytest.mark.slow
def test_a_model_that_is_trained_with_a_top_k_keeps_about_its_share() -> None:
    found = record_characters("spark@0.1", steps=20, tokens=64)
    assert list(found.inputs) == FC2
    assert all(0.02 < mask.mean() < 0.25 for mask in found.inputs.values())


@pytest.mark.slow
def test_the_command_records_rows_and_runs_by_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.npz"
    assert main(["record", MODEL, "--rows", "relu", "--steps", "5", "--tokens", "32", "-o", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [mask["layer"] for mask in document["masks"]] == FC2
    assert Recorded.read(path).about.score == document["score"]
    asked = ["run", MODEL, "--for", "decode", "--context", "32", "--batch", "4", "--arch", "tiny"]
    assert main([*asked, "--rows", f"relu@{path}", "--json"]) == 0
    ops = json.loads(capsys.readouterr().out)["ops"]
    assert sum("measured" in str(op.get("pattern")) for op in ops) == 3
    assert main([*asked, "--rows", f"relu@{path}", "--scheme", "bdwp"]) == 2
    assert "leaves out rows of dense weights" in capsys.readouterr().err
    assert main([*asked, "--rows", f"relu@{path}", "--dram-trace", str(tmp_path / "t")]) == 2
    assert "which are known when it runs" in capsys.readouterr().err
    assert main(["record", MODEL, "--scheme", "erk", "-o", str(path)]) == 2
    assert "--scheme is not for characters" in capsys.readouterr().err
    assert main(["record", "mlp", "--rows", "relu", "-o", str(path)]) == 2
    assert "--rows is for characters, a model of text" in capsys.readouterr().err
    assert main(["generate", MODEL, "--context", "16", "--new", "8", "--rows", "teal@0.5", "--arch", "tiny"]) == 0
