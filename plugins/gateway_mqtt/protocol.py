"""What does one connection say after its CONNECT, and what of it is against the standard?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

from typing import Protocol

from gateway_mqtt.codec.coding import check_publish_flags, decode
from gateway_mqtt.codec.packets import (
    NAMES,
    PINGREQ,
    PUBACK,
    PUBLISH,
    Ack,
    Connect,
    Disconnect,
    Signal,
    Subscribe,
    Unsubscribe,
    malformed,
)
from gateway_mqtt.codec.splitter import LONG_LENGTH, too_long

NO_IDENTIFIER = b"\0\0"


class PublishSink(Protocol):
    """Who takes what the client publishes. Topics, bodies and identifiers are slices of what was received."""

    def publish(self, topic: bytes, body: bytes, packet: bytes) -> None:
        """QoS 0. `packet` is the whole packet, fit to be sent to other clients as it is."""

    def publish_confirmed(self, topic: bytes, body: bytes, packet_id: bytes, front: bytes) -> None:
        """QoS 1. `front` is the packet up to its identifier, fit to be sent to other clients as it is; empty if it isn't."""

    def publish_retained(self, topic: bytes, body: bytes, packet_id: bytes) -> None:
        """With the retain flag; `packet_id` is empty for QoS 0."""


class AckSink(Protocol):
    """Who takes the client's acknowledgements."""

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK; 0 and unknown identifiers are the sink's to judge."""


class ControlSink(Protocol):
    """Who does everything else that the client asks for."""

    def subscribe(self, packet: Subscribe) -> None:
        """Answer with a SUBACK when it is done."""

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """Answer with an UNSUBACK when it is done."""

    def ping(self) -> None:
        """Answer with a PINGRESP [MQTT-3.12.4-1]."""

    def disconnect(self) -> None:
        """The client leaves in peace: forget its will, close."""


class Connected:
    """The state of a connection after its CONNECT.

    Args:
        limit: bytes after the remaining length that one packet may have; at least 127.
    """

    __slots__ = ("_acknowledged", "_confirmed", "_control", "_held", "_limit", "_publish", "_retained", "_wanted", "over")

    def __init__(self, publishes: PublishSink, acks: AckSink, control: ControlSink, limit: int) -> None:
        self._publish = publishes.publish
        self._confirmed = publishes.publish_confirmed
        self._retained = publishes.publish_retained
        self._acknowledged = acks.acknowledged
        self._control: ControlSink = control
        self._limit: int = limit
        self._held: bytearray = bytearray()
        self._wanted: int = 0
        self.over: bool = False

    def feed(self, data: bytes) -> None:  # noqa: C901, PLR0912, PLR0915 - the decode loop: a call less for every packet
        """Take what was received; tell the sinks of every complete packet in it, in order.

        Raises:
            MalformedPacket: what follows is not looked at.
        Cost: linear in the bytes, however they are cut.
        """
        if self.over:
            return
        if self._held:
            data = self._joined(data)
        publish = self._publish
        confirmed = self._confirmed
        acknowledged = self._acknowledged
        size = len(data)
        at = 0
        wanted = 2
        while size - at >= 2:
            head = data[at]
            length = data[at + 1]
            start = at + 2
            if length > 127:
                length &= 127
                shift = 7
                digit = 128
                while digit > 127 and start < size:
                    if shift > 21:
                        raise malformed(*LONG_LENGTH)
                    digit = data[start]
                    length |= (digit & 127) << shift
                    start += 1
                    shift += 7
                if digit > 127:
                    wanted = size - at + 1
                    break
                if not digit:
                    raise malformed(*LONG_LENGTH)
                if length > self._limit:
                    raise too_long(length, self._limit)
            end = start + length
            if end > size:
                wanted = end - at
                break
            if head == 0x30 and length > 2:
                topic_end = start + 2 + (data[start] << 8 | data[start + 1])
                if topic_end > end:
                    raise _short()
                publish(data[start + 2 : topic_end], data[topic_end:end], data[at:end])
            elif head == 0x40 and length == 2:
                acknowledged(data[start] << 8 | data[start + 1])
            elif head == 0x32 and length > 4:
                topic_end = start + 2 + (data[start] << 8 | data[start + 1])
                body = topic_end + 2
                if body > end:
                    raise _short()
                packet_id = data[topic_end:body]
                if packet_id == NO_IDENTIFIER:
                    raise malformed("PUBLISH with packet identifier 0", "[MQTT-2.3.1-1]")
                confirmed(data[start + 2 : topic_end], data[body:end], packet_id, data[at:topic_end])
            else:
                self._other(head, data[start:end])
                if self.over:
                    return
            at = end
        if at < size:
            self._held += data[at:]
            self._wanted = wanted

    def _joined(self, data: bytes) -> bytes:
        """Return what is held with `data` behind it; nothing if even that is not one packet."""
        self._held += data
        if len(self._held) < self._wanted:
            return b""
        data = bytes(self._held)
        self._held.clear()
        return data

    def _other(self, head: int, payload: bytes) -> None:
        if head >> 4 == PUBLISH:
            self._publish_other(head, payload)
            return
        packet = decode(head, payload)
        match packet:
            case Subscribe():
                self._control.subscribe(packet)
            case Unsubscribe():
                self._control.unsubscribe(packet)
            case Signal(type=type_) if type_ == PINGREQ:
                self._control.ping()
            case Disconnect():
                self.over = True  # [MQTT-3.14.4-2]: nothing after it counts
                self._control.disconnect()
            case Connect():
                raise malformed("a second CONNECT", "[MQTT-3.1.0-2]")
            case Ack(type=type_) if type_ > PUBACK and NAMES[type_].startswith("PUB"):
                raise malformed(f"{NAMES[type_]} without a QoS 2 message", "§4.3.3")
            case _:
                raise malformed(f"{NAMES[head >> 4]} from a client", "§2.2.1")

    def _publish_other(self, head: int, payload: bytes) -> None:
        """PUBLISH with DUP or retain, of a QoS that we don't take, or too short."""
        qos = head >> 1 & 3
        check_publish_flags(qos, dup=bool(head & 8))
        if qos == 2:
            raise malformed("QoS 2 is not supported by this version; publish with QoS 1", "§4.3.3")
        topic_end = 2 + int.from_bytes(payload[:2], "big")
        body = topic_end + 2 * qos
        if len(payload) < body or len(payload) < 2:
            raise _short()
        topic, packet_id = payload[2:topic_end], payload[topic_end:body]
        if packet_id == NO_IDENTIFIER:
            raise malformed("PUBLISH with packet identifier 0", "[MQTT-2.3.1-1]")
        if head & 1:
            self._retained(topic, payload[body:], packet_id)
        elif qos:
            self._confirmed(topic, payload[body:], packet_id, b"")  # DUP says nothing to others [MQTT-3.3.1-3]
        else:
            raise malformed("a topic name is empty", "[MQTT-4.7.3-1]")  # all others of QoS 0 are taken in the loop


def _short() -> Exception:
    return malformed("a packet is shorter than its fields", "[MQTT-4.8.0-1]")
