"""Where does a topic lead, and how large may it be?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from gateway.api import (
    DEFAULT_EXCHANGE,
    TOPIC_EXCHANGE,
    AccessRefused,
    Address,
    Channel,
    Principal,
    Route,
    is_mqtt_topic,
    make_room,
    parse_reply_address,
    reply_address,
    swap_key,
)
from gateway_mqtt.codec.coding import topic_name
from gateway_mqtt.codec.packets import malformed
from gateway_mqtt.codec.reasons import TOPIC_NAME_INVALID

RESERVED: Final = ("$SYS/", "$share/")
"""How topics begin that are no topics of messages: what the broker says of itself, and shared filters."""
ANSWERS: Final = "$reply/"
"""How topics begin that lead to who has asked by another protocol: a reply address or a queue's name follows, percent-encoded."""
OWN_QUEUES: Final = "mqtt."
"""How the queues of sessions begin."""
NOT_YOURS: Final = "topics under $SYS and $share are the broker's own"
_PLAIN: Final = "/!$&'()*,;=:@ "
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


def check_answer(address: Address, limits: TopicLimits) -> None:
    """Refuse an address under `ANSWERS` that is not for clients: what holds of topics holds wherever a topic leads.

    Raises:
        AccessRefused: it is the broker's own, or too large a topic.
    """
    key = address.routing_key
    if address.exchange == TOPIC_EXCHANGE:
        topic = swap_key(key)
        if is_reserved(topic):
            raise AccessRefused(NOT_YOURS)
        if excess := limits.excess(topic):
            raise AccessRefused(excess)
    elif address.exchange == DEFAULT_EXCHANGE and key.startswith(OWN_QUEUES):
        raise AccessRefused(f"queues whose names begin with {OWN_QUEUES} are the broker's own")


def address_of(topic: str) -> tuple[str, str]:
    """Return exchange and routing key for a topic name."""
    if topic.startswith(ANSWERS):
        return DEFAULT_EXCHANGE, unquote(topic.removeprefix(ANSWERS))
    return TOPIC_EXCHANGE, swap_key(topic)


def reply_to_of(response_topic: str) -> str:
    """Return where the common model sends answers for a Response Topic."""
    exchange, key = address_of(response_topic)
    return key if exchange == DEFAULT_EXCHANGE else reply_address(exchange, key)


def response_topic_of(reply_to: str) -> str | None:
    """Return the topic under which MQTT clients answer; None: there is none."""
    address = parse_reply_address(reply_to)
    try:
        if address is not None and address[0] == TOPIC_EXCHANGE:
            topic = swap_key(address[1])
            if is_mqtt_topic(topic) and not topic.startswith(ANSWERS):
                return topic
        topic = ANSWERS + quote(reply_to, _PLAIN)
        return topic if reply_to and is_mqtt_topic(topic) else None
    except UnicodeEncodeError:  # a lone surrogate
        return None


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
        """Check a topic that is not in `known`, and put it there, unless it is one of `ANSWERS`.

        Args:
            level: protocol level, whose section a malformed topic breaks.

        Raises:
            MalformedPacket: it is not a topic name, or is too large.
            AccessRefused: the client may not publish to it.
        """
        name = topic_name(topic, level)
        self._limits.check(name)
        if is_reserved(name):
            raise AccessRefused(NOT_YOURS)  # [MQTT-4.7.2-1] [MQTT5-4.7.2-1]
        exchange, key = address_of(name)
        if self._local_to:
            route = self._channel.route(exchange, key, local_to=self._local_to)
        else:
            route = self._channel.route(exchange, key)
        if name.startswith(ANSWERS):
            check_answer(route.address, self._limits)
            return route
        if len(topic) <= MAX_CACHED_TOPIC_BYTES:
            make_room(self.known, MAX_OWN_TOPICS if self._local_to else MAX_CACHED_TOPICS)
            self.known[topic] = route
        return route
