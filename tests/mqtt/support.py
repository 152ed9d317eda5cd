"""A broker with the MQTT front-end on a free port, and clients that say exactly what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from gateway.runtime.broker import Broker
from gateway_mqtt.codec.packets import (
    PINGREQ,
    PINGRESP,
    PUBACK,
    Ack,
    ConnAck,
    Connect,
    Disconnect,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    Subscription,
    Will,
)
from gateway_mqtt.plugin import MqttFrontEnd
from gateway_mqtt.settings import MqttSettings
from tests.mqtt.wire import PATIENCE_S, Wire
from tests.runtime.support import HandJournal, Log, running


async def until(condition: Callable[[], object]) -> None:
    """Wait until something that gives no sign of itself is true."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.001)


class Peer(Wire):
    """A client of level 4, or of 3."""

    async def connect(self, client_id: str = "", *, clean: bool = True, will: Will | None = None, **fields: object) -> bool:
        """Connect; return whether the session was there."""
        await self.send(Connect(client_id, clean, will=will, **fields))
        answer = await self.next()
        assert isinstance(answer, ConnAck), answer
        assert answer.code == 0, answer
        return answer.session_present

    async def subscribe(self, *filters: str, qos: int = 0) -> bytes:
        packet_id = next(self._identifiers)
        await self.send(Subscribe(packet_id, tuple(Subscription(pattern, qos) for pattern in filters)))
        answer = await self.next()
        assert isinstance(answer, SubAck), answer
        assert answer.packet_id == packet_id
        return answer.codes

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Publish; with QoS 1 wait for the PUBACK, which must be the next packet."""
        packet_id = next(self._identifiers) if qos else 0
        await self.send(Publish(topic, payload, qos, retain, False, packet_id))
        if qos:
            assert await self.next() == Ack(PUBACK, packet_id)

    async def ping(self) -> None:
        """Prove that the broker still listens, and that nothing else was sent before its answer."""
        await self.send(Signal(PINGREQ))
        assert await self.next() == Signal(PINGRESP)

    async def leave(self) -> None:
        """Say goodbye, and wait until the broker has closed."""
        await self.send(Disconnect())
        assert await self.next() is None
        await self.stream.aclose()


class Bench:
    """A broker with the front-end; `open` makes connections."""

    def __init__(self, broker: Broker, journal: HandJournal, log: Log, port: int) -> None:
        self.broker = broker
        self.journal = journal
        self.log = log
        self.port = port
        self.peers: list[Peer] = []
        self.stopped = trio.Event()

    async def open(self) -> Peer:
        """Return a connection that has sent nothing yet."""
        peer = Peer(await trio.open_tcp_stream("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer

    async def client(self, client_id: str = "", *, clean: bool = True, will: Will | None = None, **fields: object) -> Peer:
        """Return a connected client."""
        peer = await self.open()
        await peer.connect(client_id, clean=clean, will=will, **fields)
        return peer

    def counted(self, name: str) -> int:
        """Sum what was counted under a name, whatever the reason."""
        return sum(amount for key, amount in self.broker.counters.items() if key == name or key.startswith(name + "."))

    def logged(self, event: str) -> int:
        return sum(line[1] == event for line in [*self.log.lines, *self.broker.log.lines])

    def queue(self, client_id: str) -> object:
        return self.broker.engine.vhost("/").queues.get(f"mqtt.session.{client_id}")

    async def gone(self, client_id: str) -> None:
        """Wait until the broker has noticed that a client is gone."""
        await until(lambda: not getattr(self.queue(client_id), "consumers", ()))


@asynccontextmanager
async def mqtt_broker(
    journal: HandJournal | None = None, *, limits: dict | None = None, clock: object = None, **settings: object
) -> AsyncIterator[Bench]:
    journal = journal or HandJournal(automatic=True)
    async with running(journal, clock=clock, **(limits or {})) as broker, trio.open_nursery() as nursery:
        log = Log()
        listening: list[str] = []
        front_end = MqttFrontEnd()
        gateway = broker.gateway("mqtt", listening.append, log)
        given = MqttSettings(**{"listen": ["tcp://127.0.0.1:0"], **settings})
        stopped = trio.Event()

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await front_end.serve(gateway, given, task_status=task_status)
            stopped.set()

        await nursery.start(serve)
        bench = Bench(broker, journal, log, int(listening[0].rpartition(":")[2]))
        bench.stopped = stopped
        try:
            yield bench
        finally:
            for peer in bench.peers:
                await peer.stream.aclose()
            nursery.cancel_scope.cancel()
