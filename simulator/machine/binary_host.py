"""The host of a compiled binary network: integers into the machine's memory, sums out of it, and the bits between."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...dataflow.program.binary_network import BinaryProgram, compile_network
from ...dataflow.program.spaces import Target
from ...workloads.errors import InputError
from ...workloads.integer_network import Forward, IntegerNetwork
from ..network import threshold_of

__all__ = ["BinaryHost", "compile_folded"]

Memory = npt.NDArray[np.uint8]


class BinaryHost:
    """Of ``network``, compiled, on ``memory``, uint8 [bytes], which is changed in place."""

    def __init__(self, compiled: BinaryProgram, network: IntegerNetwork, memory: Memory) -> None:
        if memory.dtype != np.uint8 or memory.shape != compiled.memory.shape:
            raise InputError(f"memory must be uint8 [{len(compiled.memory)}], not {memory.dtype} {list(memory.shape)}")
        self.compiled, self.network, self.memory = compiled, network, memory

    def begin(self) -> None:
        """Put weights, levels and what stands around images where they lie."""
        self.memory[:] = self.compiled.memory

    def put(self, pixels: npt.NDArray[np.uint8]) -> None:
        """A batch, uint8 [images, channels, height, width], of at most as many images as were compiled for; behind the
        last one stands the first again."""
        count, images = len(pixels), self.compiled.images
        if not 1 <= count <= images:
            raise InputError(f"images must be from 1 to {images}, which the program is compiled for, not {count}")
        first = self.compiled.inputs[0]
        values = self.network.first_inputs(pixels[np.arange(images) % count])
        data = first.encode(values.reshape(images, *first.shape))
        self.memory[first.address : first.address + len(data)] = data

    def forward(self, count: int) -> Forward:
        """What the program has made of the first ``count`` images: what layers read, sums and scores."""
        c = self.compiled
        raw = self.memory[c.sums : c.sums + 4 * c.images * c.classes]
        sums = raw.view(np.int32).reshape(c.images, c.classes)[:count].copy()
        inputs = [
            one.decode(self.memory[one.address : one.address + c.images * one.strides[0]])[:count]
            for one in c.inputs[1:]
        ]
        return self.network.forward([self._first(count), *inputs], sums)

    def _first(self, count: int) -> npt.NDArray[np.int8]:
        """The integers of the first layer, as they lie in memory."""
        one = self.compiled.inputs[0]
        return one.decode(self.memory[one.address : one.address + self.compiled.images * one.strides[0]])[:count]


def compile_folded(network: IntegerNetwork, target: Target, images: int, image: tuple[int, ...]) -> BinaryProgram:
    """`compile_network` with the thresholds that scale, bias, batch norm and sign of its layers are."""
    thresholds = [threshold_of(layer) for layer in network.layers[:-1]]
    return compile_network(network, thresholds, target, images, image)
