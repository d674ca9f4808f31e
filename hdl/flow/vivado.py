"""A Vivado project of a block for the VCU1525, which nobody has run."""

from __future__ import annotations

from ...dataflow.accelerator import AcceleratorSpec
from ...workloads.errors import require_int
from ...workloads.update_rule import SGD
from ..block import Block, usual_pattern
from .emit import verilog
from .synthesis import refuse_what_cannot_fit
from .tools import require_tool

__all__ = ["VIVADO_PART", "vivado_project"]

_TCL = """# Vivado project of {block} of {machine}, out of context: its ports are the banks of the buffers, not pins.
# Written by Weft and never run through Vivado: expect to repair it. Run: vivado -mode batch -source {top}.tcl
create_project {top} vivado -part {part} -force
read_verilog {top}.v
read_xdc {top}.xdc
synth_design -top {top} -part {part} -mode out_of_context
report_utilization -hierarchical -file {top}_utilization_synth.rpt
opt_design
place_design
phys_opt_design
route_design
report_utilization -hierarchical -file {top}_utilization.rpt
report_timing_summary -file {top}_timing.rpt
report_power -file {top}_power.rpt
write_checkpoint -force {top}.dcp
"""

_XDC = """# {mhz} MHz. Ports are timed against the same clock, half a period each way.
create_clock -name clk -period {period:.3f} [get_ports clk]
set_input_delay -clock clk {half:.3f} [get_ports -filter {{DIRECTION == IN && NAME != clk}}]
set_output_delay -clock clk {half:.3f} [get_ports -filter {{DIRECTION == OUT}}]
"""

VIVADO_PART = "xcvu9p-fsgd2104-2L-e"
"""The device of the VCU1525 board."""


def vivado_project(spec: AcceleratorSpec, block: Block, mhz: int) -> dict[str, str]:
    """Files of a Vivado project of ``block`` for the VCU1525, by name; nobody has run one."""
    require_int("--mhz", mhz, 1, 1000)
    refuse_what_cannot_fit(spec, block, "xcup")
    require_tool("yosys")
    values = {"block": block.name, "machine": spec.name, "top": block.name, "part": VIVADO_PART, "mhz": mhz}
    period = 1000 / mhz
    return {
        f"{block.name}.v": verilog(spec, block.make(spec, usual_pattern(spec), SGD), block.name).text,
        f"{block.name}.xdc": _XDC.format(**values, period=period, half=period / 2),
        f"{block.name}.tcl": _TCL.format(**values),
    }
