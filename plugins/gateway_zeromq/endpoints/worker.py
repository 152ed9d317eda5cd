"""What is one PULL peer sent over our own ZMTP, and what has become of it?

All of it is synchronous but the waiting for its socket: what is to be sent is sent at the end of a turn, in one go.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

import trio

from gateway.api import AccessRefused
from gateway_zeromq.endpoints.outbox import SEND_BYTES, Outbox
from gateway_zeromq.endpoints.terms import Rules, State
from gateway_zeromq.endpoints.window import Window
from gateway_zeromq.endpoints.wires import Item, Writer, size_of
from gateway_zeromq.zmtp.commands import (
    CANCEL,
    ERROR,
    HELLO,
    INITIATE,
    PING,
    PONG,
    READY,
    SUBSCRIBE,
    WELCOME,
    pong,
    read_ping,
    read_pong,
)
from gateway_zeromq.zmtp.conversation import Command, Conversation, Event, Message, Ready, Stage
from gateway_zeromq.zmtp.frames import Violation
from gateway_zeromq.zmtp.mechanisms import Login

READ_BYTES: Final = 16_384
"""A peer that sends nonsense has so much looked at before others have their turn."""
CONTROL_BYTES: Final = 65_536
"""Answers to PINGs that may wait for a peer that doesn't read."""
HANDSHAKE_S: Final = 10.0
DEAD_AFTER: Final = 3
"""Heartbeats without an answer while nothing else is under way."""
LINGER_S: Final = 1.0
"""How long a goodbye may take to be read."""

_DECISECOND: Final = 10
_LARGE_BYTES: Final = 4_096
"""Of the bytes of messages that are smaller than this on average no account is kept."""
_WITH_PING: Final = (3, 1)
_WITH_COMMANDS: Final = (3, 0)
_OUT_OF_PLACE: Final = frozenset({READY, ERROR, HELLO, WELCOME, INITIATE, SUBSCRIBE, CANCEL})


class Crew(Protocol):
    """What a peer needs of its endpoint."""

    writer: Writer

    def met(self, worker: Worker) -> None:
        """A peer can be sent messages, or has changed its ways: `Worker.state` says which."""

    def room(self) -> None:
        """There is room again."""

    def settled(self, items: list[Item]) -> None:
        """Messages were ponged."""

    def handed(self, items: list[Item]) -> None:
        """Messages were taken by the kernel, for a peer that can't pong."""

    def gone(self, worker: Worker, items: list[Item]) -> None:
        """A peer has gone; these messages were not ponged."""

    async def admit(self, login: Login, peer: str) -> None:
        """Let a peer in. Raises: AccessRefused. Cancellation: safe."""


class Worker:
    """One peer on a stream.

    ``reason``: why it has gone. ``is_violation``: that was against the protocol.
    """

    __slots__ = (
        "_conversation",
        "_crew",
        "_deadline",
        "_heard",
        "_heard_at",
        "_is_large",
        "_login",
        "_out",
        "_progress",
        "_progress_at",
        "_rules",
        "_scope",
        "_socket",
        "_todo",
        "_token",
        "_ttl_s",
        "_unread_bytes",
        "is_violation",
        "peer",
        "reason",
        "state",
        "version",
        "window",
    )

    def __init__(self, sock: socket.socket, peer: str, conversation: Conversation, crew: Crew, rules: Rules) -> None:
        self._socket = sock
        self.peer = peer
        self._conversation = conversation
        self._crew = crew
        self._rules = rules
        self.state = State.MEETING
        self.window = Window(rules.interval, rules.behind)
        self.version = (0, 0)
        self.reason = ""
        self.is_violation = False
        self._todo: list[Item] = []
        self._out = Outbox(sock, self.end, self._cleared)
        self._token = trio.lowlevel.current_trio_token()
        self._scope: trio.CancelScope | None = None
        self._login: Login | None = None
        self._is_large = False
        self._heard = self._progress = False
        self._heard_at = self._progress_at = trio.current_time()
        self._deadline = self._heard_at + HANDSHAKE_S
        self._ttl_s = 0.0
        self._unread_bytes = 0

    # -- what the endpoint asks and says

    @property
    def room(self) -> int:
        """How many messages it may be given now."""
        if self._out.blocked or (self.state is not State.PONGING and self.state is not State.HANDING):
            return 0
        if self._is_large and size_of(self.window.items) + size_of(self._todo) >= self._rules.window_bytes:
            return 0
        return self._rules.window - len(self.window.items) - len(self._todo)

    @property
    def waits(self) -> bool:
        """A PONG is still to come, or something to be sent."""
        return self.state is not State.GONE and bool(self._todo or self._out.blocked or self.window.unponged)

    def give(self, items: list[Item]) -> None:
        """Give it messages, not more than it has room for; `work` sends them."""
        self._todo = self._todo + items if self._todo else items

    def take_back(self) -> list[Item]:
        """Return what was given to it and has not been sent."""
        todo, self._todo = self._todo, []
        return todo

    def work(self) -> None:
        """Send what it was given, as far as the kernel takes it: in one send, unless it is much."""
        while self._todo and not self._out.blocked and self.state is not State.GONE:
            self._out.send(*self._written())
            if self.state is State.HANDING and not self._out.blocked:
                self._crew.handed(self.window.hand_over())

    def _written(self) -> tuple[list[bytes], int]:
        """Return bytes for some of what it was given, in parts, with the PINGs that are due; and how many bytes."""
        todo, window, write = self._todo, self.window, self._crew.writer
        pings = self.state is State.PONGING
        self._progress = self._progress or not window.pings  # from now on it is asked
        parts: list[bytes] = []
        at, end = 0, len(todo)
        size = 0
        while at < end and size < SEND_BYTES:
            seen = len(parts)
            some = todo[at : at + window.until_ping()]
            write(some, parts)
            at += len(some)
            window.add(some)
            if pings:
                parts.append(window.due(last=at == end))
            size += sum(map(len, parts[seen:]))
        self._todo = todo[at:]
        self._is_large = size > at * _LARGE_BYTES
        return parts, size

    # -- sending

    def _cleared(self) -> None:
        """All that had to wait is sent: there is room."""
        if self.state is not State.GONE:
            if self.state is State.HANDING:
                self._crew.handed(self.window.hand_over())
            self.work()
            self._crew.room()

    def _answer(self) -> None:
        """Send what the conversation has to say."""
        out = self._conversation.out
        if out:
            data = b"".join(out)
            out.clear()
            self._out.send([data], len(data))
            self._unread_bytes = self._unread_bytes + len(data) if self._out.blocked else 0
            if self._unread_bytes > CONTROL_BYTES:
                self.end("it reads no answers")

    # -- hearing

    def _feed(self, data: bytes) -> None:
        try:
            for event in self._conversation.feed(data):
                self._hear(event)
        except Violation as violation:
            self.end(str(violation), is_violation=True)
        if self.state is not State.GONE:
            self._answer()

    def _hear(self, event: Event) -> None:
        match event:
            case Command(name, data):
                if name == PONG:
                    self._ponged(read_pong(data))
                elif name == PING:
                    self._pinged(*read_ping(data))
                elif name in _OUT_OF_PLACE:
                    raise Violation(f"{name.decode()} is out of place")
            case Message():
                raise Violation("a message from a PULL peer")
            case Ready(version):
                self._met(version)
            case Login():
                self._login = event

    def _met(self, version: tuple[int, int]) -> None:
        self.version = version
        self._answer()
        if version >= _WITH_PING or (version >= _WITH_COMMANDS and self._rules.older == "ping"):
            self._probe()
        elif self._rules.older == "refuse":
            raise Violation(f"ZMTP {version[0]}.{version[1]}, which has no PING; only peers that can pong are taken")
        else:
            self.state = State.HANDING
            self._crew.met(self)

    def _probe(self) -> None:
        self.state = State.PROBED
        self._deadline = trio.current_time() + HANDSHAKE_S
        self._conversation.out.append(self.window.ping())

    def _ponged(self, context: bytes) -> None:
        done = self.window.pong(context)
        self._progress = True
        if self.state is not State.PONGING:
            self.state = State.PONGING
            self._crew.met(self)
            return
        if done:
            self._crew.settled(done)
        if self.window.unpinged and not self.window.pings:
            self._conversation.out.append(self.window.ping())

    def _pinged(self, ttl_ds: int, context: bytes) -> None:
        self._ttl_s = ttl_ds / _DECISECOND
        self._conversation.out.append(pong(context))
        if self.state is State.HANDING and self._rules.older != "refuse" and not self.window.items:
            self._probe()  # who asks can answer

    # -- time

    def excuse(self, late_s: float, now: float) -> None:
        """Before `tick`: nobody listened for so long."""
        self._heard_at = min(self._heard_at + late_s, now)
        self._progress_at = min(self._progress_at + late_s, now)
        self._deadline += late_s

    def tick(self, now: float) -> None:
        """See whether it is dead, or has to be asked."""
        if self._heard:
            self._heard, self._heard_at = False, now
        if self._progress or self._out.moved:
            self._progress = self._out.moved = False
            self._progress_at = now
        if self.state in (State.MEETING, State.PROBED):
            if now > self._deadline:
                self._late()
        elif self._ttl_s and now - self._heard_at > self._ttl_s:
            self.end("it is silent for longer than it said it would be")
        elif self.state is State.PONGING:
            self._ask(now)
        elif self._out.blocked:
            self._bury(now, self._rules.pong_timeout_s)
        else:
            self._progress_at = now

    def _ask(self, now: float) -> None:
        if self.window.pings:
            self._bury(now, self._rules.pong_timeout_s if self.window.unponged else DEAD_AFTER * self._rules.heartbeat_s)
        elif self._out.blocked:
            self._bury(now, self._rules.pong_timeout_s)
        elif now - self._progress_at >= self._rules.heartbeat_s:
            self._progress_at = now
            ping = self.window.ping()
            self._out.send([ping], len(ping))

    def _bury(self, now: float, timeout_s: float) -> None:
        if timeout_s and now - self._progress_at > timeout_s:
            self.end(f"no PONG for {timeout_s:g} s")

    def _late(self) -> None:
        if self.state is State.MEETING:
            self.end("it takes too long for its handshake")
        elif self.version >= _WITH_PING:
            self.end("it does not answer PING", is_violation=True)
        else:
            self.window = Window(self._rules.interval, self._rules.behind)
            self.state = State.HANDING
            self._crew.met(self)

    # -- its task

    def end(self, reason: str, *, is_violation: bool = False) -> None:
        """Have it gone; its task closes the socket. Again: nothing happens."""
        if self.state is State.GONE:
            return
        self.state = State.GONE
        self.reason = reason
        self.is_violation = is_violation
        self._out.forget()
        items = self.window.hand_over() + self.take_back()
        self._crew.gone(self, items)
        self._token.run_sync_soon(self._leave)

    def _leave(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """See to the peer until it has gone. Cancellation: it stays; run it again, or close it."""
        with trio.CancelScope() as self._scope:
            if self.state is not State.GONE:
                self._answer()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._out.run)
                    await self._read()
                    nursery.cancel_scope.cancel()
        if self.state is State.GONE:
            try:
                await self._part()
            finally:
                self.close()

    async def _read(self) -> None:
        while self.state is not State.GONE:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self.end(f"connection lost: {error.strerror}")
                return
            if not data:
                self.end("closed by the peer")
                return
            self._heard = True
            self._feed(data)
            if self._login is not None:
                await self._let_in(self._login)

    async def _let_in(self, login: Login) -> None:
        self._login = None
        try:
            await self._crew.admit(login, self.peer)
        except AccessRefused as refusal:
            self._conversation.refuse("400")
            self.end(f"refused: {refusal.text}")
            return
        self._conversation.admit()
        self._feed(b"")

    async def _part(self) -> None:
        """Say why, if there is something to say, and have it read: a socket closed with something unread would take it back."""
        out = self._conversation.out
        if not out or self._conversation.stage is Stage.TRAFFIC or self._out.blocked:
            return
        with trio.move_on_after(LINGER_S):
            try:
                self._socket.send(b"".join(out))
                self._socket.shutdown(socket.SHUT_WR)
                while True:
                    await trio.lowlevel.wait_readable(self._socket)
                    if not self._socket.recv(READ_BYTES):
                        return
            except OSError:
                return

    def close(self) -> None:
        """Close the socket, whatever it was about. Again: nothing happens."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
