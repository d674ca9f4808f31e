"""The package list in pyproject.toml against the tree, and what a built wheel really holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("_cli", "workloads", "dataflow", "simulator", "hdl", "analysis")


def _listed() -> set[str]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return set(table["tool"]["setuptools"]["packages"])


def test_every_package_of_the_tree_is_listed():
    found = {"weft"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(("weft", *init.parent.relative_to(ROOT).parts)))

    assert _listed() == found


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    # Built from a copy, for setuptools leaves a build folder behind that a later wheel would take stale files from.
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "out", "*.egg-info", "__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", tmp_path, source],
        check=True,
        capture_output=True,
        timeout=300,
    )
    names = zipfile.ZipFile(next(tmp_path.glob("weft-*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names}

    assert tops == {"weft", next(t for t in tops if t.endswith(".dist-info"))}
    assert not [n for n in names if n.startswith(("weft/tests", "weft/benchmarks", "weft/docs", "weft/examples"))]
    for data in (*(ROOT / "dataflow" / "presets").glob("*.toml"), *(ROOT / "analysis" / "tables").glob("*.toml")):
        assert f"weft/{data.relative_to(ROOT)}" in names
    assert "weft/py.typed" in names
