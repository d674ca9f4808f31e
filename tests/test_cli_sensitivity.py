"""`weft sensitivity`: scores of a training, the file that `--nm` takes, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import weft
from weft.cli import main
from weft.workloads.schemes.scores import DISTILLED, METHODS, Scores, rank_correlation
from weft.workloads.training import plan, resume, train, trained
from weft.workloads.training.scored import score


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "dense"
    train(plan("mlp", scheme="dense", epochs=3), folder)
    return folder


FEW = ("--images", "16", "--probes", "2", "--candidates", "1:8,2:8,int3")


def test_scores_are_written_and_a_step_takes_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scores.json"
    assert main(["sensitivity", str(run), *FEW, "-o", str(path)]) == 0
    told = capsys.readouterr().out
    assert "fisher, N:M; rank correlation with the loss" in told
    assert "zeroq, bits" in told
    found = Scores.read(path)
    assert found.methods == tuple(method for method in METHODS if method != DISTILLED)
    assert [layer.layer for layer in found.layers] == ["1", "3", "5"]
    assert found.digest == resume(run).digest
    assert found.by("loss")["1"].keys() == {"1:8", "2:8", "int3"}
    assert found == score(run, ("1:8", "2:8", "int3"), images=16, probes=2)

    # The same again, byte by byte, whatever was drawn before.
    again = tmp_path / "again.json"
    assert main(["sensitivity", str(run), *FEW, "-o", str(again), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert again.read_bytes() == path.read_bytes()
    assert document["agreement"]["loss"] == {"N:M": 1.0, "bits": 1.0}
    assert document["layers"] == json.loads(path.read_text())["layers"]

    assert main(["run", "mlp", "--batch", "16", "--nm", f"loss@0.2:{path}", "--arch", "tiny", "--json"]) == 2
    assert "model 'mlp' is unknown" in capsys.readouterr().err
    assert main(["run", "resnet9", "--batch", "1", "--nm", f"loss@0.2:{path}"]) == 2
    assert "there are no scores of layer '7.body.0'" in capsys.readouterr().err
    assert main(["run", "resnet9", "--batch", "1", "--nm", f"loss@0.2:{path}", "--nm", "3=dense"]) == 2
    assert "chooses for all layers, so it stands alone" in capsys.readouterr().err


def test_a_policy_is_a_pattern_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    step = weft.sparsify(weft.trace("resnet9", batch=1), "bdwp", "erk@0.25")
    cycles = weft.simulate(weft.schedule(step, "tiny")).cycles.total
    options = ("resnet9", "--batch", "1", "--arch", "tiny", "--nm", "erk@0.25", "--json")
    assert main(["run", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cycles"] == cycles
    assert told["layer_patterns"] == [str(rule) for rule in step.layer_patterns]
    assert main(["compare", *options]) == 0
    assert [found["cycles"] for found in json.loads(capsys.readouterr().out)["schemes"]][-1] == cycles


def test_integers_by_layer_are_rules_and_policies_too(capsys: pytest.CaptureFixture[str]) -> None:
    step = weft.trace("resnet9", batch=1)
    options = ("--batch", "1", "--arch", "bnn-ecp5", "--json")
    for asked, nm in ((["int4", "19=int8"], ("--nm", "int4", "--nm", "19=int8")), ("uniform@3bits",) * 2, (None, ())):
        made = weft.sparsify(step, "integer", asked)
        cycles = weft.simulate(weft.schedule(made, "bnn-ecp5")).cycles.total
        given = ("--nm", nm) if isinstance(nm, str) else nm
        assert main(["run", "resnet9", "--scheme", "integer", *given, *options]) == 0
        assert json.loads(capsys.readouterr().out)["cycles"] == cycles
    # Beside schemes that take patterns, those are no integers' business.
    assert main(["compare", "resnet9", "--schemes", "dense,bdwp,integer", "--nm", "2:8", *options]) == 0
    assert json.loads(capsys.readouterr().out)["schemes"][2]["cycles"] == cycles
    for scheme, nm, said in (
        ("integer", "2:8", "scheme 'integer' takes no N:M pattern, but 2:8 is given"),
        ("integer", "erk@0.25", "scheme 'integer' takes no N:M pattern, but erk@0.25 is given"),
        ("bdwp", "uniform@4bits", "scheme 'bdwp' takes no integers of weights by layer"),
        ("bdwp", "fc=int4", "scheme 'bdwp' takes no integers of weights by layer"),
    ):
        assert main(["run", "resnet9", "--scheme", scheme, "--nm", nm, *options]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_distilled_images_rank_layers_as_those_of_the_training_set_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(plan("resnet9", scheme="dense", epochs=2), tmp_path / "run")
    path, few = tmp_path / "scores.json", ("1:8", "2:8", "4:8", "int2", "int3", "int4")
    options = ("--method", f"zeroq,{DISTILLED}", "--candidates", ",".join(few), "--images", "32", "-o", str(path))
    assert main(["sensitivity", str(tmp_path / "run"), *options]) == 0
    assert f"{DISTILLED}, bits" in capsys.readouterr().out
    found = Scores.read(path)
    real, made = (found.by(method) for method in ("zeroq", DISTILLED))
    assert rank_correlation(*([by[layer][c] for layer in by for c in few] for by in (real, made))) > 0.9
    within = [rank_correlation(*([by[layer][c] for layer in by] for by in (real, made))) for c in few]
    assert min(within) > 0.5
    step = weft.sparsify(weft.trace("resnet9", batch=1), "bdwp", f"{DISTILLED}@0.25:{path}")
    assert len({str(rule.pattern) for rule in step.layer_patterns}) > 1


def test_training_leaves_the_checkpoint_alone(run: Path) -> None:
    before = trained(run)
    score(run, ("2:8",), ("magnitude",), images=8)
    assert all((trained(run).model.state_dict()[k] == v).all() for k, v in before.model.state_dict().items())


def test_an_interrupt_ends_it_at_once(run: Path) -> None:
    seen: list[int] = []

    def interrupt(done: int, every: int) -> None:
        seen.append(done)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        score(run, ("2:8",), images=64, progress=interrupt)
    assert seen == [1]


def test_what_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse = tmp_path / "sparse"
    train(plan("mlp", scheme="srste", epochs=1), sparse)
    for arguments, said in (
        ((sparse,), "was trained under 'srste', whose dense weights alone are not the network"),
        ((tmp_path,), "is not the folder of a training"),
        ((run, "--images", "0"), "images must be an integer from 1 to"),
        ((run, "--method", "hawq"), "method 'hawq' is unknown"),
        ((run, "--method", DISTILLED), "has no batch norm that keeps mean and variance"),
        ((run, "--candidates", "2:8,int9"), "candidate 'int9' is no N:M pattern"),
        ((run, "--candidates", "4:3"), "N:M pattern 4:3 keeps 4 of 3"),
        ((run, "--probes", "0"), "probes must be an integer from 1"),
        ((run, "--seed", "-1"), "seed must be an integer from 0"),
        ((run, "-o", tmp_path), "is a folder"),
    ):
        assert main(["sensitivity", *map(str, arguments)]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
