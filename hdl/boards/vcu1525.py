"""A Vivado project of the accelerator on a VCU1525, host by PCIe, memory in its DDR4. Nobody has run it.

Sources, all public: PCIe pins, block location and settings of the bitstream from Corundum's constraints for this board
(fpga/mqnic/VCU1525); names of the DDR4 and its clock, whose pins and timing they bring, from Xilinx' board files 1.3
(XilinxBoardStore); the order of the cells after projects that others published for it.
"""

from __future__ import annotations

from ...dataflow.program.spaces import Target
from ...workloads.errors import require_int
from ..flow.emit import verilog
from ..flow.tools import require_tool
from ..flow.vivado import VIVADO_PART
from ..top.ports import Ports
from ..top.top import Top

__all__ = [
    "CELLS",
    "VIVADO_BOARD",
    "WRAPPER_PORTS",
    "accelerator",
    "beat_bytes",
    "constraints",
    "project_script",
    "vivado_board_project",
]

VIVADO_BOARD = "xilinx.com:vcu1525:part0:1.3"
_TOP = "weft_axi"
_BUSES = {"control": "s_axi", "data": "m_axi", "instructions": "m_axi_code"}
_LANES = 16
_RECEIVES = (
    *("AF2", "AG4", "AH2", "AJ4", "AK2", "AL4", "AM2", "AN4"),
    *("AP2", "AR4", "AT2", "AU4", "AV2", "AW4", "BA2", "BC2"),
)
_SENDS = (
    *("AF7", "AG9", "AH7", "AJ9", "AK7", "AL9", "AM7", "AN9"),
    *("AP7", "AR9", "AT7", "AU9", "AV7", "BB5", "BD5", "BF5"),
)
"""Pins of the positive wires of the lanes, from lane 0 on."""

CELLS = {
    "weft_0": "the accelerator",
    "xdma_0": "PCIe: the host reads and writes DDR4, and the registers from address 0 of its first BAR on",
    "ddr4_0": "controller of the first DDR4 module, and the clock of the machine",
    "memory": "three managers before the DDR4: the host, data and instructions of the accelerator",
    "control": "the host before the registers",
    "pcie_clock": "buffer of the reference clock",
    "machine_reset": "reset in step with the machine's clock",
    "memory_reset": "reset in step with the DDR4's clock",
    "power_reset": "the DDR4's reset is active high, PCIe's low",
}
"""Cells of the block design."""

WRAPPER_PORTS = {
    "pcie_mgt_rxp": _LANES,
    "pcie_mgt_rxn": _LANES,
    "pcie_mgt_txp": _LANES,
    "pcie_mgt_txn": _LANES,
    "pcie_refclk_clk_p": 1,
    "pcie_refclk_clk_n": 1,
    "pcie_perstn": 1,
}
"""Ports that Vivado's wrapper of the block design has besides those of the DDR4, which the board file places."""

_TCL = """# {machine} on a VCU1525. Written by Weft and never run through Vivado: expect to repair it.
# Run: vivado -mode batch -source weft_vcu1525.tcl
create_project weft_vcu1525 weft_vcu1525 -part {part} -force
set_property board_part {board} [current_project]
add_files -norecurse weft_axi.v
add_files -fileset constrs_1 -norecurse weft_vcu1525.xdc
update_compile_order -fileset sources_1
create_bd_design design_1

create_bd_cell -type module -reference weft_axi weft_0
set_property -dict [list CONFIG.ASSOCIATED_BUSIF {{m_axi:m_axi_code:s_axi}} CONFIG.ASSOCIATED_RESET {{rst}}] \\
    [get_bd_pins weft_0/clk]
set_property CONFIG.POLARITY ACTIVE_HIGH [get_bd_pins weft_0/rst]

create_bd_cell -type ip -vlnv xilinx.com:ip:ddr4 ddr4_0
set_property -dict [list CONFIG.C0_CLOCK_BOARD_INTERFACE {{default_300mhz_clk0}} \\
    CONFIG.C0_DDR4_BOARD_INTERFACE {{ddr4_sdram_c0}} CONFIG.ADDN_UI_CLKOUT1_FREQ_HZ {{{mhz}}}] [get_bd_cells ddr4_0]
apply_board_connection -board_interface "ddr4_sdram_c0" -ip_intf "ddr4_0/C0_DDR4" -diagram "design_1"
apply_board_connection -board_interface "default_300mhz_clk0" -ip_intf "ddr4_0/C0_SYS_CLK" -diagram "design_1"

create_bd_cell -type ip -vlnv xilinx.com:ip:xdma xdma_0
set_property -dict [list CONFIG.mode_selection {{Advanced}} CONFIG.pcie_blk_locn {{X1Y2}} \\
    CONFIG.pl_link_cap_max_link_width {{X{lanes}}} CONFIG.pl_link_cap_max_link_speed {{8.0_GT/s}} \\
    CONFIG.axi_data_width {{512_bit}} CONFIG.axisten_freq {{250}} CONFIG.xdma_axi_intf_mm {{AXI_Memory_Mapped}} \\
    CONFIG.axilite_master_en {{true}} CONFIG.axilite_master_size {{64}} CONFIG.axilite_master_scale {{Kilobytes}} \\
    CONFIG.xdma_num_usr_irq {{1}}] [get_bd_cells xdma_0]
create_bd_cell -type ip -vlnv xilinx.com:ip:util_ds_buf pcie_clock
set_property CONFIG.C_BUF_TYPE {{IBUFDSGTE}} [get_bd_cells pcie_clock]
create_bd_intf_port -mode Slave -vlnv xilinx.com:interface:diff_clock_rtl:1.0 pcie_refclk
set_property CONFIG.FREQ_HZ 100000000 [get_bd_intf_ports pcie_refclk]
create_bd_intf_port -mode Master -vlnv xilinx.com:interface:pcie_7x_mgt_rtl:1.0 pcie_mgt
create_bd_port -dir I -type rst pcie_perstn
set_property CONFIG.POLARITY ACTIVE_LOW [get_bd_ports pcie_perstn]
connect_bd_intf_net [get_bd_intf_ports pcie_refclk] [get_bd_intf_pins pcie_clock/CLK_IN_D]
connect_bd_intf_net [get_bd_intf_ports pcie_mgt] [get_bd_intf_pins xdma_0/pcie_mgt]
connect_bd_net [get_bd_pins pcie_clock/IBUF_OUT] [get_bd_pins xdma_0/sys_clk_gt]
connect_bd_net [get_bd_pins pcie_clock/IBUF_DS_ODIV2] [get_bd_pins xdma_0/sys_clk]
connect_bd_net [get_bd_ports pcie_perstn] [get_bd_pins xdma_0/sys_rst_n]

create_bd_cell -type ip -vlnv xilinx.com:ip:util_vector_logic power_reset
set_property -dict [list CONFIG.C_SIZE {{1}} CONFIG.C_OPERATION {{not}}] [get_bd_cells power_reset]
connect_bd_net [get_bd_ports pcie_perstn] [get_bd_pins power_reset/Op1]
connect_bd_net [get_bd_pins power_reset/Res] [get_bd_pins ddr4_0/sys_rst]

create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset machine_reset
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset memory_reset
connect_bd_net [get_bd_pins ddr4_0/addn_ui_clkout1] [get_bd_pins machine_reset/slowest_sync_clk]
connect_bd_net [get_bd_pins ddr4_0/c0_ddr4_ui_clk] [get_bd_pins memory_reset/slowest_sync_clk]
connect_bd_net [get_bd_pins ddr4_0/c0_ddr4_ui_clk_sync_rst] [get_bd_pins machine_reset/ext_reset_in] \\
    [get_bd_pins memory_reset/ext_reset_in]
connect_bd_net [get_bd_pins memory_reset/peripheral_aresetn] [get_bd_pins ddr4_0/c0_ddr4_aresetn]
connect_bd_net [get_bd_pins ddr4_0/addn_ui_clkout1] [get_bd_pins weft_0/clk]
connect_bd_net [get_bd_pins machine_reset/peripheral_reset] [get_bd_pins weft_0/rst]

create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect memory
set_property -dict [list CONFIG.NUM_SI {{3}} CONFIG.NUM_MI {{1}} CONFIG.NUM_CLKS {{3}}] [get_bd_cells memory]
connect_bd_net [get_bd_pins ddr4_0/c0_ddr4_ui_clk] [get_bd_pins memory/aclk]
connect_bd_net [get_bd_pins xdma_0/axi_aclk] [get_bd_pins memory/aclk1]
connect_bd_net [get_bd_pins ddr4_0/addn_ui_clkout1] [get_bd_pins memory/aclk2]
connect_bd_net [get_bd_pins memory_reset/peripheral_aresetn] [get_bd_pins memory/aresetn]
connect_bd_intf_net [get_bd_intf_pins xdma_0/M_AXI] [get_bd_intf_pins memory/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins weft_0/m_axi] [get_bd_intf_pins memory/S01_AXI]
connect_bd_intf_net [get_bd_intf_pins weft_0/m_axi_code] [get_bd_intf_pins memory/S02_AXI]
connect_bd_intf_net [get_bd_intf_pins memory/M00_AXI] [get_bd_intf_pins ddr4_0/C0_DDR4_S_AXI]

create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect control
set_property -dict [list CONFIG.NUM_SI {{1}} CONFIG.NUM_MI {{1}} CONFIG.NUM_CLKS {{2}}] [get_bd_cells control]
connect_bd_net [get_bd_pins xdma_0/axi_aclk] [get_bd_pins control/aclk]
connect_bd_net [get_bd_pins ddr4_0/addn_ui_clkout1] [get_bd_pins control/aclk1]
connect_bd_net [get_bd_pins xdma_0/axi_aresetn] [get_bd_pins control/aresetn]
connect_bd_intf_net [get_bd_intf_pins xdma_0/M_AXI_LITE] [get_bd_intf_pins control/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins control/M00_AXI] [get_bd_intf_pins weft_0/s_axi]
connect_bd_net [get_bd_pins weft_0/interrupt] [get_bd_pins xdma_0/usr_irq_req]

assign_bd_address
validate_bd_design
save_bd_design
make_wrapper -files [get_files design_1.bd] -top -import
set_property top design_1_wrapper [current_fileset]
launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
open_run impl_1
report_utilization -hierarchical -file weft_utilization.rpt
report_timing_summary -file weft_timing.rpt
report_power -file weft_power.rpt
"""

_GENERAL = {
    "CFGBVS": "GND",
    "CONFIG_VOLTAGE": "1.8",
    "BITSTREAM.GENERAL.COMPRESS": "true",
    "BITSTREAM.CONFIG.CONFIGFALLBACK": "ENABLE",
    "BITSTREAM.CONFIG.EXTMASTERCCLK_EN": "DISABLE",
    "BITSTREAM.CONFIG.CONFIGRATE": "85.0",
    "BITSTREAM.CONFIG.SPI_32BIT_ADDR": "YES",
    "BITSTREAM.CONFIG.SPI_BUSWIDTH": "4",
    "BITSTREAM.CONFIG.SPI_FALL_EDGE": "YES",
    "BITSTREAM.CONFIG.UNUSEDPIN": "PULLUP",
}


def beat_bytes(target: Target) -> int:
    """Of the data bus: an operand for each row or column a cycle, as the DDR4's 64 bytes allow."""
    array = target.spec.array
    return min(64, max(8, 2 << (max(array.rows, array.cols) - 1).bit_length()))


def constraints() -> str:
    """The XDC: pins of PCIe, its clock, configuration of the device; the DDR4's pins come from the board file."""
    lines = ["# PCIe of the VCU1525, and how its device is configured. Written by Weft; nobody has run it."]
    lines += [f"set_property {name} {value} [current_design]" for name, value in _GENERAL.items()]
    for name, pins in (("pcie_mgt_rxp", _RECEIVES), ("pcie_mgt_txp", _SENDS)):
        lines += [f"set_property PACKAGE_PIN {pin} [get_ports {{{name}[{i}]}}]" for i, pin in enumerate(pins)]
    lines += [
        "set_property PACKAGE_PIN AM11 [get_ports {pcie_refclk_clk_p[0]}]",
        "set_property -dict {PACKAGE_PIN BD21 IOSTANDARD LVCMOS12 PULLUP true} [get_ports pcie_perstn]",
        "create_clock -period 10.000 -name pcie_refclk [get_ports {pcie_refclk_clk_p[0]}]",
        "set_false_path -from [get_ports pcie_perstn]",
    ]
    return "\n".join(lines) + "\n"


def accelerator(target: Target) -> Ports:
    """The machine with the ports that Vivado takes for AXI buses by their names."""
    top = Ports(Top(target, beat_bytes(target), blackbox=True), _BUSES)
    top.parts = top.component.parts
    return top


def project_script(target: Target, mhz: int) -> str:
    """The Tcl that makes the project and runs it."""
    require_int("--mhz", mhz, 1, 1000)
    return _TCL.format(machine=target.spec.name, part=VIVADO_PART, board=VIVADO_BOARD, mhz=mhz, lanes=_LANES)


def vivado_board_project(target: Target, mhz: int) -> dict[str, str]:
    """Files of the project by name: Verilog of the accelerator, Tcl, XDC; nobody has run one."""
    require_tool("yosys")
    return {
        "weft_vcu1525.tcl": project_script(target, mhz),
        "weft_vcu1525.xdc": constraints(),
        f"{_TOP}.v": verilog(target.spec, accelerator(target), _TOP).text,
    }
