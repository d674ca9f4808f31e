"""A step of a transformer whose residual stream is narrower: rows and columns of its weights are deleted (SliceGPT).

SliceGPT (Ashkboos et al., arXiv 2401.15024) rotates the stream in front of every block to its principal components and
deletes the last of them, so every product that reads the stream has a shorter contraction, every one that writes to it
fewer columns. As each block has a rotation of its own, the stream is multiplied by a matrix on its way around it:
a product more for every sum. `shrinking/slicing.py` does it to a trained model; here only shapes change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .errors import InputError
from .gemm import Gemm
from .resized import resized, thinned
from .step import Frozen, MatrixOp, Op, VectorOp, Workload

__all__ = ["ROUNDED", "sliced", "sliced_width"]

ROUNDED: Final = 8
"""Widths are multiples of it (assumed)."""


def sliced_width(width: int, share: float) -> int:
    """The multiple of `ROUNDED` nearest to a ``share`` of ``width``, one at least; no more than ``width``."""
    if not 0.0 < share <= 1.0:
        raise InputError(f"share of a stream must be above 0 and at most 1, not {share!r}")
    return min(max(round(share * width / ROUNDED), 1) * ROUNDED, width)


def sliced(workload: Workload, share: float) -> Workload:
    """``workload``, a dense step of use of a transformer, with its residual stream ``share`` as wide, as
    `sliced_width` rounds it, and a product more around every block. Tied weights part: each is rotated otherwise.

    The stream is what embeddings make, and what sums make of it and of products that do not read it. Vector work on it
    shrinks with it; norms stay what they are, though SliceGPT's have no mean and no scale: an upper bound.
    """
    if workload.phase.trains or not workload.after:
        raise InputError(f"{workload.model!r} is sliced in use: trace a step with use infer, prefill or decode")
    if workload.scheme != "dense" or workload.fusion != "none":
        raise InputError(f"{workload.model!r} is sliced before anything else: before a scheme, and before fusion")
    stream = _Stream(workload)
    return stream.narrowed(sliced_width(stream.width, share))


class _Stream:
    """Which ops of a step make the residual stream, ``makes``, and which products read it, ``reads``."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.makes: set[int] = set()
        self.reads: set[int] = set()
        products = [op for op in workload.matrix_ops if _has_weight(op)]
        if not products:
            raise InputError(f"{workload.model!r} has no product with a weight")
        # The last product scores the vocabulary, and reads the stream.
        self.width = products[-1].gemm.k
        alone = set[int]()
        for i, (op, before) in enumerate(zip(workload.ops, workload.after, strict=True)):
            known = [j for j in before if j not in alone]
            if isinstance(op, MatrixOp):
                if _has_weight(op):
                    self._product(i, op, known)
            elif isinstance(op, VectorOp):
                if op.op == "aten.embedding" and op.elements % self.width == 0:
                    self.makes.add(i)
                elif not known:
                    alone.add(i)  # masks and positions, which no token's values are in
                elif all(j in self.makes for j in known):
                    self.makes.add(i)
                elif any(j in self.makes for j in known):
                    raise InputError(
                        f"{op.name!r} adds what no weight makes alone to the stream, as a mixture of experts does: "
                        f"{workload.model!r} is not sliced"
                    )
        if not self.reads:
            raise InputError(
                f"{workload.model!r} has no residual stream of {self.width} that begins with an embedding, so nothing "
                "of it is sliced: choose a language model, such as llama2_7b"
            )

    def _product(self, i: int, op: MatrixOp, known: list[int]) -> None:
        if known and all(j in self.makes for j in known):
            if op.gemm.k != self.width:
                raise InputError(f"{op.name!r} reads {op.gemm.k} of a stream of {self.width}: it is not sliced")
            self.reads.add(i)
        elif op.gemm.n == self.width:
            self.makes.add(i)

    def narrowed(self, width: int) -> Workload:
        """The step with a stream of ``width``."""
        source, ops, after = self.workload, list[Op](), list[set[int]]()
        place = dict[int, int]()
        around = self._around()
        frozen: list[Frozen] = []
        for i, op in enumerate(source.ops):
            before = {place[j] for j in source.after[i]}
            if i in around:
                product, carried = around[i]
                shortcut = self._shortcut(product, width)
                frozen.append(Frozen(name=f"{shortcut.name}.weight", dtype=shortcut.b.dtype, elements=width * width))
                ops.append(shortcut)
                after.append({place[carried]})
                before |= {len(ops) - 1}
            place[i] = len(ops)
            ops.append(self._smaller(i, op, width))
            after.append(before)
        described = ", ".join(filter(None, (source.input, f"a stream of {width} of {self.width}")))
        return replace(
            source,
            ops=tuple(ops),
            after=tuple(tuple(sorted(one)) for one in after),
            tensors=(),
            frozen=(*self._frozen(width), *frozen),
            input=described,
        )

    def _around(self) -> dict[int, tuple[MatrixOp, int]]:
        """By sum, the product that it adds to the stream, and the op that made the stream before."""
        found: dict[int, tuple[MatrixOp, int]] = {}
        for i in sorted(self.makes):
            made = [j for j in self.workload.after[i] if j in self.makes]
            products = [j for j in made if isinstance(self.workload.ops[j], MatrixOp)]
            carried = [j for j in made if j not in products]
            if len(products) == 1 and len(carried) == 1:
                op = self.workload.ops[products[0]]
                assert isinstance(op, MatrixOp)
                found[i] = (op, carried[0])
        return found

    def _shortcut(self, op: MatrixOp, width: int) -> MatrixOp:
        name = f"{op.name}.shortcut"
        made = resized(op, Gemm(m=op.gemm.m, k=width, n=width))
        return replace(made, name=name, parameter=f"{name}.weight")

    def _smaller(self, i: int, op: Op, width: int) -> Op:
        if isinstance(op, MatrixOp):
            g = op.gemm
            if i in self.reads:
                own = None if op.parameter is None else op.parameter.rpartition("=")[2]
                return replace(resized(op, Gemm(m=g.m, k=width, n=g.n)), parameter=own)
            return resized(op, Gemm(m=g.m, k=g.k, n=width)) if i in self.makes else op
        if isinstance(op, VectorOp) and i in self.makes and op.elements % self.width == 0:
            return thinned(op, width, self.width)
        return op

    def _frozen(self, width: int) -> list[Frozen]:
        """What the model holds: weights of products that read the stream or write to it, biases of those that write,
        and what belongs to no product but is as wide: embeddings and norms."""
        ops = self.workload.ops
        named = {op.parameter: i for i, op in enumerate(ops) if isinstance(op, MatrixOp) and op.parameter}
        outputs = {(name or "").removesuffix("weight") + "bias": i for name, i in named.items()}
        shrinks = self.makes | self.reads
        found = []
        for held in self.workload.frozen:
            product = named.get(held.name)
            if product is not None:
                narrow = product in shrinks
            elif held.name in outputs:
                narrow = outputs[held.name] in self.makes
            else:
                narrow = held.elements % self.width == 0
            elements = held.elements * width // self.width if narrow else held.elements
            found += [replace(held, name=name, elements=elements) for name in held.name.split("=")]
        return found


def _has_weight(op: MatrixOp) -> bool:
    return op.parameter is not None and op.gemm.groups == 1 and not op.convolution
