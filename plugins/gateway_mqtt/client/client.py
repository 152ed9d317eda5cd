"""How does the small MQTT client behind the commands talk to a broker, over the front-end's own codec?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import assert_never

import trio

from gateway_mqtt.client.reach import Place
from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.names import SERVER
from gateway_mqtt.codec.packets import (
    ACCEPTED,
    CONNACK,
    MAX_IDENTIFIER,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
)
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from gateway_mqtt.codec.reasons import TEXTS
from gateway_mqtt.codec.splitter import Splitter

RECEIVE_BYTES = 65_536
WINDOW = 100
"""Publishes of QoS 1 and 2 that wait for their acknowledgement at a time."""
MESSAGES_AHEAD = 1_000
FAILED = 0x80
"""The first reason code that is a no."""
LEVEL_3_1_1, SHORT_CONNACK = 4, 2


class Refused(Exception):
    """The broker answered the CONNECT with a no; ``code`` is the CONNACK's return or reason code."""

    def __init__(self, code: int, said: str | None = None) -> None:
        text = _REFUSALS.get(code) or TEXTS.get(code) or f"code {code}"
        super().__init__(f"{text}: {said}" if said else text)
        self.code = code


class Lost(Exception):
    """The connection ended before everything was done."""


_REFUSALS = {
    1: "protocol level not supported",
    2: "client identifier not acceptable",
    3: "broker unavailable",
    4: "bad user name or password",
    5: "not authorized",
}


class Client:
    """One connection as a client; made by `open_client`.

    ``refused``: reason codes of publishes that the broker has refused (MQTT 5). ``lost``: why the connection has ended; empty: it
    has not. ``messages``: what was received; it ends with the connection. Acknowledge each with `acknowledge`.
    """

    def __init__(self, stream: trio.abc.Stream, connect: Connect) -> None:
        self._stream = stream
        self._connect = connect
        self._level = connect.level
        self._splitter = Splitter()
        self._lock = trio.Lock()
        self._unacked: set[int] = set()
        self._window = WINDOW
        self._settled = trio.Condition()
        self._answers: dict[int, trio.MemorySendChannel[bytes]] = {}
        self._unreleased: set[int] = set()
        self._last_id = 0
        self._incoming, self.messages = trio.open_memory_channel[Publish](MESSAGES_AHEAD)
        self.lost = ""
        self.refused: list[int] = []
        self.session_present = False

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, properties: Properties = NO_PROPERTIES
    ) -> None:
        """Send a message; with QoS 1 and 2 as soon as there is room in the window. See `confirmed`.

        Raises:
            Lost: the connection has ended. ValueError: the topic or the payload is too long.
        Cancellation: the message may be sent or not.
        """
        packet_id = 0
        if qos:
            async with self._settled:
                while len(self._unacked) >= self._window and not self.lost:
                    await self._settled.wait()
            packet_id = self._identifier()
            self._unacked.add(packet_id)
        await self._send(Publish(topic, payload, qos, retain, False, packet_id, properties))

    async def confirmed(self) -> None:
        """Wait until everything that was published with QoS 1 and 2 is answered.

        Raises:
            Lost: the connection ended before.
        Cancellation: safe.
        """
        async with self._settled:
            while self._unacked and not self.lost:
                await self._settled.wait()
        if self._unacked:
            raise Lost(f"{self.lost}; {len(self._unacked)} messages are not confirmed")

    async def subscribe(self, filters: Sequence[Subscription], properties: Properties = NO_PROPERTIES) -> bytes:
        """Subscribe; return the codes of the SUBACK, one per filter.

        Raises:
            Lost: the connection has ended.
        Cancellation: the subscriptions may be made or not.
        """
        packet_id = self._identifier()
        return await self._ask(packet_id, Subscribe(packet_id, tuple(filters), properties))

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions. Raises and cancellation as `subscribe`."""
        packet_id = self._identifier()
        await self._ask(packet_id, Unsubscribe(packet_id, tuple(filters)))

    async def _ask(self, packet_id: int, packet: Packet) -> bytes:
        answer, answered = trio.open_memory_channel[bytes](1)
        self._answers[packet_id] = answer
        await self._send(packet)
        try:
            return await answered.receive()
        except trio.EndOfChannel:
            raise Lost(self.lost) from None

    async def acknowledge(self, message: Publish) -> None:
        """Tell the broker that a message has been dealt with (nothing to tell for QoS 0). Raises Lost. Cancellation: safe."""
        if message.qos:
            await self._send(Ack(PUBACK if message.qos == 1 else PUBREC, message.packet_id))

    async def disconnect(self, code: int = 0) -> None:
        """Say goodbye: the broker forgets the will. Raises Lost. Cancellation: the connection is to be closed by its owner."""
        if not self.lost:
            await self._send(Disconnect(code))
            await self._stream.aclose()

    def _identifier(self) -> int:
        self._last_id = self._last_id % MAX_IDENTIFIER + 1
        while self._last_id in self._unacked or self._last_id in self._answers:
            self._last_id = self._last_id % MAX_IDENTIFIER + 1
        return self._last_id

    async def _send(self, packet: Packet) -> None:
        data = encode(packet, self._level)
        if self.lost:
            raise Lost(self.lost)
        try:
            async with self._lock:
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Lost("connection lost") from None

    # -- the connection's tasks ---------------------------------------------

    async def handshake(self) -> None:
        """Send the CONNECT and wait for its answer.

        Raises:
            Refused: it is a no. Lost: there is none. MalformedPacket: it is none.
        Cancellation: the connection is of no use any more.
        """
        await self._send(self._connect)
        packet = await self._next()
        if packet is None:
            raise Lost("closed by the broker without an answer to the CONNECT")
        if not isinstance(packet, ConnAck):
            raise MalformedPacket("the broker's first packet is no CONNACK", "MQTT 3.1.1 [MQTT-3.2.0-1]")
        if packet.code != ACCEPTED:
            raise Refused(packet.code, packet.properties.reason_string)
        self.session_present = packet.session_present
        self._window = min(WINDOW, packet.properties.receive_maximum or WINDOW)

    async def _next(self) -> Packet | None:
        """Return the next packet; None: the connection has ended."""
        while True:
            frame = self._splitter.next()
            if frame is not None:
                # A broker of 3.x answers a CONNECT of 5 as 3.x does.
                level = LEVEL_3_1_1 if frame[0] >> 4 == CONNACK and len(frame[1]) == SHORT_CONNACK else self._level
                return decode(*frame, level, SERVER)
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._splitter.feed(bytes(data))

    async def receive_all(self) -> None:
        """Receive until the connection ends. Cancellation: safe; `messages` ends."""
        reason = "closed by the broker"
        try:
            while (packet := await self._next()) is not None:
                if isinstance(packet, Disconnect):
                    reason = f"closed by the broker: {packet.properties.reason_string or TEXTS.get(packet.code, packet.code)}"
                    break
                await self._receive(packet)
        except MalformedPacket as error:
            reason = f"the broker sent what is not MQTT: {error.reason}"
        except Lost:
            reason = "connection lost"
        finally:
            self.lost = reason
            self._incoming.close()
            for answer in self._answers.values():
                answer.close()
        async with self._settled:
            self._settled.notify_all()

    async def _receive(self, packet: Packet) -> None:
        match packet:
            case Publish():
                await self._take(packet)
            case Ack():
                await self._acknowledged(packet)
            case SubAck(packet_id=packet_id, codes=codes) | UnsubAck(packet_id=packet_id, codes=codes):
                answer = self._answers.pop(packet_id, None)
                if answer is not None:
                    answer.send_nowait(codes)
            case Signal():
                pass
            case Connect() | ConnAck() | Subscribe() | Unsubscribe() | Auth() | Disconnect():
                raise MalformedPacket(f"{type(packet).__name__} after the CONNACK", "MQTT 3.1.1 §2.2.1")
            case _:
                assert_never(packet)

    async def _take(self, message: Publish) -> None:
        """Pass a message on; of QoS 2 only once [MQTT-4.3.3-2]."""
        if message.qos > 1:
            if message.packet_id in self._unreleased:
                await self.acknowledge(message)
                return
            self._unreleased.add(message.packet_id)
        await self._incoming.send(message)

    async def _acknowledged(self, ack: Ack) -> None:
        if ack.type == PUBREL:
            self._unreleased.discard(ack.packet_id)
            await self._send(Ack(PUBCOMP, ack.packet_id))
            return
        if ack.type == PUBREC and ack.code < FAILED:
            await self._send(Ack(PUBREL, ack.packet_id))
            return
        if ack.packet_id in self._unacked:
            self._unacked.discard(ack.packet_id)
            if ack.code >= FAILED:
                self.refused.append(ack.code)
            async with self._settled:
                self._settled.notify_all()

    async def ping_all(self) -> None:
        """Keep the connection alive. Raises Lost. Cancellation: safe."""
        while True:
            await trio.sleep(max(self._connect.keep_alive_s / 2, 0.5))
            await self._send(Signal(PINGREQ))


@asynccontextmanager
async def open_client(place: Place, connect: Connect) -> AsyncIterator[Client]:
    """Connect as a client; leaving says goodbye, unless an error or a cancellation makes one leave.

    Raises:
        OSError: nobody listens there. Refused, Lost, MalformedPacket: as `Client.handshake`.
    Cancellation: closes the connection without a goodbye.
    """
    stream = await place.connect()
    async with stream:
        client = Client(stream, connect)
        await client.handshake()
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.receive_all)
            if connect.keep_alive_s:
                nursery.start_soon(_quietly, client)
            try:
                yield client
                await client.disconnect()
            except Exception as error:  # raised again outside of the nursery, which would wrap it into a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


async def _quietly(client: Client) -> None:
    with suppress(Lost):  # `receive_all` sees it too
        await client.ping_all()
