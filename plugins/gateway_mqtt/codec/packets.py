"""Which control packets does MQTT have?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway_mqtt.codec.names import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    FLAGS,
    LEVELS,
    MAX_IDENTIFIER,
    MAX_LENGTH,
    MAX_STRING_BYTES,
    NAMES,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    MalformedPacket,
    UnknownLevel,
    malformed,
)
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties

__all__ = [
    "ACCEPTED", "ACKS", "AUTH", "BAD_CREDENTIALS", "BAD_IDENTIFIER", "BAD_LEVEL", "CONNACK", "CONNECT", "DISCONNECT",
    "FAILURE", "FLAGS", "LEVELS", "MAX_CONNECT_BYTES", "MAX_IDENTIFIER", "MAX_LENGTH", "MAX_STRING_BYTES", "NAMES",
    "NOT_AUTHORIZED", "PINGREQ", "PINGRESP", "PUBACK", "PUBCOMP", "PUBLISH", "PUBREC", "PUBREL", "REFUSALS", "SIGNALS",
    "SUBACK", "SUBSCRIBE", "UNAVAILABLE", "UNSUBACK", "UNSUBSCRIBE", "Ack", "Auth", "ConnAck", "Connect", "Disconnect",
    "MalformedPacket", "Packet", "Publish", "Signal", "SubAck", "Subscribe", "Subscription", "UnknownLevel", "UnsubAck",
    "Unsubscribe", "Will", "malformed",
]  # fmt: skip

ACCEPTED, BAD_LEVEL, BAD_IDENTIFIER, UNAVAILABLE, BAD_CREDENTIALS, NOT_AUTHORIZED = range(6)
"""CONNACK return codes (MQTT 3.1.1 §3.2.2.3); those of MQTT 5 are in `reasons`."""
REFUSALS = ("", "protocol level", "client identifier", "unavailable", "credentials", "not authorized")
FAILURE: Final = 0x80
"""SUBACK return code of a refused filter (MQTT 3.1.1 §3.9.3)."""

MAX_CONNECT_BYTES: Final = 12 + 5 * (2 + MAX_STRING_BYTES)
"""No CONNECT of 3.1 or 3.1.1 is longer: the variable header and five strings."""

ACKS: Final = (PUBACK, PUBREC, PUBREL, PUBCOMP)
SIGNALS: Final = (PINGREQ, PINGRESP)


@dataclass(frozen=True, slots=True)
class Will:
    """What is published for a client that is lost (MQTT 3.1.1 §3.1.2.5; MQTT 5.0 §3.1.2.5, §3.1.3.2)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NO_PROPERTIES


@dataclass(slots=True)  # a frozen one takes three times as long to make, and there is one per connection
class Connect:
    """§3.1 of both. ``level`` 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5.0; ``clean`` is Clean Start there; ``keep_alive_s`` 0 means none.

    ``bridge`` is mosquitto's way to say, below 5, that the client is a bridge: it wants no message back that it has published,
    and the RETAIN flag as it was published.
    """

    client_id: str
    clean: bool = True
    keep_alive_s: int = 60
    will: Will | None = None
    user: str | None = None
    password: bytes | None = None
    level: int = 4
    properties: Properties = NO_PROPERTIES
    bridge: bool = False


@dataclass(frozen=True, slots=True)
class ConnAck:
    """§3.2 of both."""

    session_present: bool
    code: int
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Publish:
    """§3.3 of both. The broker makes none on the path of a message. ``packet_id`` is 0 for QoS 0.

    ``topic`` is empty where a topic alias stands for it.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, by ``type`` (§3.4 to §3.7 of both)."""

    type: int
    packet_id: int
    code: int = 0
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic filter of a SUBSCRIBE and what is wanted of it (MQTT 5.0 §3.8.3.1). Below level 5 there is but the QoS.

    ``retain_handling``: 0 sends retained messages, 1 only if the subscription is new, 2 never.
    """

    pattern: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    """§3.8 of both."""

    packet_id: int
    filters: tuple[Subscription, ...]
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class SubAck:
    """§3.9 of both: one granted QoS, or why there is none, for each filter."""

    packet_id: int
    codes: bytes
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """§3.10 of both."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class UnsubAck:
    """§3.11 of both. Below level 5 there are no codes."""

    packet_id: int
    codes: bytes = b""
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Signal:
    """PINGREQ or PINGRESP, by ``type``: nothing but themselves."""

    type: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """§3.14 of both."""

    code: int = 0
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Auth:
    """MQTT 5.0 §3.15."""

    code: int = 0
    properties: Properties = NO_PROPERTIES


Packet: TypeAlias = Connect | ConnAck | Publish | Ack | Subscribe | SubAck | Unsubscribe | UnsubAck | Signal | Disconnect | Auth
