"""A training as arrays, for machines that know no PyTorch: graph of a step, weights before it, batches, test images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..data import ImageData, Images, normalised, open_data, order
from ..errors import InputError
from ..graph import Graph, annotated
from ..models.classifier import image_side
from ..schemes.annotate import annotate
from ..step import Workload
from ..tracing.graph import forward_graph, step_graph
from .model import new_model, step_workload
from .seeds import ORDER, generator_of
from .spec import TrainSpec

__all__ = ["Batch", "Prepared", "prepared"]

Single = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Images float32 [n, channels, height, width], normalised, and their classes int64 [n]."""

    pixels: Single
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """``graph``: a step under the scheme, which ``workload`` counts; ``scoring``: its forward pass in evaluation mode,
    by running statistics; ``held``: parameters and buffers by name, float32 of any shape.

    ``test``: the test set, whole.
    """

    spec: TrainSpec
    graph: Graph
    scoring: Graph
    workload: Workload
    held: dict[str, Single]
    test: Batch

    def batches(self) -> Iterator[Batch]:
        """Without end, each epoch in an order of its own as `weft train` has it, not augmented; no ragged one."""
        data = open_data(self.spec.data, image_side(self.spec.model))
        labels = data.train.labels
        epoch = 0
        while True:
            shuffled = order(len(labels), generator_of(self.spec, ORDER, epoch))
            for chosen in torch.split(shuffled, self.spec.batch):
                if len(chosen) == self.spec.batch:
                    yield _batch(data, data.train, chosen)
            epoch += 1


def prepared(spec: TrainSpec) -> Prepared:
    """What ``spec`` trains, before its first step."""
    data = open_data(spec.data, image_side(spec.model))
    images = len(data.train.labels)
    if spec.batch > images:
        raise InputError(f"batch {spec.batch} is larger than the {images} training images of {spec.data!r}")
    model = new_model(spec, data)
    workload = annotate(step_workload(spec), spec.scheme, spec.pattern)
    pixels = torch.empty(spec.batch, *data.shape)
    graph, scoring = (annotated(of(model, pixels, name=spec.model), workload) for of in (step_graph, forward_graph))
    named = (*model.named_parameters(), *model.named_buffers())
    held = {name: tensor.detach().numpy().copy() for name, tensor in named if tensor.is_floating_point()}
    test = _batch(data, data.test, torch.arange(len(data.test.labels)))
    return Prepared(spec=spec, graph=graph, scoring=scoring, workload=workload, held=held, test=test)


def _batch(data: ImageData, images: Images, chosen: torch.Tensor) -> Batch:
    return Batch(normalised(data, images.fetch(chosen)).numpy(), images.labels[chosen].numpy())
