"""What does one connection say after its CONNECT, and what of it is against the standard?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

from typing import Final, Protocol

from gateway_mqtt.codec.coding import check_publish_flags, decode
from gateway_mqtt.codec.fields import UNBOUNDED, Bounds
from gateway_mqtt.codec.names import EITHER, MQTT_5, broken
from gateway_mqtt.codec.packets import (
    NAMES,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Ack,
    Auth,
    Connect,
    Disconnect,
    Signal,
    Subscribe,
    Unsubscribe,
)
from gateway_mqtt.codec.publishes import run_of, short, unidentified, varint
from gateway_mqtt.codec.splitter import no_length, too_long
from gateway_mqtt.tally import Tally

NO_IDENTIFIER: Final = b"\0\0"
NO_PROPERTIES: Final = b"\0"
NEVER: Final = -1
"""No first byte of a packet."""


class PublishSink(Protocol):
    """Who takes what the client publishes. Topics, bodies and identifiers are slices of what was received."""

    @property
    def maximum_qos(self) -> int:
        """The highest QoS that is taken, as long as the connection lasts. What is above it goes to `publish_other`."""

    def publish(self, topic: bytes, body: bytes, packet: bytes) -> None:
        """QoS 0, not to be retained, without properties.

        Args:
            packet: the whole packet, fit to be sent to other clients of the same protocol level as it is.
        """

    def publish_run(self, topic: bytes, packets: bytes, count: int, longest: int) -> bool:
        """So many of these in a row, `packets`; `longest`: bytes of the longest body. Return whether that was of any use."""

    def publish_confirmed(self, topic: bytes, body: bytes, packet_id: bytes, front: bytes) -> None:
        """QoS 1, likewise, and not sent before.

        Args:
            front: the packet up to its identifier, fit to be sent to other clients of the same protocol level as it is.
        """

    def publish_other(self, head: int, topic: bytes, body: bytes, packet_id: bytes, properties: bytes) -> None:
        """All others: QoS 2, to be retained, sent before, with properties, or with a topic that may be empty.

        Args:
            head: first byte of the packet: DUP (8), QoS (6) and RETAIN (1); never QoS 3, nor DUP with QoS 0.
            packet_id: empty for QoS 0, never zero.
            properties: as received, not looked at yet, without their length; level 5 only.
        """

    def released(self, packet_id: int, code: int) -> None:
        """PUBREL, with its reason code; never of identifier 0."""

    def fed(self) -> None:
        """The sink was told of all packets of one read. At level 5, and whenever a PUBREL was among them."""


class AckSink(Protocol):
    """Who takes the client's acknowledgements. Unknown identifiers are the sink's to judge."""

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK: success. Identifier 0 is the sink's to judge, too."""

    def acknowledged_with(self, packet_id: int, code: int) -> None:
        """PUBACK with a reason code other than 0; from 0x80 it is a refusal."""

    def received(self, packet_id: int, code: int) -> None:
        """PUBREC; from 0x80 it is a refusal."""

    def completed(self, packet_id: int, code: int) -> None:
        """PUBCOMP."""


class ControlSink(Protocol):
    """Who does everything else that the client asks for."""

    def subscribe(self, packet: Subscribe) -> None:
        """Answer with a SUBACK when it is done."""

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """Answer with an UNSUBACK when it is done."""

    def ping(self) -> None:
        """Answer with a PINGRESP [MQTT-3.12.4-1]."""

    def disconnect(self, packet: Disconnect) -> None:
        """The client leaves, in peace or with a reason; nothing that follows is looked at."""

    def authenticate(self, packet: Auth) -> None:
        """AUTH: the client goes on with its authentication, or wants to begin anew."""


class Connected:
    """The state of a connection after its CONNECT.

    Args:
        limit: bytes after the remaining length that one packet may have; at least 127.
        level: protocol level of the CONNECT.
        bounds: of packets that are no PUBLISH.
        tally: what all connections have received; None: nobody asks.
    """

    __slots__ = (
        "_acks", "_bounds", "_control", "_gap", "_held", "_last", "_level", "_limit", "_once", "_publishes", "_tally", "_tells",
        "_wanted", "over",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - whom it tells, and what is allowed
        self,
        publishes: PublishSink,
        acks: AckSink,
        control: ControlSink,
        limit: int,
        level: int = 4,
        bounds: Bounds = UNBOUNDED,
        tally: Tally | None = None,
    ) -> None:
        self._tally: Tally = tally if tally is not None else Tally()
        self._publishes: PublishSink = publishes
        self._acks: AckSink = acks
        self._control: ControlSink = control
        self._limit: int = limit
        self._bounds: Bounds = bounds
        self._level: int = level
        self._once: int = 0x32 if publishes.maximum_qos > 0 else NEVER  # first byte of a plain PUBLISH of QoS 1
        self._gap: int = len(NO_PROPERTIES) if level == MQTT_5 else 0  # before the body of a plain PUBLISH
        self._tells: bool = level == MQTT_5
        self._held: bytearray | None = None
        self._wanted: int = 0
        self._last: bytes = b""  # topic of the last plain PUBLISH of QoS 0: only behind that is it worth looking for a run
        self.over: bool = False

    def acknowledge_to(self, acks: AckSink) -> None:
        """Tell somebody else of acknowledgements, from the next read on."""
        self._acks = acks

    def stop(self) -> None:
        """The connection is over: what is kept of a packet is let go of at once."""
        self.over = True
        self._held = None

    @property
    def held_bytes(self) -> int:
        """How much is kept of a packet that is not complete."""
        held = self._held
        return len(held) if held is not None else 0

    def feed(self, data: bytes) -> bool:  # noqa: C901, PLR0912, PLR0915 - the decode loop: a call less for every packet
        """Take what was received; tell the sinks of every complete packet in it, in order.

        Returns:
            whether a packet was complete.
        Raises:
            MalformedPacket: what follows is not looked at.
        Cost: linear in the bytes, however they are cut.
        """
        if self.over:
            return False
        if self._held is not None:
            data = self._joined(self._held, data)
        publish = self._publishes.publish  # bound here, not kept: idle connections are many
        confirmed = self._publishes.publish_confirmed
        acknowledged = self._acks.acknowledged
        once = self._once
        gap = self._gap
        last = self._last
        size = len(data)
        wanted = 2
        runs = True
        at = acks = others = rest = rest_bytes = 0
        try:
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
                            raise no_length(self._level)
                        digit = data[start]
                        length |= (digit & 127) << shift
                        start += 1
                        shift += 7
                    if digit > 127:
                        wanted = size - at + 1
                        break
                    if not digit:
                        raise no_length(self._level)
                    if length > self._limit:
                        raise too_long(length, self._limit)
                end = start + length
                if end > size:
                    wanted = end - at
                    break
                if head == 0x30 and length > 2:
                    topic_end = start + 2 + (data[start] << 8 | data[start + 1])
                    body = topic_end + gap
                    if body > end or (gap and (data[topic_end] or topic_end == start + 2)):
                        self._publish_other(head, data[start:end])  # no room for its fields, properties, or no topic
                    else:
                        topic = data[start + 2 : topic_end]
                        if topic == last and runs and data[end + start + 2 - at : end + topic_end - at] == topic:
                            end, count, runs = self._run(data, at, start, body, end)
                            others += count
                        else:
                            publish(topic, data[body:end], data[at:end])
                            last = topic
                elif head == 0x40 and length == 2:
                    acknowledged(data[start] << 8 | data[start + 1])
                    acks += 1
                    at = end
                    continue
                elif head == once and length > 4:
                    topic_end = start + 2 + (data[start] << 8 | data[start + 1])
                    body = topic_end + 2 + gap
                    packet_id = data[topic_end : topic_end + 2]
                    if body > end or packet_id == NO_IDENTIFIER or (gap and (data[body - 1] or topic_end == start + 2)):
                        self._publish_other(head, data[start:end])
                    else:
                        confirmed(data[start + 2 : topic_end], data[body:end], packet_id, data[at:topic_end])
                else:
                    over = self._other(head, data[start:end])
                    if head >> 4 != PUBLISH:
                        rest += 1
                        rest_bytes += end - at
                    if over:
                        others += 1
                        at = end
                        return True
                others += 1
                at = end
        finally:
            tally = self._tally
            tally.size += at
            tally.acks += acks
            tally.others += others
            if rest:
                tally.rest += rest
                tally.rest_bytes += rest_bytes
        self._last = last
        if at < size:
            self._keep(data[at:], wanted)
        if self._tells:
            self._tells = self._level == MQTT_5
            self._publishes.fed()
        return at > 0

    def _run(self, data: bytes, at: int, start: int, body: int, end: int) -> tuple[int, int, bool]:
        """Publish a packet and those like it behind it; return where they end, how many those are, and whether to look for more."""
        last, count, longest = run_of(data, at, start, body, end, self._limit)
        topic = data[start + 2 : body - self._gap]
        if count > 1:
            return last, count - 1, self._publishes.publish_run(topic, data[at:last], count, longest)
        self._publishes.publish(topic, data[body:end], data[at:end])
        return last, 0, True

    def _keep(self, data: bytes, wanted: int) -> None:
        self._held = bytearray(data)
        self._wanted = wanted

    def _joined(self, held: bytearray, data: bytes) -> bytes:
        """Return what is held with `data` behind it; nothing if even that is not one packet."""
        held += data
        if len(held) < self._wanted:
            return b""
        self._held = None
        return bytes(held)

    def _other(self, head: int, payload: bytes) -> bool:
        """Return whether nothing that follows counts."""
        type_ = head >> 4
        if type_ == PUBLISH:
            self._publish_other(head, payload)
        elif PUBACK <= type_ <= PUBCOMP:
            self._ack(head, payload)
        else:
            return self._asked(head, payload)
        return False

    def _ack(self, head: int, payload: bytes) -> None:
        """PUBREC, PUBREL or PUBCOMP, or a PUBACK that says more than an identifier."""
        if len(payload) == 2 and head in {0x50, 0x62, 0x70}:
            type_, packet_id, code = head >> 4, payload[0] << 8 | payload[1], 0
        else:
            packet = decode(head, payload, self._level, EITHER, self._bounds)
            assert isinstance(packet, Ack)
            type_, packet_id, code = packet.type, packet.packet_id, packet.code
        if not packet_id:
            raise unidentified(type_, self._level)
        if type_ == PUBREL:
            self._tells = True
            self._publishes.released(packet_id, code)
        elif type_ == PUBREC:
            self._acks.received(packet_id, code)
        elif type_ == PUBCOMP:
            self._acks.completed(packet_id, code)
        elif code:
            self._acks.acknowledged_with(packet_id, code)
        else:
            self._acks.acknowledged(packet_id)

    def _asked(self, head: int, payload: bytes) -> bool:
        packet = decode(head, payload, self._level, EITHER, self._bounds)
        match packet:
            case Subscribe():
                self._control.subscribe(packet)
            case Unsubscribe():
                self._control.unsubscribe(packet)
            case Signal(type=type_) if type_ == PINGREQ:
                self._control.ping()
            case Disconnect():
                self.over = True  # [MQTT-3.14.4-2] [MQTT5-3.14.4-2]: nothing after it counts
                self._control.disconnect(packet)
                return True
            case Auth():
                self._control.authenticate(packet)
            case Connect():
                raise broken(self._level, "a second CONNECT", "[MQTT-3.1.0-2]", "[MQTT5-3.1.0-2]", 0x82)
            case _:
                raise broken(self._level, f"{NAMES[head >> 4]} from a client", "§2.2.1", "5 §2.1.2", 0x82)
        return False

    def _publish_other(self, head: int, payload: bytes) -> None:
        """PUBLISH that is not plain, or is too short to be one."""
        qos = head >> 1 & 3
        if qos == 3 or head & 8:
            check_publish_flags(qos, dup=bool(head & 8), level=self._level)
        size = len(payload)
        if size < 2:
            raise short(self._level)
        topic_end = at = 2 + (payload[0] << 8 | payload[1])
        if qos:
            at += 2
        if size < at:
            raise short(self._level)
        packet_id = payload[topic_end:at]
        if packet_id == NO_IDENTIFIER:
            raise unidentified(PUBLISH, self._level)
        properties = b""
        if self._level == MQTT_5:
            if at < size and payload[at] < 128:
                start, length = at + 1, payload[at]
            else:
                start, length = varint(payload, at, self._level)
            at = start + length
            if size < at:
                raise short(self._level)
            properties = payload[start:at]
        self._publishes.publish_other(head, payload[2:topic_end], payload[at:], packet_id, properties)
