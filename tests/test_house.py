"""The order of the house: no circle of imports, no long file, no long function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import weft

ROOT = Path(weft.__file__).parent
FOLDERS = ("workloads", "dataflow", "simulator", "hdl", "analysis", "_cli")
MOST_LINES, LONGEST_FUNCTION = 400, 60
KERNELS = "simulator/kernels/"
"""Functions may be long: loops over registers that are local variables, which a call would pass; each file says so."""


def sources() -> dict[str, Path]:
    return {str(path.relative_to(ROOT)): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


def imports(modules: dict[str, Path], name: str) -> Iterator[str]:
    """Modules of ours that one names, wherever it does: in a function, or for the type checker alone."""
    path = modules[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            base = [part for part in base if part]
            for alias in node.names:
                inner, outer = ".".join([*base, alias.name]), ".".join(base)
                yield from (inner,) if inner in modules else (outer,) if outer in modules else ()


def test_no_imports_go_in_a_circle():
    modules = {".".join(Path(name).with_suffix("").parts).removesuffix(".__init__"): p for name, p in sources().items()}
    graph = {name: set(imports(modules, name)) for name in modules}
    # What nobody left imports cannot be in a circle.
    while leaves := {name for name, used in graph.items() if not used & graph.keys()}:
        graph = {name: used for name, used in graph.items() if name not in leaves}

    assert not graph


def test_no_file_and_no_function_is_long():
    texts = {name: path.read_text(encoding="utf-8") for name, path in sources().items()}
    files = {name: lines for name, text in texts.items() if (lines := text.count("\n")) > MOST_LINES}
    functions = {
        f"{name}:{node.name}": node.end_lineno - node.lineno + 1
        for name, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }

    assert not files
    assert not {name: n for name, n in functions.items() if not name.startswith(KERNELS)}


def test_the_root_holds_the_package_and_the_command_alone():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "cli.py"}
