"""What does the broker say of itself under $SYS?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from math import exp
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.api import DEFAULT_VHOST, TOPIC_EXCHANGE, Message, Stats, swap_key
from gateway_mqtt.tally import Sent, Tally

if TYPE_CHECKING:
    from gateway_mqtt.broker import Broker
    from gateway_mqtt.link import Link

SYS: Final = "$SYS/"
ROOT: Final = "$SYS/broker/"
FRESH_MS: Final = 1_000
"""New subscribers get values that are not older."""
WINDOWS: Final = (("1min", 60.0), ("5min", 300.0), ("15min", 900.0))
MINUTE_S: Final = 60.0


class Stock(NamedTuple):
    """How many subscriptions somebody has; the shared ones are among all."""

    all: int
    shared: int


NONE: Final = Stock(0, 0)


class Traffic:
    """What is counted as it happens: an addition per read, per turn or per connection, none per message.

    ``packets``: what came behind the CONNECTs. ``sent``: what went out.
    """

    __slots__ = (
        "bytes_received", "connections", "connects", "most_clients", "packets", "sent", "shared", "sockets", "subscriptions",
    )  # fmt: skip

    def __init__(self) -> None:
        self.packets: Tally = Tally()
        self.sent: Sent = Sent()
        self.connects: int = 0
        self.bytes_received: int = 0
        self.sockets: int = 0
        self.connections: int = 0
        self.most_clients: int = 0
        self.subscriptions: int = 0
        self.shared: int = 0

    def subscribed(self, change: int, shared: int) -> None:
        """Clients that are connected have so many subscriptions more, and shared ones."""
        self.subscriptions += change
        self.shared += shared

    def connected(self, clients: int) -> None:
        """One more was let in; so many are there now."""
        self.connections += 1
        self.most_clients = max(self.most_clients, clients)


class Glance(NamedTuple):
    """What is to be looked at in more than one turn, or from outside. See `SysTopics.look`.

    ``other_bytes``: `Sent.other_bytes` when the ``stats`` were asked for. ``in_flight``: the sum of all `unacknowledged`.
    """

    stats: Stats = Stats()
    other_bytes: int = 0
    in_flight: int = 0


def unacknowledged(links: Sequence[Link]) -> int:
    """Return how many messages these clients have not acknowledged; have those counted that they were sent."""
    return sum(link.unacknowledged() for link in links if not link.is_over)


class _Load:
    """How much of something there was per minute, lately: moving averages that forget by and by."""

    __slots__ = ("_last", "_read", "averages")

    def __init__(self, read: Callable[[], int]) -> None:
        self._read: Callable[[], int] = read
        self._last: int = read()
        self.averages: list[float] = [0.0] * len(WINDOWS)

    def look(self, passed_s: float) -> None:
        now = self._read()
        per_minute = (now - self._last) * MINUTE_S / passed_s
        self._last = now
        for number, (_, window_s) in enumerate(WINDOWS):
            kept = exp(-passed_s / window_s)
            self.averages[number] = per_minute + (self.averages[number] - per_minute) * kept


class SysTopics:
    """The $SYS topics, with the names that mosquitto gives them. Nothing of it is stored or journaled.

    Args:
        memory: returns the process's memory now, and the most it ever was, in bytes; 0 where the system doesn't say.
    """

    def __init__(self, broker: Broker, memory: Callable[[], tuple[int, int]]) -> None:
        self._broker = broker
        self._memory = memory
        self._began_ms = self._looked_ms = broker.gateway.now_ms()
        self._made_ms = 0
        self._values: dict[str, bytes] = {}
        self._told: dict[str, dict[str, bytes]] = {}
        self._stats = Stats()
        self._in_flight = self._packets_sent = self._publishes_sent = 0
        self._publish_bytes_sent = 0
        traffic = broker.traffic
        packets = traffic.packets
        self._loads = {
            "bytes/received": _Load(lambda: traffic.bytes_received),
            "bytes/sent": _Load(lambda: self._stats.sent_bytes),
            "connections": _Load(lambda: traffic.connections),
            "messages/received": _Load(lambda: traffic.connects + packets.packets),
            "messages/sent": _Load(lambda: self._packets_sent),
            "publish/dropped": _Load(lambda: self._stats.dropped),
            "publish/received": _Load(lambda: packets.publishes),
            "publish/sent": _Load(lambda: self._publishes_sent),
            "sockets": _Load(lambda: traffic.sockets),
        }
        try:
            self._version = version("tidegate")
        except PackageNotFoundError:
            self._version = ""

    # -- who gets them ------------------------------------------------------

    def look_up(self, pattern: str) -> list[Message]:
        """Return what a new subscriber gets beside the retained messages: the values whose topics match a topic filter."""
        if not pattern.startswith(SYS) or not self._broker.settings.sys_interval_s:
            return []
        channel = self._broker.absences.channel(DEFAULT_VHOST)
        matches = matcher(pattern)
        found = [(topic, value) for topic, value in self._fresh().items() if matches(topic)]
        return [Message(channel.route(TOPIC_EXCHANGE, swap_key(topic)).address, value) for topic, value in found]

    def look(self, glance: Glance) -> None:
        """Take a look at everything. To be called when it begins, and every interval."""
        stats = self._stats = glance.stats
        self._in_flight = glance.in_flight
        sent = self._broker.traffic.sent
        self._packets_sent, self._publishes_sent = sent.packets, sent.publishes
        # What was answered in this turn is not among the bytes yet.
        self._publish_bytes_sent = max(self._publish_bytes_sent, stats.sent_bytes - glance.other_bytes)
        now_ms = self._broker.gateway.now_ms()
        passed_s = (now_ms - self._looked_ms) / 1_000
        if passed_s > 0:
            self._looked_ms = now_ms
            for load in self._loads.values():
                load.look(passed_s)
        self._made_ms = 0

    def publish(self, vhost: str) -> None:
        """Publish in a virtual host what somebody is bound to, of whatever protocol, and was not told before."""
        channel = self._broker.absences.channel(vhost)
        told = self._told.setdefault(vhost, {})
        for topic, value in self._fresh().items():
            route = channel.route(TOPIC_EXCHANGE, swap_key(topic))
            if not channel.reaches(route):
                told.pop(topic, None)  # whoever is bound next is told
            elif told.get(topic) != value:
                told[topic] = value
                channel.post(route, Message(route.address, value))

    # -- what they say ------------------------------------------------------

    def _fresh(self) -> dict[str, bytes]:
        now_ms = self._broker.gateway.now_ms()
        if not self._made_ms or now_ms - self._made_ms > FRESH_MS:
            self._made_ms = now_ms
            self._values = {ROOT + name: str(value).encode() for name, value in self._made(now_ms).items()}
        return self._values

    def _made(self, now_ms: int) -> dict[str, object]:
        broker = self._broker
        traffic = broker.traffic
        packets, stats = traffic.packets, self._stats
        connected, away, away_with = len(broker.sessions), len(broker.absences), broker.absences.stock
        now_bytes, most_bytes = self._memory()
        values: dict[str, object] = {
            "version": f"tidegate version {self._version}",
            "uptime": f"{(now_ms - self._began_ms) // 1_000} seconds",
            "clients/total": connected + away,
            "clients/connected": connected,
            "clients/active": connected,
            "clients/disconnected": away,
            "clients/inactive": away,
            "clients/maximum": traffic.most_clients,
            "clients/expired": broker.absences.expired,
            "bytes/received": traffic.bytes_received,
            "bytes/sent": stats.sent_bytes,
            "messages/received": traffic.connects + packets.packets,
            "messages/sent": self._packets_sent,
            "messages/inflight": self._in_flight,
            "publish/messages/received": packets.publishes,
            "publish/messages/sent": self._publishes_sent,
            "publish/messages/dropped": stats.dropped,
            "publish/bytes/received": packets.publish_bytes,
            "publish/bytes/sent": self._publish_bytes_sent,
            "messages/stored": stats.messages + stats.retained,
            "store/messages/count": stats.messages + stats.retained,
            "store/messages/bytes": stats.body_bytes + stats.retained_bytes,
            "retained messages/count": stats.retained,
            "subscriptions/count": traffic.subscriptions + away_with.all,
            "shared_subscriptions/count": traffic.shared + away_with.shared,
        }
        if most_bytes:
            values |= {"heap/current": now_bytes, "heap/maximum": most_bytes}
        for name, load in self._loads.items():
            for (window, _), average in zip(WINDOWS, load.averages, strict=True):
                values[f"load/{name}/{window}"] = f"{average:.2f}"
        return values


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what says whether a topic matches a topic filter without a leading wildcard."""
    wanted = pattern.split("/")

    def matches(topic: str) -> bool:
        levels = topic.split("/")
        for at, level in enumerate(wanted):
            if level == "#":
                return True
            if at >= len(levels) or (level != "+" and level != levels[at]):
                return False
        return len(levels) == len(wanted)

    return matches
