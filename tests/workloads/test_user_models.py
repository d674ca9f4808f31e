"""Models that come from a function in the user's own file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.models.user import user_source
from weft.workloads.step import Workload
from weft.workloads.trace import trace_step

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F
"""


@pytest.fixture
def write(tmp_path: Path):
    """Write a model file and return the spec of its function ``make``."""

    def write(body: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(HEAD + body)
        return f"{tmp_path / name}:make"

    return write


def first(step: Workload) -> Gemm:
    return step.matrix_ops[0].gemm


@pytest.mark.parametrize(
    "returned",
    [
        "net, torch.randn(6, 4)",
        "net, (torch.randn(6, 4),)",
        "[net, [torch.randn(6, 4)]]",
        "net, {'input': torch.randn(6, 4)}",
        "net, torch.randn(6, 4), lambda out: out.pow(2).mean()",
        "net, torch.randn(6, 4), torch.zeros(6, dtype=torch.long)",
        "net, torch.randn(6, 4), torch.zeros(6, 3)",
        "net, torch.randn(6, 4), nn.CrossEntropyLoss(), torch.zeros(6, dtype=torch.long)",
        "{'model': net, 'inputs': torch.empty(6, 4, device='meta'), 'loss': F.mse_loss, 'targets': torch.zeros(6, 3)}",
        "(net,) if setattr(net, 'example_inputs', torch.randn(6, 4)) else net",
    ],
)
def test_every_form_of_the_answer_gives_the_same_products(write, returned: str) -> None:
    source = user_source(write(f"def make():\n    net = nn.Linear(4, 3)\n    return {returned}\n"))
    step = trace_step(source)
    assert (step.model, step.batch, step.input) == ("mine.make", 6, "6 x 4")
    assert [op.gemm for op in step.matrix_ops] == [Gemm(m=6, k=4, n=3), Gemm(m=3, k=6, n=4)]


def test_batch_and_seq_reach_a_function_that_takes_them(write) -> None:
    spec = write("""
class Net(nn.Module):
    def __init__(self, seq):
        super().__init__()
        self.emb, self.pos = nn.Embedding(100, 8), nn.Parameter(torch.zeros(seq, 8))
        self.head = nn.Linear(8, 100)
    def forward(self, x):
        return self.head(self.emb(x) + self.pos)

def make(batch=2, seq=5):
    return Net(seq), torch.randint(100, (batch, seq)), torch.randint(100, (batch, seq))
""")
    assert first(trace_step(user_source(spec))).m == 10
    source = user_source(spec)
    step = trace_step(source, batch=3, seq=7)
    assert (step.batch, first(step).m) == (3, 21)
    assert "pos" in {op.name for op in step.ops if op.kind == "update"}
    assert first(trace_step(source, batch=4, seq=2)).m == 8


def test_batch_replaces_leading_dimensions_where_the_function_takes_none(write) -> None:
    spec = write("""
class Net(nn.Linear):
    def forward(self, x, mask, scale):
        return super().forward(x) * mask * scale.sum()

def make():
    return Net(4, 3), (torch.randn(6, 4), torch.ones(6, 1), torch.ones(5)), torch.zeros(6, dtype=torch.long)
""")
    step = trace_step(user_source(spec), batch=9)
    assert (step.batch, step.input, first(step).m) == (9, "9 x 4", 9)
    with pytest.raises(InputError, match="takes no parameter seq"):
        trace_step(user_source(spec), seq=3)


def test_input_shape_serves_a_bare_model(write) -> None:
    spec = write("def make():\n    return nn.Conv2d(3, 8, 3)\n")
    step = trace_step(user_source(spec, input_shape=(3, 10, 10)), batch=2)
    assert first(step) == Gemm(m=128, k=27, n=8, run=3)
    assert trace_step(user_source(spec, input_shape=(3, 10, 10))).batch == 32
    with pytest.raises(InputError, match=r"gives no inputs.*--input"):
        trace_step(user_source(spec))
    own = write(
        "def make():\n    net = nn.Conv2d(3, 8, 3)\n    net.input_shape = (3, 5, 5)\n    return net\n", "own.py"
    )
    assert trace_step(user_source(own), batch=2).input == "2 x 3 x 5 x 5"
    wrong = write("def make():\n    net = nn.Linear(3, 8)\n    net.input_shape = (3, -5)\n    return net\n", "wrong.py")
    with pytest.raises(InputError, match="must be positive integers"):
        trace_step(user_source(wrong))


def test_a_class_and_a_ready_model_work_too(write) -> None:
    spec = write("class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(4, 3)\nmake = Net()\n")
    for name in ("Net", "make"):
        source = user_source(spec.replace(":make", f":{name}"), input_shape=(4,))
        assert [len(trace_step(source, batch=2).matrix_ops) for _ in range(2)] == [2, 2]


def test_code_that_needs_values_is_run_on_the_cpu_with_its_ties(write) -> None:
    spec = write("""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        width = int(torch.linspace(0, 8, 3)[-1].item())
        self.emb, self.rnn = nn.Embedding(50, width), nn.LSTM(width, width)
        self.head = nn.Linear(width, 50, bias=False)
        self.head.weight = self.emb.weight
        self.scale = torch.ones(width)
    def forward(self, x):
        return self.head(self.rnn(self.emb(x) * self.scale)[0])

def make():
    return Net(), torch.zeros(2, 3, dtype=torch.long)
""")
    step = trace_step(user_source(spec))
    updates = {op.name: op.elements for op in step.ops if op.kind == "update"}
    assert updates["emb.weight=head.weight"] == 400
    assert len(updates) == 5
    assert {op.parameter for op in step.matrix_ops} == {
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
        "emb.weight=head.weight",
    }


@pytest.mark.parametrize(
    "output",
    ["y.sum()", "{'loss': y.mean(), 'y': y}", "(y, {'more': [y.half()]})", "type('O', (), {'loss': y.mean()})()"],
)
def test_without_a_loss_the_output_says_what_to_differentiate(write, output: str) -> None:
    spec = write(f"""
class Net(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return {output}

def make():
    return Net(4, 3), torch.randn(2, 4)
""")
    assert len(trace_step(user_source(spec)).matrix_ops) == 2


def test_neighbouring_files_are_found_and_the_path_is_put_back(write, tmp_path: Path) -> None:
    before = list(sys.path)
    (tmp_path / "weft_test_neighbour.py").write_text("WIDTH = 5\n")
    (tmp_path / "weft_test_late.py").write_text("DEPTH = 7\n")
    spec = write("""
from weft_test_neighbour import WIDTH
def make():
    from weft_test_late import DEPTH
    return nn.Linear(WIDTH, DEPTH), torch.randn(2, WIDTH)
""")
    assert first(trace_step(user_source(spec))) == Gemm(m=2, k=5, n=7)
    assert sys.path == before


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def maker(): pass", r"no function 'make': did you mean 'maker'\?"),
        ("x = 1 / 0", r"mine\.py: fails at line 5: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", r"fails at line 5: SystemExit: 3"),
        ("def make(:", r"fails: SyntaxError"),
        ("def make():\n    return {}['net']", r"mine\.py:make: fails at line 6: KeyError: 'net'"),
        ("def make():\n    return 3", r"returned int; it must return a model, \(model, inputs\)"),
        ("def make():\n    return 'net', 3", r"the model it returns is str, not torch\.nn\.Module"),
        ("def make():\n    return {'modle': nn.ReLU()}", r"key 'modle' .* did you mean 'model'\?"),
        ("def make():\n    return nn.Linear(2, 2), torch.ones(3, 2), 7", r"the loss it returns is int"),
        ("def make():\n    return nn.Linear(2, 2), 5", r"no tensor with a batch dimension"),
        ("def make():\n    return nn.Linear(2, 2), torch.ones(3, 2), F.mse_loss", r"the loss takes targets"),
        ("def make():\n    return nn.Linear(2, 2), torch.ones(3, 2), torch.ones(4)", r"\(4,\) do not fit .*\(3, 2\)"),
        ("def make(width):\n    return nn.Linear(2, 2)", r"parameter width has no default value"),
        ("def make(batch):\n    return nn.Linear(2, 2)", r"parameter batch has no default value; ask for a batch"),
        (
            "def make():\n    return nn.Linear(2, 2), torch.ones(3, 4)",
            r"'mine\.make' fails in forward in mine\.make: Runtime",
        ),
        ("def make():\n    return nn.Flatten(), torch.ones(3, 4)", r"no parameter to train"),
    ],
)
def test_what_the_file_does_wrong_is_said(write, body: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace_step(user_source(write(body)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine.py", "not of the form path/to/file.py:function"),
        ("mine.txt:make", "not of the form"),
        ("mine.py:two words", "not of the form"),
        ("nowhere/mine.py:make", "nowhere/mine.py: no such file"),
    ],
)
def test_specs_that_name_no_function_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        user_source(spec)


def test_lazy_modules_built_on_the_cpu(write) -> None:
    net = "nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())"
    spec = write(f"def make():\n    float(torch.ones(1))\n    return {net}, torch.ones(6, 4)\n")
    assert first(trace_step(user_source(spec))) == Gemm(m=6, k=4, n=3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(nn.Linear(16, 16)),
        lambda: torch.jit.trace(nn.Linear(16, 16), torch.zeros(4, 16)),
        lambda: torch.compile(nn.Linear(16, 16)),
        lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(16, 16))),
    ],
    ids=["scripted", "traced", "compiled", "fx"],
)
def test_what_stands_for_a_module_in_memory_is_trained_as_the_module_is(make: Any) -> None:
    """A copy of a scripted module has tensors for parameters, which would not be trained."""
    step = weft.trace(nn.Sequential(nn.Linear(16, 16), make()), torch.zeros(4, 16))
    assert step.dense_macs == {Pass.FF: 2048, Pass.BP: 1024, Pass.WU: 2048}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["sparse", "sparse_csr"])
def test_sparse_tensors_are_refused_by_name(layout: str) -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)
            self.register_buffer("neighbours", getattr(torch.eye(4), f"to_{layout}")())

        def forward(self, x: Tensor) -> Any:
            return self.neighbours @ self.layer(x)

    with pytest.raises(InputError, match=r"tensor neighbours is stored as torch\.sparse.*to_dense"):
        weft.trace(Graph(), torch.zeros(4, 16))
