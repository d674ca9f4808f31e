"""Mappings that are none are refused when they are made or, where only the op tells, when they are costed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weft.dataflow.engines import evaluate
from weft.dataflow.mapping import Mapping
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern

from .problems import make_op

ARRAY = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=4)
MAPPING = Mapping(
    array=ARRAY, gemm=Gemm(m=64, k=64, n=64), n2s="b", tile_rows=32, tile_cols=64, resident=True, order="mn"
)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dataflow", "banana", "dataflow is 'banana': choose one of os, os1, ws"),
        ("interleave", 0, "interleave must be an integer from 1 to 64, not 0"),
        ("interleave", -3, "nearest valid value is 1"),
        ("pattern", "2:8", "pattern of a mapping must be an NMPattern"),
    ],
)
def test_array_mappings(field, value, said):
    with pytest.raises(InputError, match=said):
        replace(ARRAY, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tile_rows", 0, "tile_rows of a mapping must be an integer from 1 to 64, not 0"),
        ("tile_rows", -3, "nearest valid value is 1"),
        ("tile_cols", 65, "nearest valid value is 64"),
        ("tile_cols", 2.0, "must be an integer"),
        ("order", "zz", "order of a mapping is 'zz': choose one of mn, nm"),
        ("n2s", "c", "n2s of a mapping is 'c': choose one of a, b"),
        ("resident", 1, "resident of a mapping must be True or False"),
        ("compact", "disk", "compact of a mapping is 'disk'"),
        ("compact", "buffer", "compact = 'buffer' needs resident = False and order = 'nm'"),
    ],
)
def test_mappings(field, value, said):
    with pytest.raises(InputError, match=said):
        replace(MAPPING, **{field: value})


def test_names_of_a_dataflow_will_do():
    assert ArrayMapping(dataflow="ws", pattern=DENSE, interleave=1).dataflow is Dataflow.WS


SPARSE = NMOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=False)
AS_SPARSE = replace(MAPPING, array=replace(ARRAY, pattern=SPARSE.pattern))


@pytest.mark.parametrize(
    ("op", "mapping", "said"),
    [
        (make_op(Gemm(m=64, k=32, n=64)), MAPPING, "the mapping is of 64 x 64 x 64, but 'layer' is 64 x 32 x 64"),
        (make_op(MAPPING.gemm), AS_SPARSE, "'layer' is dense, so it runs as 1:1"),
        (make_op(MAPPING.gemm, sparse=SPARSE), MAPPING, "is 2:8 and flows N2S"),
        (make_op(MAPPING.gemm, sparse=SPARSE), replace(AS_SPARSE, n2s="a"), "flows N2S"),
        (make_op(MAPPING.gemm, sparse=SPARSE), replace(AS_SPARSE, compact="memory"), "SORE reduces no operand"),
    ],
)
def test_mappings_of_another_op(sat, op, mapping, said):
    with pytest.raises(InputError, match=said):
        evaluate(op, sat, mapping)
