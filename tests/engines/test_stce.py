"""The STCE through the suite of engines."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.account import Cycles
from weft.dataflow.mapping import Mapping
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.dataflow.stce.time import array_cycles
from weft.hdl.blocks.banks import IN_RTL
from weft.hdl.drivers.array import StceDriver
from weft.simulator.array import run_array
from weft.simulator.reference import array_reference, gemm_reference
from weft.workloads.step import MatrixOp

from ..dataflow.problems import machines, mappings, matrix_ops
from ..strategies import array_mappings, compacts, gemms, halves, make_spec
from .conformance import Conformance, Run, as_run

SMALL = make_spec(
    array=ArraySpec(rows=3, cols=2, w2e_words=3),
    pe=PESpec(max_group=8, accumulators=5, dense_words=24, weight_pairs=3, multiply_latency=3, add_latency=5),
)
"""Ragged in everything; one model of it is compiled, for `tests/equivalence/` has many."""


@cache
def rtl() -> StceDriver:
    return StceDriver(SMALL)


class TestStce(Conformance):
    kind = "stce"

    def machines(self) -> st.SearchStrategy[AcceleratorSpec]:
        return machines()

    def ops(self, spec: AcceleratorSpec) -> st.SearchStrategy[MatrixOp]:
        return matrix_ops(spec)

    def mappings(self, spec: AcceleratorSpec, op: MatrixOp) -> st.SearchStrategy[Mapping]:
        return mappings(spec, op)

    def on_values(self, data: st.DataObject) -> tuple[Cycles, dict[str, Run], bytes]:
        mapping, gemm = data.draw(array_mappings(SMALL)), data.draw(gemms(9, 9))
        a, b = data.draw(halves(gemm.m, gemm.k)), data.draw(compacts(gemm, mapping.pattern))
        stepped, reference = run_array(SMALL, mapping, a, b), array_reference(SMALL, mapping, a, b)
        runs = {
            "stepped": as_run(stepped.result, stepped.left, stepped.length),
            "reference": as_run(reference.result, reference.left, reference.cycles),
        }
        if mapping.dataflow in IN_RTL:
            circuit = rtl().run(mapping, gemm, a, b.values, b.indices, cycles=stepped.length)
            runs["rtl"] = as_run(circuit.result, circuit.left, circuit.cycles)
        return array_cycles(SMALL, gemm, mapping), runs, gemm_reference(a, b).tobytes()
