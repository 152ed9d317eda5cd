"""A broker that many tests share, and clients of either protocol level that look at every packet they get."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio
from trio.testing import MockClock

from gateway.runtime.clock import VirtualClock
from gateway_mqtt.codec.encoding import encode
from gateway_mqtt.codec.packets import (
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    ConnAck,
    Connect,
    Disconnect,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from tests.mqtt.support import mqtt_broker
from tests.mqtt.wire import PATIENCE_S, Wire

PING = encode(Signal(PINGREQ))
_names = itertools.count(1)


def frame(head: int, *parts: bytes) -> bytes:
    """Return a packet of raw parts."""
    body = b"".join(parts)
    return bytes((head,)) + length(len(body)) + body


def length(number: int) -> bytes:
    """Return a variable byte integer."""
    digits = []
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | (128 if number else 0))
        if not number:
            return bytes(digits)


def text(value: bytes) -> bytes:
    """Return a string, or whatever is to stand in its place."""
    return len(value).to_bytes(2, "big") + value


def no_properties(level: int) -> bytes:
    return b"\0" if level == 5 else b""


class Client(Wire):
    """One connection at one protocol level."""

    def __init__(self, stream: trio.SocketStream, level: int) -> None:
        super().__init__(stream, level)
        self.client_id = ""

    async def connect(
        self, client_id: str | None = None, *, clean: bool = True, will: Will | None = None, keep: int = 0, **properties: object
    ) -> ConnAck:
        """Connect and return the answer; without a name, under one of its own."""
        self.client_id = name("c") if client_id is None else client_id
        mine = Properties(**properties) if properties else NO_PROPERTIES
        await self.send(Connect(self.client_id, clean, keep, will, level=self.level, properties=mine))
        answer = await self.next()
        assert isinstance(answer, ConnAck), answer
        return answer

    async def subscribe(self, pattern: str, qos: int = 0, *, subscription_id: int | None = None, **options: object) -> int:
        """Subscribe to one filter; return the code. Nothing else may come before it."""
        packet_id = next(self._identifiers)
        mine = NO_PROPERTIES if subscription_id is None else Properties(subscription_ids=(subscription_id,))
        await self.send(Subscribe(packet_id, (Subscription(pattern, qos, **options),), mine))
        answer = await self.next()
        assert isinstance(answer, SubAck), answer
        assert answer.packet_id == packet_id
        assert len(answer.codes) == 1
        return answer.codes[0]

    async def unsubscribe(self, *patterns: str) -> bytes:
        packet_id = next(self._identifiers)
        await self.send(Unsubscribe(packet_id, patterns))
        answer = await self.next()
        assert isinstance(answer, UnsubAck), answer
        assert answer.packet_id == packet_id
        return answer.codes

    async def publish(self, topic: str, payload: bytes = b"x", qos: int = 0, *, retain: bool = False, **properties: object) -> int:
        """Publish, with all that belongs to the QoS; return the code of the first answer."""
        packet_id = next(self._identifiers) if qos else 0
        mine = Properties(**properties) if properties else NO_PROPERTIES
        await self.send(Publish(topic, payload, qos, retain, False, packet_id, mine))
        if not qos:
            return 0
        answer = await self.acknowledgement(PUBREC if qos == 2 else PUBACK, packet_id)
        if qos == 2 and answer.code < 0x80:
            await self.send(Ack(PUBREL, packet_id))
            await self.acknowledgement(PUBCOMP, packet_id)
        return answer.code

    async def acknowledgement(self, type_: int, packet_id: int) -> Ack:
        answer = await self.next()
        assert isinstance(answer, Ack), answer
        assert (answer.type, answer.packet_id) == (type_, packet_id)
        return answer

    async def message(self, *, settle: bool = True) -> Publish:
        """Return the next packet, which must be a PUBLISH; settle it as its QoS says."""
        got = await self.next()
        assert isinstance(got, Publish), got
        if settle and got.qos == 1:
            await self.send(Ack(PUBACK, got.packet_id))
        elif settle and got.qos == 2:
            await self.send(Ack(PUBREC, got.packet_id))
            await self.acknowledgement(PUBREL, got.packet_id)
            await self.send(Ack(PUBCOMP, got.packet_id))
        return got

    async def messages(self, count: int) -> list[bytes]:
        return [(await self.message()).payload for _ in range(count)]

    async def quiet(self) -> None:
        """Prove that the broker listens still, and that it has sent nothing else."""
        await self.send(PING)
        answer = await self.next()
        assert answer == Signal(PINGRESP), answer

    async def ended(self) -> int | None:
        """Wait for the end of the connection; return the code of the DISCONNECT before it, if there was one."""
        goodbye = await self.next()
        if goodbye is None:
            return None
        assert isinstance(goodbye, Disconnect), goodbye
        assert self.level == 5
        assert goodbye.properties.session_expiry_s is None  # [MQTT5-3.14.2-2]
        assert await self.raw() is None  # [MQTT5-3.14.4-1] [MQTT5-3.14.4-2]
        return goodbye.code

    async def leave(self, code: int = 0, **properties: object) -> None:
        """Say goodbye, and wait until the broker has closed."""
        await self.send(Disconnect(code, Properties(**properties) if properties else NO_PROPERTIES))
        assert await self.next() is None
        await self.stream.aclose()


class Lobby:
    """Where clients of one level come from."""

    def __init__(self, port: int, level: int) -> None:
        self.port = port
        self.level = level
        self.clients: list[Client] = []

    async def open(self) -> Client:
        """Return a connection on which nothing was sent."""
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port), self.level)
        self.clients.append(client)
        return client

    async def client(self, client_id: str | None = None, **options: object) -> Client:
        """Return a client that is connected."""
        client = await self.open()
        answer = await client.connect(client_id, **options)
        assert answer.code == 0, answer
        return client

    async def lasting(self, client_id: str, *, clean: bool = False, expiry_s: int = 3_600, **options: object) -> Client:
        """Return a client whose session outlives its connection."""
        if self.level == 5:
            options["session_expiry_s"] = expiry_s
        return await self.client(client_id, clean=clean, **options)

    async def subscriber(self, pattern: str, qos: int = 0, **options: object) -> Client:
        client = await self.client()
        assert await client.subscribe(pattern, qos, **options) == qos
        return client

    async def forget(self, client_id: str) -> None:
        """End that client's session."""
        await (await self.client(client_id)).leave()


def name(stem: str) -> str:
    """Return a name that no other test has: topics, clients, groups."""
    return f"{stem}{next(_names)}"


@asynccontextmanager
async def lobby(port: int, level: int) -> AsyncIterator[Lobby]:
    """Where clients come from; they are closed at the end."""
    place = Lobby(port, level)
    try:
        yield place
    finally:
        for client in place.clients:
            await client.stream.aclose()


@asynccontextmanager
async def own_broker(level: int, **settings: object) -> AsyncIterator[Lobby]:
    """A broker with other settings than the shared one's, for one test."""
    async with mqtt_broker(**settings) as bench, lobby(bench.port, level) as place:
        yield place


@asynccontextmanager
async def own_time(clock: MockClock, level: int, **settings: object) -> AsyncIterator[Lobby]:
    """A broker for one test in which time passes only while nobody has anything to do: as the test says, not as the machine is."""
    clock.autojump_threshold = 0.002
    async with own_broker(level, clock=VirtualClock(), **settings) as place:
        yield place


@contextmanager
def shared_broker() -> Iterator[int]:
    """A broker on a thread of its own; yields its port."""
    ports: list[int] = []
    ready = threading.Event()
    stops: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []

    async def main() -> None:
        try:
            async with mqtt_broker() as bench:
                stopped = trio.Event()
                stops.append((trio.lowlevel.current_trio_token(), stopped))
                ports.append(bench.port)
                ready.set()
                await stopped.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,), name="shared broker")
    thread.start()
    try:
        ready.wait(PATIENCE_S)
        yield ports[0]
    finally:
        for token, stopped in stops:
            token.run_sync_soon(stopped.set)
        thread.join(PATIENCE_S)
