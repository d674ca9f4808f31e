"""A super-network in training: which path a step takes, what it updates, and what sub-networks inherit."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from torch.nn import functional

from weft.cli import main
from weft.workloads.checkpoint import digest, load_checkpoint, save_checkpoint
from weft.workloads.data import normalised, open_data
from weft.workloads.errors import InputError
from weft.workloads.models import zoo
from weft.workloads.models.subnetwork import DEPTHS, LARGEST, SMALLEST, WIDTHS
from weft.workloads.models.supernet import SuperNet
from weft.workloads.schemes import attach
from weft.workloads.training import (
    CHECKPOINT,
    SUBNETS,
    accuracies,
    accuracy_of,
    new_model,
    plan,
    resume,
    step_workload,
    subnets,
    train,
    trained,
)
from weft.workloads.training.run import VERSION, Run
from weft.workloads.training.supernet import paths_of

from ...shared_slices import sliced

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
LARGEST_NAME = "supernet9:w1-1-1:d3-3-3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A super-network of two epochs under BDWP 2:8."""
    made = tmp_path_factory.mktemp("supernet")
    train(plan("supernet9", epochs=2, seed=4), made)
    return made


# --- the path of a step


def test_every_path_is_as_likely_as_any_other() -> None:
    spec, sides = plan("supernet9", seed=5, paths=1), (4, 6, 8)
    drawn = [path for step in range(6480) for path in paths_of(spec, step, sides)]
    assert len(drawn) == 6480
    assert paths_of(spec, 7, sides) == drawn[7:8] and paths_of(replace(spec, seed=6), 7, sides) != drawn[7:8]
    ends = [(LARGEST, 8), (SMALLEST, 4)]
    for paths in (2, 3, 5):
        found = paths_of(replace(spec, paths=paths), 7, sides)
        assert found[:2] == ends and found[2:3] == drawn[7:8][: paths - 2]
        assert len(found) == len(set(found)) == paths
    counted = (
        (len(WIDTHS) ** 3, Counter(path.widths for path, _ in drawn)),
        (len(DEPTHS) ** 3 * 3, Counter((path.depths, side) for path, side in drawn)),
        (len(WIDTHS) * len(DEPTHS) * 3, Counter((path.widths[2], path.depths[0], side) for path, side in drawn)),
    )
    for choices, counts in counted:
        assert len(counts) == choices
        assert chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize("paths", [1, 4])
def test_a_few_steps_equal_those_on_slices_that_autograd_makes(paths: int) -> None:
    """Nesterov's momentum with decay; a convolution that was not passed stands still. Of several sub-networks all but
    the first have the distance of their probabilities from its as their loss."""
    spec = plan("supernet9", scheme="dense", epochs=1, batch=32, paths=paths)
    data = open_data("digits")
    run, model = Run(spec, data, None, CPU), new_model(spec)
    assert isinstance(model, SuperNet)
    decays, others = ([p for p in model.parameters() if (p.dim() > 1) == more] for more in (True, False))
    made = torch.optim.SGD(
        [{"params": decays, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}],
        spec.learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    for step in range(4 if paths == 1 else 2):  # rounding grows from step to step, and with the sub-networks
        pixels, labels = run._batch()
        for group in made.param_groups:
            group["lr"] = spec.rate(step, run.steps)
        made.zero_grad()
        first, *others = (sliced(model, *path, pixels) for path in paths_of(spec, step, (4, 6, 8)))
        loss = functional.cross_entropy(first, labels)
        for other in others:
            loss += functional.kl_div(other.log_softmax(1), first.detach().softmax(1), reduction="batchmean")
        loss.backward()
        made.step()
        run.advance()
    for mine, plain in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4)


def test_what_a_scheme_adds_to_gradients_is_of_whole_weights_and_added_once() -> None:
    gradients, weights = [], []
    for decay in (0.0, 0.5):
        spec = plan("supernet9", scheme="srste", epochs=1, batch=32, options={"decay": decay})
        assert spec.paths > 1
        run = Run(spec, open_data("digits"), None, CPU)
        layer = run.technique.layers["stages.2.1.conv"]
        weights.append(layer.weight.detach().clone())
        run.advance()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
    assert torch.equal(*weights)
    groups = weights[0].movedim(1, -1).unflatten(-1, (-1, 8))  # along the inputs
    left_out = (groups.abs().argsort(-1, descending=True).argsort(-1) >= 2).flatten(-2).movedim(-1, 1)
    torch.testing.assert_close(gradients[1] - gradients[0], 0.5 * weights[0] * left_out, rtol=1e-4, atol=1e-6)


def test_only_a_super_network_trains_several_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [plan(name).paths for name in ("supernet9", f"{LARGEST_NAME}@8", "mlp")] == [4, 1, 1]
    for model in ("mlp", LARGEST_NAME):
        assert main(["train", model, "--paths", "2", "--epochs", "1", "-o", str(tmp_path / "none")]) == 2
        assert f"paths must be 1 for model '{model}', not 2" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match="paths must be an integer from 1 to 1024, not 0"):
        plan("supernet9", paths=0)


def test_a_checkpoint_from_before_there_were_several_goes_on_with_one(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    spec = plan("supernet9", scheme="dense", epochs=1, batch=512, paths=1)
    with pytest.raises(KeyboardInterrupt):
        train(spec, tmp_path / "old", progress=stop)
    state = load_checkpoint(tmp_path / "old" / CHECKPOINT, VERSION)
    written = json.loads(state["spec"])
    assert written.pop("paths") == 1
    save_checkpoint(tmp_path / "old" / CHECKPOINT, {**state, "spec": json.dumps(written)})
    train(spec, tmp_path / "new")
    assert resume(tmp_path / "old").digest == resume(tmp_path / "new").digest


def test_a_training_that_was_stopped_ends_in_the_same_bits(tmp_path: Path, folder: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 20:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(plan("supernet9", epochs=2, seed=4), tmp_path, progress=stop)
    resume(tmp_path)
    states = [load_checkpoint(where / CHECKPOINT, VERSION) for where in (tmp_path, folder)]
    for state in states:
        for row in (*state["log"], state["epoch"]):
            del row["seconds"]
    assert digest(states[0]) == digest(states[1])


def test_the_log_is_of_the_masks_of_the_whole_weights(folder: Path) -> None:
    log = load_checkpoint(folder / CHECKPOINT, VERSION)["log"]
    assert all(0.24 < row["density_ff"] < 0.27 for row in log)
    assert 0.0 < log[0]["flip_rate"] < log[0]["sad"] < log[1]["sad"] < 0.5


@pytest.mark.parametrize("scheme", ["transposable", "set", "gmp"])
def test_a_scheme_that_remembers_weights_is_refused(scheme: str) -> None:
    with pytest.raises(InputError, match=f"scheme '{scheme}' keeps something of every weight between steps.*or bdwp"):
        train(plan("supernet9", scheme=scheme))


# --- what is inherited


def measured_alone(run: Run, name: str) -> float:
    """The sub-network taken out, its masks and the statistics of its batch norms made by hand."""
    path, side = zoo.subnetwork(name), zoo.find(name)[1]
    assert isinstance(run.model, SuperNet) and path is not None
    alone = run.model.extracted(path, side)
    attach(alone, run.spec.scheme, run.spec.pattern, steps=1).before_step(0)
    norms = [module for module in alone.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: dict[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {norm: [] for norm in norms}

    def note(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen[module].append((given[0].mean((0, 2, 3)), given[0].var((0, 2, 3))))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    data = run.data
    with torch.no_grad():
        for begin in range(0, 1024, 256):
            alone(normalised(data, data.train.fetch(torch.arange(begin, begin + 256))))
        for hook in hooks:
            hook.remove()
        for norm in norms:
            norm.running_mean, norm.running_var = (torch.stack(held).mean(0) for held in zip(*seen[norm], strict=True))
        alone.eval()
        scores = alone(normalised(data, data.validation.fetch(torch.arange(len(data.validation.labels)))))
    return float((scores.argmax(1) == data.validation.labels).double().mean())


def test_inherited_accuracy_is_that_of_the_sub_network_taken_out(folder: Path) -> None:
    names = ["supernet9:w0.5-0.25-1:d2-1-3@8", "supernet9:w0.25-0.75-0.5:d1-3-1@6", f"{LARGEST_NAME}@4"]
    run, found = trained(folder), accuracies(folder, names)
    assert [found[name] for name in names] == pytest.approx([measured_alone(run, name) for name in names], abs=2 / 357)
    assert len(set(found.values())) > 1


def test_the_training_itself_validates_the_largest(folder: Path) -> None:
    assert (
        accuracy_of(folder, LARGEST_NAME)
        == load_checkpoint(folder / CHECKPOINT, VERSION)["log"][-1]["validation_accuracy"]
    )


def test_what_was_measured_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = accuracy_of(folder, "supernet9:w0.5-0.5-0.5:d1-1-1")
    monkeypatch.setattr(subnets, "_measure", lambda run, key: pytest.fail("measured again"))
    monkeypatch.setattr(subnets, "_run", lambda *_: pytest.fail("read again"))
    assert accuracies(str(folder), ["supernet9:d1-1-1:w0.5-0.5-0.5@8"]) == {"supernet9:d1-1-1:w0.5-0.5-0.5@8": first}


def test_what_was_measured_of_another_training_is_not_taken(folder: Path, tmp_path: Path) -> None:
    train(plan("supernet9", scheme="dense", epochs=1, batch=512), tmp_path)
    table = json.loads((folder / SUBNETS).read_text()) if (folder / SUBNETS).exists() else {}
    table = {"version": 1, "supernet": "supernet9", "side": 8, **table, "checkpoint": "0" * 64}
    table["validation"] = {f"{LARGEST_NAME}@8": 0.125}
    (tmp_path / SUBNETS).write_text(json.dumps(table))
    found = accuracy_of(tmp_path, LARGEST_NAME)
    assert json.loads((tmp_path / SUBNETS).read_text())["validation"] == {f"{LARGEST_NAME}@8": found}
    assert found == trained(tmp_path).log[-1].validation_accuracy


def test_ctrl_c_keeps_what_is_measured(tmp_path: Path) -> None:
    train(plan("supernet9", scheme="dense", epochs=1, batch=512), tmp_path)
    names = list(zoo.subnetworks("supernet9@8"))[:4]

    def stop(done: int, of: int) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        accuracies(tmp_path, names, progress=stop)
    assert sorted(json.loads((tmp_path / SUBNETS).read_text())["validation"]) == sorted(names[:2])
    seen = list[tuple[int, int]]()
    assert len(accuracies(tmp_path, names, progress=lambda *done: seen.append(done))) == 4
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("supernet9:w1-1-1:d1-1-1@5", "image side 5 .* trained at: 4, 6, 8; the nearest is 4"),
        ("supernet9:w1-1-2:d1-1-1", "the nearest sub-network is supernet9:w1-1-1:d1-1-1"),
        ("supernet9", "is no sub-network of supernet9, which was trained; name one as supernet9:w1-1-1:d3-3-3@8"),
        ("resnet9", "is no sub-network of supernet9"),
    ],
)
def test_a_sub_network_that_was_not_trained_is_refused(folder: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        accuracy_of(folder, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "subnets.json"),
        ('{"version": 1, "checkpoint": "0", "supernet": "s", "side": 8}', "validation"),
        ('{"version": 2, "checkpoint": "0", "supernet": "s", "side": 8, "validation": {}}', "of version 2"),
        ('{"version": 1, "checkpoint": "0", "supernet": "s", "side": 8, "validation": {"a": 7}}', "no share"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, folder: Path, content: str, message: str) -> None:
    (tmp_path / CHECKPOINT).write_bytes((folder / CHECKPOINT).read_bytes())
    (tmp_path / SUBNETS).write_text(content)
    with pytest.raises(InputError, match=message):
        accuracy_of(tmp_path, LARGEST_NAME)


def test_a_folder_without_a_super_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no checkpoint\.pt"):
        accuracy_of(tmp_path, LARGEST_NAME)
    train(plan("mlp", scheme="dense", epochs=1, batch=512), tmp_path)
    with pytest.raises(InputError, match="of 'mlp', which is no super-network; train one: weft train supernet9"):
        accuracy_of(tmp_path, LARGEST_NAME)


# --- commands


def test_the_network_that_is_trained_alone_is_the_one_that_is_counted() -> None:
    name = "supernet9:w0.5-0.25-1:d2-1-3@6"
    step = step_workload(plan(name, scheme="dense"))
    path = zoo.subnetwork(name)
    assert path is not None
    assert step.model == name
    assert step.parameters == sum(p.numel() for p in SuperNet(8, inputs=1).extracted(path, 6).parameters())


def test_the_commands_take_sub_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "supernet9:w0.25-0.25-0.25:d1-1-1@6", "--epochs", "1", "--scheme", "dense", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["model"] == "supernet9:w0.25-0.25-0.25:d1-1-1@6"
    assert main(["trace", "supernet9:w0.25-0.25-0.25:d1-1-1@8", "--batch", "2", "-o", str(tmp_path / "step.json")]) == 0
    assert json.loads((tmp_path / "step.json").read_text())["model"] == "supernet9:w0.25-0.25-0.25:d1-1-1"
