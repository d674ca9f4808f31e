"""Masks of a trained network as a file, and a step whose operands have them; importing this must not import torch.

A mask is bool [lines, length]. Of a weight a line is what one sum contracts: an output of a filter or of a linear
layer, its elements as the machine reads them, channels side by side. Of an input a line is a token.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from .errors import InputError, nearest, reading, require_int
from .files import write_atomically
from .gemm import MAX_DIM, Pass
from .groups import Groups, OptionalGroupShape, grouped_mask
from .one_line import OneLine
from .operand import Gathered, NMOperand, Role
from .schemes.annotate import annotate
from .schemes.scheme import scheme
from .sparsity import NMPattern
from .step import MatrixOp, Measured, Op, Workload
from .strict import dump_json, read_file, read_json
from .unstructured import Unstructured, counted_mask, counted_runs
from .user_code import is_user
from .words import named

__all__ = ["About", "MaskOf", "Recorded", "summary", "with_masks"]

_STRICT = {"extra": "forbid"}
_ABOUT = "about"
_EXPECTED = "a file of `weft record`"
_MOST_BYTES = 2**31
"""Of masks in a file, unpacked to a bit an element: a small file may say that it holds more than memory does."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOf:
    """Where a mask is of: the module path of the layer, its weight or its input, and how large it is."""

    __pydantic_config__ = _STRICT

    layer: str
    of: Literal["weight", "input"]
    lines: int
    length: int

    def __post_init__(self) -> None:
        require_int(f"lines of the mask of {self.layer!r}", self.lines, 1, MAX_DIM)
        require_int(f"length of the mask of {self.layer!r}", self.length, 1, MAX_DIM)

    @property
    def bytes(self) -> int:
        """As the file has it, before it is compressed."""
        return self.lines * -(-self.length // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the masks are of: a ``model`` trained on ``data`` under ``scheme``.

    ``weights``, ``examples``, ``masks``: SHA-256 of the trained parameters, of the data, and of the masks themselves.
    ``groups``: what of a weight is kept whole or not at all, None for single elements; ``level``: of every row as many.
    ``shape``, ``classes``, ``widen``: what the model was built for, so that it can be built again without its data;
    ``()`` and 0 of a language model. ``said``: how inputs count as zero. ``score``: share of the test images that are
    classified right, or bits a character of the test text. ``kept_dense``: why layers have no mask of their weight.
    """

    __pydantic_config__ = _STRICT

    schema: Literal[1] = 1
    model: str
    data: str
    scheme: str
    pattern: NMPattern | None
    weights: str
    examples: str
    masks: str
    shape: tuple[int, ...]
    classes: int
    widen: float
    said: str
    score: float
    kept_dense: dict[str, str] = field(default_factory=dict, hash=False)
    groups: OptionalGroupShape = None
    level: Annotated[bool, Field(exclude_if=lambda level: not level)] = False
    of: tuple[MaskOf, ...]

    def __post_init__(self) -> None:
        if not self.of:
            raise InputError("a record must hold one mask at least")
        names = [(mask.layer, mask.of) for mask in self.of]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{twice[1]} of layer {twice[0]!r} has two masks: list it once")
        if sum(mask.bytes for mask in self.of) > _MOST_BYTES:
            raise InputError(f"masks take more than {_MOST_BYTES // 2**20} MiB, the most that is kept in a file")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Recorded(OneLine):
    """Masks, bool [lines, length], in the order of ``about.of``."""

    about: About
    masks: tuple[Mask, ...]

    @cached_property
    def weights(self) -> dict[str, Mask]:
        """Masks of weights, by layer."""
        return self._of("weight")

    @cached_property
    def inputs(self) -> dict[str, Mask]:
        """Masks of inputs, by layer: bool [tokens, inputs]."""
        return self._of("input")

    def _of(self, what: str) -> dict[str, Mask]:
        every = zip(self.about.of, self.masks, strict=True)
        return {mask.layer: found for mask, found in every if mask.of == what}

    @classmethod
    def made(cls, masks: Iterable[tuple[str, Literal["weight", "input"], Mask]], **about: Any) -> Recorded:
        """Of (layer, weight or input, mask) and the other fields of `About`."""
        every = tuple(masks)
        of = tuple(MaskOf(layer=name, of=what, lines=m.shape[0], length=m.shape[1]) for name, what, m in every)
        found = tuple(mask for _, _, mask in every)
        return cls(about=About(of=of, masks=_digest(found), **about), masks=found)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; equal masks give equal bytes."""
        buffer = io.BytesIO()
        bits = {str(i): np.packbits(mask, axis=1) for i, mask in enumerate(self.masks)}
        about = np.frombuffer(dump_json(About, self.about), np.uint8)
        np.savez_compressed(buffer, **{_ABOUT: about}, **bits)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """Masks of a file; one that breaks a rule is refused with the place and the rule."""
        with reading(str(path), _EXPECTED), zipfile.ZipFile(io.BytesIO(read_file(path))) as members:
            about = read_json(About, _member(members, _ABOUT, None).tobytes(), str(path))
            masks = tuple(_unpacked(members, i, mask) for i, mask in enumerate(about.of))
        if _digest(masks) != about.masks:
            raise InputError(f"{path}: its masks are not those that it was written with; record them again")
        return cls(about=about, masks=masks)

    def _said(self) -> str:
        own, kept = self.about, sum(int(mask.sum()) for mask in self.masks)
        share = kept / sum(mask.size for mask in self.masks)
        return f"{named(own.model)} on {named(own.data)}, {own.scheme}: {len(own.of)} masks, {share:.3g} kept"


def summary(of: MaskOf, mask: Mask) -> dict[str, Any]:
    """What is said of a mask, bool [lines, length]: where it is of, its density, and the elements of its lines."""
    kept = np.count_nonzero(mask, axis=1)
    sizes = {"lines": of.lines, "length": of.length, "least": int(kept.min()), "most": int(kept.max())}
    return {"layer": of.layer, "of": of.of, "density": float(mask.mean()), **sizes}


def _member(members: zipfile.ZipFile, name: str, size: int | None) -> npt.NDArray[np.uint8]:
    """An array of bytes; ``size``: how many it must have."""
    info = members.getinfo(f"{name}.npy")
    if info.file_size > _MOST_BYTES:
        raise InputError(f"{name} takes {info.file_size} bytes, more than {_MOST_BYTES}")
    with members.open(info) as file:
        found = np.lib.format.read_array(file, allow_pickle=False)
    if found.dtype != np.uint8 or (size is not None and found.size != size):
        raise InputError(f"{name} holds {found.size} of {found.dtype}, not {size if size else 'some'} of uint8")
    return found


def _unpacked(members: zipfile.ZipFile, number: int, mask: MaskOf) -> Mask:
    bits = _member(members, str(number), mask.bytes).reshape(mask.lines, -1)
    return np.unpackbits(bits, axis=1, count=mask.length).astype(np.bool_)


def _digest(masks: Iterable[Mask]) -> str:
    found = hashlib.sha256()
    for mask in masks:
        found.update(str(mask.shape).encode())
        found.update(np.packbits(mask, axis=1).tobytes())
    return found.hexdigest()


def with_masks(workload: Workload, recorded: Recorded) -> Workload:
    """A step of use of the model that was recorded, under its scheme, with its own masks in the place of drawn ones.

    Weights without a pattern are `Unstructured` with their counts by line; under an N:M scheme the operands are those
    of the scheme, which every mask is held to, with their measured densities. Layers without a mask stay dense.
    """
    about = recorded.about
    if workload.phase.trains:
        raise InputError(f"masks of {named(about.model)} are of trained weights: trace a step of use, as --for infer")
    if is_user(about.scheme):
        raise InputError(f"the record names code to run, {about.scheme!r}; masks of schemes of a file are not run")
    if not recorded.weights:
        raise InputError(f"the record of {named(about.model)} has masks of inputs alone, and none of a weight")
    measured = tuple(
        Measured(layer=layer, density={Pass.FF: float(mask.mean())}) for layer, mask in recorded.weights.items()
    )
    read = {layer.layer: [op for op in workload.matrix_ops if layer.names(op)] for layer in measured}
    for layer, readers in read.items():
        if not readers:
            known = sorted({op.name for op in workload.matrix_ops if op.parameter is not None})
            raise InputError(f"a mask is of layer {layer!r}, which {workload.model!r} has not: {nearest(layer, known)}")
        for op in readers:
            _require_shape(op, layer, recorded.weights[layer])
    free = bool(scheme(about.scheme).unstructured)
    under = annotate(workload, "dense" if free else about.scheme, None if free else about.pattern)
    of = {id(op): layer for layer, readers in read.items() for op in readers}

    def made(op: Op, before: Op) -> Op:
        layer = of.get(id(before))
        if not isinstance(op, MatrixOp):
            return op
        if layer is None:
            reason = about.kept_dense.get(op.name, op.kept_dense)
            return replace(op, sparse=None, kept_dense="no mask of it was recorded" if op.sparse else reason)
        mask = recorded.weights[layer]
        if not free:
            return _held(op, layer, mask)
        return replace(op, kept_dense="", sparse=_free(about, op, mask))

    ops = tuple(made(op, before) for op, before in zip(under.ops, workload.ops, strict=True))
    return replace(under, ops=ops, scheme=about.scheme, pattern=about.pattern, measured=measured)


def _free(about: About, op: MatrixOp, mask: Mask) -> Gathered:
    """The operand of a mask without an N:M pattern; of single elements in the form that takes fewest bytes."""
    side = _weight_side(op)
    if about.groups is None:
        turned = mask if side == "a" else mask.T
        some = partial(Unstructured, operand=side, kept=counted_mask(turned, side))
        forms = (some(stored="bitmap"), some(stored="csr"), some(stored="runs", runs=counted_runs(turned, side)))
        return min(forms, key=lambda form: form.bytes(op.gemm, 0))
    found = grouped_mask(mask, about.groups, op.gemm.run)
    level = max(kept for kept, _ in found.lines) if about.level else 0
    return Groups(operand=side, shape=about.groups, kept=found, level=level)


def _weight_side(op: MatrixOp) -> Literal["a", "b"]:
    return "b" if op.b.role is Role.WEIGHT else "a"


def _require_shape(op: MatrixOp, layer: str, mask: Mask) -> None:
    g = op.gemm
    lines = g.groups * (g.n if _weight_side(op) == "b" else g.m)
    if mask.shape != (lines, g.k):
        raise InputError(
            f"the mask of {layer!r} is {mask.shape[0]} x {mask.shape[1]} (outputs x inputs), but its weight in "
            f"{op.name!r} is {lines} x {g.k}: record the masks of this very model"
        )


def _held(op: MatrixOp, layer: str, mask: Mask) -> MatrixOp:
    """``op`` of an N:M scheme, whose mask must keep to the pattern."""
    if isinstance(op.sparse, NMOperand):
        pattern, run = op.sparse.pattern, op.gemm.run
        groups = np.pad(mask.reshape(len(mask), -1, run), ((0, 0), (0, 0), (0, -run % pattern.group)))
        most = int(groups.reshape(-1, pattern.group).sum(1).max())
        if most > pattern.keep:
            raise InputError(
                f"the mask of {layer!r} keeps {most} of {pattern.group}, but its scheme asks for {pattern}"
            )
    return op
