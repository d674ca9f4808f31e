"""Matrix ops, machines and macro-tiles for the cost model, and makers of single ops."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec, DramSpec, SoreSpec, WuveSpec
from weft.dataflow.mapping import COMPACT, DENSE, ArrayMapping, Dataflow, Mapping
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Operand, Role, SparseOperand

from ..strategies import specs


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
        sparse=sparse,
    )


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
    sparse = None
    if draw(st.booleans()):
        group = draw(st.integers(1, spec.pe.max_group))
        pattern = NMPattern(keep=draw(st.integers(1, group)), group=group)
        sparse = SparseOperand(operand=draw(st.sampled_from(("a", "b"))), pattern=pattern, online=draw(st.booleans()))
    g = gemm
    full = (g.groups * g.m * g.k, g.groups * g.k * g.n, g.groups * g.m * g.n)
    repeats = [draw(st.sampled_from((1, 1, 3))) for _ in full]
    stored = tuple(max(e // r, 1) for e, r in zip(full, repeats, strict=True))
    return make_op(gemm, sparse=sparse, stored=(stored[0], stored[1], stored[2]))


@st.composite
def mappings(draw: st.DrawFn, spec: AcceleratorSpec, op: MatrixOp) -> Mapping:
    """Mappings that the registers can run; the buffers may still refuse them."""
    pe = spec.pe
    n2s = op.sparse.operand if op.sparse else draw(st.sampled_from(("a", "b")))
    gemm = op.gemm if n2s == "b" else op.gemm.transposed
    dataflow = draw(st.sampled_from(Dataflow))
    pattern = op.sparse.pattern if op.sparse else DENSE
    if dataflow == Dataflow.WS:
        if op.sparse is None:
            held = draw(st.integers(1, min(pe.weight_pairs, pe.max_group)))
            pattern = NMPattern(keep=held, group=held)
        elif pattern.keep > pe.weight_pairs:
            dataflow = Dataflow.OS
    most = min(pe.accumulators, pe.dense_words // pattern.group) if dataflow == Dataflow.WS else pe.accumulators
    interleave = draw(st.integers(1, most))
    row_unit = interleave if dataflow == Dataflow.WS else spec.array.rows
    col_unit = spec.array.cols * (1 if dataflow == Dataflow.WS else interleave)
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
    )
