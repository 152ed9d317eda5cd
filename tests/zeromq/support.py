"""A real broker with ZeroMQ endpoints on free ports, and peers that are plain pyzmq sockets."""

import json
import time
from contextlib import asynccontextmanager

import msgspec
import trio
import zmq

from gateway.api import Principal
from gateway.config import Limits
from gateway.journal.memory import MemoryJournal
from gateway.runtime.broker import Broker
from gateway_zeromq.plugin import ZeroMqFrontEnd
from gateway_zeromq.settings import ZeroMqSettings
from trio_zmq.pump import Pump, whole_messages

ANY = "tcp://127.0.0.1:0"
PATIENCE_S = 30


class Log:
    def __init__(self):
        self.lines = []

    def info(self, event, **values):
        self.lines.append(("info", event, values))

    def warning(self, event, **values):
        self.lines.append(("warning", event, values))

    def error(self, event, **values):
        self.lines.append(("error", event, values))

    def of(self, event):
        return [values for _, said, values in self.lines if said == event]


async def let_in(_credentials):
    return Principal("anonymous")


class Running:
    """A broker, its ZeroMQ front-end, and a channel for the test's own use."""

    def __init__(self, broker, log):
        self.broker = broker
        self.log = log
        self.announced = []
        self.stopped = trio.Event()
        self.channel = None
        self.front_end = None

    def address(self, kind, number=0):
        return [line.partition(" ")[2] for line in self.announced if line.startswith(kind)][number]

    def count(self, name):
        return self.broker.counters[f"zeromq.{name}"]

    def queue(self, name):
        return self.broker.engine.vhosts["/"].queues[name]

    async def call(self, number):
        return (await self.channel.outcome(number)).result

    async def stop(self):
        self.broker.start_draining()
        with trio.fail_after(PATIENCE_S):
            await self.stopped.wait()


async def serve(running, gateway, endpoints, context, *, task_status):
    try:
        settings = ZeroMqSettings(endpoint=list(endpoints))
        running.front_end = ZeroMqFrontEnd(context)
        await running.front_end.serve(gateway, settings, task_status=task_status)
    finally:
        running.stopped.set()


class FullJournal(MemoryJournal):
    """A journal that has no room while there is a ``reason`` for that."""

    reason = None

    @property
    def alarm(self):
        return self.reason


async def full(running, journal):
    """Have the broker see that there is no room."""
    journal.reason = "the disk is full"
    await until(lambda: running.broker.engine.refusal is not None)


@asynccontextmanager
async def serving(*endpoints, journal=None, authenticate=let_in, clock=None, context=None, **limits):
    log = Log()
    broker = Broker(journal or MemoryJournal(), limits=Limits(**limits), authenticate=authenticate, clock=clock, log=log)
    for tag, decoder in ZeroMqFrontEnd.wire_decoders.items():
        broker.decoders.register(tag, decoder)
    running = Running(broker, log)
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        gateway = broker.gateway("zeromq", running.announced.append, log)
        await nursery.start(lambda task_status: serve(running, gateway, endpoints, context, task_status=task_status))
        running.channel = gateway.open_channel(Principal("test"))
        try:
            yield running
        finally:
            nursery.cancel_scope.cancel()


class Plain:
    """A pyzmq socket that knows nothing of the gateway."""

    def __init__(self, context, kind, address, **options):
        self.socket = context.socket(kind)
        for option, value in options.items():
            self.socket.setsockopt(getattr(zmq, option), value)
        self.socket.connect(address)
        self.pump = Pump(self.socket, whole_messages(self.socket, max_frames=64))
        self.got = []

    async def send(self, *frames):
        with trio.fail_after(PATIENCE_S):
            while not self.pump.offer(frames):
                await self.pump.writable()

    async def receive(self, seconds=PATIENCE_S):
        """Return the next message, or None after so long."""
        with trio.move_on_after(seconds):
            while not self.got:
                # One at a time: a REQ socket may be asked only while an answer is due.
                self.got += await self.pump.receive(1)
        return self.got.pop(0) if self.got else None

    def close(self):
        self.pump.close(0)


class Client(Plain):
    """A DEALER that speaks TGP/1, and nothing by itself."""

    def __init__(self, context, address, *, as_json=False, kind=zmq.DEALER, **options):
        super().__init__(context, kind, address, **options)
        self.as_json = as_json

    async def say(self, *fields, body=None):
        await self.send(msgspec.msgpack.encode(fields), *([] if body is None else [body]))

    async def say_json(self, cmd, body=None, **fields):
        await self.send(json.dumps({"cmd": cmd, **fields}).encode(), *([] if body is None else [body]))

    async def hear(self, seconds=PATIENCE_S):
        """Return the next header, or header and body; None: nothing came."""
        whole = await self.receive(seconds)
        if whole is None:
            return None
        header, body = (whole, None) if isinstance(whole, bytes) else whole
        said = json.loads(header) if header[:1] == b"{" else msgspec.msgpack.decode(header)
        return said if body is None else (said, body)

    async def ask(self, *fields, body=None):
        await self.say(*fields, body=body)
        return await self.hear()

    async def hello(self, **options):
        ready = await self.ask(1, 1, 1, options)
        assert ready[:3] == [2, 1, 1], ready
        return ready[3]


async def connected(context, running, **options):
    client = Client(context, running.address("ROUTER"))
    await client.hello(**options)
    return client


def let_libzmq_work(seconds=0.03):
    """Wait without letting trio's loop run. When it sends libzmq looks at its commands at most every few million cycles."""
    time.sleep(seconds)


async def until(happened, seconds=PATIENCE_S):
    """Wait until something is so."""
    with trio.fail_after(seconds):
        while not happened():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.002)


class Cable:
    """A TCP connection's way that can be cut: libzmq then connects again by itself."""

    def __init__(self, target):
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self.target = (host, int(port))
        self.address = ""
        self.streams = []

    async def run(self, *, task_status):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = f"tcp://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self.carry, listeners)

    async def carry(self, near):
        far = await trio.open_tcp_stream(*self.target)
        self.streams += [near, far]
        async with near, far, trio.open_nursery() as nursery:
            for source, sink in ((near, far), (far, near)):
                nursery.start_soon(self.pass_on, source, sink, nursery.cancel_scope)

    async def pass_on(self, source, sink, scope):
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def cut(self):
        streams, self.streams = self.streams, []
        for stream in streams:
            await trio.aclose_forcefully(stream)
