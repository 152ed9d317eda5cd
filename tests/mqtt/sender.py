"""A publisher without a socket: packets go through the decode loop into a real broker, answers come back as packets."""

from __future__ import annotations

from contextlib import asynccontextmanager

from gateway.api import TOPIC_EXCHANGE, Binding, BindingOptions, CloseReason, ConsumeOptions, Principal, QueueSpec
from gateway.runtime.broker import Broker
from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.packets import Packet
from gateway_mqtt.codec.splitter import Splitter
from gateway_mqtt.inbound import Inbound, Terms
from gateway_mqtt.protocol import Connected
from gateway_mqtt.store import Stores
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.properties import WIRE_TAG, read_wire
from gateway_mqtt.translate.topics import Routes, TopicLimits
from tests.mqtt.support import until
from tests.runtime.support import HandJournal, Log, running, turns


class Connection:
    peer = "peer"

    def __init__(self) -> None:
        self.closed: list[CloseReason] = []

    @property
    def closing(self) -> bool:
        return bool(self.closed)

    def close(self, reason: CloseReason) -> None:
        self.closed.append(reason)


class Sender:
    """One connection of a client; ``told``: what it was answered, in order."""

    def __init__(self, bench: Bench, client_id: str, level: int, *, lasts: bool, authorize=None, **terms: object) -> None:
        self.level = level
        self.connection = Connection()
        self.told: list[Packet] = []
        self._splitter = Splitter()
        self.inbound = Inbound(
            bench.gateway, self.connection, bench.encoders[level], client_id, self._take, Terms(level=level, **terms)
        )
        principal = Principal("x", authorize=authorize)
        self.channel = bench.gateway.open_channel(principal, self.inbound)
        self.store = bench.stores.open(self.channel, ("/", client_id), lasts=lasts)
        self.inbound.attach(self.channel, Routes(self.channel, principal, TopicLimits(20, 1_000)), self.store)
        self._protocol = Connected(self.inbound, _Acks(), None, 1_000_000, level)

    def _take(self, data: bytes, packets: int = 1) -> None:
        self._splitter.feed(data)
        while (frame := self._splitter.next()) is not None:
            self.told.append(decode(*frame, self.level))

    def send(self, *packets: Packet | bytes) -> None:
        """Send all in one piece."""
        self._protocol.feed(b"".join(p if isinstance(p, bytes) else encode(p, self.level) for p in packets))

    async def answers(self, count: int) -> list[Packet]:
        """Wait for so many answers; return and forget them, and whatever else there is."""
        await until(lambda: len(self.told) >= count)
        told, self.told = self.told, []
        return told

    async def silence(self) -> None:
        """Prove that nothing is answered now."""
        await turns()
        assert self.told == []

    def lose(self) -> None:
        """Lose the connection."""
        self.inbound.end()
        self.channel.close()


class _Acks:
    def acknowledged(self, packet_id: int) -> None:
        raise AssertionError("nothing is sent to a publisher")


class Bench:
    """A broker; `sender` makes publishers, `consume` a queue that anybody might have."""

    def __init__(self, broker: Broker, journal: HandJournal) -> None:
        self.broker = broker
        self.journal = journal
        self.log = Log()
        self.gateway = broker.gateway("mqtt", lambda _: None, self.log)
        self.gateway.register_wire(WIRE_TAG, read_wire)
        self.stores = Stores()
        self.encoders = {level: Encoder(level, self.gateway.properties, self.gateway.now_ms) for level in (3, 4, 5)}

    def sender(self, client_id: str = "c", level: int = 5, *, lasts: bool = False, **given: object) -> Sender:
        return Sender(self, client_id, level, lasts=lasts, **given)

    async def consume(self, key: str = "#", *, durable: bool = True, **spec: object) -> Queue:
        queue = Queue(self, key, durable=durable, **spec)
        await queue.ready()
        return queue

    @property
    def channels(self) -> int:
        """How many channels are open."""
        return len(self.broker.alarms._channels)

    def counted(self, name: str) -> int:
        return sum(amount for key, amount in self.broker.counters.items() if key == name or key.startswith(name + "."))


class Queue:
    """A queue that collects the messages of a topic; ``messages``: what its consumer was handed."""

    def __init__(self, bench: Bench, key: str, *, durable: bool, consumed: bool = True, **spec: object) -> None:
        self.messages: list = []
        self.deliveries: list = []
        self.channel = bench.gateway.open_channel(Principal("q"), self)
        self.through = 0
        self.name = f"q{id(self)}"
        self.channel.declare_queue(QueueSpec(self.name, durable=durable, **spec))
        self.number = self.channel.bind(Binding(TOPIC_EXCHANGE, self.name, key, options=BindingOptions()))
        if consumed:
            self.number = self.channel.consume(self.name, self, ConsumeOptions())

    async def ready(self) -> None:
        await until(lambda: self.through >= self.number)

    def on_outcomes(self, through, exceptions) -> None:
        self.through = through
        assert not [outcome.error for outcome in exceptions if outcome.error]

    def deliver(self, delivery) -> None:
        self.deliveries.append(delivery)
        self.messages.append(delivery.message)

    def deliver_transient(self, message, options) -> None:
        self.messages.append(message)

    def cancelled(self, reason) -> None:
        raise AssertionError(reason)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]


@asynccontextmanager
async def senders(journal: HandJournal | None = None, **limits: object):
    journal = journal or HandJournal(automatic=True)
    async with running(journal, **limits) as broker:
        yield Bench(broker, journal)
