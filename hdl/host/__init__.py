"""The link between a host and a machine on a board: packets over a serial line, their RTL, and the host's side.

``Machine(Tty("/dev/ttyUSB0"), target)`` loads programs and tensors, runs, and reads results and counters.
"""

from .link import BusError, Line, Link, LinkError, LinkUse
from .machine import Machine, MachineRun
from .packet import Opcode, Packet, Status, Where
from .simulated import PseudoTerminal, SimulatedLine
from .tty import Tty

__all__ = [
    "BusError",
    "Line",
    "Link",
    "LinkError",
    "LinkUse",
    "Machine",
    "MachineRun",
    "Opcode",
    "Packet",
    "PseudoTerminal",
    "SimulatedLine",
    "Status",
    "Tty",
    "Where",
]
