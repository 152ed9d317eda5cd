"""How is a publisher told yes or no?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.api import CloseReason, Connection, Gateway, GatewayError
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.names import MQTT_5, PUBACK, PUBCOMP, PUBREC
from gateway_mqtt.codec.packets import Ack, Disconnect
from gateway_mqtt.codec.properties import Properties
from gateway_mqtt.codec.reasons import NO_MATCHING_SUBSCRIBERS, PACKET_IDENTIFIER_NOT_FOUND
from gateway_mqtt.translate.refusals import reason_code, reason_text

FRONTS: Final = {PUBACK: b"\x40\x02", PUBREC: b"\x50\x02", PUBCOMP: b"\x70\x02"}
"""By packet type: what stands before the packet identifier of a success."""
_FRONTS_WITH_CODE: Final = {PUBACK: b"\x40\x03", PUBREC: b"\x50\x03", PUBCOMP: b"\x70\x03"}
_NO_TEXT: Final = frozenset((NO_MATCHING_SUBSCRIBERS, PACKET_IDENTIFIER_NOT_FOUND))


class Reply(Protocol):
    """Who sends bytes to the client."""

    def __call__(self, data: bytes, packets: int = 1, /) -> None:
        """Send so many packets."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms may a client publish, and what may it be told?

    Args:
        level: protocol level.
        receive_maximum: messages of QoS 1 and 2 that it may have sent without an answer; level 5 only; 0: no limit.
        topic_alias_maximum: level 5 only; 0: none.
        maximum_qos: 0, 1 or 2.
        retained: messages may be retained.
        max_user_properties: in one message.
        problem_information: it wants reason strings [MQTT5-3.1.2-29]; level 5 only.
        most_bytes: its own Maximum Packet Size, the whole packet; 0: no limit.
    """

    level: int = 4
    receive_maximum: int = 0
    topic_alias_maximum: int = 0
    maximum_qos: int = 2
    retained: bool = True
    max_user_properties: int = 10_000
    problem_information: bool = True
    most_bytes: int = 0


ANY: Final = Terms()
"""MQTT 3.1.1, everything allowed."""


class Answers:
    """What one publisher is answered, for QoS 1 and 2 alike.

    Args:
        reply: sends bytes.
        reply_last: sends bytes, and nothing after them.
    """

    __slots__ = ("_client_id", "_connection", "_gateway", "_logged", "_say_last", "five", "send", "terms")

    def __init__(
        self,
        gateway: Gateway,
        connection: Connection,
        client_id: str,
        reply: Reply,
        terms: Terms,
        reply_last: Callable[[bytes], None],
    ) -> None:
        self._gateway: Gateway = gateway
        self._connection: Connection = connection
        self._client_id: str = client_id
        self._logged: bool = False
        self._say_last: Callable[[bytes], None] = reply_last
        self.send: Reply = reply
        self.terms: Terms = terms
        self.five: bool = terms.level == MQTT_5

    def packet(self, type_: int, packet_id: bytes, code: int = 0) -> bytes:
        """Return a PUBACK, PUBREC or PUBCOMP; with a reason string if the client wants it and it fits [MQTT5-3.4.2-2]."""
        if not code:
            return FRONTS[type_] + packet_id
        short = _FRONTS_WITH_CODE[type_] + packet_id + bytes((code,))
        text = reason_text(code)
        if code in _NO_TEXT or not text or not self.terms.problem_information:
            return short
        packet = encode(Ack(type_, int.from_bytes(packet_id, "big"), code, Properties(reason_string=text)), MQTT_5)
        return packet if self._fits(packet) else short

    def count(self, error: GatewayError) -> int:
        """Count a refusal at level 5, where the connection goes on; the first is logged. Return its reason code."""
        self._gateway.count("publishes_refused", reason=type(error).__name__)
        if not self._logged:
            self._logged = True
            self._warn("publishes are refused: later ones of this connection are only counted", error)
        return reason_code(error)

    def close(self, error: GatewayError) -> None:
        """Say no by an end of the connection: below level 5 there is no other way."""
        self._gateway.count("publishes_refused", reason=type(error).__name__)
        self._warn("a publish was refused: connection closed", error)
        if self.five and not self._connection.closing:
            self._say_last(self._disconnect(reason_code(error)))
        self._connection.close(CloseReason.LOCAL)

    def _disconnect(self, code: int) -> bytes:
        if not self.terms.problem_information:
            return encode(Disconnect(code), MQTT_5)
        packet = encode(Disconnect(code, Properties(reason_string=reason_text(code))), MQTT_5)
        return packet if self._fits(packet) else encode(Disconnect(code), MQTT_5)  # [MQTT5-3.14.2-3]

    def _fits(self, packet: bytes) -> bool:
        most = self.terms.most_bytes
        return not most or len(packet) <= most

    def _warn(self, event: str, error: GatewayError) -> None:
        self._gateway.log.warning(event, client=self._client_id, peer=self._connection.peer, reason=error.text)
