"""A training step of a perceptron with operands of few values, on real numbers in a memory that counts bytes.

Written from the equations of docs/binary.md and from docs/design/xnor.md alone. A tensor that nobody wrote in this step
or in the update of the last one cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = Any
Row = tuple[str, str, str]
"""Layer, pass, what is done."""


@dataclass
class Kind:
    """A scheme as the papers have it; bits of W and of X, what has a scale, sums that are needed first."""

    bits: tuple[int, int]
    of_w: str
    of_x: str = ""
    looks: int = 0
    trips: int = 1
    straight: bool = False


KINDS = {
    "xnor": Kind(bits=(1, 1), of_w="filter"),
    "bireal": Kind(bits=(1, 1), of_w="filter"),
    "reste": Kind(bits=(1, 1), of_w="layer", trips=2),
    "biper": Kind(bits=(1, 1), of_w="constant"),
    "bitnet": Kind(bits=(2, 8), of_w="layer", of_x="row", looks=1, straight=True),
    "bitnet-median": Kind(bits=(2, 8), of_w="layer", of_x="row", looks=2, straight=True),
}


@dataclass
class Memory:
    held: dict[str, Array] = field(default_factory=dict)
    moved: list[int] = field(default_factory=lambda: [0, 0])

    def read(self, name: str) -> Array:
        self.moved[0] += self.held[name].nbytes
        return self.held[name]

    def write(self, name: str, value: Array) -> None:
        self.held[name] = value
        self.moved[1] += value.nbytes

    def taken(self) -> tuple[int, int]:
        found = self.moved[0], self.moved[1]
        self.moved[:] = [0, 0]
        return found


def packed(values: Array, bits: int, word: int) -> Array:
    """Integers [lines, k] as bytes: planes of bits, lines padded to words of ``word`` bits, or without any padding."""
    coded = values < 0 if bits == 1 else values.astype(np.int64) % 2**bits
    planes = np.stack([(coded.astype(np.int64) >> i) & 1 for i in range(bits)], axis=-1)
    if word:
        lines, k, _ = planes.shape
        planes = np.pad(planes, ((0, 0), (0, -k % word), (0, 0)))
        return np.packbits(planes.reshape(lines, -1, word, bits).transpose(0, 1, 3, 2).reshape(-1).astype(bool))
    return np.packbits(planes.reshape(-1).astype(bool))


class Perceptron:
    """Layers ``0`` to ``n``; which are at work, and the bits of a word of the engine of each FF (0: the STCE)."""

    def __init__(self, scheme: str, sizes: list[int], batch: int, at_work: list[int], word: dict[int, int]) -> None:
        self.kind, self.sizes, self.batch, self.at_work, self.word = KINDS[scheme], sizes, batch, at_work, word
        self.memory, self.rows = Memory(), dict[Row, tuple[int, int]]()
        rng = np.random.default_rng(0)
        for i in at_work:
            self.memory.held[f"{i} master"] = rng.standard_normal((sizes[i + 1], sizes[i])).astype(np.float32)
            self.memory.held[f"{i} dw"] = np.zeros((sizes[i + 1], sizes[i]), np.float16)
            self.memory.held[f"{i} momentum"] = np.zeros((sizes[i + 1], sizes[i]), np.float32)
            self.update(i)
        self.memory.taken()
        self.rows.clear()

    def done(self, layer: int, pass_: str, what: str) -> None:
        self.rows[str(layer), pass_, what] = self.memory.taken()

    def step(self) -> None:
        """FF, then backward layer by layer with the updates behind; what is read of X and dY comes out of nowhere."""
        rng = np.random.default_rng(1)
        for i in self.at_work:
            self.memory.held[f"{i} x"] = rng.standard_normal((self.batch, self.sizes[i])).astype(np.float16)
            self.forward(i)
        for i in reversed(self.at_work):
            self.memory.held[f"{i} dy"] = rng.standard_normal((self.batch, self.sizes[i + 1])).astype(np.float16)
            self.weight_gradient(i)
            if i:
                self.backward(i)
        for i in self.at_work:
            self.update(i)

    def forward(self, i: int) -> None:
        m, kind = self.memory, self.kind
        x = m.read(f"{i} x").astype(np.float32)
        mean, deviation = x.mean(1, keepdims=True), x.std(1, keepdims=True) + 1e-3
        m.write(f"{i} moments", np.concatenate([mean, deviation], 1).astype(np.float32))
        m.write(f"{i} normed", ((x - mean) / deviation).astype(np.float16))
        self.done(i, "FF", "norm")
        if kind.of_x:
            most = np.abs(m.read(f"{i} normed")).max(1, keepdims=True).astype(np.float32) + np.float32(1e-3)
            values = (m.read(f"{i} normed") * (128 / most)).round().clip(-128, 127)
            m.write(f"{i} x scales", most / 128)
        else:
            values = np.where(m.read(f"{i} normed") >= 0, 1, -1)
        if self.word[i]:
            m.write(f"{i} x words", packed(values, kind.bits[1], self.word[i]))
        m.write(f"{i} x bits", packed(values, kind.bits[1], 0))
        self.done(i, "FF", "quantise")
        m.read(f"{i} x words" if self.word[i] else f"{i} x bits")
        m.read(f"{i} w words" if self.word[i] else f"{i} w bits")
        m.write(f"{i} y", np.zeros((self.batch, self.sizes[i + 1]), np.float16))
        self.done(i, "FF", "product")
        self.read_scales(i)
        if not self.word[i] or kind.of_x:  # else they are constants of the engine's edge
            if kind.of_x:
                m.read(f"{i} x scales")
            m.write(f"{i} y", m.read(f"{i} y"))
        self.done(i, "FF", "scale")

    def read_scales(self, i: int) -> None:
        if self.kind.of_w != "constant":
            self.memory.read(f"{i} w scales")

    def backward(self, i: int) -> None:
        m, kind = self.memory, self.kind
        self.read_scales(i)
        m.write(f"{i} dy scaled", m.read(f"{i} dy"))
        self.done(i, "BP", "scale gradient")
        m.read(f"{i} dy scaled")
        m.read(f"{i} w bits")
        m.write(f"{i} dx", np.ones((self.batch, self.sizes[i]), np.float16))
        self.done(i, "BP", "product")
        if not kind.straight:
            m.write(f"{i} dx", m.read(f"{i} dx") * (np.abs(m.read(f"{i} normed")) <= 1))
            self.done(i, "BP", "estimator gradient")
        m.read(f"{i} x")
        m.read(f"{i} moments")
        m.write(f"{i} dx", m.read(f"{i} dx"))
        self.done(i, "BP", "norm backward")

    def weight_gradient(self, i: int) -> None:
        m, kind = self.memory, self.kind
        m.read(f"{i} x bits")
        if kind.of_x:
            m.taken()
            m.read(f"{i} x scales")
            m.write(f"{i} dy for wu", m.read(f"{i} dy"))
            self.done(i, "WU", "scale gradient")
        m.write(f"{i} dw", np.ones((self.sizes[i + 1], self.sizes[i]), np.float16))
        self.done(i, "WU", "product")
        if kind.straight:
            return
        total = 0.0
        for _ in range(kind.trips):
            weight, g = m.read(f"{i} master"), m.read(f"{i} dw")
            total += float((g * np.sign(weight)).sum())
        self.read_scales(i)
        m.write(f"{i} dw", (g * (np.abs(weight) <= 1) + np.float16(total / weight.size)).astype(np.float16))
        self.done(i, "WU", "estimator gradient")

    def update(self, i: int) -> None:
        """SGD with momentum, and what the next step reads of the weight."""
        m, kind = self.memory, self.kind
        momentum = (0.9 * m.read(f"{i} momentum") + m.read(f"{i} dw").astype(np.float32)).astype(np.float32)
        weight = (m.read(f"{i} master") - 0.1 * momentum).astype(np.float32)
        m.write(f"{i} momentum", momentum)
        m.write(f"{i} master", weight)
        if kind.looks:
            m.write(f"{i} w", weight.astype(np.float16))
            for _ in range(kind.looks):
                half = m.read(f"{i} w").astype(np.float32)
            gamma = np.abs(half).mean() + 1e-3
            values = (half / gamma).round().clip(-1, 1)
        else:
            values = np.where(weight >= 0, 1, -1)
        if self.word[i]:
            m.write(f"{i} w words", packed(values, kind.bits[0], self.word[i]))
        if i or not self.word[i]:  # the first layer has no BP
            m.write(f"{i} w bits", packed(values, kind.bits[0], 0))
        if kind.of_w == "filter":
            m.write(f"{i} w scales", np.abs(weight).mean(1).astype(np.float32))
        if kind.of_w == "layer":
            m.write(f"{i} w scales", np.abs(weight).mean(keepdims=True).reshape(1).astype(np.float32))
        self.done(i, "OPT", "update")
