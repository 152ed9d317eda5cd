"""How far has a PULL peer come that we speak to in our own ZMTP, and what does it say?"""

from __future__ import annotations

import socket
from typing import Final, Protocol

import trio

from gateway.api import AccessRefused
from gateway_zeromq.endpoints.feed import Item
from gateway_zeromq.endpoints.pong.outbox import Outbox
from gateway_zeromq.endpoints.pong.terms import Rules, State
from gateway_zeromq.endpoints.pong.traffic import Traffic
from gateway_zeromq.endpoints.pong.vigil import Vigil
from gateway_zeromq.endpoints.pong.wires import Writer
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
LINGER_S: Final = 1.0
"""How long a goodbye may take to be read."""

_DECISECOND: Final = 10
_WITH_PING: Final = (3, 1)
_WITH_COMMANDS: Final = (3, 0)
_OUT_OF_PLACE: Final = frozenset({READY, ERROR, HELLO, WELCOME, INITIATE, SUBSCRIBE, CANCEL})


class Crew(Protocol):
    """What a peer needs of its endpoint."""

    writer: Writer

    def met(self, worker: Worker) -> None:
        """A peer can be sent messages, or has changed its ways: `Worker.state` says which."""

    def freed(self) -> None:
        """A peer can be given messages again."""

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

    ``traffic``: its messages. ``reason``: why it has gone; ``is_violation``: what it did was against the protocol;
    ``is_refused``: it is nobody who is let in.
    """

    __slots__ = (
        "_conversation",
        "_crew",
        "_login",
        "_out",
        "_rules",
        "_scope",
        "_socket",
        "_token",
        "_unread_bytes",
        "_vigil",
        "is_refused",
        "is_violation",
        "peer",
        "reason",
        "state",
        "traffic",
        "version",
    )

    def __init__(self, sock: socket.socket, peer: str, conversation: Conversation, crew: Crew, rules: Rules) -> None:
        self._socket = sock
        self.peer = peer
        self._conversation = conversation
        self._crew = crew
        self._rules = rules
        self.state = State.MEETING
        self.version = (0, 0)
        self.reason = ""
        self.is_violation = self.is_refused = False
        self._out = Outbox(sock, self.end, self._cleared)
        self.traffic = Traffic(self._out, rules, crew.writer, crew.handed)
        self._vigil = Vigil(rules)
        self._token = trio.lowlevel.current_trio_token()
        self._scope: trio.CancelScope | None = None
        self._login: Login | None = None
        self._unread_bytes = 0

    @property
    def waits(self) -> bool:
        """A PONG is still to come, or something to be sent."""
        return self.state is not State.GONE and self.traffic.waits

    # -- sending

    def _cleared(self) -> None:
        """All that had to wait is sent: there is room."""
        if self.state is not State.GONE:
            self.traffic.go_on()
            self._crew.freed()

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
                    return
                self._vigil.note_unasked()
                if name == PING:
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
        if version >= _WITH_PING or (version >= _WITH_COMMANDS and self._rules.older == "ping"):
            self._probe()
        elif self._rules.older == "refuse":
            raise Violation(f"ZMTP {version[0]}.{version[1]}, which has no PING; only peers that can pong are taken")
        else:
            self._begin(State.HANDING)

    def _probe(self) -> None:
        self.state = State.PROBED
        self.traffic.hold()
        self._vigil.await_answer()
        self._conversation.out.append(self.traffic.window.ping())

    def _begin(self, state: State) -> None:
        self.state = state
        self.traffic.begin(pings=state is State.PONGING)
        self._crew.met(self)

    def _ponged(self, context: bytes) -> None:
        done = self.traffic.pong(context)
        if self.state is not State.PONGING:
            self._begin(State.PONGING)
            return
        if done:
            self._crew.settled(done)
        window = self.traffic.window
        if window.unpinged and not window.pings:
            self._conversation.out.append(window.ping())

    def _pinged(self, ttl_ds: int, context: bytes) -> None:
        self._vigil.ttl_s = ttl_ds / _DECISECOND
        self._conversation.out.append(pong(context))
        if self.state is State.HANDING and self._rules.older != "refuse" and not self.traffic.window.items:
            self._probe()  # who asks can answer

    # -- time

    def excuse(self, late_s: float, now: float) -> None:
        """Before `tick`: nobody listened for so long."""
        self._vigil.excuse(late_s, now)

    def tick(self, now: float) -> None:
        """See whether it is dead, or has to be asked."""
        vigil, traffic = self._vigil, self.traffic
        vigil.look(now, traffic)
        if self.state in (State.MEETING, State.PROBED):
            if vigil.is_late(now):
                self._late()
        elif reason := vigil.why_dead(now, traffic):
            self.end(reason)
        elif self.state is State.PONGING and vigil.wants_ping(now, traffic):
            ping = traffic.window.ping()
            self._out.send([ping], len(ping))

    def _late(self) -> None:
        if self.state is State.MEETING:
            self.end("it takes too long for its handshake")
        elif self.version >= _WITH_PING:
            self.end("it does not answer PING", is_violation=True)
        else:
            self._begin(State.HANDING)

    # -- its task

    def end(self, reason: str, *, is_violation: bool = False, is_refused: bool = False) -> None:
        """Have it gone; its task closes the socket. Again: nothing happens."""
        if self.state is State.GONE:
            return
        self.state = State.GONE
        self.reason = reason
        self.is_violation = is_violation
        self.is_refused = is_refused
        self._crew.gone(self, self.traffic.end())
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
            self._vigil.heard = True
            self._feed(data)
            if self._login is not None:
                await self._let_in(self._login)

    async def _let_in(self, login: Login) -> None:
        self._login = None
        try:
            await self._crew.admit(login, self.peer)
        except AccessRefused as refusal:
            self._conversation.refuse("400")
            self.end(f"refused: {refusal.text}", is_refused=True)
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
