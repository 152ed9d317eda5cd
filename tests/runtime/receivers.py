"""Front-ends whose connections have receivers, for tests that are run with each way to wait for sockets."""

from __future__ import annotations

import pytest
import trio

from gateway.errors import ProtocolViolation
from gateway.runtime.streams.poller import HAS_EPOLL
from tests.runtime.support import HandJournal, Log, running, turns

WAYS = [True, False] if HAS_EPOLL else [False]


class Echo:
    """A receiver that sends back what it got, and remembers."""

    def __init__(self, connection, served):
        self.connection = connection
        self.served = served
        self.got = []
        self.reasons = []
        served.append(self)

    def feed(self, data):
        assert not self.reasons, "nothing is fed after the end"
        self.got.append(data)
        if b"bad" in data:
            self.send(b"goodbye")
            raise ProtocolViolation("bad word", "SPEC 1")
        if b"bug" in data:
            raise ValueError("bug")
        if b"part" in data:
            return False
        if b"quit" in data:
            self.send(b"bye")
            self.connection.close()
            return None
        self.send(data)
        return None

    def send(self, data):
        if not self.connection.out:
            self.connection.touch()
        self.connection.out.append(data)

    def ended(self, reason):
        assert self.connection.closing
        self.reasons.append(reason)


class Server:
    """A front-end whose connections have receivers; `attached`: what is given to `attach`."""

    def __init__(self, broker, epoll, **attached):
        self.broker = broker
        self.log = Log()
        self.gateway = broker.gateway("test", lambda line: None, self.log, epoll=epoll)
        self.attached = attached
        self.served = []
        self.clients = []
        self.make = Echo
        self.handler = self.attached.pop("handler", None)

    @property
    def connections(self):
        return self.gateway._listeners.connections

    def accept(self, connection):
        connection.attach(self.make(connection, self.served), **self.attached)

    async def start(self, nursery):
        async def serve(task_status):
            accept = self.accept if self.handler is None else None
            listen = ["tcp://127.0.0.1:0"]
            await self.gateway.serve_streams(listen, self.handler, setting="s", task_status=task_status, accept=accept)

        (address,) = await nursery.start(serve)
        self.port = int(address.rpartition(":")[2])

    async def connect(self):
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.clients.append(stream)
        with trio.fail_after(30):
            while len(self.served) < len(self.clients):
                await turns(1)
        return stream, self.served[-1]

    async def all_gone(self):
        with trio.fail_after(30):
            while self.connections:
                await turns(1)


@pytest.fixture(params=WAYS, ids=lambda epoll: "epoll" if epoll else "tasks")
def epoll(request):
    return request.param


@pytest.fixture
async def start(epoll, monkeypatch):
    """Start brokers and servers; all of it is over at the end of the test. They look often who is silent for too long."""
    monkeypatch.setattr("gateway.runtime.streams.listener.SWEEP_S", 0.05)
    clients = []
    async with trio.open_nursery() as nursery:

        async def starting(server_options=None, journal=None, **limits):
            broker = await nursery.start(_run_broker, journal or HandJournal(automatic=True), limits)
            server = Server(broker, epoll, **(server_options or {}))
            server.clients = clients
            await server.start(nursery)
            return server

        yield starting
        for stream in clients:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def _run_broker(journal, limits, task_status):
    async with running(journal, **limits) as broker:
        task_status.started(broker)
        await trio.sleep_forever()


async def some(stream, most=65_536):
    with trio.fail_after(30):
        return await stream.receive_some(most)


async def exactly(stream, size):
    data = b""
    while len(data) < size:
        data += await some(stream) or b"(closed)"
    return data


async def until(condition):
    with trio.fail_after(30):
        while not condition():
            await turns(1)
