"""Whoever takes or returns arrays says of which shape and dtype: in its docstring, in its class's, or in that of the
method that it overrides.

Held to it are the names in `__all__` of every module but the recorder's, and the public methods and fields of classes
among them. A shape is `[m, n]`, or the word scalar, or any shape; a dtype is named, or said to be any.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("simulator", "hdl", "workloads", "dataflow", "analysis")
MODULES = {path: ast.parse(path.read_text()) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}

SHAPE = re.compile(r"\[[^\[\]]+\]|\bscalar\b|\bany\s+shape\b", re.IGNORECASE)
DTYPE = re.compile(r"\bu?int\d+\b|\bb?float\d+\b|\bbool\b|\bdtypes?\b|\bFP16\b|\bFP32\b|\bBF16\b|\boperand type\b")
ARRAY = re.compile(r"(npt\.)?NDArray\[.*\]|np\.ndarray|Tensor")

ALIASES = {
    (path.stem, target.id)
    for path, tree in MODULES.items()
    for node in tree.body
    if isinstance(node, ast.Assign) and ARRAY.fullmatch(ast.unparse(node.value))
    for target in node.targets
    if isinstance(target, ast.Name)
}
"""Names of arrays, such as ``Half``, by the module that gives them."""

CLASSES = {node.name: node for tree in MODULES.values() for node in tree.body if isinstance(node, ast.ClassDef)}


def array_words(path: Path, tree: ast.Module) -> re.Pattern[str]:
    """What annotations of a module call an array."""
    names = {name for stem, name in ALIASES if stem == path.stem}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            stem = (node.module or "").rpartition(".")[2]
            names |= {alias.name for alias in node.names if (stem, alias.name) in ALIASES | {("torch", "Tensor")}}
    return re.compile(rf"\b({'|'.join(['NDArray', 'ndarray', 'torch.Tensor', *sorted(names)])})\b")


def family(node: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """A class and those of ours that it is made from."""
    yield node
    for base in node.bases:
        of = CLASSES.get(ast.unparse(base).partition("[")[0])
        if of is not None and of is not node:
            yield from family(of)


def annotations(function: ast.FunctionDef) -> str:
    a = function.args
    given = [arg.annotation for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg is not None]
    return " ".join(ast.unparse(annotation) for annotation in (*given, function.returns) if annotation is not None)


def doc(node: ast.FunctionDef | ast.ClassDef) -> str:
    return ast.get_docstring(node) or ""


def field_docs(node: ast.ClassDef) -> str:
    """Of the class and below its fields."""
    strings = (n.value.value for n in node.body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
    return " ".join(map(str, strings))


def with_arrays(path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names that take, hold or return arrays, each with all that is said of it."""
    words = array_words(path, tree)
    public = {
        str(name)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in ast.literal_eval(node.value)
    }
    for node in tree.body:
        match node:
            case ast.FunctionDef() if node.name in public and words.search(annotations(node)):
                yield node.name, doc(node)
            case ast.ClassDef() if node.name in public:
                fields = " ".join(ast.unparse(n.annotation) for n in node.body if isinstance(n, ast.AnnAssign))
                if words.search(fields):
                    yield node.name, field_docs(node)
                yield from methods(node, words)


def methods(node: ast.ClassDef, words: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Public methods with arrays, each with the docstrings of those that it overrides and of their classes."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name[0] != "_" and words.search(annotations(method)):
            said = [field_docs(of) for of in family(node)]
            said += [
                doc(n)
                for of in family(node)
                for n in of.body
                if isinstance(n, ast.FunctionDef) and n.name == method.name
            ]
            yield f"{node.name}.{method.name}", " ".join(said)


def lacking(said: str) -> list[str]:
    return [word for word, rule in (("shape", SHAPE), ("dtype", DTYPE)) if not rule.search(said)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrays_have_a_shape_and_a_dtype(folder):
    missing = []
    for path, tree in MODULES.items():
        place = path.relative_to(ROOT)
        # The recorder's tensors are the model's, of any shape and format.
        if place.parts[0] == folder and "tracing" not in place.parts:
            for name, said in with_arrays(path, tree):
                lacks = lacking(said)
                missing += [f"{place}: {name} has no {' and no '.join(lacks)}"] if lacks else []

    assert not missing, "\n".join(missing)


def test_what_says_nothing_of_its_arrays_is_found():
    source = """
__all__ = ["A", "f"]
Half = npt.NDArray[Any]
def f(x: npt.NDArray[np.int8], y: int) -> None:
    '''Takes ``x``, int8.'''
def g(x: npt.NDArray[np.int8]) -> None: ...
class A:
    field: int
    def method(self) -> torch.Tensor | None:
        '''Of [n].'''
    def other(self, y: int) -> None: ...
"""
    found = {name: lacking(said) for name, said in with_arrays(Path("f.py"), ast.parse(source))}

    assert found == {"f": ["shape"], "A.method": ["dtype"]}


def test_the_rule_finds_arrays_by_whatever_name():
    """By name of NumPy or PyTorch, by alias, in fields, in methods that override, in what is returned."""
    found = {name for path, tree in MODULES.items() for name, _ in with_arrays(path, tree)}

    assert {"run_array", "compress", "Compact", "Bdwp.backward_weight", "Overlapped", "largest"} <= found
    assert len(found) > 150
