"""Matrix ops, machines and macro-tiles for the cost model, and makers of single ops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec, DramSpec, SoreSpec, WuveSpec
from weft.dataflow.mapping import COMPACT, Mapping
from weft.dataflow.stce.dataflows import NUMBER, PACES
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow, holds_pairs
from weft.dataflow.stce.pace import array_machine
from weft.simulator.reference import Addresses
from weft.workloads.convolution import convolution_gemms
from weft.workloads.gemm import GEMM_PASSES, Gemm, Pass
from weft.workloads.im2col import Window, unfold
from weft.workloads.levels import Levels
from weft.workloads.operand import DTYPE_BYTES, NMOperand, Operand, Role, SparseOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, UpdateOp, Workload

from ..strategies import most_interleave, specs


def make_op(
    gemm: Gemm,
    *,
    sparse: SparseOperand | None = None,
    stored: tuple[int, int, int] | None = None,
    pass_: Pass = Pass.FF,
) -> MatrixOp:
    """An op over FP16 operands; ``stored`` are the elements of A, B and C before im2col."""
    g = gemm
    a, b, c = stored or (g.groups * g.m * g.k, g.groups * g.k * g.n, g.groups * g.m * g.n)
    return MatrixOp(
        name="layer",
        op="aten.mm",
        pass_=pass_,
        gemm=gemm,
        a=Operand(role=Role.ACTIVATION, dtype="float16", bytes=2 * a),
        b=Operand(role=Role.WEIGHT, dtype="float16", bytes=2 * b),
        c=Operand(role=Role.ACTIVATION, dtype="float16", bytes=2 * c),
        parameter="layer.weight",
        convolution=stored is not None,
        sparse=sparse,
    )


def with_levels(op: MatrixOp, a: Levels | None, b: Levels | None, c: tuple[str, Levels | None]) -> MatrixOp:
    """``op`` with operands of such levels; ``c``: dtype and levels of its result."""
    dtype, levels = c
    result = Operand(role=op.c.role, dtype=dtype, bytes=op.c.elements * DTYPE_BYTES[dtype], levels=levels)
    return replace(op, a=replace(op.a, levels=a), b=replace(op.b, levels=b), c=result)


def linear(name: str, rows: int, inputs: int, outputs: int, optimizer: str = "sgd") -> list[MatrixOp | UpdateOp]:
    """The three products of a linear layer and its update, as they are traced."""

    def operand(role: Role, elements: int) -> Operand:
        return Operand(role=role, dtype="float32", bytes=4 * elements)

    x, w, y = rows * inputs, inputs * outputs, rows * outputs
    activation, weight, gradient = Role.ACTIVATION, Role.WEIGHT, Role.GRADIENT
    made = [
        (Pass.FF, Gemm(m=rows, k=inputs, n=outputs), (activation, x), (weight, w), (activation, y)),
        (Pass.BP, Gemm(m=rows, k=outputs, n=inputs), (gradient, y), (weight, w), (gradient, x)),
        (Pass.WU, Gemm(m=outputs, k=rows, n=inputs), (gradient, y), (activation, x), (gradient, w)),
    ]
    products = [
        MatrixOp(
            name=name,
            op="aten.mm",
            pass_=p,
            gemm=gemm,
            a=operand(*a),
            b=operand(*b),
            c=operand(*c),
            parameter=f"{name}.weight",
        )
        for p, gemm, a, b, c in made
    ]
    return [*products, UpdateOp(name=f"{name}.weight", elements=w)]


def step_of_layers(*layers: tuple[int, int, int], optimizer: str = "sgd") -> Workload:
    ops = tuple(op for i, sizes in enumerate(layers) for op in linear(f"layer{i}", *sizes))
    return Workload(model="m", batch=1, optimizer=optimizer, ops=ops)


@st.composite
def machines(draw: st.DrawFn) -> AcceleratorSpec:
    """Small arrays with buffers and memory of every proportion."""
    size = st.sampled_from((128, 512, 2048, 2**16))
    return replace(
        draw(specs()),
        buffers=BufferSpec(w2e_bytes=draw(size), n2s_bytes=draw(size), output_bytes=draw(size)),
        dram=DramSpec(
            kind="ddr4-2400-x8",
            bytes_per_second=draw(st.integers(10**8, 10**10)),
            efficiency_percent=draw(st.integers(1, 100)),
        ),
        sore=SoreSpec(lanes=draw(st.integers(1, 6)), kind=draw(st.sampled_from(("serial", "network")))),
        wuve=WuveSpec(lanes=2, pregenerate=draw(st.booleans())),
    )


@st.composite
def sparse_operands(draw: st.DrawFn, spec: AcceleratorSpec) -> NMOperand:
    """Either operand in any pattern that the machine holds."""
    group = draw(st.integers(1, spec.pe.max_group))
    pattern = NMPattern(keep=draw(st.integers(1, group)), group=group)
    return NMOperand(operand=draw(st.sampled_from(("a", "b"))), pattern=pattern, online=draw(st.booleans()))


@st.composite
def matrix_ops(draw: st.DrawFn, spec: AcceleratorSpec, size: int = 40) -> MatrixOp:
    """Dense and sparse ops, with im2col operands, in several groups."""
    run = draw(st.integers(1, 24))
    gemm = Gemm(
        m=draw(st.integers(1, size)),
        k=run * draw(st.integers(1, 3)),
        n=draw(st.integers(1, size)),
        groups=draw(st.sampled_from((1, 1, 2, 3, 5))),
        run=run,
    )
    sparse = draw(st.none() | sparse_operands(spec))
    g = gemm
    full = (g.groups * g.m * g.k, g.groups * g.k * g.n, g.groups * g.m * g.n)
    windowed, third = draw(st.sampled_from((None, 0, 1, 2))), draw(st.tuples(st.booleans(), st.booleans()))
    # One side of a convolution holds what its windows cover; a tensor that is expanded is stored once.
    expanded = [e // 3 if some and e % 3 == 0 else e for e, some in zip(full, (*third, False), strict=True)]
    stored = tuple(max(e // 3, 1) if i == windowed else e for i, e in enumerate(expanded))
    return make_op(gemm, sparse=sparse, stored=(stored[0], stored[1], stored[2]))


@st.composite
def mappings(draw: st.DrawFn, spec: AcceleratorSpec, op: MatrixOp) -> Mapping:
    """Mappings that the registers can run; the buffers may still refuse them. Of some, operands stay on chip."""
    pe = spec.pe
    n2s = op.sparse.operand if op.sparse else draw(st.sampled_from(("a", "b")))
    gemm = op.gemm if n2s == "b" else op.gemm.transposed
    pattern = op.sparse.pattern if op.sparse else DENSE
    dataflow = draw(st.sampled_from([d for d in Dataflow if not holds_pairs(d) or pattern.keep <= pe.weight_pairs]))
    if op.sparse is None and holds_pairs(dataflow):
        held = draw(st.integers(1, min(pe.weight_pairs, pe.max_group)))
        pattern = NMPattern(keep=held, group=held)
    interleave = draw(st.integers(1, most_interleave(spec, dataflow, pattern)))
    row_unit, col_unit = PACES[NUMBER[dataflow]].unit(array_machine(spec), interleave)
    resident, order = draw(st.booleans()), draw(st.sampled_from(("mn", "nm")))
    online = op.sparse is not None and (op.sparse.online or not spec.wuve.pregenerate)
    places = [c for c in COMPACT if c != "buffer" or (not resident and order == "nm")]
    return Mapping(
        array=ArrayMapping(dataflow=dataflow, pattern=pattern, interleave=interleave),
        gemm=gemm,
        n2s=n2s,
        tile_rows=min(row_unit * draw(st.integers(1, 6)), gemm.m),
        tile_cols=min(col_unit * draw(st.integers(1, 6)), gemm.n),
        resident=resident,
        order=order,
        compact=draw(st.sampled_from(places)) if online else "remade",
        on_chip=draw(st.sampled_from([(), ("a",), ("b",), ("c",), ("a", "c"), ("a", "b", "c")])),
    )


def addresses_of(op: MatrixOp) -> Addresses:
    """Addresses of a product without a geometry: its operands lie in a row, and begin anew where they are shorter."""
    g = op.gemm
    shapes = ((op.a, g.m, g.k), (op.b, g.k, g.n), (op.c, g.m, g.n))
    return Addresses(
        *(
            np.arange(g.groups * lines * across).reshape(g.groups, lines, across) % operand.elements
            for operand, lines, across in shapes
        )
    )


def convolution_op(
    pass_: Pass, samples: int, channels: tuple[int, int], window: Window, groups: int = 1
) -> tuple[MatrixOp, Addresses]:
    """One pass of a convolution of ``channels`` (in, out), and where its operands lie: tensors of channels-last images.

    A weight is taken to lie in the order in which its pass reads it.
    """
    inputs, outputs = channels
    x, w, y = (samples, inputs, *window.image), (outputs, inputs // groups, *window.kernel), (samples, outputs)
    gemm = convolution_gemms(x, w, (*y, *window.positions), groups, transposed=False)[pass_]
    image = 1 + np.arange(np.prod(x)).reshape(samples, *window.image, inputs)
    # [groups, positions, taps x channels of the group]; padding is 0 here.
    windows = (
        np.stack(
            [
                unfold(part, window).reshape(-1, window.taps * (inputs // groups))
                for part in np.split(np.moveaxis(image, -1, 1), groups, axis=1)
            ]
        )
        - 1
    )
    gradient = np.arange(np.prod(y) * np.prod(window.positions, dtype=int)).reshape(-1, groups, outputs // groups)
    weight = np.arange(np.prod(w)).reshape(groups, outputs // groups, -1)
    made, transposed = np.moveaxis(gradient, 1, 0), weight.transpose(0, 2, 1)
    addresses = {
        Pass.FF: Addresses(windows, transposed, made),
        Pass.BP: Addresses(made, weight, windows),
        Pass.WU: Addresses(made.transpose(0, 2, 1), windows, weight),
    }[pass_]
    stored = {id(windows): int(np.prod(x))}
    a, b, c = (stored.get(id(tensor), tensor.size) for tensor in addresses)
    return make_op(gemm, pass_=pass_, stored=(a, b, c)), addresses


@st.composite
def convolutions(draw: st.DrawFn, spec: AcceleratorSpec) -> tuple[MatrixOp, Addresses]:
    """All passes of small convolutions in one and two dimensions, some of them grouped, and of linear layers."""
    dims, groups = draw(st.integers(0, 2)), draw(st.sampled_from((1, 1, 2)))
    kernel, stride, padding = (
        tuple(draw(st.integers(low, high)) for _ in range(dims)) for low, high in ((1, 3), (1, 3), (0, 1))
    )
    image = tuple(draw(st.integers(k, 6)) for k in kernel)
    window = Window(image=image, kernel=kernel, stride=stride, padding=padding, dilation=(1,) * dims)
    channels = (groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 9)))
    op, addresses = convolution_op(
        draw(st.sampled_from(GEMM_PASSES)), draw(st.integers(1, 3)), channels, window, groups
    )
    return replace(op, sparse=draw(st.none() | sparse_operands(spec))), addresses


def in_8_bits(spec: AcceleratorSpec) -> AcceleratorSpec:
    """``spec`` with FP8 operands."""
    return replace(spec, pe=replace(spec.pe, format="fp8"))
