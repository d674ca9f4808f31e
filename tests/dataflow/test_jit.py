"""Bare kernels, which count no references, hold no array of their own."""

import ast
from collections.abc import Iterable
from pathlib import Path

import weft.dataflow

FOLDER = Path(weft.dataflow.__file__).parent


def leaks(sources: Iterable[str]) -> list[str]:
    """Bare kernels that return an array or call a kernel that does, as ``name: what``."""
    trees = [ast.parse(source) for source in sources]
    classes = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def holds(annotation: ast.expr | None) -> bool:
        names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)} if annotation else set()
        fields = [own.annotation for name in names & set(classes) for own in classes[name].body
                  if isinstance(own, ast.AnnAssign)]  # fmt: skip
        return "NDArray" in names or "Table" in names or any(holds(field) for field in fields)

    kernels = [
        ({own.id for own in node.decorator_list if isinstance(own, ast.Name)}, node)
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    ]
    kernels = [(kinds, node) for kinds, node in kernels if kinds & {"bare", "inlined", "kernel"}]
    givers = {node.name for _, node in kernels if holds(node.returns)}
    found = []
    for kinds, node in kernels:
        if kinds & {"bare", "inlined"}:
            calls = (own.func for own in ast.walk(node) if isinstance(own, ast.Call))
            called = {own.id for own in calls if isinstance(own, ast.Name)}
            found += [f"{node.name}: returns an array"] * (node.name in givers)
            found += [f"{node.name}: gets an array from {giver}" for giver in sorted(called & givers)]
    return found


def test_no_bare_kernel_gets_or_returns_an_array():
    assert leaks(path.read_text() for path in sorted(FOLDER.rglob("*.py"))) == []


def test_one_that_does_is_found():
    source = """
class Room(NamedTuple):
    rows: NDArray[np.int64]

@kernel
def room() -> Room: ...

@bare
def taker() -> int:
    return len(room().rows)

@inlined
def giver(v: NDArray[np.int64]) -> NDArray[np.int64]:
    return v[1:]
"""
    assert leaks([source]) == ["taker: gets an array from room", "giver: returns an array"]
