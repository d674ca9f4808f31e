"""The model of a training: before its first step, and as the machine takes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import ImageData, open_data
from ..graph import Graph, annotated
from ..models.classifier import classifier, image_side, scores
from ..models.zoo import source
from ..schemes.annotate import annotate
from ..schemes.scheme import widening
from ..sparsity import NMPattern
from ..step import Workload
from ..tracing.graph import step_graph
from .seeds import WEIGHTS, seed_of
from .spec import TrainSpec

__all__ = ["built_in_graph", "new_model", "step_workload", "training_graph"]


def new_model(spec: TrainSpec, data: ImageData | None = None) -> nn.Module:
    """The model of a training before its first step; ``data`` saves opening it again."""
    data = data or open_data(spec.data, image_side(spec.model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(spec, WEIGHTS))
        widen = widening(spec.scheme, spec.pattern, spec.options.get("density"))
        return classifier(spec.model, data.shape, data.classes, widen)


def step_workload(spec: TrainSpec) -> Workload:
    """One step of the very model that :func:`train` trains, dense, as the machine takes it."""
    from ..catalog import trace_module

    data = open_data(spec.data, image_side(spec.model))
    pixels = torch.empty(spec.batch, *data.shape, device="meta")
    labels = torch.zeros(spec.batch, dtype=torch.long, device="meta")

    def loss(output: Any) -> Tensor:
        return functional.cross_entropy(scores(output), labels)

    traced = trace_module(new_model(spec, data), pixels, loss=loss, optimizer=spec.optimizer)
    return replace(traced, model=spec.model)


def training_graph(spec: TrainSpec) -> Graph:
    """The same step as it is executed, with what its scheme keeps of operands."""
    data = open_data(spec.data, image_side(spec.model))
    graph = step_graph(new_model(spec, data), torch.empty(spec.batch, *data.shape), name=spec.model)
    if spec.scheme == "dense":
        return graph
    return annotated(graph, annotate(step_workload(spec), spec.scheme, spec.pattern))


def built_in_graph(model: str, *, batch: int, scheme: str, pattern: NMPattern | None, optimizer: str) -> Graph:
    """The step of a built-in model of images as `weft run` traces it, on images of its own size, as it is executed."""
    from ..catalog import open_model

    found = source(model)
    with torch.device("meta"):
        inputs = found.inputs(batch, None)
        module = found.build().to_empty(device="cpu")
    (pixels,) = (*inputs.args, *inputs.kwargs.values())
    graph = step_graph(module, torch.empty(pixels.shape), name=found.name)
    if scheme == "dense":
        return graph
    return annotated(graph, annotate(open_model(model, batch=batch, optimizer=optimizer), scheme, pattern))
