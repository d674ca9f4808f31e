"""`weft fold`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..workloads.errors import InputError, require_choice, require_int, require_positive
from .console import get_console, make_table, name_of, percent, rate, si
from .inputs import machine
from .options import DEFAULT_ARCH, Dims, InputShape, Json, Model, Seq
from .outputs import print_json
from .pipeline import open_workload

if TYPE_CHECKING:
    from ..dataflow.streaming import Fabric, Pipeline
    from ..workloads.step import Workload

__all__ = ["fold"]

_LEAST_HZ, _MOST_HZ = 1_000, 10**11
_PERCENT = (70, 80)
"""Of LUTs and RAMB18 that a design takes where it is to meet its clock: limits of the FINN compiler's platforms."""


def fold(
    model: Model,
    target_fps: Annotated[
        float | None, typer.Option(metavar="F", help="Frames a second; the most that the device holds if none.")
    ] = None,
    folding: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="PE and SIMD of every layer: a list, by name, or FINN's own file."),
    ] = None,
    arch: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help=f"Machine whose clock it is; {DEFAULT_ARCH} if none.")
    ] = None,
    clock: Annotated[float | None, typer.Option(metavar="HZ", help="Clock itself, as 100e6.")] = None,
    device: Annotated[
        str, typer.Option(metavar="PART", help="xcvu9p or xc7z020; 70 % of its LUTs, 80 % of its block RAM are taken.")
    ] = "xcvu9p",
    lut: Annotated[int | None, typer.Option(metavar="N", help="LUTs to take, whatever the device.")] = None,
    bram: Annotated[int | None, typer.Option(metavar="N", help="RAMB18 to take, two of a BRAM36.")] = None,
    weight_bits: Annotated[int, typer.Option(help="Of a weight, where the model names no levels.")] = 1,
    act_bits: Annotated[int, typer.Option(help="Of what a layer reads, likewise.")] = 1,
    input_bits: Annotated[int, typer.Option(help="Of what the first layer reads, likewise.")] = 8,
    seq: Seq = None,
    input_shape: InputShape = None,
    dims: Dims = None,
    as_json: Json = False,
) -> None:
    """Fold a network into engines, one a layer, as FINN builds binary ones: cycles, LUTs, block RAM, frames/s."""
    from ..dataflow.streaming import Bits, Pipeline, at_rate, fastest, read_foldings, streaming_layers

    if folding is not None and target_fps is not None:
        raise InputError("--folding gives the rate itself: leave out --target-fps, or let that choose the folding")
    hz, fabric = _clock(clock, arch), _fabric(device, lut, bram)
    bits = Bits(weight=weight_bits, activation=act_bits, first=input_bits)
    if target_fps is not None:
        require_positive("--target-fps", target_fps)
    workload = open_workload(model, None, seq, None, input_shape, dims=dims)
    layers = streaming_layers(workload, bits)
    if folding is not None:
        found = Pipeline(layers=layers, foldings=read_foldings(folding, layers, fabric))
    elif target_fps is not None:
        found = at_rate(layers, target_fps, hz, fabric)
    else:
        found = fastest(layers, fabric)
    print_json(_document(workload, found, fabric, hz)) if as_json else _show(workload, found, fabric, hz)


def _clock(asked: float | None, arch: str | None) -> int:
    if asked is None:
        return machine(arch or DEFAULT_ARCH).clock_hz
    if arch is not None:
        raise InputError(f"--arch {arch} and --clock {asked:g} both give a clock; give one of them")
    require_positive("--clock", asked)
    if asked != int(asked) or not _LEAST_HZ <= asked <= _MOST_HZ:
        raise InputError(f"--clock must be whole hertz from {_LEAST_HZ:,} to {_MOST_HZ:,}, as 100e6, not {asked:g}")
    return int(asked)


def _fabric(device: str, lut: int | None, bram: int | None) -> Fabric:
    from ..dataflow.streaming import Cost, Fabric
    from ..dataflow.streaming.engine import MOST_BRAM, MOST_LUT
    from ..hdl.flow.devices import PARTS

    part = PARTS[require_choice("--device", device.lower(), tuple(PARTS))]
    luts, blocks = (part.has.lut * _PERCENT[0] // 100, 2 * part.has.bram * _PERCENT[1] // 100)
    for option, value, most in (("--lut", lut, MOST_LUT), ("--bram", bram, MOST_BRAM)):
        if value is not None:
            require_int(option, value, 1, most)
    whole = lut is not None and bram is not None
    return Fabric(
        name="the budget" if whole else part.name,
        has=Cost(lut=luts if lut is None else lut, bram=blocks if bram is None else bram),
    )


def _document(workload: Workload, found: Pipeline, fabric: Fabric, hz: int) -> dict[str, Any]:
    each = zip(found.layers, found.foldings, found.cycles, found.window_cycles, found.costs, strict=True)
    return {
        "model": workload.model,
        "clock_hz": hz,
        "frames_per_s": found.rate(hz),
        "interval_cycles": found.interval,
        "limits": [layer.name for layer in found.limits],
        "first_frame_cycles_at_most": found.first_frame,
        "device": {"name": fabric.name, "lut": fabric.has.lut, "ramb18": fabric.has.bram},
        "fits": fabric.holds(found.cost),
        "lut": found.cost.lut,
        "ramb18": found.cost.bram,
        "layers": [
            {
                "name": layer.name,
                "mw": layer.mw,
                "mh": layer.mh,
                "vectors": layer.vectors,
                "weight_bits": layer.weight_bits,
                "input_bits": layer.input_bits,
                "pe": folding.pe,
                "simd": folding.simd,
                "ram": folding.ram,
                "cycles": cycles,
                "window_cycles": None if layer.unknown_window else window,
                "lut": cost.lut,
                "ramb18": cost.bram,
            }
            for layer, folding, cycles, window, cost in each
        ],
    }


def _show(workload: Workload, found: Pipeline, fabric: Fabric, hz: int) -> None:
    console = get_console()
    console.print(f"{name_of(workload.model)}, an engine a layer, at {si(hz, 'Hz')}", style="bold")
    rows = [
        (
            name_of(layer.name),
            f"{layer.mw:,}",
            f"{layer.mh:,}",
            f"{layer.vectors:,}",
            f"{folding.pe} x {folding.simd}",
            f"{cycles:,}",
            "?" if layer.unknown_window else f"{window:,}" if window else "",
            f"{cost.lut:,}",
            f"{cost.bram:,}" if folding.ram == "block" else "LUTs",
        )
        for layer, folding, cycles, window, cost in zip(
            found.layers, found.foldings, found.cycles, found.window_cycles, found.costs, strict=True
        )
    ]
    cost, has = found.cost, fabric.has
    rows.append(("all", "", "", "", "", f"{found.interval:,}", "", f"{cost.lut:,}", f"{cost.bram:,}"))
    columns = ("layer", "MW", "MH", "vectors", "PE x SIMD", "cycles", "window", "LUT", "RAMB18")
    console.print(make_table("", columns, rows))
    limits = ", ".join(name_of(layer.name) for layer in found.limits[:3])
    more = f" and {len(found.limits) - 3} more" if len(found.limits) > 3 else ""
    console.print(
        f"{rate(found.rate(hz))} frames/s, one in {found.interval:,} cycles; slowest: {limits}{more}", style="bold"
    )
    console.print(
        f"First frame after {si(found.first_frame / hz, 's')} at most, if no engine overlaps the one before it"
    )
    luts, blocks = percent(cost.lut, has.lut), percent(cost.bram, has.bram)
    console.print(
        f"{luts} of {has.lut:,} LUTs, {blocks} of {has.bram:,} RAMB18 of {fabric.name}"
        + ("" if fabric.holds(cost) else ": does not fit")
    )
    if any(layer.unknown_window for layer in found.layers):
        console.print("?: sliding windows of grouped convolutions, and those that sizes do not tell, are not counted")
    console.print("Thresholds, pools, FIFOs and width converters are not counted (docs/binary.md)")
