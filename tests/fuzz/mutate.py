"""Making files worse: bytes, tokens of text, trees of values, ONNX graphs; every change follows from a seed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import onnx

__all__ = ["EDGES", "of_bytes", "of_json", "of_onnx", "of_text", "of_tree"]

LONG_INTEGER = "@@long@@"
"""Stands for an integer of 5,000 digits, which Python writes neither in JSON nor in TOML."""

EDGES: tuple[Any, ...] = (
    0,
    -1,
    1,
    2,
    3,
    7,
    255,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**50,
    2**53,
    2**60,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    -(2**63),
    0.5,
    1.5,
    -0.0,
    1e-320,
    1e308,
    float("inf"),
    float("nan"),
    True,
    False,
    None,
    "",
    " ",
    "0",
    "2:8",
    "x" * 10_000,
    "\x1b]0;title\x07\x1b[2J",
    "=1+1",
    "a\n\n\nb",
    "\u202e\u0000",
    "../../x",
    "/dev/zero",
    "x.toml",
    "x.py:f",
    "$\\frac$",
    [],
    {},
    [[]],
    [0] * 1000,
    {"a": 1},
    LONG_INTEGER,
)


def of_bytes(random: random.Random, raw: bytes) -> bytes:
    """``raw`` with a few bytes changed, cut, doubled or put in."""
    data = bytearray(raw)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        at, size = random.randrange(len(data) + 1), random.choice((1, 1, 2, 4, 16, 200))
        match random.randrange(5):
            case 0:
                data[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case 3:
                data[at:at] = random.choice(
                    (b"\x00", b"\xff", b"9" * 30, b"\xef\xbb\xbf", b"\x1b[2J", b"\r", b"{", b'"')
                )
            case _:
                del data[at:]
    return bytes(data)


def of_tree(random: random.Random, tree: Any, edges: tuple[Any, ...] = EDGES) -> Any:
    """A copy of nested dicts and lists with one place changed, gone, doubled or new."""
    way: list[Any] = []
    here = tree
    while isinstance(here, dict | list) and here and (not way or random.random() < 0.8):
        step = random.choice(list(here) if isinstance(here, dict) else range(len(here)))
        way.append(step)
        here = here[step]
    if not way:
        return tree
    return _changed(random, tree, way, edges)


def _changed(random: random.Random, tree: Any, way: list[Any], edges: tuple[Any, ...]) -> Any:
    copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    step, *rest = way
    if rest:
        copy[step] = _changed(random, copy[step], rest, edges)
        return copy
    kind = random.randrange(8)
    if kind == 0:
        del copy[step]
    elif kind == 1 and isinstance(copy, dict):
        copy[random.choice(("odd", str(step) + "_", "kind", "__class__"))] = copy[step]
    elif kind == 1:
        copy.insert(step, copy[step])
    elif kind == 2 and type(copy[step]) in (int, float):
        copy[step] = copy[step] * random.choice((-1, 2, 3, 10, 1000, 2**20, 2**40)) + random.choice((-1, 0, 1))
    else:
        copy[step] = random.choice(edges)
    return copy


def of_json(random: random.Random, raw: bytes) -> bytes:
    """JSON with some places changed, or now and then no JSON."""
    if random.random() < 0.15:
        return of_bytes(random, raw)
    tree = json.loads(raw)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        tree = of_tree(random, tree)
    return json.dumps(tree).replace(f'"{LONG_INTEGER}"', "1" * 5000).encode()


_TOKEN = re.compile(r'"[^"\n]*"|(?<![\w.])-?\d[\d_]*(?:\.\d+)?(?:e-?\d+)?(?![\w.])')


def of_text(random: random.Random, raw: bytes) -> bytes:
    """Text (TOML, CSV) with numbers and strings replaced, lines gone, doubled or exchanged."""
    if random.random() < 0.15:
        return of_bytes(random, raw)
    text = raw.decode()
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        lines = text.split("\n")
        tokens = list(_TOKEN.finditer(text))
        kind = random.randrange(8)
        if kind == 0:
            del lines[random.randrange(len(lines))]
        elif kind == 1:
            lines.insert(random.randrange(len(lines)), random.choice(lines))
        elif kind == 2:
            lines[random.randrange(len(lines))] = random.choice(
                ("", "[x]", "x = 1", "[[a]]", "#", "a.b.c = {}", "\x00", "=")
            )
        elif tokens:
            token = random.choice(tokens)
            text = text[: token.start()] + _written(random, token[0]) + text[token.end() :]
            continue
        text = "\n".join(lines) or "\n"
    return text.replace(f'"{LONG_INTEGER}"', "1" * 5000).encode(errors="replace")


def _written(random: random.Random, token: str) -> str:
    if token[0] != '"' and random.random() < 0.4:
        factor = random.choice((-1, 2, 3, 16, 1000, 2**20, 2**40))
        return str(int(float(token.replace("_", "")) * factor))
    return json.dumps(random.choice(EDGES)).replace("NaN", "nan").replace("Infinity", "inf")


def of_onnx(random: random.Random, raw: bytes) -> bytes:
    """An ONNX model with some of its nodes, attributes, shapes and names changed, or a few of its bytes."""
    if random.random() < 0.3:
        return of_bytes(random, raw)
    model = onnx.load_model_from_string(raw)
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice(_ONNX)(random, model)
    return bytes(model.SerializeToString())


_SIZES = (0, 1, 2, 3, 5, 7, -1, -2, 64, 2**15, 2**31, 2**33, 2**40, 2**62, 2**63 - 1, -(2**63))


def _attribute(random: random.Random, model: Any) -> None:
    node = random.choice(model.graph.node)
    name = random.choice([a.name for a in node.attribute] or ["x"])
    names = (
        name,
        "group",
        "strides",
        "dilations",
        "pads",
        "kernel_shape",
        "transB",
        "axis",
        "perm",
        "hidden_size",
        "to",
    )
    name = random.choice(names)
    kept = [a for a in node.attribute if a.name != name]
    size, count = random.choice(_SIZES), random.randrange(1, 5)
    value = random.choice(
        (size, [size] * count, [1] * count, float(size % 1000), "x", "SAME_UPPER", [0.5], "ij,jk->ik")
    )
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def _dimension(random: random.Random, model: Any) -> None:
    tensor = random.choice(model.graph.initializer)
    if tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice(_SIZES)


def _rank(random: random.Random, model: Any) -> None:
    tensor = random.choice(model.graph.initializer)
    dims = random.choice(([], [*tensor.dims, 1], [*tensor.dims][:-1], [2] * 9))
    del tensor.dims[:]
    tensor.dims.extend(dims)


def _input(random: random.Random, model: Any) -> None:
    shape = random.choice(model.graph.input).type.tensor_type.shape
    if shape.dim:
        shape.dim[random.randrange(len(shape.dim))].dim_value = random.choice(_SIZES)


def _wire(random: random.Random, model: Any) -> None:
    node = random.choice(model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)]
    places = random.choice((node.input, node.output))
    if places:
        places[random.randrange(len(places))] = random.choice((*names, "", "nowhere"))


def _operator(random: random.Random, model: Any) -> None:
    random.choice(model.graph.node).op_type = random.choice(
        (
            "Conv",
            "ConvTranspose",
            "Gemm",
            "MatMul",
            "Einsum",
            "LSTM",
            "GRU",
            "Reshape",
            "Concat",
            "Slice",
            "Range",
            "Pow",
            "Expand",
            "Softmax",
            "Resize",
            "BatchNormalization",
            "Gather",
            "If",
            "x",
        )
    )


def _node(random: random.Random, model: Any) -> None:
    nodes = model.graph.node
    if random.random() < 0.5 and len(nodes) > 1:
        del nodes[random.randrange(len(nodes))]
    else:
        nodes.append(random.choice(nodes))


def _arguments(random: random.Random, model: Any) -> None:
    node = random.choice(model.graph.node)
    for places in random.choice(([node.input], [node.output], [node.input, node.output])):
        del places[random.randrange(len(places) + 1) :]


def _type(random: random.Random, model: Any) -> None:
    random.choice(model.graph.initializer).data_type = random.choice((0, 1, 6, 7, 8, 10, 11, 14, 16, 17, 23, 99))


def _opset(random: random.Random, model: Any) -> None:
    model.opset_import[0].version = random.choice((0, 1, 5, 7, 9, 11, 13, 17, 99, -1))


def _content(random: random.Random, model: Any) -> None:
    tensor = random.choice(model.graph.initializer)
    tensor.raw_data = random.choice((b"", b"\xff" * len(tensor.raw_data), bytes(random.randbytes(16))))


_ONNX: tuple[Callable[[random.Random, Any], None], ...] = (
    _attribute,
    _attribute,
    _attribute,
    _dimension,
    _rank,
    _input,
    _wire,
    _operator,
    _node,
    _arguments,
    _type,
    _opset,
    _content,
)
