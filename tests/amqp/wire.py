"""A broker with the AMQP front-end and no sockets: frames in, frames out. What does a client of a test say and hear?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.lowlevel
from pamqp import base, body, commands, frame, header, heartbeat

from gateway.api import CloseReason, ProtocolViolation
from gateway.runtime.broker import Broker
from gateway_amqp.plugin import AmqpFrontEnd
from gateway_amqp.server import Server
from gateway_amqp.settings import AmqpSettings
from tests.runtime.support import HandJournal, Log, running

HEADER = b"AMQP\x00\x00\x09\x01"
PATIENCE_TURNS = 2_000

CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}
"""What pika says of itself."""


class Content:
    """A method with content, as heard: Deliver, GetOk or Return. ``frames``: how many body frames there were."""

    def __init__(self, method: base.Frame, properties: commands.Basic.Properties, body_: bytes, frames: int) -> None:
        self.method = method
        self.properties = properties
        self.body = body_
        self.frames = frames

    def __repr__(self) -> str:
        return f"Content({self.method!r}, {self.body!r})"


class Pipe:
    """A `gateway.api.Connection` without a socket: what is flushed lands in `sent`."""

    def __init__(self, broker: Broker, nursery: trio.Nursery, *, loopback: bool = True, subject: str | None = None) -> None:
        self.out: list[bytes] = []
        self.sent = bytearray()
        self.peer = "127.0.0.1:40312" if loopback else "192.0.2.7:40312"
        self.is_loopback = loopback
        self.transport = "tls" if subject else "tcp"
        self.certificate_subject = subject
        self.is_congested = False
        self.closing = False
        self.reason: CloseReason | None = None
        self.violation: ProtocolViolation | None = None
        self.receiver: Any = None
        self.idle_timeout_s = self.deadline_s = 0.0
        self.watcher: Any = None
        self._broker = broker
        self._nursery = nursery

    def touch(self) -> None:
        self._broker.turns.touch(self)

    def flush(self) -> None:
        self.sent += b"".join(self.out)
        self.out.clear()
        if self.closing and self.receiver is not None:
            receiver, self.receiver = self.receiver, None
            receiver.ended(self.reason)
            self.sent += b"".join(self.out)
            self.out.clear()

    def watch(self, sink: Any) -> None:
        self.watcher = sink

    def attach(self, receiver: Any, *, idle_timeout_s: float = 0.0, deadline_s: float = 0.0) -> None:
        self.receiver = receiver
        self.idle_timeout_s = idle_timeout_s
        self.deadline_s = deadline_s

    def catch_up(self) -> None:
        pass

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(task)

    def close(self, reason: CloseReason = CloseReason.LOCAL) -> None:
        if not self.closing:
            self.closing, self.reason = True, reason
            self.touch()

    def abort(self, reason: CloseReason = CloseReason.ERROR) -> None:
        self.out.clear()
        self.close(reason)

    def fed(self, data: bytes) -> object:
        """Feed, as the host does: what is raised closes the connection."""
        if self.closing or self.receiver is None:
            return None
        try:
            return self.receiver.feed(data)
        except ProtocolViolation as error:
            self.violation = error
            self.close(CloseReason.VIOLATION)
            return None

    def congest(self, congested: bool) -> None:
        """The peer stops reading, or reads again."""
        self.is_congested = congested
        if self.watcher is not None:
            (self.watcher.congested if congested else self.watcher.decongested)()


class Client:
    """One connection. Frames are made and read by pamqp, which knows nothing of the code under test.

    ``pipe``: its connection; ``protocol``: who is attached to it.
    """

    def __init__(self, bench: Bench, pipe: Pipe) -> None:
        self.bench = bench
        self.pipe = pipe
        self.start: commands.Connection.Start | None = None
        self.tune: commands.Connection.Tune | None = None
        self._at = 0
        self._heard: list[tuple[int, Any]] = []

    @property
    def protocol(self) -> Any:
        return self.pipe.receiver

    # -- saying -------------------------------------------------------------

    def say(self, channel: int, *parts: base.Frame | bytes) -> None:
        """Send methods of one channel, or raw bytes, in one piece."""
        self.raw(b"".join(part if isinstance(part, bytes) else frame.marshal(part, channel) for part in parts))

    def raw(self, data: bytes) -> None:
        self.pipe.fed(data)

    def publish(self, channel: int, exchange: str, key: str, data: bytes, **fields: Any) -> None:
        """Publish; `fields`: properties, and ``mandatory``, ``immediate``."""
        self.raw(publishing(channel, exchange, key, data, **fields))

    # -- hearing ------------------------------------------------------------

    async def next(self) -> tuple[int, Any] | None:
        """Return channel and frame (a method, `Content` or a heartbeat) that came next; None: the broker has closed."""
        for _ in range(PATIENCE_TURNS):
            found = self._take()
            if found is not None:
                return found
            if self.pipe.closing and self.pipe.receiver is None:
                return self._take()
            await trio.lowlevel.checkpoint()
        raise AssertionError("nothing more was heard")

    async def hear(self, channel: int | None = None) -> Any:
        """Return the next frame, whose channel must be as given, if it is; None: the broker has closed."""
        found = await self.next()
        if found is None:
            return None
        assert channel is None or found[0] == channel, found
        return found[1]

    async def silent(self, turns: int = 20) -> bool:
        """Say whether nothing comes for some turns of the loop."""
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        return self._whole(self._at) is None

    async def call(self, channel: int, method: base.Frame) -> Any:
        """Send a method and return what comes next on its channel."""
        self.say(channel, method)
        return await self.hear(channel)

    async def open(self, channel: int = 1) -> int:
        """Open a channel."""
        answer = await self.call(channel, commands.Channel.Open())
        assert isinstance(answer, commands.Channel.OpenOk), answer
        return channel

    async def refused(self, channel: int) -> tuple[int, str]:
        """Hear the channel closed, answer, and return code and text."""
        close = await self.hear(channel)
        assert isinstance(close, commands.Channel.Close), close
        self.say(channel, commands.Channel.CloseOk())
        return close.reply_code, close.reply_text

    async def thrown_out(self) -> tuple[int, str]:
        """Hear the connection closed, answer, see it gone; return code and text."""
        close = await self.hear(0)
        assert isinstance(close, commands.Connection.Close), close
        self.say(0, commands.Connection.CloseOk())
        assert await self.hear() is None
        return close.reply_code, close.reply_text

    def vanish(self) -> None:
        """Be gone without a goodbye."""
        self.pipe.abort(CloseReason.EOF)

    def _take(self) -> tuple[int, Any] | None:
        found = self._whole(self._at)
        if found is None:
            return None
        self._at, channel, what = found
        return channel, what

    def _whole(self, at: int) -> tuple[int, int, Any] | None:
        """Return where it ends, channel and frame of what begins here; None: it has not come."""
        part = self._frame(at)
        if part is None:
            return None
        at, channel, what = part
        if not isinstance(what, commands.Basic.Deliver | commands.Basic.GetOk | commands.Basic.Return):
            return at, channel, what
        part = self._frame(at)
        if part is None:
            return None
        at, other, head = part
        assert isinstance(head, header.ContentHeader), head
        assert other == channel
        data, frames = b"", 0
        while len(data) < head.body_size:
            part = self._frame(at)
            if part is None:
                return None
            at, other, piece = part
            assert isinstance(piece, body.ContentBody), piece
            assert other == channel
            assert piece.value
            data, frames = data + piece.value, frames + 1
        assert len(data) == head.body_size
        return at, channel, Content(what, head.properties, data, frames)

    def _frame(self, at: int) -> tuple[int, int, Any] | None:
        sent = self.pipe.sent
        if sent[at : at + 4] == b"AMQP":
            return at + 8, 0, bytes(sent[at : at + 8])
        if len(sent) - at < 8:
            return None
        end = at + 8 + int.from_bytes(sent[at + 3 : at + 7], "big")
        if len(sent) < end:
            return None
        assert sent[end - 1] == 0xCE
        used, channel, what = frame.unmarshal(bytes(sent[at:end]))
        assert used == end - at
        return end, channel, what


def publishing(channel: int, exchange: str, key: str, data: bytes, *, frame_max: int = 131_072, **fields: Any) -> bytes:
    """Return the frames of a publish; `fields`: properties, and ``mandatory``, ``immediate``."""
    flags = {name: fields.pop(name) for name in ("mandatory", "immediate") if name in fields}
    parts = [
        frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=key, **flags), channel),
        frame.marshal(header.ContentHeader(0, len(data), commands.Basic.Properties(**fields)), channel),
    ]
    room = frame_max - 8
    parts += [frame.marshal(body.ContentBody(data[at : at + room]), channel) for at in range(0, len(data), room)]
    return b"".join(parts)


HEARTBEAT = frame.marshal(heartbeat.Heartbeat(), 0)


class Bench:
    """A broker with the front-end; `client` makes connections."""

    def __init__(self, broker: Broker, journal: HandJournal, log: Log, server: Server, nursery: trio.Nursery) -> None:
        self.broker = broker
        self.journal = journal
        self.log = log
        self.server = server
        self._nursery = nursery

    def connect(self, *, loopback: bool = True, subject: str | None = None) -> Client:
        """Return a connection on which nothing was said yet."""
        pipe = Pipe(self.broker, self._nursery, loopback=loopback, subject=subject)
        self.server.accept(pipe)
        return Client(self, pipe)

    async def client(
        self,
        *,
        channel: int = 1,
        capabilities: Mapping[str, bool] = CAPABILITIES,
        response: str = "\x00guest\x00guest",
        frame_max: int = 131_072,
        channel_max: int = 2_047,
        heartbeat_s: int = 0,
        vhost: str = "/",
        **pipe: Any,
    ) -> Client:
        """Return an open connection, with a channel open on it unless `channel` is 0."""
        client = self.connect(**pipe)
        client.raw(HEADER)
        client.start = await client.hear(0)
        assert isinstance(client.start, commands.Connection.Start), client.start
        client.say(0, commands.Connection.StartOk({"capabilities": dict(capabilities)}, "PLAIN", response, "en_US"))
        client.tune = await client.hear(0)
        assert isinstance(client.tune, commands.Connection.Tune), client.tune
        client.say(0, commands.Connection.TuneOk(channel_max, frame_max, heartbeat_s), commands.Connection.Open(vhost))
        answer = await client.hear(0)
        assert isinstance(answer, commands.Connection.OpenOk), answer
        if channel:
            await client.open(channel)
        return client

    def queue(self, name: str, vhost: str = "/") -> Any:
        """Return the engine's queue; None: there is none."""
        return self.broker.engine.vhost(vhost).queues.get(name)

    def counted(self, name: str) -> int:
        """Sum what was counted under a name, whatever the reason."""
        return sum(amount for key, amount in self.broker.counters.items() if key == name or key.startswith(name + "."))

    def logged(self, event: str) -> int:
        return sum(line[1] == event for line in [*self.log.lines, *self.broker.log.lines])


@asynccontextmanager
async def amqp_broker(
    journal: HandJournal | None = None,
    *,
    vhosts: Sequence[str] = (),
    limits: dict | None = None,
    clock: object = None,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """Run a broker; its journal writes at once unless one is given. `settings`: those of ``frontend.amqp``."""
    journal = journal or HandJournal(automatic=True)
    front_end = AmqpFrontEnd()
    async with running(journal, clock=clock, vhosts=vhosts, **(limits or {})) as broker, trio.open_nursery() as nursery:
        log = Log()
        for tag, decoder in front_end.wire_decoders.items():
            broker.decoders.register(tag, decoder)
        server = Server(broker.gateway("amqp", [].append, log), AmqpSettings(**settings))
        try:
            yield Bench(broker, journal, log, server, nursery)
        finally:
            nursery.cancel_scope.cancel()
