"""Where does a topic lead, and how large may it be?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.api import TOPIC_EXCHANGE, AccessRefused, Channel, Principal, Route, make_room, swap_key
from gateway_mqtt.codec.coding import topic_name
from gateway_mqtt.codec.packets import malformed
from gateway_mqtt.codec.reasons import TOPIC_NAME_INVALID

RESERVED: Final = ("$SYS/", "$share/")
"""How topics begin that are no topics of messages: what the broker says of itself, and shared filters."""
MAX_CACHED_TOPICS = 50_000
MAX_OWN_TOPICS = 200
"""Of a connection that has a cache of its own: there may be very many."""
MAX_CACHED_TOPIC_BYTES = 256
"""Longer topics are resolved at every message: what a cache holds must be bounded in bytes too."""


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """How large topic names and filters may be."""

    levels: int
    bytes: int

    def excess(self, topic: str) -> str:
        """Return what is too much of a topic; empty: nothing is."""
        if topic.count("/") >= self.levels:
            return f"a topic of more than {self.levels} levels"
        if len(topic.encode()) > self.bytes:
            return f"a topic of more than {self.bytes} bytes"
        return ""

    def check(self, topic: str) -> None:
        """Refuse a topic that is too large.

        Raises:
            MalformedPacket: it is.
        """
        if reason := self.excess(topic):
            raise malformed(reason, "§4.7", TOPIC_NAME_INVALID)


def is_reserved(topic: str) -> bool:
    """Return whether clients may not publish to a topic."""
    return topic.startswith("$") and f"{topic}/".startswith(RESERVED)


class Routes:
    """Where do topics lead? One cache for all connections of a principal.

    Args (attributes):
        known: `Principal.cache`'s share: routes by topic, as it is received. After `keep_from` the connection's own.
    """

    __slots__ = ("_channel", "_limits", "_local_to", "known", "principal")

    def __init__(self, channel: Channel, principal: Principal, limits: TopicLimits) -> None:
        self._channel: Channel = channel
        self._limits: TopicLimits = limits
        self._local_to: str = ""
        self.principal: Principal = principal
        self.known: dict[bytes, Route] = principal.cache.setdefault("mqtt", {})

    def keep_from(self, queue: str) -> None:
        """Leave out bindings of this queue that say no local, from now on [MQTT5-3.8.3-3]; empty: leave none out."""
        if queue != self._local_to:
            self._local_to = queue
            self.known = {} if queue else self.principal.cache.setdefault("mqtt", {})

    def resolve(self, topic: bytes, level: int = 4) -> Route:
        """Check a topic that is not in `known`, and put it there.

        Args:
            level: protocol level, whose section a malformed topic breaks.

        Raises:
            MalformedPacket: it is not a topic name, or is too large.
            AccessRefused: the client may not publish to it.
        """
        name = topic_name(topic, level)
        self._limits.check(name)
        if is_reserved(name):
            raise AccessRefused("topics under $SYS and $share are the broker's own")  # [MQTT-4.7.2-1] [MQTT5-4.7.2-1]
        key = swap_key(name)
        if self._local_to:
            route = self._channel.route(TOPIC_EXCHANGE, key, local_to=self._local_to)
        else:
            route = self._channel.route(TOPIC_EXCHANGE, key)
        if len(topic) <= MAX_CACHED_TOPIC_BYTES:
            make_room(self.known, MAX_OWN_TOPICS if self._local_to else MAX_CACHED_TOPICS)
            self.known[topic] = route
        return route
