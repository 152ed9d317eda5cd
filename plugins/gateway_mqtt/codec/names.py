"""Which numbers does MQTT give to its packets, and what do they break when they are wrong?"""

from __future__ import annotations

from typing import Final

WILL: Final = 0
"""Stands where a packet type is asked for: the properties of a will."""
CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

NAMES: Final = {
    CONNECT: "CONNECT", CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK", PUBREC: "PUBREC", PUBREL: "PUBREL",
    PUBCOMP: "PUBCOMP", SUBSCRIBE: "SUBSCRIBE", SUBACK: "SUBACK", UNSUBSCRIBE: "UNSUBSCRIBE", UNSUBACK: "UNSUBACK",
    PINGREQ: "PINGREQ", PINGRESP: "PINGRESP", DISCONNECT: "DISCONNECT", AUTH: "AUTH",
}  # fmt: skip
FLAGS: Final = {type_: 2 if type_ in {PUBREL, SUBSCRIBE, UNSUBSCRIBE} else 0 for type_ in NAMES if type_ != PUBLISH}
"""Reserved bits of the first byte (MQTT 3.1.1 §2.2.2, table 2.2; MQTT 5.0 §2.1.3, table 2-2)."""

MQTT_31: Final = 3
MQTT_311: Final = 4
MQTT_5: Final = 5
LEVELS: Final = {MQTT_31: "MQIsdp", MQTT_311: "MQTT", MQTT_5: "MQTT"}
BRIDGE: Final = 0x80
"""Bit of the protocol level by which a bridge of mosquitto says what it is, at 3.1 and 3.1.1."""

CLIENT: Final = 1
SERVER: Final = 2
EITHER: Final = CLIENT | SERVER
"""Who has sent a packet."""

MAX_LENGTH: Final = 268_435_455
MAX_STRING_BYTES: Final = 65_535
MAX_IDENTIFIER: Final = 65_535


class MalformedPacket(Exception):
    """Bytes that no conforming peer sends.

    Args:
        reason: one line for the log.
        spec: the normative section that they break.
        code: reason code of MQTT 5 for the goodbye.
    """

    def __init__(self, reason: str, spec: str, code: int = 0x81) -> None:
        super().__init__(reason)
        self.reason: str = reason
        self.spec: str = spec
        self.code: int = code


class UnknownLevel(MalformedPacket):
    """A CONNECT of a protocol level that MQTT has not.

    It deserves CONNACK 1 [MQTT-3.1.2-2], or 0x84 [MQTT5-3.1.2-2] if ``level`` is of a later version.
    """

    def __init__(self, reason: str, spec: str, code: int = 0x84, level: int = 0) -> None:
        super().__init__(reason, spec, code)
        self.level: int = level


def malformed(reason: str, tag: str, code: int = 0x81) -> MalformedPacket:
    """Return the error for a broken normative statement.

    Args:
        tag: "[MQTT-...]" and "§..." are of MQTT 3.1.1, "[MQTT5-...]" and "5 §..." of MQTT 5.0.
        code: as `MalformedPacket`.
    """
    if tag.startswith("5 "):
        return MalformedPacket(reason, f"MQTT 5.0 {tag[2:]}", code)
    return MalformedPacket(reason, f"MQTT {'5.0' if tag.startswith('[MQTT5') else '3.1.1'} {tag}", code)


def broken(level: int, reason: str, tag: str, tag5: str, code: int = 0x81) -> MalformedPacket:
    """Return the error for a statement that has one tag in MQTT 3.1.1 and another in 5.0."""
    return malformed(reason, tag5 if level == MQTT_5 else tag, code)
