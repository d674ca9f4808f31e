"""Workload files: exact round trip, and hostile or damaged ones refused without loading anything."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.workloads.errors import InputError
from weft.workloads.gemm import GEMM_PASSES, Gemm, Pass
from weft.workloads.io import dumps_workload, load_workload, loads_workload, save_workload
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import (
    DTYPE_BYTES,
    CompactCopy,
    MatrixOp,
    Operand,
    Role,
    SparseOperand,
    UpdateOp,
    VectorOp,
    Workload,
)

text = st.text(max_size=12)
counts = st.integers(0, 2**40)
patterns = st.integers(1, 32).flatmap(
    lambda group: st.integers(1, group).map(lambda keep: NMPattern(keep=keep, group=group))
)
gemms = st.builds(
    lambda m, n, run, runs, groups: Gemm(m=m, k=run * runs, n=n, run=run, groups=groups),
    *[st.integers(1, 500)] * 5,
)
sparse = st.none() | st.builds(
    SparseOperand, operand=st.sampled_from(("a", "b")), pattern=patterns, online=st.booleans()
)


@st.composite
def matrix(draw: st.DrawFn) -> MatrixOp:
    """A product whose operands are stored whole, but perhaps for the windows of a convolution."""
    g = draw(gemms)
    sizes = [g.groups * rows * cols for rows, cols in ((g.m, g.k), (g.k, g.n), (g.m, g.n))]
    windowed = draw(st.none() | st.integers(0, 2))
    a, b, c = (
        Operand(
            role=draw(st.sampled_from(Role)),
            dtype=(dtype := draw(st.sampled_from(sorted(DTYPE_BYTES)))),
            bytes=DTYPE_BYTES[dtype] * (draw(st.integers(1, 2**40)) if i == windowed else size),
        )
        for i, size in enumerate(sizes)
    )
    return MatrixOp(
        name=draw(text), op=draw(text), pass_=draw(st.sampled_from(GEMM_PASSES)), gemm=g, a=a, b=b, c=c,
        parameter=draw(st.none() | text), convolution=windowed is not None or draw(st.booleans()),
        recompute=draw(st.booleans()), sparse=draw(sparse), kept_dense=draw(text),
    )  # fmt: skip


vector = st.builds(
    VectorOp, kind=st.just("vector"), name=text, op=text, pass_=st.sampled_from(Pass), elements=counts,
    dtype=st.sampled_from(sorted(DTYPE_BYTES)), read_bytes=counts, write_bytes=st.integers(1, 2**40),
    recompute=st.booleans(),
)  # fmt: skip


@st.composite
def copies(draw: st.DrawFn) -> CompactCopy:
    pattern, groups = draw(patterns), draw(st.integers(1, 2**30))
    return CompactCopy(pattern=pattern, groups=groups, kept=draw(st.integers(groups, groups * pattern.keep)))


update = st.builds(
    UpdateOp, kind=st.just("update"), name=text, elements=st.integers(1, 2**40), dense_copy=st.booleans(),
    copies=st.lists(copies(), max_size=2).map(tuple),
)  # fmt: skip
workloads = st.builds(
    Workload, schema=st.just(1), model=text, batch=st.integers(1, 4096), input=text,
    optimizer=st.sampled_from(("sgd", "adam")), scheme=text, pattern=st.none() | patterns,
    ops=st.lists(matrix() | vector | update, min_size=1, max_size=4).map(tuple),
)  # fmt: skip


@given(workloads)
def test_round_trips_exactly(workload):
    data = dumps_workload(workload)

    assert loads_workload(data) == workload
    assert dumps_workload(loads_workload(data)) == data


def _small() -> Workload:
    value = Operand(role=Role.WEIGHT, dtype="float16", bytes=32)
    op = MatrixOp(
        name="fc",
        op="aten.mm",
        pass_=Pass.FF,
        gemm=Gemm(m=4, k=4, n=4),
        a=value,
        b=value,
        c=value,
        parameter="fc.weight",
    )
    return Workload(model="small", batch=4, ops=(op, UpdateOp(name="fc.weight", elements=16)))


def _changed(**changes) -> str:
    table = json.loads(dumps_workload(_small()))
    for place, value in changes.items():
        target = table
        *path, last = place.split("__")
        for part in path:
            target = target[int(part) if part.isdigit() else part]
        target[last] = value
    return json.dumps(table)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dumps_workload(_small())[:100], "w.json: Invalid JSON: EOF"),
        (b"", "w.json: Invalid JSON"),
        (b"\xff\x00", "w.json: Invalid JSON"),
        (b"[" * 100_000, "w.json: Invalid JSON: recursion limit"),
        (b"[]", "w.json: Input should be an object"),
        (_changed(schema=2), "schema: Input should be 1; found 2"),
        (_changed(bacth=4), "unknown key 'bacth'; did you mean 'batch'"),
        (_changed(batch=0), "batch of workload 'small' must be an integer from 1"),
        (_changed(batch="4"), "batch: Input should be a valid integer; found '4'"),
        (_changed(ops=[]), "workload 'small' has no ops"),
        (_changed(ops__0__gemm__m=0), "m of a GEMM must be an integer from 1"),
        (_changed(ops__0__gemm__m=10**30), "m of a GEMM must be an integer from 1"),
        (_changed(ops__0__gemm__run=3), "run of a GEMM must divide k"),
        (_changed(ops__0__kind="lambda"), "Input tag 'lambda' found using 'kind' does not match"),
        (_changed(ops__0__pass="OPT"), "pass of matrix op 'fc' must be FF, BP or WU"),
        (_changed(ops__0__a__dtype="flaot16"), "dtype of an operand is 'flaot16': did you mean 'float16'"),
        (_changed(ops__0__a__bytes=-1), "bytes of an operand must be an integer from 2"),
        (_changed(ops__0__sparse={"operand": "b", "pattern": {"keep": 3, "group": 2}, "online": 0}), "3:2 keeps 3"),
        (_changed(ops__0__paramter="x"), "unknown key 'ops.0.matrix.paramter'; did you mean 'parameter'"),
        (_changed(optimizer="sdg"), "optimizer 'sdg' is unknown: did you mean 'sgd'"),
    ],
)  # fmt: skip
def test_damaged_and_hostile_files_are_refused(tmp_path, monkeypatch, data, message):
    path = tmp_path / "w.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError) as caught:
        load_workload(path)

    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 8, "one screen"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        load_workload(tmp_path / "none.json")


def test_saving_leaves_no_part_behind_when_it_cannot(tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")

    with pytest.raises(InputError, match="cannot be written"):
        save_workload(_small(), tmp_path / "taken" / "w.json")

    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_annotated_workloads_round_trip():
    annotated = annotate(_small(), "bdwp", NMPattern.parse("2:4"))

    assert loads_workload(dumps_workload(annotated)) == annotated
