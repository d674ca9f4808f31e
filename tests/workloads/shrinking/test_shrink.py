"""A classifier trained, shrunk, tuned and traced; what is asked wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import weft
from weft.cli import main
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.shrinking import FORMS, Asked, shrink
from weft.workloads.training import new_model, plan, step_workload, train


def test_a_shrunk_model_is_what_its_step_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.json"
    asked = ["mlp", "--by", "trp@0.9", "--epochs", "2", "--tune", "1", "-o", str(file), "--json"]
    assert main(["shrink", *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    sizes = {layer["layer"]: layer["after"] for layer in found["layers"]}
    (r, _), (_, same) = sizes["1"]
    assert r == same and sizes["5"] == [[10, 256]]
    weights = sum(shape[0] * shape[1] for after in sizes.values() for shape in after)
    assert found["parameters"] == [85_002, weights + 256 + 256 + 10]
    assert found["macs"] == 64 * (3 * weights - 64 * r)

    step = weft.trace(file)
    assert step.dense_macs[Pass.FF] == 64 * weights
    # What the trace says is what runs, and N:M is laid over it like over any other.
    small, dense = (weft.simulate(weft.schedule(s, "tiny")) for s in (step, step_workload(plan("mlp"))))
    assert 0 < small.cycles.total < dense.cycles.total
    assert main(["compare", str(file), "--arch", "tiny", "--schemes", "dense,sdwp", "--json"]) == 0


def test_a_model_of_ones_own_trains_as_the_spec_says() -> None:
    spec = plan("mlp", scheme="dense", epochs=1)
    own = train(spec, model=new_model(spec))
    assert own.digest == train(spec).digest
    with pytest.raises(InputError, match="of a model in memory cannot be resumed; leave the folder out"):
        train(spec, Path("nowhere"), model=new_model(spec))
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("rnak@0.5", "form 'rnak' of shrinking is unknown: did you mean 'rank'"),
        ("rank", "'rank' is not of the form rank@0.5, with a share above 0 and below 1 that is kept"),
        ("rank@1", "'rank@1' is not of the form"),
        ("rank@nan", "'rank@nan' is not of the form"),
    ],
)
def test_what_is_no_form_is_refused(by: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Asked.read(by)


def test_what_cannot_be_shrunk_or_traced_is_refused() -> None:
    with pytest.raises(InputError, match="'supernet9' shrinks by itself"):
        shrink("supernet9", "rank@0.5", epochs=1)
    with pytest.raises(InputError, match="epochs of tuning must be"):
        shrink("mlp", "rank@0.5", epochs=1, tune=0)
    found = shrink("mlp", "rank@0.5", epochs=1, tune=1)
    assert found.step("infer", 3).batch == 3
    with pytest.raises(InputError, match="to train or to infer, not to decode"):
        found.step("decode")
    with torch.no_grad():
        assert found.module(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("tokens", "core", "slice")])
def test_every_form_shrinks_a_network_of_convolutions_that_still_knows_its_digits(form: str) -> None:
    if form in ("channels", "scales"):
        pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'weft[prune]'")
    share = {"channels": 0.5, "scales": 0.5, "rank": 0.8, "trp": 0.95, "maestro": 0.8}[form]
    found = shrink("resnet9", f"{form}@{share}")

    assert found.parameters[1] < 0.8 * found.parameters[0]
    assert found.tuned > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tokens", "core"])
def test_a_transformer_without_three_of_ten_tokens_still_knows_its_digits(form: str) -> None:
    found = shrink("vit_s", f"{form}@0.7", data="mnist5k")

    assert found.parameters[0] == found.parameters[1]
    assert all(layer.after == (layer.before,) for layer in found.layers)
    assert found.trained > 0.85
    assert found.tuned > max(found.cut - 0.02, 0.8)
