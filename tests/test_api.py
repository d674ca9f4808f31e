"""The public API: what it holds, what importing it costs, and one step through all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import weft
from weft.workloads.io import save_workload
from weft.workloads.sparsity import NMPattern

NAMES = {
    "trace",
    "fuse",
    "sparsify",
    "skip_rows",
    "machine",
    "schedule",
    "simulate",
    "compare",
    "need",
    "explore",
    "train",
    "record",
    "shrink",
    "narrow",
    "classify",
    "register_engine",
    "register_scheme",
    "count_as_vector_work",
    "InputError",
    "__version__",
}


class Tied(nn.Module):
    """A weight used twice, and once more inside a recurrent layer's own list."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.lstm = nn.LSTM(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.lstm(self.second(self.first(x)))[0]
        return found


def test_names() -> None:
    assert set(weft.__all__) == NAMES
    assert all(hasattr(weft, name) for name in NAMES)
    with pytest.raises(AttributeError, match="nothing"):
        _ = weft.nothing


def test_importing_loads_neither_torch_nor_numba() -> None:
    code = "import sys, weft; print({'torch', 'numba', 'pandas', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_module_from_trace_to_comparison() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    step = weft.trace(model, torch.randn(4, 16))
    assert (step.model, step.batch, step.input) == ("Sequential", 4, "4 x 16")
    assert step.dense_macs["FF"] == 4 * (16 * 32 + 32 * 8)  # type: ignore[index]
    sparse = weft.sparsify(step, "bdwp", "2:8")
    result = weft.simulate(weft.schedule(sparse, weft.machine("tiny")))
    assert result.workload.pattern == NMPattern(keep=2, group=8)
    found = weft.compare(step, "tiny", ["dense", "bdwp"], NMPattern(keep=2, group=8))
    assert found.results[1] == result
    least = weft.schedule(sparse, "tiny", "energy")
    assert least.objective == "energy"


def test_tracing_a_module_leaves_it_alone() -> None:
    model = Tied().eval()
    x = torch.randn(3, 2, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step = weft.trace(model, inputs={"x": x})
    assert step.parameters == sum(p.numel() for p in model.parameters())
    assert not model.training
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model(x).shape == (3, 2, 8)


def test_loss_and_targets_of_a_module() -> None:
    x = torch.randn(4, 16)
    for loss in (lambda y: y.square().sum(), torch.zeros(4, dtype=torch.long), torch.randn(4, 8)):
        assert weft.trace(nn.Linear(16, 8), x, loss=loss).dense_macs["WU"] == 4 * 16 * 8  # type: ignore[index]


def test_a_path_is_a_model_too(tmp_path: Path) -> None:
    step = weft.trace(nn.Linear(16, 8), torch.randn(4, 16))
    path = tmp_path / "w.json"
    save_workload(step, path)
    assert weft.trace(path) == weft.trace(str(path)) == step


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((nn.Linear(2, 2),), "needs example inputs"),
        ((nn.Linear(2, 2), torch.zeros(3, 4)), "fails in forward"),
        ((3, torch.zeros(3)), "must be a torch.nn.Module or text"),
        (("resnet9", torch.zeros(3)), "for a module in memory"),
    ],
)
def test_bad_calls_of_trace(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(weft.InputError, match=said):
        weft.trace(*arguments)  # type: ignore[arg-type]


def test_a_module_is_traced_at_the_sizes_of_its_inputs() -> None:
    with pytest.raises(weft.InputError, match="leave batch"):
        weft.trace(nn.Linear(2, 2), torch.zeros(3, 2), batch=4)
