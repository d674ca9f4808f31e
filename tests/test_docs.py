"""The tutorial and the examples are executed, so that they stay true."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("page", "least"), [("tutorial.md", 15), ("by-layer.md", 5)])
def test_pages_tell_the_truth(page, least):
    failures, tests = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)

    assert tests > least
    assert failures == 0


def test_what_is_said_of_extending_is_true(monkeypatch):
    """From the root, as its commands are."""
    monkeypatch.chdir(ROOT)
    failures, tests = doctest.testfile(str(ROOT / "docs" / "extending.md"), module_relative=False)

    assert tests >= 6
    assert failures == 0


def test_the_scheme_of_the_documentation_is_that_of_the_example():
    written = (ROOT / "docs" / "extending.md").read_text().split("```python\n")[1].split("```")[0]

    assert written in (ROOT / "examples" / "own_scheme.py").read_text()


@pytest.mark.parametrize(
    "script",
    [
        ("one_gemm.py",), ("sweep_ports.py",), ("train_digits.py",), ("batch_sweep.py", "batches.png", "1", "4"),
        ("sensitivity.py", "sensitivity.png", "resnet9@1"),
        pytest.param(("bdwp_table.py",), marks=pytest.mark.slow), pytest.param(("nvdla.py",), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)  # fmt: skip
def test_examples_run(script, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script[0], *script[1:]],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "differ" not in done.stdout


def test_the_example_model_is_traced():
    import weft

    step = weft.trace(f"{ROOT / 'examples' / 'my_model.py'}:residual_net", batch=16)

    assert step.batch == 16
    assert {op.gemm.groups for op in step.matrix_ops} == {1, 4}
