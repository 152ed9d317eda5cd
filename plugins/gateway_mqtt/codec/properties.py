"""Which properties may a packet of MQTT 5 have?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway_mqtt.codec.fields import Reader, encode_length, encode_string, topic_name
from gateway_mqtt.codec.names import (
    AUTH,
    CLIENT,
    CONNACK,
    CONNECT,
    DISCONNECT,
    EITHER,
    MAX_LENGTH,
    MQTT_5,
    NAMES,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SERVER,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    WILL,
    malformed,
)


@dataclass(frozen=True, slots=True)
class Properties:
    """What a packet has of the properties of MQTT 5.0 §2.2.2.2; None and () are absent."""

    payload_format: int | None = None
    message_expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_ids: tuple[int, ...] = ()
    session_expiry_s: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive_s: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: bool | None = None
    will_delay_s: int | None = None
    request_response_information: bool | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: bool | None = None
    user: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_available: bool | None = None
    subscription_ids_available: bool | None = None
    shared_available: bool | None = None


NO_PROPERTIES: Final = Properties()

BIT, SWITCH, WORD, LONG, VARINT, TEXT, TOPIC, BINARY, PAIR = range(9)
"""How a value is written: a byte 0 or 1 (kept as a number, or as a bool), two bytes, four, and so on."""
_SIZES: Final = {WORD: 2, LONG: 4}


class Rule(NamedTuple):
    """One row of table 2-4: who may have the property, in which form."""

    name: str
    form: int
    kinds: frozenset[int]
    zero: str = ""
    """Normative statement that forbids 0; empty: it is allowed."""
    zero_code: int = 0x82


def _rule(name: str, form: int, *kinds: int, zero: str = "", zero_code: int = 0x82) -> Rule:
    return Rule(name, form, frozenset(kinds), zero, zero_code)


_ACKS: Final = (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK)

RULES: Final[dict[int, Rule]] = {
    0x01: _rule("payload_format", BIT, PUBLISH, WILL),
    0x02: _rule("message_expiry_s", LONG, PUBLISH, WILL),
    0x03: _rule("content_type", TEXT, PUBLISH, WILL),  # [MQTT5-3.3.2-19]
    0x08: _rule("response_topic", TOPIC, PUBLISH, WILL),
    0x09: _rule("correlation_data", BINARY, PUBLISH, WILL),
    0x0B: _rule("subscription_ids", VARINT, PUBLISH, SUBSCRIBE, zero="5 §3.8.2.1.2"),
    0x11: _rule("session_expiry_s", LONG, CONNECT, CONNACK, DISCONNECT),
    0x12: _rule("assigned_client_id", TEXT, CONNACK),
    0x13: _rule("server_keep_alive_s", WORD, CONNACK),
    0x15: _rule("authentication_method", TEXT, CONNECT, CONNACK, AUTH),
    0x16: _rule("authentication_data", BINARY, CONNECT, CONNACK, AUTH),
    0x17: _rule("request_problem_information", SWITCH, CONNECT),
    0x18: _rule("will_delay_s", LONG, WILL),
    0x19: _rule("request_response_information", SWITCH, CONNECT),
    0x1A: _rule("response_information", TEXT, CONNACK),
    0x1C: _rule("server_reference", TEXT, CONNACK, DISCONNECT),
    0x1F: _rule("reason_string", TEXT, CONNACK, *_ACKS, DISCONNECT, AUTH),
    0x21: _rule("receive_maximum", WORD, CONNECT, CONNACK, zero="5 §3.1.2.11.3"),
    0x22: _rule("topic_alias_maximum", WORD, CONNECT, CONNACK),
    0x23: _rule("topic_alias", WORD, PUBLISH, zero="[MQTT5-3.3.2-8]", zero_code=0x94),
    0x24: _rule("maximum_qos", BIT, CONNACK),
    0x25: _rule("retain_available", SWITCH, CONNACK),
    0x26: _rule("user", PAIR, WILL, CONNECT, CONNACK, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, *_ACKS, DISCONNECT, AUTH),
    0x27: _rule("maximum_packet_size", LONG, CONNECT, CONNACK, zero="5 §3.1.2.11.4"),
    0x28: _rule("wildcard_available", SWITCH, CONNACK),
    0x29: _rule("subscription_ids_available", SWITCH, CONNACK),
    0x2A: _rule("shared_available", SWITCH, CONNACK),
}
"""MQTT 5.0 §2.2.2.2, table 2-4."""


# -- decoding ---------------------------------------------------------------


def decode_properties(kind: int, data: bytes, sender: int = EITHER, most_user: int = MAX_LENGTH) -> Properties:
    """Read properties without the length in front of them.

    Args:
        kind: packet type, or `WILL`.
        sender: `CLIENT` or `SERVER`, to refuse what that side may not send.
        most_user: so many user properties are taken.

    Raises:
        MalformedPacket: one is unknown, doubled, not of this packet, or has no value of its type.
    """
    if not data:
        return NO_PROPERTIES
    reader = Reader(data, MQTT_5)
    values: dict[str, object] = {}
    users: list[tuple[str, str]] = []
    identifiers: list[int] = []
    while reader.more():
        number = reader.varint()
        rule = RULES.get(number)
        if rule is None or kind not in rule.kinds:
            raise malformed(f"{_kind(kind)} with a property 0x{number:02x}", "5 §2.2.2.2")
        if rule.form == PAIR:
            if len(users) >= most_user:
                raise malformed(f"more than {most_user} user properties", "5 §4.13.1", 0x97)
            users.append((reader.text(), reader.text()))  # [MQTT5-1.5.7-1]
        elif rule.form == VARINT:
            if identifiers and kind == SUBSCRIBE:
                raise _doubled(kind, rule)
            identifiers.append(_checked(rule, reader.varint()))
        elif rule.name in values:
            raise _doubled(kind, rule)
        else:
            values[rule.name] = _value(rule, reader)
    properties = Properties(**values, user=tuple(users), subscription_ids=tuple(identifiers))  # type: ignore[arg-type]
    _check(kind, properties, sender)
    return properties


def _kind(kind: int) -> str:
    return NAMES.get(kind, "a will")


def _doubled(kind: int, rule: Rule) -> Exception:
    return malformed(f"{_kind(kind)} with two of the property {rule.name}", "5 §2.2.2.2", 0x82)


def _value(rule: Rule, reader: Reader) -> object:
    form = rule.form
    if form == TEXT:
        return reader.text()
    if form == BINARY:
        return reader.binary()
    if form == TOPIC:
        return response_topic(reader.binary())
    if form in _SIZES:
        return _checked(rule, reader.number(_SIZES[form]))
    value = reader.byte()
    if value > 1:
        raise malformed(f"the property {rule.name} is neither 0 nor 1", "5 §2.2.2.2", 0x82)
    if form == SWITCH:
        return value == 1
    return value


def _checked(rule: Rule, value: int) -> int:
    if not value and rule.zero:
        raise malformed(f"the property {rule.name} is 0", rule.zero, rule.zero_code)
    return value


def response_topic(data: bytes) -> str:
    """Read a response topic.

    Raises:
        MalformedPacket: it is no topic name.
    """
    if b"+" in data or b"#" in data:
        raise malformed("a response topic has a wildcard", "[MQTT5-3.3.2-14]", 0x82)
    return topic_name(data, MQTT_5)  # [MQTT5-3.3.2-13]


def _check(kind: int, properties: Properties, sender: int) -> None:
    """Refuse what contradicts itself, or is not this side's to send."""
    if properties.authentication_data is not None and properties.authentication_method is None:
        raise malformed(f"{_kind(kind)} with authentication data and no method", "5 §3.1.2.11.10", 0x82)
    if kind == PUBLISH and sender == CLIENT and properties.subscription_ids:
        raise malformed("PUBLISH of a client with a subscription identifier", "[MQTT5-3.3.4-6]", 0x82)
    if kind == DISCONNECT:
        if sender == SERVER and properties.session_expiry_s is not None:
            raise malformed("DISCONNECT of a server with a session expiry", "[MQTT5-3.14.2-2]", 0x82)
        if sender == CLIENT and properties.server_reference is not None:
            raise malformed("DISCONNECT of a client with a server reference", "5 §3.14.2.2.5", 0x82)


# -- encoding ---------------------------------------------------------------


def encode_properties(properties: Properties) -> bytes:
    """Return properties with their length in front.

    Raises:
        ValueError: one is too long. OverflowError: one is out of range.
    """
    if properties is NO_PROPERTIES:
        return b"\0"
    data = raw_properties(properties)
    return encode_length(len(data)) + data


def raw_properties(properties: Properties) -> bytes:
    """Return properties without a length in front, as `decode_properties` takes them. Errors as `encode_properties`."""
    parts: list[bytes] = []
    for number, rule in RULES.items():
        value = getattr(properties, rule.name)
        if rule.form == PAIR:
            for name, text in value:
                parts += (b"\x26", encode_string(name), encode_string(text))
        elif rule.form == VARINT:
            parts += [b"\x0b" + encode_length(identifier) for identifier in value]
        elif value is not None:
            parts += (bytes((number,)), _encoded(rule.form, value))
    return b"".join(parts)


def _encoded(form: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return value.to_bytes(_SIZES.get(form, 1), "big")
    return encode_string(value)
