"""Workload files: exact round trip, and hostile or damaged ones refused without loading anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.workloads.copies import CompactCopy
from weft.workloads.errors import InputError
from weft.workloads.gemm import GEMM_PASSES, Gemm, Pass
from weft.workloads.io import dumps_workload, load_workload, loads_workload, save_workload
from weft.workloads.operand import DTYPE_BYTES, NMOperand, Operand, Role
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from weft.workloads.update_rule import UPDATE_RULES

CASES = Path(__file__).parents[1] / "cases" / "schema1"

text = st.text(max_size=12)
counts = st.integers(0, 2**40)
patterns = st.integers(1, 32).flatmap(
    lambda group: st.integers(1, group).map(lambda keep: NMPattern(keep=keep, group=group))
)
gemms = st.builds(
    lambda m, n, run, runs, groups: Gemm(m=m, k=run * runs, n=n, run=run, groups=groups), *[st.integers(1, 500)] * 5
)
sparse = st.none() | st.builds(NMOperand, operand=st.sampled_from(("a", "b")), pattern=patterns, online=st.booleans())


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
        name=draw(text),
        op=draw(text),
        pass_=draw(st.sampled_from(GEMM_PASSES)),
        gemm=g,
        a=a,
        b=b,
        c=c,
        parameter=draw(st.none() | text),
        convolution=windowed is not None or draw(st.booleans()),
        recompute=draw(st.booleans()),
        sparse=draw(sparse),
        kept_dense=draw(text),
    )


vector = st.builds(
    VectorOp,
    kind=st.just("vector"),
    name=text,
    op=text,
    pass_=st.sampled_from(Pass),
    elements=counts,
    dtype=st.sampled_from(sorted(DTYPE_BYTES)),
    read_bytes=counts,
    write_bytes=st.integers(1, 2**40),
    recompute=st.booleans(),
)


@st.composite
def copies(draw: st.DrawFn) -> CompactCopy:
    pattern, groups = draw(patterns), draw(st.integers(1, 2**30))
    return CompactCopy(pattern=pattern, groups=groups, kept=draw(st.integers(groups, groups * pattern.keep)))


update = st.builds(
    UpdateOp,
    kind=st.just("update"),
    name=text.map("an update of {}".format),  # of none of the parameters that products read
    elements=st.integers(1, 2**40),
    dense_copy=st.booleans(),
    copies=st.lists(copies(), max_size=2).map(tuple),
)
workloads = st.builds(
    Workload,
    schema=st.just(2),
    model=text,
    batch=st.integers(1, 4096),
    input=text,
    optimizer=st.sampled_from(tuple(UPDATE_RULES)),
    scheme=text,
    pattern=st.none() | patterns,
    ops=st.lists(matrix() | vector | update, min_size=1, max_size=4).map(tuple),
)


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


SPARSE = {"operand": "b", "pattern": {"keep": 2, "group": 4}, "online": False}


def _copy(groups: int, kept: int) -> dict[str, object]:
    return {"pattern": {"keep": 2, "group": 4}, "groups": groups, "kept": kept}


def _vector(elements: int, read: int, write: int, times: int = 1) -> str:
    table = json.loads(dumps_workload(_small()))
    op = {"kind": "vector", "name": "v", "op": "relu", "pass": "FF", "dtype": "float16", "elements": elements}
    table["ops"] += [{**op, "read_bytes": read, "write_bytes": write}] * times
    return json.dumps(table)


def test_a_convolution_may_store_its_windows_once_and_a_product_what_is_repeated():
    for changes in (
        {"ops__0__convolution": True, "ops__0__a__bytes": 10},
        {"ops__0__convolution": True, "ops__0__c__bytes": 200},
        {"ops__0__a__bytes": 8},
        {"ops__0__b__bytes": 2},
    ):
        loads_workload(_changed(**changes))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dumps_workload(_small())[:100], "w.json: Invalid JSON: EOF"),
        (b"", "w.json: Invalid JSON"),
        (b"\xff\x00", "w.json: is not UTF-8 text"),
        (b"[" * 100_000, "w.json: Invalid JSON: recursion limit"),
        (b"[]", "w.json: Input should be an object"),
        (_changed(schema=3), "schema: Input should be 2; found 3"),
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
        (_changed(ops__0__sparse={**SPARSE, "kind": "binary"}), "sparse: Input tag 'binary' found using"),
        (_changed(schema=1, ops__0__sparse={**SPARSE, "kind": "x"}), "sparse: Input tag 'x' found using"),
        (_changed(schema=1, ops__0__sparse=[1]), "ops.0.matrix.sparse"),
        (_changed(schema=1, ops=3), "ops: Input should be"),
        (_changed(schema=1, bacth=4), "unknown key 'bacth'; did you mean 'batch'"),
        (_changed(schema=True), "schema: Input should be 2; found True"),
        (_changed(schema=1, batch="@").replace('"@"', "1" * 5000), "Invalid JSON: number out of range"),
        (_changed(ops__0__a__bytes=0), "ops.0.matrix.a: bytes of an operand must be an integer from 2"),
        (_changed(ops__0__a__bytes=31), "must be whole elements of float16, 2 bytes each, not 31"),
        (_changed(ops__0__a__bytes=34), "operand a of matrix op 'fc' holds 17 elements, but 4 x 4 x 4 takes 16"),
        (_changed(ops__0__b__bytes=12), "operand b of matrix op 'fc' holds 6 elements"),
        (_changed(ops__0__c__bytes=16), "operand c of matrix op 'fc' holds 8 elements, but 4 x 4 x 4 takes 16: all"),
        (
            _changed(ops__0__convolution=True, ops__0__a__bytes=10, ops__0__c__bytes=10),
            "of a convolution one operand may differ",
        ),
        (_changed(ops__1__elements=2**52), "elements of update op 'fc.weight' must be an integer from 1"),
        (_changed(ops__1__copies=[_copy(4, 9)]), "kept of a compact copy must be an integer from 4 to 8, not 9"),
        (_changed(ops__1__copies=[_copy(4, 3)]), "kept of a compact copy must be an integer from 4 to 8, not 3"),
        (_changed(ops__1__copies=[_copy(4, 8)]), "the products of 'fc.weight' read none"),
        (_changed(ops__1__copies=[_copy(1, 10**15)]), "kept of a compact copy must be an integer from 1 to 2"),
        (_changed(ops__1__dense_copy=False), "makes no dense copy, but a product reads 'fc.weight' dense"),
        (_vector(1000, 2**55, 2**54), "read_bytes of vector op 'v' must be an integer from 0"),
        (_vector(1000, 0, 0), "vector op 'v' has 1000 elements, but reads and writes 0 bytes"),
        (_vector(1, 2**50, 2**50, times=5), "bytes that workload 'small' moves without a product must be an integer"),
        (_changed(batch="@").replace('"@"', "1" * 5000), "Invalid JSON: number out of range"),
        (_changed(ops__0__kind="\x1b[2J\n" * 400), "Input tag '\\x1b[2J\\n"),
        (_changed(ops__0__paramter="x"), "unknown key 'ops.0.matrix.paramter'; did you mean 'parameter'"),
        (_changed(optimizer="sdg"), "optimizer 'sdg' is unknown: did you mean 'sgd'"),
    ],
)
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


@pytest.mark.parametrize(
    ("name", "online", "cycles", "moved"), [("bdwp", False, 9030, 83163), ("sdgp", True, 10908, 107336)]
)
def test_files_of_schema_1_are_read(name, online, cycles, moved):
    """Written, and simulated, by the last version that wrote schema 1: nothing of the step has changed."""
    text = (CASES / f"{name}.json").read_bytes()
    old = json.loads(text)

    found = loads_workload(text)

    assert old["schema"] == 1 and found.schema == 2
    wanted = [op["sparse"] for op in old["ops"] if op["kind"] == "matrix"]
    assert any(wanted) and not any("kind" in sparse for sparse in wanted if sparse)
    for sparse, op in zip(wanted, found.matrix_ops, strict=True):
        made = sparse and NMOperand(**{**sparse, "pattern": NMPattern(**sparse["pattern"])})
        assert op.sparse == made and (made is None or made.online == online)
    new = json.loads(dumps_workload(found))
    assert {op["sparse"]["kind"] for op in new["ops"] if op.get("sparse")} == {"nm"}
    for op in new["ops"]:
        if op.get("sparse"):
            del op["sparse"]["kind"]
    assert {**new, "schema": 1} == old
    result = simulate(schedule(found, load_spec("tiny")))
    assert (result.cycles.total, result.counts.dram_bytes) == (cycles, moved)
