"""The stored model: reading it, and writing the batch into the shapes of its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import inliner

from ..errors import InputError
from .operators import RECURRENT

__all__ = ["fed_inputs", "load", "set_batch"]


def load(file: Path) -> Any:
    """The model without its external weights, its local functions written out."""
    try:
        model = onnx.load_model(file, load_external_data=False)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    except Exception as error:
        # protobuf's own error; it publishes no types to name it by
        raise InputError("not an ONNX model, or cut short") from error
    if not model.graph.node:
        raise InputError("not an ONNX model: it has no graph")
    return inliner.inline_local_functions(model) if model.functions else model


def fed_inputs(graph: Any) -> list[Any]:
    """Inputs that are fed; before IR version 4 initializers are listed among them."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def set_batch(graph: Any, batch: int | None) -> int:
    """Write the batch into the shapes of the inputs, refuse what stays symbolic, and return the batch."""
    inputs = fed_inputs(graph)
    if not inputs:
        raise InputError("the graph has no input")
    recurrent = any(node.op_type in RECURRENT for node in graph.node)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inputs}
    leading = {name: _batch_dimension(shape, recurrent=recurrent) for name, shape in shapes.items() if shape}
    symbols = {dim.dim_param for dim in leading.values() if dim.dim_param}
    free = [name for name, dim in leading.items() if not _fixed(dim)]
    if free and batch is None:
        raise InputError(
            f"the batch dimension {_label(leading[free[0]])} of input {free[0]!r} is symbolic: give a batch size"
        )
    for value in inputs:
        for position, dim in enumerate(value.type.tensor_type.shape.dim):
            if _fixed(dim):
                continue
            if dim.dim_param not in symbols and dim is not leading[value.name]:
                raise InputError(
                    f"dimension {position} ({_label(dim)}) of input {value.name!r} is symbolic; only the first, the "
                    "batch, may be: export the model with a fixed size"
                )
            dim.dim_value = batch
    sizes = [dim.dim_value for dim in leading.values()]
    found = sizes[0] if sizes else 1
    if batch is not None and batch not in sizes:
        raise InputError(f"batch {batch} given, but the file fixes it at {found}")
    return found if batch is None else batch


def _batch_dimension(shape: Any, *, recurrent: bool) -> Any:
    """The first dimension; the second of steps x batch x features, which recurrent operators take."""
    steps_first = recurrent and len(shape) == 3 and [_fixed(dim) for dim in shape] == [True, False, True]
    return shape[1] if steps_first else shape[0]


def _fixed(dim: Any) -> bool:
    return bool(dim.HasField("dim_value") and dim.dim_value > 0)


def _label(dim: Any) -> str:
    return repr(dim.dim_param or "without a name")
