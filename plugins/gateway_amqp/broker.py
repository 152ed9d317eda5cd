"""What do all AMQP connections share?"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final
from typing import Protocol as Shape

from pamqp import commands

from gateway.api import Gateway, Partial
from gateway_amqp.beats import Beats
from gateway_amqp.codec.methods import encode
from gateway_amqp.contents import Contents
from gateway_amqp.handshake import CAPABILITIES
from gateway_amqp.settings import AmqpSettings

if TYPE_CHECKING:
    from gateway_amqp.protocol import Protocol

LOCALES: Final = "en_US"
MOST_TEXT: Final = 250
"""Bytes of why connections are blocked; a short string has up to 255."""


class Chores(Shape):
    """What the rooms without a clock or a task leave to the server."""

    def now_s(self) -> float:
        """Return the time that time-outs go by."""

    def sooner(self) -> None:
        """`Beats.due_at` may have come closer."""


class Part(Shape):
    """What has sent a part of something, or collects what is to happen at once."""

    def too_much(self) -> None:
        """Close its connection: there is no room for all that was begun, and it has the most."""


def _too_much(part: Part) -> None:
    part.too_much()


class Broker:
    """What all AMQP connections share; one per front-end that runs.

    ``unopened``: connections whose Connection.Open is not answered yet, oldest first. ``connections``: all others.
    ``partial``: how much is kept of what they have begun. ``beats``: those to which heartbeats are sent.
    ``blocked``: why publishers are held back; empty: they are not. ``contents``: the content frames that were written last.
    ``properties``: what the server says of itself. ``tune``: the frame that says its limits.
    """

    __slots__ = (
        "_chores",
        "_starts",
        "beats",
        "blocked",
        "connections",
        "contents",
        "gateway",
        "partial",
        "properties",
        "settings",
        "tune",
        "unopened",
    )

    def __init__(self, gateway: Gateway, settings: AmqpSettings, chores: Chores) -> None:
        self._chores = chores
        self.gateway: Gateway = gateway
        self.settings: AmqpSettings = settings
        self.unopened: dict[Protocol, None] = {}
        self.connections: dict[Protocol, None] = {}
        self.beats = Beats()
        self.blocked: str = ""
        self.partial: Partial[Part] = Partial(settings.max_partial_bytes, _too_much)
        self.contents = Contents(gateway)
        self.properties = server_properties(settings, gateway.node_id)
        self.tune: bytes = encode(0, commands.Connection.Tune(settings.channel_max, settings.frame_max, settings.heartbeat_s))
        self._starts: dict[str, bytes] = {}

    def start(self, mechanisms: str) -> bytes:
        """Return the frame that begins a connection on which clients may say in these ways who they are."""
        start = self._starts.get(mechanisms)
        if start is None:
            start = encode(0, commands.Connection.Start(0, 9, self.properties, mechanisms, LOCALES))
            self._starts[mechanisms] = start
        return start

    def came(self, newcomer: Protocol) -> None:
        """A connection was accepted; if too many are on their way the one that has been for longest is closed."""
        unopened = self.unopened
        unopened[newcomer] = None
        if len(unopened) > self.settings.max_unconnected:
            oldest = next(iter(unopened))
            del unopened[oldest]
            oldest.give_up()

    def opened(self, connection: Protocol) -> None:
        """Its Connection.Open is answered."""
        self.unopened.pop(connection, None)
        self.connections[connection] = None
        heartbeat_s = connection.heartbeat_s
        if heartbeat_s and self.beats.join(connection, heartbeat_s, self._chores.now_s()):
            self._chores.sooner()

    def left(self, connection: Protocol) -> None:
        """It is over."""
        self.unopened.pop(connection, None)
        self.connections.pop(connection, None)
        self.beats.leave(connection)
        self.partial.holds(connection, 0)

    def alarm(self) -> bool:
        """Look whether publishers are held back, and why; return whether that has changed."""
        why = "; ".join(self.gateway.alarms).encode()[:MOST_TEXT].decode(errors="ignore")
        changed = bool(why) != bool(self.blocked)
        self.blocked = why
        return changed


def server_properties(settings: AmqpSettings, node_id: str) -> dict[str, Any]:
    """Return what Connection.Start says of the server."""
    try:
        platform = f"Tidegate {version('tidegate')}"
    except PackageNotFoundError:
        platform = "Tidegate"
    return {
        "capabilities": CAPABILITIES,
        "cluster_name": node_id,
        "information": "Tidegate, a message gateway; to AMQP 0-9-1 clients it is what RabbitMQ of this version would be",
        "platform": platform,
        "product": settings.server_product,
        "version": settings.server_version,
    }
