"""Runs a graph by PyTorch's own operators, in the precision that it is given: what the nodes say, and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.workloads.graph import Graph, Node, PortKind

aten = torch.ops.aten


def run(graph: Graph, given: dict[tuple[PortKind, str], Tensor]) -> dict[tuple[PortKind, str], Tensor]:
    """The outputs of a graph by kind and name; ``given`` are its inputs, likewise, any float dtype and shape."""
    held: dict[int, Tensor] = {port.tensor: given[port.kind, port.name] for port in graph.inputs}
    for node in graph.nodes:
        reads = [held[number] for number in node.reads]
        shapes = [graph.tensors[number].shape for number in node.makes]
        for number, made in zip(node.makes, _made(node, reads, shapes), strict=True):
            assert tuple(made.shape) == graph.tensors[number].shape, node
            held[number] = made
    return {(port.kind, port.name): held[port.tensor] for port in graph.outputs}


def _made(node: Node, reads: list[Tensor], shapes: list[tuple[int, ...]]) -> tuple[Tensor, ...]:
    found = _call(node, reads, shapes)
    return found if isinstance(found, tuple) else (found,)


def _call(node: Node, x: list[Tensor], shapes: list[tuple[int, ...]]) -> Any:
    s: dict[str, Any] = node.settings
    match node.op.removeprefix("aten."):
        case "mm" | "bmm" | "addmm" | "relu" | "add" as name:
            return getattr(aten, name)(*x)
        case "convolution":
            return aten.convolution(*x[:2], x[2] if x[2:] else None, *_window(s))
        case "convolution_backward":
            of_input = s["of"] == "input"
            other = x[0].new_zeros(shapes[0])
            image, weight = (other, x[1]) if of_input else (x[1], other)
            made = aten.convolution_backward(x[0], image, weight, None, *_window(s), [of_input, not of_input, False])
            return made[0 if of_input else 1]
        case "view":
            return x[0].reshape(shapes[0])
        case "permute":
            return x[0].permute(s["dims"])
        case "expand":
            return x[0].expand(shapes[0])
        case "slice":
            return x[0].narrow(s["dim"], s["start"], s["end"] - s["start"])
        case "cat":
            return torch.cat(x, s["dim"])
        case "constant_pad_nd":
            behind = [0, 0] * (x[0].dim() - 1 - s["dim"])
            return torch.nn.functional.pad(x[0], [*behind, s["before"], s["after"]])
        case "threshold_backward":
            return aten.threshold_backward(*x, 0)
        case "gelu" | "gelu_backward" as name:
            return getattr(aten, name)(*x, approximate=s["approximate"])
        case "mul":
            return x[0] * s["other"]
        case "sum" | "mean" as name:
            return getattr(torch, name)(x[0], s["dims"], keepdim=True)
        case "native_batch_norm":
            running = [x[3].clone(), x[4].clone()]
            made = aten.native_batch_norm(*x[:3], *running, s["training"], s["momentum"], s["eps"])
            return (*made, *running) if s["training"] else made[0]
        case "native_batch_norm_backward":
            dy, image, weight, mean, inverse = x
            return aten.native_batch_norm_backward(
                dy, image, weight, None, None, mean, inverse, True, 0.0, [True, True, True]
            )
        case "native_layer_norm":
            return aten.native_layer_norm(x[0], x[0].shape[-s["sides"] :], *x[1:], s["eps"])
        case "native_layer_norm_backward":
            dy, rows, weight, mean, inverse = x
            sides = rows.shape[-s["sides"] :]
            return aten.native_layer_norm_backward(dy, rows, sides, mean, inverse, weight, weight, [True, True, True])
        case "max_pool2d_with_indices":
            return aten.max_pool2d_with_indices(x[0], *_pool(s))
        case "max_pool2d_with_indices_backward":
            return aten.max_pool2d_with_indices_backward(x[0], x[0].new_zeros(shapes[0]), *_pool(s), False, x[1])
        case "_softmax":
            return x[0].softmax(-1)
        case "_softmax_backward_data":
            return aten._softmax_backward_data(*x, -1, x[0].dtype)
    raise AssertionError(node.op)


def _window(s: dict[str, Any]) -> tuple[Any, ...]:
    return s["stride"], s["padding"], s["dilation"], False, (0, 0), s["groups"]


def _pool(s: dict[str, Any]) -> tuple[Any, ...]:
    return s["kernel_size"], s["stride"], s["padding"], s["dilation"]
