"""How does a trio program use ZeroMQ sockets?"""

from trio_zmq.context import Context
from trio_zmq.errors import AddressRefused, ForeignUse, OutOfTurn, TooManySockets, UnknownPeer
from trio_zmq.monitor import Monitor, MonitorEvent
from trio_zmq.pump import Oversized, Pump
from trio_zmq.socket import Socket

__all__ = [
    "AddressRefused",
    "Context",
    "ForeignUse",
    "Monitor",
    "MonitorEvent",
    "OutOfTurn",
    "Oversized",
    "Pump",
    "Socket",
    "TooManySockets",
    "UnknownPeer",
]
