"""What has a ZMTP peer said, and what is it to be told, from the first byte on?"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Final, NamedTuple

from gateway_zeromq.zmtp.commands import ERROR, error, read_error, split_command
from gateway_zeromq.zmtp.frames import COMMAND, MORE, Limits, Splitter, Violation
from gateway_zeromq.zmtp.greeting import (
    OLD_VERSION,
    OPENING,
    SIZE,
    SOCKET_TYPES,
    VERSION,
    check_signature,
    is_version_3,
    old_socket_type,
    parse,
    rest_of_greeting,
)
from gateway_zeromq.zmtp.mechanisms import Login, Mechanism, Met

_OLD_SIZE: Final = 12
NULL: Final = b"NULL"


class Ready(NamedTuple):
    """The handshake is over.

    Args:
        version: which both speak: the peer's own, at most 3.1.
        properties: its metadata, names in lower case.
    """

    version: tuple[int, int]
    properties: dict[str, bytes]


class Command(NamedTuple):
    """A command after the handshake."""

    name: bytes
    data: bytes


class Message(NamedTuple):
    """A whole message."""

    frames: list[bytes]


Event = Login | Ready | Command | Message


class Stage(Enum):
    """How far a conversation has come."""

    GREETING = auto()
    REST_OF_GREETING = auto()
    HANDSHAKE = auto()
    LOGIN = auto()
    OLD_GREETING = auto()
    OLD_IDENTITY = auto()
    TRAFFIC = auto()
    OVER = auto()


class Conversation:
    """One side of a connection, without the connection.

    ``out``: what is to be sent; the caller takes it. Whatever raises Violation ends the conversation: what is in `out` then
    (ERROR, during the handshake) may still be sent.

    Args:
        mechanism: how peers are let in; fresh for every conversation.
        socket_type: of this side.
        peers: socket types that are let in.
        limits: of what the peer sends.
    """

    __slots__ = ("_frames", "_limits", "_mechanism", "_peers", "_socket_type", "_splitter", "_version", "out", "stage")

    def __init__(self, mechanism: Mechanism, socket_type: str, peers: frozenset[str], limits: Limits) -> None:
        self._mechanism = mechanism
        self._socket_type = socket_type
        self._peers = peers
        self._limits = limits
        self._splitter = Splitter(limits)
        self._frames: list[bytes] = []
        self._version = VERSION
        self.stage = Stage.GREETING
        self.out: list[bytes] = [OPENING]

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes; yield what they say, one after the other. Go on to the end before more is fed.

        After `Login` nothing is yielded until `admit`: then feed again, nothing if nothing has come.

        Raises:
            Violation: the peer broke the protocol; what it said before has been yielded.
        """
        self._splitter.add(data)
        try:
            while (event := self._next()) is not None:
                yield from event
        except Violation as violation:
            if self.stage in (Stage.HANDSHAKE, Stage.LOGIN) and not isinstance(violation, _Told):
                self.out.append(error(str(violation)))
            self.stage = Stage.OVER
            raise

    def admit(self) -> None:
        """Let the peer in that has said who it is."""
        if self.stage is Stage.LOGIN:
            self.stage = Stage.HANDSHAKE
            self.out.append(self._mechanism.admit())

    def refuse(self, reason: str) -> None:
        """Don't let it in: it is told, and the conversation is over."""
        if self.stage is not Stage.OVER:
            self.stage = Stage.OVER
            self.out.append(error(reason))

    def _next(self) -> tuple[Event, ...] | None:
        """Take one step; None: more must come first."""
        stage = self.stage
        if stage is Stage.TRAFFIC:
            return self._traffic()
        if stage is Stage.HANDSHAKE:
            return self._handshake()
        if stage in (Stage.GREETING, Stage.REST_OF_GREETING, Stage.OLD_GREETING):
            return self._greeting()
        return self._old_identity() if stage is Stage.OLD_IDENTITY else None

    # -- greetings are no frames

    def _greeting(self) -> tuple[Event, ...] | None:
        data = self._splitter.rest()
        step = None
        if self.stage is Stage.GREETING:
            step = self._first_bytes(data)
        elif self.stage is Stage.REST_OF_GREETING and len(data) >= SIZE:
            self._agree(data)
            step, data = (), data[SIZE:]
        elif self.stage is Stage.OLD_GREETING and len(data) >= _OLD_SIZE:
            self._old_greeting(data)
            step, data = (), data[_OLD_SIZE:]
        self._splitter.add(data)
        return step

    def _first_bytes(self, data: bytes) -> tuple[Event, ...] | None:
        check_signature(data)
        if len(data) < len(OPENING):
            return None
        if is_version_3(data):
            self.stage = Stage.REST_OF_GREETING
            self.out.append(rest_of_greeting(self._mechanism.name, as_server=self._mechanism.as_server))
            return ()
        if self._mechanism.name != NULL:
            raise Violation(f"ZMTP 2 has no {self._mechanism.name.decode()}")
        self.stage = Stage.OLD_GREETING
        self.out.append(bytes((SOCKET_TYPES.index(self._socket_type), 0, 0)))
        return ()

    def _agree(self, data: bytes) -> None:
        theirs = parse(data)
        if theirs.mechanism != self._mechanism.name:
            raise Violation(f"mechanism {theirs.mechanism.decode()}; here {self._mechanism.name.decode()} is spoken")
        self._mechanism.check_role(as_server=theirs.as_server)
        self._version = min(VERSION, (theirs.major, theirs.minor))
        self.stage = Stage.HANDSHAKE
        begin = self._mechanism.begin()
        if begin:
            self.out.append(begin)

    def _old_greeting(self, data: bytes) -> None:
        self._check_type(old_socket_type(data[_OLD_SIZE - 1]))
        self._splitter = Splitter(self._limits, commands=False)
        self.stage = Stage.OLD_IDENTITY

    def _old_identity(self) -> tuple[Event, ...] | None:
        taken = self._splitter.take()
        if taken is None:
            return None
        if taken[0] & MORE or len(taken[1]) > 255:  # noqa: PLR2004 - a short frame
            raise Violation("an identity that can't be read")
        self.stage = Stage.TRAFFIC
        return (Ready(OLD_VERSION, {"identity": taken[1]}),)

    # -- commands

    def _handshake(self) -> tuple[Event, ...] | None:
        taken = self._splitter.take()
        if taken is None:
            return None
        if not taken[0] & COMMAND:
            raise Violation("a message before the handshake is over")
        name, data = split_command(taken[1])
        if name == ERROR:
            raise _Told(f"it says ERROR: {read_error(data)}")
        result = self._mechanism.receive(name, data)
        if isinstance(result, Met):
            return self._met(result)
        if isinstance(result, Login):
            self.stage = Stage.LOGIN
            return (result,)
        self.out.append(result)
        return ()

    def _met(self, met: Met) -> tuple[Event, ...]:
        self._check_type(met.properties.get("socket-type", b"").decode("ascii", "replace"))
        if met.answer:
            self.out.append(met.answer)
        self.stage = Stage.TRAFFIC
        return (Ready(self._version, met.properties),)

    def _check_type(self, theirs: str) -> None:
        if theirs not in self._peers:
            raise Violation(
                f"socket type {theirs[:20] or 'not said'}; {self._socket_type} goes with {', '.join(sorted(self._peers))}"
            )

    def _traffic(self) -> tuple[Event, ...] | None:
        taken = self._splitter.take()
        if taken is None:
            return None
        flags, body = taken
        if flags & COMMAND:
            return (Command(*split_command(body)),)
        if flags & MORE:
            self._frames.append(body)
            return ()
        if not self._frames:
            return (Message([body]),)
        frames, self._frames = [*self._frames, body], []
        return (Message(frames),)


class _Told(Violation):
    """The peer has said ERROR itself: there is nothing to answer."""
