"""The blocks of the machine, one line each: whatever builds, counts, emits, verifies or offers blocks reads this table.

What a block is made of is imported when it is made, so that the command line can name blocks without Amaranth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.tree_spec import require_tree
from ..dataflow.xnor.mapping import require_xnor
from ..workloads.errors import InputError, nearest
from ..workloads.sparsity import NMPattern
from ..workloads.update_rule import UpdateRule
from .block import Block

__all__ = ["BLOCKS", "find_block"]


def _stce(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.array import Stce

    return Stce(spec, blackbox=True)


def _run_setup(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.run_setup import RunSetup

    return RunSetup(spec)


def _pe(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.pe import Uspe

    return Uspe(spec)


def _stce_dsp(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.array import MultiplierStce

    return MultiplierStce(spec, blackbox=True)


def _pe_dsp(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.pe import MultiplierUspe

    return MultiplierUspe(spec)


def _xnor(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.xnor import Xnor

    return Xnor(require_xnor(spec), blackbox=True)


def _xnor_pe(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.xnor_pe import XnorPe

    return XnorPe(require_xnor(spec))


def _gather(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.gather import Gather

    return Gather(spec, blackbox=True)


def _gather_pe(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.gather_pe import GatherPe

    return GatherPe(spec)


def _tree(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.tree import TreeUnit

    return TreeUnit(require_tree(spec.tree, spec.name), blackbox=True)


def _tree_lane(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.tree_lane import TreeLane

    return TreeLane(require_tree(spec.tree, spec.name))


def _spiking_xnor(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.xnor_neuron import SpikingXnor

    return SpikingXnor(require_xnor(spec), blackbox=True)


def _sore(spec: AcceleratorSpec, pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.streams import SoreStream

    return SoreStream(spec, pattern, blackbox=True)


def _inner_sore(spec: AcceleratorSpec, pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .blocks.sorter import Sore

    return Sore(spec, pattern, blackbox=True)


def _wuve(spec: AcceleratorSpec, _pattern: NMPattern, rule: UpdateRule) -> Any:
    from .blocks.streams import WuveStream

    return WuveStream(spec, rule, blackbox=True)


def _inner_wuve(spec: AcceleratorSpec, _pattern: NMPattern, rule: UpdateRule) -> Any:
    from .blocks.update import Wuve

    return Wuve(spec, rule, blackbox=True)


def _pregenerate(spec: AcceleratorSpec, pattern: NMPattern, rule: UpdateRule) -> Any:
    from .blocks.pregenerate import Pregenerate

    return Pregenerate(spec, pattern, rule, blackbox=True)


def _drive_stce(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .drivers.array import StceDriver

    return StceDriver(spec)


def _drive_xnor(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .drivers.xnor import XnorDriver

    return XnorDriver(spec)


def _drive_tree(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .drivers.tree import TreeDriver

    return TreeDriver(spec)


def _drive_gather(spec: AcceleratorSpec, _pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .drivers.gather import GatherDriver

    return GatherDriver(spec)


def _drive_sore(spec: AcceleratorSpec, pattern: NMPattern, _rule: UpdateRule) -> Any:
    from .drivers.engines import SoreDriver

    return SoreDriver(spec, pattern)


def _drive_wuve(spec: AcceleratorSpec, _pattern: NMPattern, rule: UpdateRule) -> Any:
    from .drivers.engines import WuveDriver

    return WuveDriver(spec, rule)


def _drive_pregenerate(spec: AcceleratorSpec, pattern: NMPattern, rule: UpdateRule) -> Any:
    from .drivers.engines import PregenerateDriver

    return PregenerateDriver(spec, pattern, rule)


def _array_bench(component: Any, vectors: Sequence[Any], top: str) -> Mapping[str, str]:
    from .flow.array_bench import array_bench

    return array_bench(component, vectors, top)


def _xnor_bench(component: Any, vectors: Sequence[Any], top: str) -> Mapping[str, str]:
    from .flow.xnor_bench import xnor_bench

    return xnor_bench(component, vectors, top)


def _stream_bench(component: Any, vectors: Sequence[Any], top: str) -> Mapping[str, str]:
    from .flow.bench import stream_bench

    return stream_bench(component, vectors, top)


def _gathers(spec: AcceleratorSpec) -> bool:
    return spec.gather is not None and spec.gather.balance != "stealing"


def _in_16_bits(spec: AcceleratorSpec) -> bool:
    return spec.pe.operand.bits == 16


_NOT_FP16 = "sums of {} may be subnormal, and only those of FP16 products are shifted by multipliers"

BLOCKS = {
    block.name: block
    for block in (
        Block(
            name="stce",
            title="the array",
            make=_stce,
            bench=_array_bench,
            drive=_drive_stce,
            apart=("control",),
            multipliers=lambda spec: spec.array.pes,
            depends=("array", "pe"),
        ),
        Block(name="pe", title="one PE", make=_pe, in_machine=False),
        Block(
            name="stce_dsp",
            title="the array of PEs that shift by multipliers",
            make=_stce_dsp,
            apart=("control",),
            in_machine=False,
            present=lambda spec: spec.pe.format == "fp16",
            absent=_NOT_FP16,
            multipliers=lambda spec: spec.array.pes,
            depends=("array", "pe"),
        ),
        Block(
            name="pe_dsp",
            title="one PE that shifts by multipliers",
            make=_pe_dsp,
            in_machine=False,
            present=lambda spec: spec.pe.format == "fp16",
            absent=_NOT_FP16,
        ),
        Block(
            name="run_setup",
            title="the run registers of the array",
            make=_run_setup,
            bench=_stream_bench,
            in_machine=False,
        ),
        Block(
            name="xnor_engine",
            title="the XNOR engine",
            make=_xnor,
            bench=_xnor_bench,
            drive=_drive_xnor,
            apart=("control",),
            present=lambda spec: spec.xnor is not None,
            absent="{} has no table [xnor]",
            depends=("xnor",),
        ),
        Block(
            name="xnor_pe",
            title="one PE of the XNOR engine",
            make=_xnor_pe,
            in_machine=False,
            present=lambda spec: spec.xnor is not None,
            absent="{} has no table [xnor]",
        ),
        Block(
            name="gather_engine",
            title="the gather engine",
            make=_gather,
            drive=_drive_gather,
            present=_gathers,
            absent="{} has no table [gather], or one whose balance is stealing",
            multipliers=lambda spec: 0 if spec.gather is None else spec.gather.peak,
            depends=(
                "gather",
                "pe.format",
                "pe.accumulators",
                "pe.multiply_latency",
                "pe.add_latency",
                "buffers.w2e_bytes",
            ),
        ),
        Block(
            name="gather_pe",
            title="one PE of the gather engine",
            make=_gather_pe,
            in_machine=False,
            present=_gathers,
            absent="{} has no table [gather], or one whose balance is stealing",
        ),
        Block(
            name="tree_unit",
            title="the unit for spanning trees",
            make=_tree,
            drive=_drive_tree,
            present=lambda spec: spec.tree is not None,
            absent="{} has no table [tree]",
            depends=("tree",),
        ),
        Block(
            name="tree_lane",
            title="one lane of it",
            make=_tree_lane,
            in_machine=False,
            present=lambda spec: spec.tree is not None,
            absent="{} has no table [tree]",
        ),
        Block(
            name="spiking_xnor",
            title="the XNOR engine with a neuron behind every column",
            make=_spiking_xnor,
            apart=("control",),
            in_machine=False,
            present=lambda spec: spec.xnor is not None,
            absent="{} has no table [xnor]",
        ),
        Block(
            name="sore",
            title="the N:M compressor",
            make=_sore,
            inside=_inner_sore,
            bench=_stream_bench,
            drive=_drive_sore,
            depends=("sore", "pe.format", "pe.max_group"),
        ),
        Block(
            name="wuve",
            title="the weight update",
            make=_wuve,
            inside=_inner_wuve,
            bench=_stream_bench,
            drive=_drive_wuve,
            present=lambda spec: not spec.pe.operand.integer,
            absent="pe.format of {} is one of integers, which WUVE makes none of",
            depends=("wuve.lanes", "pe.format", "pe.multiply_latency", "pe.add_latency"),
        ),
        Block(
            name="pregenerate",
            title="the weight update with compressors behind it",
            make=_pregenerate,
            bench=_stream_bench,
            drive=_drive_pregenerate,
            in_machine=False,
            present=lambda spec: spec.wuve.pregenerate and _in_16_bits(spec),
            absent="wuve.pregenerate of {} is false, or its operands have eight bits: no SORE is behind its WUVE",
        ),
    )
}


def find_block(name: str, among: Mapping[str, Block] = BLOCKS) -> Block:
    """The block of that name."""
    if name not in among:
        raise InputError(f"--block: there is no block {name!r}; {nearest(name, among)}")
    return among[name]
