"""The training loop: against a plain one, killed and resumed, refused, and good enough at its task."""

from __future__ import annotations

import copy
import csv
import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import weft
from weft._cli import train as train_command
from weft.cli import main
from weft.workloads.checkpoint import digest, load_checkpoint, save_checkpoint
from weft.workloads.data import Images, augmented, normalised, open_data, order
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes.scheme import SCHEMES
from weft.workloads.sparsity import NMPattern
from weft.workloads.strict import dump_json
from weft.workloads.training import (
    CHECKPOINT,
    LOG,
    RESULT,
    TrainSpec,
    loop,
    new_model,
    plan,
    resume,
    step_workload,
    train,
)
from weft.workloads.training import run as run_module
from weft.workloads.training.control import this_host
from weft.workloads.training.run import VERSION, Run
from weft.workloads.training.seeds import AUGMENT, ORDER, generator_of
from weft.workloads.update_rule import UPDATE_RULES

HEAD = "import torch\nfrom torch import nn\n"


pytestmark = pytest.mark.usefixtures("one_thread")


def short(**changes: Any) -> TrainSpec:
    """Three epochs of the perceptron: 48 steps of 16."""
    return plan("mlp", **{"epochs": 3, "scheme": "bdwp", **changes})


def stop_at(step: int, number: int = signal.SIGINT) -> Callable[[int, int], None]:
    """Progress that signals this process when ``step`` steps are done."""

    def progress(done: int, _: int) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return progress


def timeless(folder: Path) -> str:
    """Digest of everything in a checkpoint but the times."""
    state = load_checkpoint(folder / CHECKPOINT, VERSION)
    for row in (*state["log"], state["epoch"]):
        del row["seconds"]
    return digest(state)


def timeless_log(folder: Path) -> list[dict[str, str]]:
    with (folder / LOG).open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def require_same(broken: Path, whole: Path) -> None:
    assert timeless(broken) == timeless(whole)
    assert timeless_log(broken) == timeless_log(whole)
    assert sorted(p.name for p in broken.iterdir()) == [CHECKPOINT, LOG, RESULT]


PLAIN: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.9),
    "nesterov": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=1.0),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1.0),
}


@pytest.mark.parametrize("optimizer", UPDATE_RULES)
def test_the_loop_equals_a_plain_one(optimizer: str) -> None:
    spec = short(scheme="dense", optimizer=optimizer, label_smoothing=0.1)
    result = train(spec)
    data, model = open_data("digits"), new_model(spec)
    decays, others = ([p for p in model.parameters() if (p.dim() > 1) == more] for more in (True, False))
    groups = [{"params": decays, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}]
    made = PLAIN[optimizer](groups)
    step = 0
    for epoch in range(3):
        index = order(1085, generator_of(spec, ORDER, epoch))
        for number in range(16):
            chosen = index[64 * number : 64 * number + 64]
            generator = generator_of(spec, AUGMENT, step)
            pixels = normalised(data, augmented(data, data.train.fetch(chosen), generator))
            rate = (step + 1) / 5 if step < 5 else (1 + math.cos(math.pi * (step - 5) / 43)) / 2
            for group in made.param_groups:
                group["lr"] = spec.learning_rate * rate
            made.zero_grad()
            functional.cross_entropy(model(pixels), data.train.labels[chosen], label_smoothing=0.1).backward()
            made.step()
            step += 1
    for mine, plain in zip(result.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        found = model.eval()(normalised(data, data.test.fetch(torch.arange(355)))).argmax(1)
    assert result.accuracy == pytest.approx(int((found == data.test.labels).sum()) / 355, abs=2 / 355)


@pytest.mark.parametrize("optimizer", [None, *UPDATE_RULES])
def test_the_rule_that_is_trained_is_the_rule_that_is_timed(optimizer: str | None) -> None:
    spec = short(optimizer=optimizer)
    trained = Run(spec, open_data("digits"), None, torch.device("cpu")).optimizer
    timed = step_workload(spec).rule
    assert timed.name == (optimizer or "nesterov")
    assert type(trained).__name__ == timed.trained.optimizer
    assert all(trained.defaults[name] == value for name, value in timed.trained.settings.items())


def test_adam_has_no_weight_decay() -> None:
    assert short(optimizer="adam").weight_decay == 0.0
    with pytest.raises(InputError, match=r"weight decay must be 0 under 'adam', not 0\.05.*sgd, nesterov, adamw"):
        short(optimizer="adam", weight_decay=0.05)
    with pytest.raises(InputError, match=r"optimizer 'rmsprop' is unknown: choose one of adam, adamw, nesterov, sgd"):
        short(optimizer="rmsprop")


@pytest.mark.parametrize(("now", "then"), [("nesterov", "sgd"), ("adamw", "adam")])
def test_a_checkpoint_of_version_2_goes_on_by_the_rule_it_was_trained_by(tmp_path: Path, now: str, then: str) -> None:
    """There the names of momentum and Adam stood for Nesterov's momentum and AdamW."""
    spec = short(optimizer=now, epochs=2)
    whole = train(spec)
    with pytest.raises(KeyboardInterrupt):
        train(spec, tmp_path, progress=stop_at(20))
    state = load_checkpoint(tmp_path / CHECKPOINT, VERSION)
    assert state["spec"].count(f'"{now}"') == 1
    old = {**state, "version": 2, "spec": state["spec"].replace(f'"{now}"', f'"{then}"')}
    save_checkpoint(tmp_path / CHECKPOINT, old)
    again = resume(tmp_path, {"optimizer": now})
    assert (again.digest, again.spec) == (whole.digest, spec)
    assert load_checkpoint(tmp_path / CHECKPOINT, VERSION)["version"] == VERSION
    save_checkpoint(tmp_path / CHECKPOINT, {**old, "spec": old["spec"].replace(f'"{then}"', '"rmsprop"')})
    with pytest.raises(InputError, match="is not a checkpoint of a training"):
        resume(tmp_path)


class Fetches:
    """Images that count how often they are looked at."""

    def __init__(self, images: Images) -> None:
        self.images, self.labels, self.count = images, images.labels, 0

    def fetch(self, index: torch.Tensor) -> torch.Tensor:
        self.count += len(index)
        return self.images.fetch(index)


def test_the_test_set_is_looked_at_once_after_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data("digits")
    validation, test = Fetches(data.validation), Fetches(data.test)
    monkeypatch.setattr(loop, "open_data", lambda *_: replace(data, validation=validation, test=test))
    seen: list[tuple[int, int]] = []

    result = train(short(), progress=lambda *_: seen.append((validation.count, test.count)))

    assert seen[-1] == (2 * 357, 0)
    assert (validation.count, test.count) == (3 * 357, 355)
    assert not any("test" in column.name for column in fields(result.log[0]))


def test_other_test_images_change_the_accuracy_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data("digits")
    first = train(short())
    monkeypatch.setattr(loop, "open_data", lambda *_: replace(data, test=data.validation))
    second = train(short())

    assert second.accuracy == second.validation
    assert (second.digest, second.validation) == (first.digest, first.validation)
    assert [replace(row, seconds=0) for row in second.log] == [replace(row, seconds=0) for row in first.log]


def test_a_training_says_where_it_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short(), tmp_path, progress=stop_at(20))
    here = this_host()
    elsewhere = replace(here, core="z80", vector="NO AVX")
    monkeypatch.setattr(run_module, "this_host", lambda: elsewhere)
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path, progress=stop_at(25))
    result = resume(tmp_path)

    assert result.hosts == (here, elsewhere)
    assert here.torch == torch.__version__ and here.threads == 1
    assert here.vector == torch.backends.cpu.get_cpu_capability()
    assert here.processor in Path("/proc/cpuinfo").read_text()
    assert json.loads((tmp_path / RESULT).read_text())["hosts"][1]["core"] == "z80"


@given(steps=st.integers(1, 10**5), warmup=st.floats(0, 1), rate=st.floats(1e-6, 10))
def test_the_learning_rate_rises_and_falls(steps: int, warmup: float, rate: float) -> None:
    spec = plan("mlp", learning_rate=rate, warmup=warmup)
    rising = round(warmup * steps)
    at = {step: spec.rate(step, steps) for step in {0, rising - 1, rising, steps // 2, steps - 1} if 0 <= step < steps}
    assert all(0 < value <= rate * (1 + 1e-12) for value in at.values())
    if rising:
        assert at[0] == pytest.approx(rate / rising)
        assert at[rising - 1] == pytest.approx(rate)
    if rising < steps:
        assert at[rising] == pytest.approx(rate)
        assert spec.rate(steps, steps) == pytest.approx(0, abs=1e-12)


def test_equal_seeds_give_equal_bits_and_others_do_not(tmp_path: Path) -> None:
    first, again, other = (train(short(seed=seed), tmp_path / f"{i}") for i, seed in enumerate((0, 0, 1)))
    require_same(tmp_path / "0", tmp_path / "1")
    assert first.digest == again.digest != other.digest


def test_nothing_of_the_process_is_changed() -> None:
    def state() -> tuple[Any, ...]:
        return (
            torch.get_rng_state().tolist(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            signal.getsignal(signal.SIGINT),
        )

    before = state()
    train(short(epochs=1))
    assert state() == before


@pytest.mark.parametrize(
    "step", [28, pytest.param(7, marks=pytest.mark.slow), pytest.param(32, marks=pytest.mark.slow)]
)
def test_killed_and_resumed_ends_in_the_same_bits(tmp_path: Path, step: int) -> None:
    """Killed before the first epoch has ended, within the second, and right after it, before its checkpoint."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from weft.workloads import training\n"
        "from weft.workloads.training import loop\n"
        "loop.SAVE_EVERY = 5\n"
        "def progress(done, steps):\n"
        f"    if done == {step}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "training.train(training.plan('mlp', scheme='bdwp', epochs=3), Path(sys.argv[1]), progress=progress)\n"
    )
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    done = subprocess.run([sys.executable, "-c", code, broken], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    # What a writer leaves that is killed in the middle.
    (broken / f".{CHECKPOINT}.999.part").write_bytes(b"half")
    assert load_checkpoint(broken / CHECKPOINT, VERSION)["step"] in (step - 2, step - 3)
    resume(broken)
    train(short(), whole)
    require_same(broken, whole)


@pytest.mark.parametrize(
    "changes",
    [
        *({"scheme": name} for name in SCHEMES),
        {"scheme": "srste", "optimizer": "adamw"},
        {"scheme": "bdwp", "amp": "fp16"},
        {"scheme": "bdwp", "amp": "bf16"},
        {"scheme": "bdwp", "amp": "fp8"},
    ],
    ids=str,
)
def test_interrupted_and_resumed_ends_in_the_same_bits(tmp_path: Path, changes: dict[str, Any]) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    spec = short(epochs=2, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(spec, broken, progress=stop_at(13))
    with pytest.raises(KeyboardInterrupt):
        resume(broken, progress=stop_at(16))
    resume(broken)
    train(spec, whole)
    require_same(broken, whole)


def test_dropout_draws_the_same_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        f"{HEAD}def make(classes, size):\n    return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), "
        "nn.Linear(size * size, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes))\n"
    )
    spec = plan(f"{file}:make", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(spec, tmp_path / "broken", progress=stop_at(30))
    resume(tmp_path / "broken", {"model": spec.model})
    train(spec, tmp_path / "whole")
    require_same(tmp_path / "broken", tmp_path / "whole")


def test_code_that_only_a_checkpoint_names_is_never_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    body = "def make(classes, size):\n    return nn.Sequential(nn.Flatten(), nn.Linear(size * size, classes))\n"
    file.write_text(HEAD + body)
    spec = plan(f"{file}:make", scheme="dense", epochs=1)
    train(spec, tmp_path / "run")
    other = tmp_path / "evil.py"
    other.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'owned')!r}).touch()\n{HEAD}{body}")
    state = load_checkpoint(tmp_path / "run" / CHECKPOINT, VERSION)
    state["spec"] = state["spec"].replace(str(file), str(other))
    save_checkpoint(tmp_path / "run" / CHECKPOINT, state)
    for asked in (None, {"seed": 0}, {"model": spec.model}):
        with pytest.raises(InputError, match=r"evil\.py"):
            resume(tmp_path / "run", asked)
        assert main(["train", "--resume", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "owned").exists()
    assert resume(tmp_path / "run", {"model": f"{other}:make"}).accuracy >= 0
    assert (tmp_path / "owned").exists()


def test_a_finished_training_resumes_to_its_result(tmp_path: Path) -> None:
    result = train(short(epochs=1), tmp_path / "run")
    again = resume(tmp_path / "run", {"scheme": "bdwp", "seed": 0})
    assert (again.log, again.digest, again.spec) == (result.log, result.digest, result.spec)


def test_a_log_that_was_not_written_before_a_kill_is_written_at_the_next_start(tmp_path: Path) -> None:
    train(short(), tmp_path)
    whole = (tmp_path / "log.csv").read_bytes()
    (tmp_path / "log.csv").write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    resume(tmp_path)

    assert (tmp_path / "log.csv").read_bytes() == whole


@pytest.mark.parametrize(
    ("asked", "values"),
    [
        ({"scheme": "srste"}, "scheme bdwp, not srste"),
        ({"pattern": NMPattern(keep=1, group=4)}, "pattern 2:8, not 1:4"),
        ({"model": "resnet9"}, "model mlp, not resnet9"),
        ({"data": "cifar10:somewhere"}, "data digits, not cifar10:somewhere"),
        ({"epochs": 7}, "epochs 1, not 7"),
        ({"amp": "bf16"}, "amp none, not bf16"),
    ],
)
def test_a_training_of_something_else_is_not_resumed(tmp_path: Path, asked: dict[str, Any], values: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    spec = short(epochs=1)
    parts = {name: {} for name in ("model", "optimizer", "scaler", "technique")}
    state = {
        "version": VERSION,
        "spec": dump_json(TrainSpec, spec).decode(),
        "data": "",
        "threads": 1,
        "step": 0,
        "log": [],
        "hosts": [asdict(this_host())],
        **parts,
        "epoch": {"loss_sum": 0.0, "correct": 0, "seconds": 0.0},
    }
    save_checkpoint(folder / CHECKPOINT, state)
    with pytest.raises(InputError, match=values):
        resume(folder, asked)


def cifar(folder: Path, value: int = 0) -> Path:
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        rows = [bytes((0, label, *([25 * label + value] * 3072))) for label in range(10)]
        (folder / f"{name}.bin").write_bytes(b"".join(2 * rows))
    return folder


def test_data_may_move_but_not_change(tmp_path: Path) -> None:
    first, moved, other = cifar(tmp_path / "a"), cifar(tmp_path / "b"), cifar(tmp_path / "c", 1)
    spec = plan("mlp", data=f"cifar100:{first}", epochs=1, batch=8)
    assert train(spec, tmp_path / "run").log[-1].step == 1
    assert resume(tmp_path / "run", {"data": f"cifar100:{moved}"}).spec.data == f"cifar100:{moved}"
    with pytest.raises(InputError, match="other data"):
        resume(tmp_path / "run", {"data": f"cifar100:{other}"})


def test_a_folder_that_holds_a_training_is_not_overwritten(tmp_path: Path) -> None:
    train(short(epochs=1), tmp_path)
    before = timeless(tmp_path)
    with pytest.raises(InputError, match="holds a training already"):
        train(short(epochs=1, seed=1), tmp_path)
    assert timeless(tmp_path) == before


@pytest.mark.parametrize("raw", [None, b"", b"hello", b"cut", b"other"])
def test_what_is_no_training_is_not_resumed(tmp_path: Path, raw: bytes | None) -> None:
    path = tmp_path / CHECKPOINT
    if raw == b"cut":
        save_checkpoint(path, {"version": VERSION, "weight": torch.zeros(1000)})
        raw = path.read_bytes()[:-300]
    if raw == b"other":
        save_checkpoint(path, {"version": 0})
    elif raw is not None:
        path.write_bytes(raw)
    with pytest.raises(InputError, match=r"not the folder of a training|not a whole checkpoint|version 0"):
        resume(tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train(short(epochs=1), tmp_path)
    raw = bytearray((tmp_path / CHECKPOINT).read_bytes())
    # The middle of the file is a weight.
    raw[len(raw) // 2] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(raw)
    with pytest.raises(InputError, match=r"is damaged|not a whole checkpoint"):
        resume(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A checkpoint in the middle of the second epoch: Adam, loss scaling, masks that change."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.raises(KeyboardInterrupt):
        train(short(scheme="srste", optimizer="adamw", amp="fp16"), folder, progress=stop_at(30))
    return load_checkpoint(folder / CHECKPOINT, VERSION)


HUGE, NAN = 10**9, float("nan")
MALFORMED: dict[str, Any] = {
    "threads": [HUGE, 0, -1, 1.0, "1", None, True],
    "step": [1.5, -1, 64, 29, 31, "30", None, NAN],
    "spec": ["{}", 3, None, "[" * 10_000],
    "data": [3, None],
    "extra": [1],
    "log": [[], [1], None, {}],
    "log/0/epoch": [2, 1.0],
    "log/0/step": [22],
    "log/0/learning_rate": [0.5, NAN],
    "log/0/validation_accuracy": [1.5, 1],
    "log/0/loss": [NAN, "1"],
    "log/0/more": [1],
    "hosts": [[], None, [{}]],
    "hosts/0/threads": ["1", None],
    "hosts/0/torch": [2.0],
    "hosts/0/odd": [1],
    "epoch": [{}, None],
    "epoch/correct": [-1, 1.0],
    "epoch/loss_sum": [NAN, 1],
    "epoch/seconds": [-1.0],
    "epoch/__class__": [1],
    "model": [{}, None, []],
    "model/1.weight": [torch.zeros(3), torch.zeros(256, 64, dtype=torch.float64), 1, None],
    "model/1.bias": [torch.full((256,), NAN)],
    "model/odd": [torch.zeros(1)],
    "optimizer": [{}, None],
    "optimizer/state": [None, {0: {}}, {HUGE: {}}, {"0": {}}],
    "optimizer/state/0/exp_avg": [torch.zeros(3), None, torch.zeros(256, 64).half()],
    "optimizer/state/0/step": [torch.zeros(3), 30.0, torch.tensor(NAN)],
    "optimizer/state/0/max_exp_avg_sq": [1],
    "optimizer/param_groups": [[], None, [{}, {}]],
    "optimizer/param_groups/0/lr": [0.5, "x", NAN],
    "optimizer/param_groups/0/weight_decay": [0.5, None],
    "optimizer/param_groups/0/betas": [(0.9, 2.0), [0.9, 0.999]],
    "optimizer/param_groups/0/params": [[0, 0], [HUGE]],
    "optimizer/param_groups/0/fused": [True],
    "scaler": [{}, None],
    "scaler/scale": [0.0, -1.0, NAN, 1],
    "scaler/growth_interval": [0, -1, 2.5],
    "scaler/_growth_tracker": [-1, HUGE],
    "technique": [{}, None],
    "technique/step": [1.5, 64, 30],
    "technique/draws": [-1, 0.5],
    "technique/scheme": ["sdgp"],
    "technique/layers": [{}, None],
    "technique/layers/1": [{}, None, 1],
    "technique/layers/1/state": [None, {"x": 1}],
    "technique/layers/1/state/x": [torch.zeros(7), torch.full((64,), NAN), torch.tensor(HUGE)],
    "technique/layers/1/masks/used": [torch.zeros(3, dtype=torch.uint8), 1, torch.zeros(2048)],
    "technique/options": [{}, None],
}
"""What stands at a place of a checkpoint instead of what was written there."""


def put(tree: Any, path: str, value: Any) -> None:
    *way, last = path.split("/")
    for name in way:
        tree = tree[int(name) if isinstance(tree, list) or (name.isdigit() and int(name) in tree) else name]
    tree[int(last) if isinstance(tree, list) else last] = value


@pytest.mark.parametrize(("place", "values"), MALFORMED.items(), ids=list(MALFORMED))
def test_a_malformed_checkpoint_is_refused(
    tmp_path: Path, written: dict[str, Any], place: str, values: list[Any]
) -> None:
    """Each has the right digest: whoever makes one can compute it."""
    for value in values:
        state = copy.deepcopy(written)
        put(state, place, value)
        save_checkpoint(tmp_path / CHECKPOINT, state)
        with pytest.raises(InputError, match=re.escape(str(tmp_path / CHECKPOINT))):
            resume(tmp_path)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(1).expand(2**40), torch.empty(5, device="meta"), torch.zeros(3, 3).to_sparse()],
    ids=["expanded", "meta", "sparse"],
)
def test_a_tensor_that_is_not_stored_whole_is_refused(
    tmp_path: Path, written: dict[str, Any], tensor: torch.Tensor
) -> None:
    torch.save({**written, "model": {**written["model"], "1.bias": tensor}, "digest": "0"}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / CHECKPOINT}: is not a whole checkpoint")):
        resume(tmp_path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"version": VERSION, "spec": Evil()}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="not a whole checkpoint"):
        resume(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = short(epochs=3)
    full = False

    def full_later(_: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def progress(done: int, _: int) -> None:
        nonlocal full
        full = done > 30

    monkeypatch.setattr(os, "fsync", full_later)
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written: No space left"):
        train(spec, tmp_path / "run", progress=progress)
    full = False
    resume(tmp_path / "run")
    train(spec, tmp_path / "whole")
    require_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("amp", [None, "fp16"])
def test_divergence_is_told_and_the_last_good_state_stays(tmp_path: Path, amp: str | None) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        f"{HEAD}class Bad(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.seen, self.layer = 0, nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        self.seen += self.training\n"
        "        return self.layer(x.flatten(1)) * (float('nan') if self.seen > 30 else 1.0)\n"
    )
    with pytest.raises(
        InputError, match=r"step 31 of 48 \(epoch 2\): the loss is nan, at learning rate 0\.\d+"
    ) as error:
        train(plan(f"{file}:Bad", epochs=3, amp=amp), tmp_path / "run")
    assert ("loss scale" in str(error.value)) == (amp is not None)
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT, VERSION)["step"] == 16


def test_a_checkpoint_never_holds_weights_that_are_not_finite(tmp_path: Path) -> None:
    def poison(done: int, _: int) -> None:
        if done == 32:
            next(run.model.parameters()).data.fill_(float("inf"))

    run = Run(short(), open_data("digits"), tmp_path, torch.device("cpu"))
    with pytest.raises(InputError, match=r"the loss on the validation set|a weight is not finite"):
        loop._finish(run, lambda: False, poison)
    state = load_checkpoint(tmp_path / CHECKPOINT, VERSION)
    assert (state["step"], len(state["log"])) == (16, 1)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"model": "resnt9"}, "did you mean 'resnet9'"),
        ({"model": "gpt2"}, "does not classify images"),
        ({"model": "unet_s"}, "does not classify images"),
        ({"model": "resnet18"}, "from 32"),
        ({"model": "resnet9@32"}, "image side 32"),
        ({"model": "/no/file.py:f"}, "no such file"),
        ({"scheme": "bwdp"}, "did you mean 'bdwp'"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 1086}, "1085 training"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"learning_rate": math.nan}, "learning rate"),
        ({"seed": -1}, "seed"),
        ({"amp": "fp4"}, "amp"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"options": {"decy": 1e-4}}, "decay"),
        ({"warmup": 1.5}, "warm-up"),
        ({"label_smoothing": -0.1}, "smoothing"),
    ],
    ids=str,
)
def test_a_training_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        train(plan(**{"model": "mlp", **changes}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("return nn.Linear(64, 10)", "fails on images of 1 x 8 x 8"),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))", r"gives \(2, 9\)"),
        ("return nn.LSTM(8, 8)", "fails on images|must return scores"),
        ("return 3", "not|returned int"),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 10).requires_grad_(False))", "no parameter to train"),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 10))[:1]", "gives"),
        ("return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 10))", "sparsifiable"),
        ("raise OSError('gone')", "line 4: OSError: gone"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(tmp_path: Path, body: str, rule: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}def make():\n    {body}\n")
    with pytest.raises(InputError, match=rule):
        train(plan(f"{file}:make", pattern=NMPattern(keep=1, group=16)), tmp_path / "run")


def test_a_model_that_fails_later_is_named_and_not_weft() -> None:
    with pytest.raises(InputError, match=r"model 'resnet9' fails in step 1 on 1 images of 1 x 8 x 8: ValueError: Exp"):
        train(plan("resnet9", epochs=1, batch=1))


def test_lazy_layers_get_their_shapes(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}def make(classes):\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))\n")
    assert train(plan(f"{file}:make", epochs=1)).accuracy > 0.5


@pytest.mark.parametrize("amp", ["fp16", "bf16"])
def test_mixed_precision_learns(amp: str) -> None:
    assert train(short(amp=amp, epochs=6)).accuracy > 0.85


@pytest.mark.parametrize(("scheme", "accuracy"), [("dense", 0.97), ("bdwp", 0.96)])
def test_resnet9_learns_the_digits(scheme: str, accuracy: float) -> None:
    result = train(plan("resnet9", scheme=scheme, epochs=6))
    assert result.accuracy >= accuracy
    assert result.log[-1].density_ff == (1.0 if scheme == "dense" else 0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "accuracy"), [("mlp", 0.96), ("vit_s", 0.96)])
def test_the_others_learn_the_digits(model: str, accuracy: float) -> None:
    assert train(plan(model, scheme="dense")).accuracy >= accuracy


@pytest.mark.parametrize("model", ["mlp", "resnet9", "vit_s", "birealnet"])
def test_the_model_that_is_trained_is_the_one_that_is_traced(model: str) -> None:
    spec = plan(model, batch=16)
    built, counted = new_model(spec), 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Linear | nn.Conv2d):
            contraction = module.weight[0].numel()
            counted += output.numel() * contraction

    for part in built.modules():
        part.register_forward_hook(count)
    built(torch.zeros(16, 1, 8, 8))
    step = step_workload(spec)
    with_weight = [op for op in step.matrix_ops if op.pass_ == Pass.FF and op.parameter]
    assert sum(op.gemm.macs for op in with_weight) == counted
    assert step.parameters == sum(p.numel() for p in built.parameters())
    assert (step.model, step.batch, step.optimizer) == (model, 16, spec.optimizer)
    wide = [op.gemm.k for op in with_weight[1:]]
    assert all(k % 16 == 0 for k in wide)


def test_models_for_cifar_are_those_of_the_catalogue(tmp_path: Path) -> None:
    data = f"cifar100:{cifar(tmp_path / 'c')}"
    for name in ("resnet9", "vit_s", "resnet18"):
        ours = step_workload(plan(name, data=data, batch=4))
        theirs = weft.trace(f"{name}@32", batch=4)
        head = {"resnet9": 512 * 90, "vit_s": 0, "resnet18": -513 * 900}[name]
        assert ours.parameters == theirs.parameters + head
        assert [op.gemm.macs for op in ours.matrix_ops[:8]] == [op.gemm.macs for op in theirs.matrix_ops[:8]]


def test_a_model_of_transformers_is_trained_on_a_folder_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for name, colour in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.new("RGB", (40, 32), colour).save(tmp_path / name / f"{i}.png")
    spec = plan("resnet18@32", data=f"imagefolder:{tmp_path}", epochs=1, batch=4, learning_rate=0.01)
    result = train(spec)
    assert (result.log[-1].step, len(result.technique.layers)) == (3, 20)


def test_the_api_trains(tmp_path: Path) -> None:
    result = weft.train("mlp", "srste", "2:4", folder=tmp_path / "run", epochs=1, seed=3)
    assert result.spec == replace(short(epochs=1), scheme="srste", pattern=NMPattern(keep=2, group=4), seed=3)
    assert (result.log[-1].density_ff, result.folder) == (0.5, tmp_path / "run")


def test_the_command_prints_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    args = ("mlp", "--scheme", "bdwp", "--nm", "1:4", "--epochs", "2", "--option", "decay=1e-3", "-o", str(run))
    assert main(["train", *args, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["spec"]["pattern"], document["spec"]["options"]) == ("1:4", {"decay": 1e-3})
    assert document["validation"] == document["log"][-1]["validation_accuracy"]
    assert document["images"] == {"training": 1085, "validation": 357, "test": 355}
    assert document == {**json.loads((run / RESULT).read_text()), "folder": str(run)}
    assert main(["train", "--resume", str(run)]) == 0
    assert "bdwp 1:4" in capsys.readouterr().out


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def bar(_: str) -> Iterator[Callable[[int, int], None]]:
        yield stop_at(25)

    monkeypatch.setattr(train_command, "bar", bar)
    run = tmp_path / "run"
    assert main(["train", "mlp", "--epochs", "3", "-o", str(run)]) == 130
    assert f"weft train --resume {run}" in capsys.readouterr().err
    assert load_checkpoint(run / CHECKPOINT, VERSION)["step"] == 25


@pytest.mark.parametrize(
    "args",
    [
        "",
        "mlp --nm 9:8",
        "mlp --nm 1",
        "mlp --epochs -1",
        "mlp --lr nan",
        "mlp --option x",
        "mlp --option decay=two",
        "mlp --data cifar10:/nowhere",
        "mlp --data pictures",
        "mlp --resume /nowhere",
        "mlp --device abacus",
        "nothing",
        "mlp --resume a -o b",
    ],
)
def test_bad_arguments_end_with_2(args: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *args.split()]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("Error: ")
    assert not out


nest = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(nest)
def test_a_checkpoint_gives_back_what_was_written(value: Any) -> None:
    import tempfile

    tensor = torch.arange(6, dtype=torch.float16).reshape(2, 3).t()
    state = {"version": VERSION, "value": value, "tensor": tensor}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CHECKPOINT
        save_checkpoint(path, state)
        found = load_checkpoint(path, VERSION)
    assert found["value"] == value
    assert digest(found) == digest(state)
    assert digest({**state, "tensor": tensor.t()}) != digest(state)
