"""Which control packets does MQTT 3.1.1 have?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(8, 15)

ACCEPTED, BAD_LEVEL, BAD_IDENTIFIER, UNAVAILABLE, BAD_CREDENTIALS, NOT_AUTHORIZED = range(6)
"""CONNACK return codes (MQTT 3.1.1 §3.2.2.3)."""
REFUSALS = ("", "protocol level", "client identifier", "unavailable", "credentials", "not authorized")
FAILURE = 0x80
"""SUBACK return code of a refused filter (MQTT 3.1.1 §3.9.3)."""

MAX_LENGTH = 268_435_455
MAX_STRING_BYTES = 65_535
MAX_IDENTIFIER = 65_535
MAX_CONNECT_BYTES = 12 + 5 * (2 + MAX_STRING_BYTES)
"""No CONNECT is longer: the variable header and five strings."""

LEVELS = {4: "MQTT", 3: "MQIsdp"}


class MalformedPacket(Exception):
    """Bytes that no conforming peer sends.

    Args:
        reason: one line for the log.
        spec: the normative section that they break.
    """

    def __init__(self, reason: str, spec: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.spec = spec


class UnknownLevel(MalformedPacket):
    """A CONNECT of a protocol level other than 3.1 and 3.1.1; it deserves CONNACK 1 [MQTT-3.1.2-2]."""


def malformed(reason: str, tag: str) -> MalformedPacket:
    """Return the error for a broken normative statement, named by its section or tag."""
    return MalformedPacket(reason, f"MQTT 3.1.1 {tag}")


@dataclass(frozen=True, slots=True)
class Will:
    """What is published for a client that is lost (MQTT 3.1.1 §3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Connect:
    """MQTT 3.1.1 §3.1. ``level`` is 4, or 3 for MQTT 3.1; ``keep_alive_s`` 0 means none."""

    client_id: str
    clean: bool = True
    keep_alive_s: int = 60
    will: Will | None = None
    user: str | None = None
    password: bytes | None = None
    level: int = 4


@dataclass(frozen=True, slots=True)
class ConnAck:
    """MQTT 3.1.1 §3.2."""

    session_present: bool
    code: int


@dataclass(frozen=True, slots=True)
class Publish:
    """MQTT 3.1.1 §3.3. The broker makes none on the path of a message. ``packet_id`` is 0 for QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0


@dataclass(frozen=True, slots=True)
class Ack:
    """PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK, by ``type``: nothing but a packet identifier."""

    type: int
    packet_id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """MQTT 3.1.1 §3.8: filters with their requested QoS."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SubAck:
    """MQTT 3.1.1 §3.9: one granted QoS or `FAILURE` for each filter."""

    packet_id: int
    codes: bytes


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """MQTT 3.1.1 §3.10."""

    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signal:
    """PINGREQ, PINGRESP or DISCONNECT, by ``type``: nothing but themselves."""

    type: int


Packet: TypeAlias = Connect | ConnAck | Publish | Ack | Subscribe | SubAck | Unsubscribe | Signal

ACKS = (PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK)
SIGNALS = (PINGREQ, PINGRESP, DISCONNECT)
FLAGS = {type_: 2 if type_ in {PUBREL, SUBSCRIBE, UNSUBSCRIBE} else 0 for type_ in range(1, 15) if type_ != PUBLISH}
"""Reserved bits of the first byte (MQTT 3.1.1 §2.2.2, table 2.2)."""
NAMES = {
    CONNECT: "CONNECT", CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK", PUBREC: "PUBREC", PUBREL: "PUBREL",
    PUBCOMP: "PUBCOMP", SUBSCRIBE: "SUBSCRIBE", SUBACK: "SUBACK", UNSUBSCRIBE: "UNSUBSCRIBE", UNSUBACK: "UNSUBACK",
    PINGREQ: "PINGREQ", PINGRESP: "PINGRESP", DISCONNECT: "DISCONNECT",
}  # fmt: skip
