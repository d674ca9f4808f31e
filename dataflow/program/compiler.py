"""A training step as programs: every node of its graph in commands, every tensor at its address.

Two programs, since the loss is the host's: `forward` from the input to the scores, `backward` from their gradient to
the updated parameters. Products run output-stationary, macro-tile by macro-tile with operands that stay, as many rows
and columns as the buffers hold; vector work in blocks. Operators, and shapes of them, that are not compiled yet are
refused by name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from ...workloads.errors import InputError
from ...workloads.gemm import Pass
from ...workloads.graph import Graph, Node, Port, PortKind, Stored
from ..allocation import Allocation, Lifetime, allocate
from ..integers import ceil_div
from ..operand import FP32
from .emitter import Emitter
from .isa import Unit
from .layout import Atom, View, merged, stored_order
from .program import Program
from .spaces import BIAS_WORDS, COLUMN_BEATS, PLACE_ADDRESS_BITS, VECTOR_DEPTH, Form, Space, Target, place
from .vector_operations import Slot, VectorOpcode

__all__ = ["CompiledStep", "Parameter", "compile_step"]

BANK = 1 << PLACE_ADDRESS_BITS
_ENDLESS = 65535
"""Turns of a count that no transfer reaches."""
_ALIGNED = 64
_FORMS = {Stored.OPERAND: (Form.OPERAND, 2), Stored.FLOAT32: (Form.FP32, FP32.bytes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Addresses of a parameter: FP32 ``master`` and ``state``, and the operand copy ``weight``, where one is read."""

    name: str
    shape: tuple[int, ...]
    master: int
    state: tuple[int, ...]
    weight: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """Programs of a step and where its tensors lie: byte offsets in a window of ``window`` bytes.

    ``parameters`` and ``buffers`` stay from step to step; ``constants`` are those of the update rule, FP32. Tensors lie
    as `layout.py` says.
    """

    target: Target
    forward: Program
    backward: Program
    window: int
    input: int
    output: int
    gradient: int
    parameters: tuple[Parameter, ...]
    constants: int
    allocation: Allocation


def compile_step(graph: Graph, target: Target) -> CompiledStep:
    """Compile a training step of ``graph``, cut at the model's output, for ``target``.

    What does not fit, or is not compiled yet, is an InputError that names the node.
    """
    return _Compiler(graph, target).compiled()


class _Operand(NamedTuple):
    """A matrix of a product: its rows, or columns, and along the contraction."""

    tensor: int
    lines: Sequence[Atom]
    slots: Sequence[Atom]


class _Block(NamedTuple):
    """Part of an iteration over tensors: where it begins, in elements of each, and counts and strides of its lines."""

    at: tuple[int, ...]
    words: int
    counts: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        return prod(self.counts)


class _Compiler:
    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.spec = target.spec
        self.views: dict[int, View] = {}
        self.sizes: dict[int, int] = {}
        self._halves: dict[Space, int] = {}
        self._place_tensors()

    def compiled(self) -> CompiledStep:
        graph = self.graph
        (output,), (gradient,) = graph.leaving(PortKind.OUTPUT), graph.entering(PortKind.GRADIENT)
        cut = next(i for i, node in enumerate(graph.nodes) if output.tensor in node.makes) + 1
        late = [i for i, node in enumerate(graph.nodes) if node.pass_ is not Pass.FF]
        if late and late[0] < cut:
            raise InputError(f"the graph of {graph.model!r} has backward work before its output")
        forward, backward = (Emitter(self.target, self.window) for _ in range(2))
        for emitter, nodes in ((forward, graph.nodes[:cut]), (backward, graph.nodes[cut:])):
            self.emitter = emitter
            for node in nodes:
                self._node(node)
        self._load_constants()
        for parameter in self.parameters:
            self._update(parameter)
        (entering,) = graph.entering(PortKind.INPUT)
        return CompiledStep(
            target=self.target,
            forward=forward.program(),
            backward=backward.program(),
            window=self.window,
            input=self._address(entering.tensor),
            output=self._address(output.tensor),
            gradient=self._address(gradient.tensor),
            parameters=self.parameters,
            constants=self.constants,
            allocation=self.allocation,
        )

    def _place_tensors(self) -> None:
        """Views, and an address for each tensor that is none, by its lifetime in nodes; what stays lives throughout."""
        graph = self.graph
        stays = {port.tensor for port in (*graph.inputs, *graph.outputs)}
        for port in graph.inputs:
            self.views[port.tensor] = View.whole(port.tensor, graph.tensors[port.tensor].shape)
        first: dict[int, int] = {port.tensor: 0 for port in graph.inputs}
        last: dict[int, int] = dict.fromkeys(first, 0)
        for i, node in enumerate(graph.nodes):
            for tensor in node.reads:
                last[self.views[tensor].root] = i
            for tensor in node.makes:
                made = _VIEWS.get(node.op)
                if made is not None:
                    self.views[tensor] = made(self, node, self.views[node.reads[0]])
                else:
                    self.views[tensor] = View.whole(tensor, graph.tensors[tensor].shape)
                    first[tensor] = last[tensor] = i
        for tensor in stays:
            root = self.views[tensor].root
            first[root], last[root] = 0, len(graph.nodes)
        lifetimes = []
        for tensor, begin in first.items():
            self.sizes[tensor] = prod(graph.tensors[tensor].shape) * self._bytes(tensor)
            lifetimes.append(Lifetime(name=f"t{tensor}", size=self.sizes[tensor], first=begin, last=last[tensor]))
        always = {"first": 0, "last": len(graph.nodes)}
        rule, names = self.target.rule, _trained(graph)
        for name, shape in names.items():
            for what in self._kept(name):
                lifetimes.append(Lifetime(name=f"{what} of {name}", size=FP32.bytes * prod(shape), **always))
        lifetimes.append(Lifetime(name="constants", size=FP32.bytes * len(rule.constants), **always))
        self.allocation = allocate(lifetimes, alignment=_ALIGNED, capacity=self.spec.dram.capacity_bytes)
        self.window = ceil_div(self.allocation.peak, 4096) * 4096
        self.constants = self.allocation.offsets["constants"]
        self.parameters = tuple(self._parameter(name, shape) for name, shape in names.items())

    def _kept(self, name: str) -> list[str]:
        """FP32 arrays of a parameter beside the tensors of the graph."""
        state = [held.name for held in self.target.rule.state]
        wide = any(port.name == name and self._stored(port.tensor) is Stored.FLOAT32 for port in self._ports(name))
        return state if wide else ["master", *state]

    def _ports(self, name: str) -> Iterator[Port]:
        return (port for port in self.graph.entering(PortKind.PARAMETER) if port.name == name)

    def _parameter(self, name: str, shape: tuple[int, ...]) -> Parameter:
        at = {self._stored(port.tensor): self._address(port.tensor) for port in self._ports(name)}
        offsets = self.allocation.offsets
        master = at[Stored.FLOAT32] if Stored.FLOAT32 in at else offsets[f"master of {name}"]
        state = tuple(offsets[f"{held.name} of {name}"] for held in self.target.rule.state)
        return Parameter(name=name, shape=shape, master=master, state=state, weight=at.get(Stored.OPERAND))

    def _stored(self, tensor: int) -> Stored:
        return self.graph.tensors[tensor].stored

    def _bytes(self, tensor: int) -> int:
        stored = self._stored(tensor)
        if stored not in _FORMS:
            raise InputError(f"the graph of {self.graph.model!r} keeps a tensor as {stored}, which is not compiled yet")
        return _FORMS[stored][1]

    def _address(self, tensor: int) -> int:
        view = self.views[tensor]
        return self.allocation.offsets[f"t{view.root}"] + view.offset * self._bytes(tensor)

    def _half(self, space: Space) -> int:
        """The half of a space that its next user takes: they take turns."""
        self._halves[space] = 1 - self._halves.get(space, 1)
        return self._halves[space]

    def _node(self, node: Node) -> None:
        if node.op in _VIEWS:
            return
        compiled = _NODES.get(node.op)
        if compiled is None:
            raise InputError(f"{node.op} of {node.module!r} is not compiled yet; those that are: {', '.join(_NODES)}")
        compiled(self, node)

    def _product(self, node: Node) -> None:
        a, b = (self.views[t] for t in node.operands)
        if node.kept is not None and node.kept.compact:
            raise InputError(f"{node.op} of {node.module!r} runs on pairs, which is not compiled yet")
        (made,) = node.makes
        bias = node.reads[0] if node.op == "aten.addmm" else None
        left = _Operand(node.operands[0], lines=a.axes[0], slots=a.axes[1])
        right = _Operand(node.operands[1], lines=b.axes[1], slots=b.axes[0])
        self._multiply(node, left, right, made, bias)

    def _multiply(self, node: Node, left: _Operand, right: _Operand, made: int, bias: int | None) -> None:
        array, pe = self.spec.array, self.spec.pe
        gemm = node.gemm
        assert gemm is not None
        m, k, n = gemm.m, gemm.k, gemm.n
        contexts = min(pe.accumulators, pe.add_latency, ceil_div(n, array.cols))
        deep = {space: self.target.size(space).depth for space in (Space.W2E, Space.N2S, Space.OUTPUT)}
        down = min(ceil_div(m, array.rows), deep[Space.W2E] // k)
        across = min(ceil_div(n, array.cols * contexts), deep[Space.N2S] // (k * contexts))
        used = min(array.rows, m)
        if bias is not None:
            across = min(across, BIAS_WORDS // (array.cols * contexts))
        if not down or not across:
            short = {Space.W2E: ("w2e_bytes", array.rows * k), Space.N2S: ("n2s_bytes", array.cols * k * contexts)}
            name, words = short[Space.W2E if not down else Space.N2S]
            raise InputError(
                f"{node.op} of {node.module!r} contracts over {k} words, which no half of buffers.{name} of "
                f"{self.spec.name!r} holds; it takes {2 * 2 * words:,} bytes"
            )
        while down * across * used * contexts > deep[Space.OUTPUT]:
            if across > down:
                across -= 1
            else:
                down -= 1
        for n0 in range(0, n, across * array.cols * contexts):
            n1 = min(n, n0 + across * array.cols * contexts)
            tiles_n = ceil_div(n1 - n0, array.cols * contexts)
            n2s = self._half(Space.N2S)
            self._load_n2s(node, right, n0, n1, k, contexts, n2s)
            bias_half = 0
            if bias is not None:
                bias_half = self._half(Space.BIAS)
                self.emitter.command(
                    Unit.LOAD,
                    space=Space.BIAS,
                    half=bias_half,
                    form=Form.FP32,
                    words=n1 - n0,
                    address=self._address(bias) + FP32.bytes * n0,
                    inner2=_ENDLESS,
                    inner2_step=1,
                )
            for m0 in range(0, m, down * array.rows):
                m1 = min(m, m0 + down * array.rows)
                tiles_m = ceil_div(m1 - m0, array.rows)
                w2e, out = self._half(Space.W2E), self._half(Space.OUTPUT)
                rows = min(array.rows, m)
                self._load_w2e(node, left, m0, m1, k, w2e)
                self.emitter.command(
                    Unit.PRODUCT,
                    stationary=0,
                    keep=1,
                    group=1,
                    rest=1,
                    interleave=contexts,
                    rows=rows,
                    parts=gemm.run,
                    runs=k // gemm.run,
                    across=tiles_n,
                    down=tiles_m,
                    w2e_half=w2e,
                    n2s_half=n2s,
                    output_half=out,
                )
                form, each = _FORMS[self._stored(made)]
                self.emitter.command(
                    Unit.STORE,
                    space=Space.OUTPUT,
                    half=out,
                    form=form,
                    words=n1 - n0,
                    address=self._address(made) + each * (m0 * n + n0),
                    count3=m1 - m0,
                    step3=each * n,
                    place=place(0, (rows - 1) * contexts),
                    inner2=array.cols,
                    inner2_step=BANK,
                    inner1=contexts,
                    inner1_step=1,
                    inner0_step=rows * contexts,
                    outer2=array.rows,
                    outer2_step=-contexts,
                    outer1=_ENDLESS,
                    outer1_step=tiles_n * rows * contexts,
                    bias=int(bias is not None),
                    bias_half=bias_half,
                    watch=self._watched(made),
                )

    def _load_w2e(self, node: Node, left: _Operand, m0: int, m1: int, k: int, half: int) -> None:
        """Rows of A: row ``r`` to bank r mod R, one after the other in it."""
        tensor = left.tensor
        (_, row_step), (_, slot_step) = self._single(node, left.lines), self._single(node, left.slots)
        array, (form, each) = self.spec.array, _FORMS[self._stored(tensor)]
        address = self._address(tensor) + each * row_step * m0
        common = {"space": Space.W2E, "half": half, "form": form, "address": address}
        if slot_step == 1 or row_step != 1:
            # a row is a line
            self._require_line(node, slot_step)
            self.emitter.command(
                Unit.LOAD,
                **common,
                words=k,
                count3=m1 - m0,
                step3=each * row_step,
                inner2=_ENDLESS,
                inner2_step=1,
                outer2=array.rows,
                outer2_step=BANK,
                outer1=_ENDLESS,
                outer1_step=k,
            )
        else:
            self.emitter.command(
                Unit.LOAD,
                **common,
                words=m1 - m0,
                count3=k,
                step3=each * slot_step,
                inner2=array.rows,
                inner2_step=BANK,
                inner1=_ENDLESS,
                inner1_step=k,
                outer2=_ENDLESS,
                outer2_step=1,
            )

    def _load_n2s(self, node: Node, right: _Operand, n0: int, n1: int, k: int, contexts: int, half: int) -> None:
        """Columns of B: column ``c`` to bank c mod C, by tile, slot, context."""
        tensor = right.tensor
        (_, column_step), (_, slot_step) = self._single(node, right.lines), self._single(node, right.slots)
        array, (form, each) = self.spec.array, _FORMS[self._stored(tensor)]
        address = self._address(tensor) + each * column_step * n0
        common = {"space": Space.N2S, "half": half, "form": form, "address": address}
        if slot_step == 1 or column_step != 1:
            self._require_line(node, slot_step)
            self.emitter.command(
                Unit.LOAD,
                **common,
                words=k,
                count3=n1 - n0,
                step3=each * column_step,
                inner2=_ENDLESS,
                inner2_step=contexts,
                outer2=array.cols,
                outer2_step=BANK,
                outer1=contexts,
                outer1_step=1,
                outer0_step=k * contexts,
            )
        else:
            self.emitter.command(
                Unit.LOAD,
                **common,
                words=n1 - n0,
                count3=k,
                step3=each * slot_step,
                inner2=array.cols,
                inner2_step=BANK,
                inner1=contexts,
                inner1_step=1,
                inner0_step=k * contexts,
                outer2=_ENDLESS,
                outer2_step=contexts,
            )

    def _single(self, node: Node, axis: Sequence[Atom]) -> Atom:
        """An axis of one atom."""
        found = merged([axis])
        if len(found) != 1:
            raise InputError(
                f"{node.op} of {node.module!r} reads an axis in {len(found)} pieces, which is not compiled yet"
            )
        count, (stride,) = found[0]
        return Atom(count, stride)

    def _require_line(self, node: Node, step: int) -> None:
        if step != 1:
            raise InputError(
                f"{node.op} of {node.module!r} reads an operand of which neither side lies in one piece, which is not "
                f"compiled yet"
            )

    def _elementwise(self, node: Node, operation: VectorOpcode, reads: Sequence[int], **constants: int) -> None:
        """A result of the same place of every operand, block by block."""
        (made,) = node.makes
        tensors = (made, *reads)
        for block in self._blocks(self._places_of(node, tensors)):
            operands, results = self._half(Space.OPERANDS), self._half(Space.RESULTS)
            for number, tensor in enumerate(reads):
                self._load_operand(number, operands, tensor, block, 1 + number)
            beats = ceil_div(block.words, self.spec.vector.lanes)
            self.emitter.command(
                Unit.VECTOR,
                operation=operation,
                rows=block.rows,
                beats=beats,
                operands_half=operands,
                results_half=results,
                **constants,
            )
            self._move(Unit.STORE, Space.RESULTS, results, made, block, 0, beats, watch=self._watched(made))

    def _sum(self, node: Node) -> None:
        """Sums of columns, in order of rows, a chunk of columns after the other."""
        ((read,), (made,)) = node.reads, node.makes
        dims, view = node.settings["dims"], self.views[read]
        assert isinstance(dims, tuple)
        kept = [axis for axis in range(len(view.axes)) if axis not in dims]
        order = [*dims, *kept]
        if kept != stored_order(len(view.axes))[-len(kept) :] and len(kept) > 1:
            raise InputError(f"{node.op} of {node.module!r} over {list(dims)} is not compiled yet")
        rows = [atom for axis in order[: len(dims)] for atom in view.axes[axis]]
        line = self._single(node, [atom for axis in kept for atom in view.axes[axis]])
        if line.stride != 1:
            raise InputError(f"{node.op} of {node.module!r} reads columns that do not lie side by side")
        lanes = self.spec.vector.lanes
        for begin in range(0, line.length, COLUMN_BEATS * lanes):
            words = min(line.length - begin, COLUMN_BEATS * lanes)
            beats, columns = ceil_div(words, lanes), self._half(Space.COLUMNS)
            for i, block in enumerate(self._blocks([*merged([rows]), (words, (1,))])):
                operands = self._half(Space.OPERANDS)
                moved = block._replace(at=(block.at[0] + begin,))
                self._load_operand(0, operands, read, moved, 0)
                self.emitter.command(
                    Unit.VECTOR,
                    operation=VectorOpcode.SUM,
                    rows=block.rows,
                    beats=beats,
                    first=int(i == 0),
                    operands_half=operands,
                    columns_half=columns,
                )
            form, each = _FORMS[self._stored(made)]
            self.emitter.command(
                Unit.STORE,
                space=Space.COLUMNS,
                half=columns,
                form=form,
                words=words,
                address=self._address(made) + each * begin,
                place=place(0, COLUMN_BEATS * Slot.SUM),
                inner2=lanes,
                inner2_step=BANK,
                inner1=_ENDLESS,
                inner1_step=1,
                watch=self._watched(made),
            )

    def _update(self, parameter: Parameter) -> None:
        """WUVE over a parameter, block by block."""
        lanes = self.spec.wuve.lanes
        (gradient,) = (p.tensor for p in self.graph.leaving(PortKind.GRADIENT) if p.name == parameter.name)
        held = (parameter.master, *parameter.state)
        elements = prod(parameter.shape)
        if len(merged([self._as_stored(gradient)])) != 1:
            raise InputError(f"the gradient of {parameter.name!r} does not lie in the order of the parameter")
        for begin in range(0, elements, lanes * VECTOR_DEPTH):
            words = min(elements - begin, lanes * VECTOR_DEPTH)
            weights, updated = self._half(Space.WEIGHTS), self._half(Space.UPDATED)
            form, each = _FORMS[self._stored(gradient)]
            sources = [(self._address(gradient), form, each), *((at, Form.FP32, FP32.bytes) for at in held)]
            for stream, (at, of, size) in enumerate(sources):
                self._flat(Unit.LOAD, Space.WEIGHTS, weights, stream * lanes, of, at + size * begin, words, lanes)
            self.emitter.command(Unit.UPDATE, beats=ceil_div(words, lanes), weights_half=weights, updated_half=updated)
            for stream, at in enumerate(held):
                address = at + FP32.bytes * begin
                self._flat(Unit.STORE, Space.UPDATED, updated, stream * lanes, Form.FP32, address, words, lanes)
            if parameter.weight is not None:
                address = parameter.weight + 2 * begin
                self._flat(Unit.STORE, Space.UPDATED, updated, 0, Form.OPERAND, address, words, lanes)

    def _load_constants(self) -> None:
        """What WUVE's rule takes of the host."""
        self.emitter.command(
            Unit.LOAD,
            space=Space.CONSTANTS,
            form=Form.FP32,
            words=len(self.target.rule.constants),
            address=self.constants,
            inner2=_ENDLESS,
            inner2_step=1,
        )

    def _flat(
        self, unit: Unit, space: Space, half: int, bank: int, form: Form, address: int, words: int, lanes: int
    ) -> None:
        """Words side by side in memory, a beat across the lanes from ``bank`` on after the other."""
        self.emitter.command(
            unit,
            space=space,
            half=half,
            form=form,
            words=words,
            address=address,
            place=place(bank),
            inner2=lanes,
            inner2_step=BANK,
            inner1=_ENDLESS,
            inner1_step=1,
        )

    def _load_operand(self, number: int, half: int, tensor: int, block: _Block, column: int) -> None:
        beats = ceil_div(block.words, self.spec.vector.lanes)
        self._move(Unit.LOAD, Space.OPERANDS, half, tensor, block, column, beats, number)

    def _move(
        self,
        unit: Unit,
        space: Space,
        half: int,
        tensor: int,
        block: _Block,
        column: int,
        beats: int,
        operand: int = 0,
        **more: int,
    ) -> None:
        """A block of a tensor, which is ``column`` of those iterated over, between memory and the vector unit."""
        lanes, (form, each) = self.spec.vector.lanes, _FORMS[self._stored(tensor)]
        counts = {f"count{4 - len(block.counts) + i}": n for i, n in enumerate(block.counts)}
        steps = {f"step{4 - len(block.counts) + i}": each * s[column] for i, s in enumerate(block.strides)}
        self.emitter.command(
            unit,
            space=space,
            half=half,
            form=form,
            words=block.words,
            address=self._address(tensor) + each * block.at[column],
            place=place(operand * lanes),
            inner2=lanes,
            inner2_step=BANK,
            inner1=_ENDLESS,
            inner1_step=1,
            outer2=_ENDLESS,
            outer2_step=beats,
            **counts,
            **steps,
            **more,
        )

    def _as_stored(self, tensor: int) -> list[Atom]:
        """A tensor's atoms, offsets apart, in the order in which a tensor of its shape lies."""
        view = self.views[tensor]
        return [atom for axis in stored_order(len(view.axes)) for atom in view.axes[axis]]

    def _places_of(self, node: Node, tensors: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
        """Lengths and strides of an iteration over all places of tensors; the last is of words side by side in each."""
        atoms = [[a for a in self._as_stored(t) if a.length > 1] for t in tensors]
        if any([a.length for a in x] != [a.length for a in atoms[0]] for x in atoms):
            raise InputError(f"{node.op} of {node.module!r} works on tensors that lie differently, not compiled yet")
        dims = merged([x or [Atom(1, 1)] for x in atoms])
        if any(stride != 1 for stride in dims[-1][1]) and dims[-1][0] > 1:
            dims.append((1, (1,) * len(tensors)))
        return dims

    def _blocks(self, dims: Sequence[tuple[int, tuple[int, ...]]]) -> Iterator[_Block]:
        """Cut an iteration into blocks that the vector unit's spaces hold."""
        (length, strides), outer, lanes = dims[-1], dims[:-1], self.spec.vector.lanes
        widest = lanes * VECTOR_DEPTH
        for begin in range(0, length, widest):
            words = min(length - begin, widest)
            yield from _cut((begin,) * len(strides), words, outer, VECTOR_DEPTH // ceil_div(words, lanes))

    def _watched(self, tensor: int) -> int:
        """Whether what is stored is a gradient of a parameter, of which an Inf or NaN skips the step."""
        root = self.views[tensor].root
        return int(any(self.views[p.tensor].root == root for p in self.graph.leaving(PortKind.GRADIENT)))


def _cut(at: tuple[int, ...], words: int, outer: Sequence[tuple[int, tuple[int, ...]]], room: int) -> Iterator[_Block]:
    """Blocks of at most ``room`` lines: whole inner counts, a part of the next one, the others one by one."""
    whole = len(outer)
    while whole and prod(n for n, _ in outer[whole - 1 :]) <= room and len(outer) - whole < 3:
        whole -= 1
    inner = outer[whole:]
    counts, strides = tuple(n for n, _ in inner), tuple(s for _, s in inner)
    if not whole:
        yield _Block(at, words, counts, strides)
        return
    (count, step), before = outer[whole - 1], outer[: whole - 1]
    part = max(1, room // prod(counts))
    for place_ in _places(at, before):
        for begin in range(0, count, part):
            start = tuple(x + begin * s for x, s in zip(place_, step, strict=True))
            yield _Block(start, words, (min(part, count - begin), *counts), (step, *strides))


def _places(at: tuple[int, ...], outer: Sequence[tuple[int, tuple[int, ...]]]) -> Iterator[tuple[int, ...]]:
    if not outer:
        yield at
        return
    (count, step), rest = outer[0], outer[1:]
    for i in range(count):
        yield from _places(tuple(x + i * s for x, s in zip(at, step, strict=True)), rest)


def _trained(graph: Graph) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the parameters that have a gradient, by name."""
    shapes = {port.name: graph.tensors[port.tensor].shape for port in graph.entering(PortKind.PARAMETER)}
    return {port.name: shapes[port.name] for port in graph.leaving(PortKind.GRADIENT)}


def _permute(_: _Compiler, node: Node, view: View) -> View:
    dims = node.settings["dims"]
    assert isinstance(dims, tuple)
    return view.permuted(dims)


def _view(compiler: _Compiler, node: Node, view: View) -> View:
    (made,) = node.makes
    return view.reshaped(compiler.graph.tensors[made].shape, f"{node.op} of {node.module!r}")


def _expand(compiler: _Compiler, node: Node, view: View) -> View:
    (made,) = node.makes
    return view.expanded(compiler.graph.tensors[made].shape)


_VIEWS: Mapping[str, Callable[[_Compiler, Node, View], View]] = {
    "aten.view": _view,
    "aten.permute": _permute,
    "aten.expand": _expand,
}
"""Operators that move nothing."""


def _scale(compiler: _Compiler, node: Node) -> None:
    factor = node.settings["other"]
    assert isinstance(factor, int | float)
    compiler._elementwise(node, VectorOpcode.SCALE, node.reads, factor=fp32_bits(factor))


_NODES: Mapping[str, Callable[[_Compiler, Node], None]] = {
    "aten.addmm": _Compiler._product,
    "aten.mm": _Compiler._product,
    "aten.relu": lambda c, node: c._elementwise(node, VectorOpcode.RELU, node.reads),
    "aten.threshold_backward": lambda c, node: c._elementwise(node, VectorOpcode.MASK, node.reads),
    "aten.add": lambda c, node: c._elementwise(node, VectorOpcode.ADD, node.reads),
    "aten.mul": _scale,
    "aten.sum": _Compiler._sum,
}


def fp32_bits(value: float) -> int:
    """The bits of ``value`` rounded to FP32."""
    return int.from_bytes(struct.pack("<f", value), "little")
