"""Pages and examples are executed, names and pages looked up, so that they stay true."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import api_page, isa_page, link_page

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("tutorial.md", 15),
        ("walk.md", 25),
        ("by-layer.md", 5),
        ("explore.md", 4),
        ("need.md", 8),
        ("fusion.md", 8),
        pytest.param("board.md", 15, marks=pytest.mark.slow),  # compiles the RTL of a whole machine, twice
    ],
)
def test_pages_tell_the_truth(page, least):
    failures, tests = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)

    assert tests > least
    assert failures == 0


def test_the_walk_takes_a_file_a_step_and_never_comes_back():
    steps = re.findall(r"^## (\d+)\. .*: `(.+)`$", (ROOT / "docs" / "walk.md").read_text(), re.MULTILINE)

    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert len({file for _, file in steps}) == len(steps) >= 10
    assert all((ROOT / file).is_file() for _, file in steps)


def test_the_page_of_names_is_what_the_sources_say():
    """`python -m weft.tests.api_page` writes it anew."""
    assert api_page.page() == api_page.PAGE.read_text()


def test_the_page_of_the_instruction_set_is_what_its_tables_say():
    """`python -m weft.tests.isa_page` writes it anew."""
    assert isa_page.page() == isa_page.PAGE.read_text()


def test_the_page_of_the_link_is_what_its_tables_say():
    """`python -m weft.tests.link_page` writes it anew."""
    assert link_page.page() == link_page.PAGE.read_text()


def test_every_name_that_a_page_or_an_example_uses_is_on_the_page_of_names():
    assert api_page.not_on_the_page() == set()


BLOCKS = {
    "STCE": "sparse tensor computing engine",
    "USPE": "unified sparse",
    "SORE": "sparse online reduction engine",
    "WUVE": "weight-update vector engine",
}


NEWCOMERS = (
    "README",
    "docs/tutorial",
    "docs/walk",
    "docs/by-layer",
    "docs/schemes",
    "docs/training",
    "docs/rtl",
    "docs/design/machine",
)


@pytest.mark.parametrize("page", NEWCOMERS)
def test_a_page_for_newcomers_spells_out_the_blocks_where_it_first_names_them(page):
    text = (ROOT / f"{page}.md").read_text()
    for name, words in BLOCKS.items():
        first = re.search(rf"\b{name}\b", text)
        if first is not None:
            assert words in " ".join(text[max(0, first.start() - 80) : first.end() + 80].split()), name


def test_every_page_that_is_cited_exists():
    """In sources and pages, by its name."""
    found = [path for kind in ("*.py", "*.md", "*.toml") for path in ROOT.rglob(kind)]
    sources = [path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]
    pages = {path.name for path in sources if path.suffix == ".md"}
    cited = {(path, name) for path in sources for name in re.findall(r"[\w-]+\.md\b", path.read_text())}

    assert {(str(path), name) for path, name in cited if name not in pages} == set()


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
        ("one_gemm.py",),
        ("one_program.py",),
        ("sweep_ports.py",),
        pytest.param(("own_engine.py",), marks=pytest.mark.slow),
        ("train_digits.py",),
        ("numerics.py", "out", "mlp", "1", "1"),
        pytest.param(("numerics.py", "out", "cnn,vit_s", "2", "3"), marks=pytest.mark.slow),
        ("by_sensitivity.py", "1"),
        pytest.param(("by_sensitivity.py", "1", "integer", "1"), marks=pytest.mark.slow),
        pytest.param(("spikes.py", "1", "0"), marks=pytest.mark.slow),
        ("binary.py",),
        ("which_machine.py",),
        pytest.param(("supernet.py",), marks=pytest.mark.slow),
        pytest.param(("supernet.py", "2", "6"), marks=pytest.mark.slow),
        pytest.param(("batch_sweep.py", "batches.png", "1", "4"), marks=pytest.mark.slow),
        pytest.param(("sensitivity.py", "sensitivity.png", "resnet9@1"), marks=pytest.mark.slow),
        pytest.param(("bdwp_table.py",), marks=pytest.mark.slow),
        pytest.param(("fusion_table.py", "resnet18@64"), marks=pytest.mark.slow),
        pytest.param(("residency_table.py", "resnet18@64"), marks=pytest.mark.slow),
        pytest.param(("nvdla.py",), marks=pytest.mark.slow),
        pytest.param(("gpus.py",), marks=pytest.mark.slow),
        pytest.param(("gather.py", "--shapes", "2"), marks=pytest.mark.slow),
        pytest.param(("bursts.py", "--epochs", "1"), marks=pytest.mark.slow),
        pytest.param(("groups.py", "g.png", "--shapes", "1", "--epochs", "1", "--seeds", "1"), marks=pytest.mark.slow),
        pytest.param(("attention.py", "attention.png", "--tokens", "512", "--block", "64"), marks=pytest.mark.slow),
        pytest.param(("lora.py", "hbm-asic", "llama2_7b", "64"), marks=pytest.mark.slow),
        pytest.param(("language.py", "--steps", "20"), marks=pytest.mark.slow),
        pytest.param(("rows.py", "rows.png", "characters", "hbm-asic", "1", "4"), marks=pytest.mark.slow),
        pytest.param(
            (
                *("sparsing.py", "sparsing.png", "kept", "--networks", "relu-1x16-0@4,silu-1x16-0@4"),
                *("--steps", "2,4", "--batches", "1,2", "--token", "characters@tiny@32"),
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(("papers.py", "srste", "xnor", "--epochs", "1"), marks=pytest.mark.slow),
        pytest.param(("continual.py", "1"), marks=pytest.mark.slow),
        pytest.param(("papers.py", "attention", "--steps", "3"), marks=pytest.mark.slow),
        pytest.param(("long_convolution.py", "hbm-asic", "256"), marks=pytest.mark.slow),
        pytest.param(("tokens.py", "1", "1"), marks=pytest.mark.slow),
        pytest.param(("shrinking.py", "mlp", "--epochs", "1", "--by", "trp@0.9"), marks=pytest.mark.slow),
        pytest.param(("ecoformer.py", "8"), marks=pytest.mark.slow),
        pytest.param(("on_board.py", "simulated", "1"), marks=pytest.mark.slow),
        pytest.param(("same_luts.py", "resnet9", "4", "bireal"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_examples_run(script, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script[0], *script[1:]],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert "differ" not in done.stdout


def test_the_example_model_is_traced():
    import weft

    step = weft.trace(f"{ROOT / 'examples' / 'my_model.py'}:residual_net", batch=16)

    assert step.batch == 16
    assert {op.gemm.groups for op in step.matrix_ops} == {1, 4}
