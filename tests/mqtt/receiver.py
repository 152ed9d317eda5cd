"""A subscriber without a socket: what a real broker sends it comes as packets, its answers go in when the test says so."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager

import trio
import trio.lowlevel

from gateway.api import (
    TOPIC_EXCHANGE,
    Address,
    Binding,
    BindingOptions,
    CloseReason,
    ConsumeOptions,
    Message,
    Principal,
    QueueSpec,
    swap_key,
)
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.runtime.broker import Broker
from gateway_mqtt.codec.coding import decode
from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Packet, Publish
from gateway_mqtt.codec.splitter import Splitter
from gateway_mqtt.outbound import ClientLimits, Outbound, Pulse, Replies
from gateway_mqtt.retained import Rota
from gateway_mqtt.session import Session
from gateway_mqtt.store import SessionRecord, Stores
from gateway_mqtt.tally import Sent
from gateway_mqtt.translate.messages import Encoder
from tests.runtime.support import Log, running

ANYONE = Principal("anonymous")


class HandMemory(MemoryJournal):
    """Commits wait in `writes` until the test completes or fails them; with `automatic` they are done at once."""

    def __init__(self, store: MemoryStore | None = None, *, automatic: bool = True) -> None:
        super().__init__(store)
        self.automatic = automatic
        self.writes: list[tuple] = []
        self.commits = 0

    def write(self, commit, done) -> None:
        self.writes.append((commit, done))
        if self.automatic:
            self.finish()

    def finish(self, error=None) -> None:
        commit, done = self.writes.pop(0)
        if error is None:
            self._store(commit)
            self.commits += 1
        done(error)


async def settle(turns: int = 4) -> None:
    """Let the loop make some turns."""
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
        await trio.sleep(0.0005)


class Bench:
    """A broker, and what all connections share."""

    def __init__(self, broker: Broker, journal: MemoryJournal) -> None:
        self.broker = broker
        self.journal = journal
        self.log = Log()
        self.gateway = broker.gateway("mqtt", lambda _: None, self.log)
        self.encoders = {level: Encoder(level, self.gateway.properties, self.gateway.now_ms) for level in (4, 5)}
        self.stores = Stores(self.log, self.gateway.count)
        self.woken = 0
        self.pulse = Pulse(self._wake)
        self.rota = Rota(self.gateway.touch)
        self.channel = self.gateway.open_channel(ANYONE, Answers())
        list(self.stores.scan_records(self.channel))

    def _wake(self) -> None:
        self.woken += 1

    def counted(self, name: str) -> int:
        return sum(amount for key, amount in self.broker.counters.items() if key == name or key.startswith(name + "."))

    def publish(
        self, topic: str, body: bytes, *, qos: int = 2, retain: bool = False, raw: bytes = b"", keep=False, expires_at_ms=0
    ):
        route = self.channel.route(TOPIC_EXCHANGE, swap_key(topic))
        flags = qos | (4 if retain else 0)
        wire = bytes((flags,)) + raw if raw or retain or qos == 2 else b""
        message = Message(route.address, body, qos > 0, "mqtt" if wire else "", wire, 0, expires_at_ms)
        if keep:
            self.channel.retain(route, message)
        if qos:
            self.channel.publish(route, message)
        else:
            self.channel.post(route, message)

    def queue(self, name: str):
        return self.broker.engine.vhost("/").queues.get(name)


class Answers:
    """An OutcomeSink that calls whoever waits for a number."""

    def __init__(self) -> None:
        self.awaited: dict[int, object] = {}

    def expect(self, number, then) -> None:
        self.awaited[number] = then

    def on_outcomes(self, through, exceptions) -> None:
        for outcome in exceptions:
            then = self.awaited.pop(outcome.number, None)
            if then is not None:
                then(outcome)


class Connection:
    """Collects what is sent; `bench.gateway` flushes it at the end of a turn."""

    peer = "peer"

    def __init__(self, gateway, level: int) -> None:
        self.out: list[bytes] = []
        self.sent: deque[Packet] = deque()
        self.sizes: list[int] = []
        self.is_congested = False
        self.closed: list[CloseReason] = []
        self.watcher = None
        self._gateway = gateway
        self._level = level
        self._splitter = Splitter()

    @property
    def closing(self) -> bool:
        return bool(self.closed)

    def touch(self) -> None:
        self._gateway.touch(self)

    def flush(self) -> None:
        data = b"".join(self.out)
        self.out.clear()
        if self.closing:
            return
        self._splitter.feed(data)
        while (frame := self._splitter.next()) is not None:
            self.sizes.append(len(frame[1]) + 2)
            self.sent.append(decode(*frame, self._level))

    def watch(self, sink) -> None:
        self.watcher = sink

    def congest(self, now: bool) -> None:
        self.is_congested = now
        if now:
            self.watcher.congested()
        else:
            self.watcher.decongested()

    def close(self, reason=CloseReason.LOCAL) -> None:
        self.closed.append(reason)

    abort = close


class Receiver:
    """One connection of a client: what `Link` does for it, by hand."""

    def __init__(self, bench: Bench, client_id: str = "c", *, lasts: bool = True, max_inflight: int = 100, source=None, **limits):
        self.bench = bench
        self.key = ("/", client_id)
        self.name = f"mqtt.session.{client_id}"
        self.lasts = lasts
        self.client = ClientLimits(**limits)
        gateway = bench.gateway
        self.connection = Connection(gateway, self.client.level)
        self.answers = Answers()
        self.channel = gateway.open_channel(ANYONE, self.answers)
        self.store = bench.stores.open(self.channel, self.key, lasts=lasts)
        self.store.put_record(SessionRecord())
        self.session = Session("/", client_id, clean=not lasts, lasts=lasts)
        self.told = Sent()
        self.out = Outbound(
            gateway, self.connection, bench.encoders[self.client.level], self.session, max_inflight, bench.rota,
            client=self.client, store=self.store, pulse=bench.pulse, more_retained=source,
            replies=Replies(gateway, self.connection, client_id, self.told),
        )  # fmt: skip
        self.out.attach(self.channel, self.answers.expect)
        if not self.channel.queue_exists(self.name):
            keeps = self.client.keeps_transient
            self.channel.declare_queue(QueueSpec(self.name, durable=lasts, exclusive=not lasts, keep_transient=keeps))
        consume = self.channel.consume(self.name, self.out, ConsumeOptions(prefetch=self.out.window, exclusive=True))
        self.answers.expect(consume, lambda outcome: self.out.open(outcome.result))

    def bind(self, pattern: str, qos: int = 2, **options) -> None:
        options = BindingOptions(qos=qos, mqtt=True, **options)
        self.channel.bind(Binding(TOPIC_EXCHANGE, self.name, swap_key(pattern), options=options))

    def take(self) -> list[Packet]:
        packets = list(self.connection.sent)
        self.connection.sent.clear()
        return packets

    def end(self) -> None:
        self.connection.close(CloseReason.EOF)
        self.out.leave()
        self.store.put_record(SessionRecord(ended_at_ms=1))
        self.channel.close()

    def answer(self, packet: Packet) -> None:
        """Take what a client says."""
        assert isinstance(packet, Ack)
        if packet.type == PUBACK:
            self.out.acknowledged_with(packet.packet_id, packet.code)
        elif packet.type == PUBREC:
            self.out.received(packet.packet_id, packet.code)
        elif packet.type == PUBCOMP:
            self.out.completed(packet.packet_id, packet.code)


class Client:
    """What a conforming client remembers: QoS 2 identifiers that it has not seen released."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.holding: set[int] = set()

    def take(self, packet: Packet) -> Packet | None:
        """Return its answer."""
        if isinstance(packet, Publish):
            if packet.qos == 0:
                self.got.append(packet.payload)
                return None
            if packet.qos == 1:
                self.got.append(packet.payload)
                return Ack(PUBACK, packet.packet_id)
            if packet.packet_id not in self.holding:
                self.holding.add(packet.packet_id)
                self.got.append(packet.payload)
            return Ack(PUBREC, packet.packet_id)
        assert isinstance(packet, Ack)
        assert packet.type == PUBREL
        self.holding.discard(packet.packet_id)
        return Ack(PUBCOMP, packet.packet_id)


def elsewhere(topic: str, body: bytes) -> Message:
    """Return a message that is in no broker."""
    return Message(Address("/", TOPIC_EXCHANGE, swap_key(topic)), body)


@asynccontextmanager
async def receiving(journal: MemoryJournal | None = None, **limits):
    journal = journal or HandMemory()
    async with running(journal, **limits) as broker:
        yield Bench(broker, journal)
