"""The notebooks of examples/ are run in a kernel, cell by cell, as Jupyter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.name)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Away from the settings of whoever runs the tests."""
    place = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(place / name.lower()))
        notebook = nbformat.read(request.param, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(place)}}).execute()
    return notebook


def displayed(notebook: Any, cell: str) -> dict[str, str]:
    """What stands below a cell, by type."""
    (found,) = [each for each in code(notebook) if each.source.splitlines()[-1] == cell]
    return {kind: text for output in found.outputs for kind, text in output.get("data", {}).items()}


def test_there_is_one_and_it_is_kept_as_it_was_written():
    """Outputs would be of another day than the code."""
    assert [path.name for path in NOTEBOOKS] == ["look.ipynb"]
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert [cell.source for cell in code(notebook) if cell.outputs or cell.execution_count] == []


def test_every_cell_runs_and_nothing_is_printed_beside_results(ran):
    outputs = [output for cell in code(ran) for output in cell.outputs]

    assert len(outputs) == len(code(ran))
    assert {output.output_type for output in outputs} == {"execute_result"}


def test_results_are_shown_as_pages_and_figures(ran):
    assert displayed(ran, "step").keys() == {"text/plain"}
    assert displayed(ran, "result")["text/html"].startswith("<div")
    assert "times as fast as dense" in displayed(ran, "both")["text/html"]
    assert "times as fast as dense" in displayed(ran, "binary")["text/html"]
    assert "with ops overlapped the step takes" in displayed(ran, "simulate_system(plan)")["text/html"].lower()
    for cell in ("result.plot()", "both.plot()"):
        assert displayed(ran, cell)["image/png"].startswith("iVBORw0KGgo")


def test_nothing_that_is_shown_in_words_is_long(ran):
    lines = [output["data"]["text/plain"] for cell in code(ran) for output in cell.outputs]

    assert all(len(text) < 2000 for text in lines)
