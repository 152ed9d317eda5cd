"""What does one Majordomo peer's command mean now, and what is it sent? No socket and no clock: `now` is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.api import GatewayError, ProtocolViolation
from gateway_zeromq.mdp import codec
from gateway_zeromq.mdp.codec import HEADERS, MMI, Dialect, Disconnect, Heartbeat, Ready, Reply, Request, Role, Version
from gateway_zeromq.standing import State


@dataclass(frozen=True, slots=True)
class Rules:
    """What peers may do, from the endpoint's settings.

    Args:
        heartbeat_s: how often workers are told that the broker is alive, and how often they should say so themselves.
        liveness: after so many of these intervals of silence a worker is dead.
        busy_s: after so long a silence a worker that has a request is dead, if that is longer.
        quiet_s: after so long a silence a client is forgotten; it is known again with its next request.
    """

    heartbeat_s: float = 2.5
    liveness: int = 3
    busy_s: float = 60.0
    quiet_s: float = 300.0


class Sink(Protocol):
    """What a peer of either role needs."""

    def touch(self) -> None:
        """There is something to be sent now, where there was nothing."""

    def violated(self, reason: str) -> None:
        """The peer broke the protocol."""


class ClientSink(Sink, Protocol):
    """Who does what a client asks for."""

    def admit(self) -> bool:
        """Say whether one more client can be known."""

    def request(self, command: Request) -> None:
        """Have it answered by a worker of the service; `Client.answer` answers."""

    def unclaimed(self, count: int) -> None:
        """So many replies can't be sent: the client is gone."""


class WorkerSink(Sink, Protocol):
    """Who does what a worker offers."""

    def register(self, service: str) -> None:
        """Consume the service's queue, a message at a time; `Worker.ask` hands it over. Raises: GatewayError."""

    def answer(self, body: list[bytes], *, final: bool) -> None:
        """Pass a reply to whoever asked; a final one settles the request."""

    def refused(self, reason: str) -> None:
        """It can't be a worker now, through no fault of its own."""

    def ended(self) -> None:
        """It is gone: its request goes back to the queue. Called once per registration."""


class Peer:
    """What clients and workers have in common.

    ``out``: messages to be sent, in order, as lists of frames; whoever sends them takes them out and lowers ``out_bytes``.
    """

    __slots__ = ("_header", "_rules", "enveloped", "epoch", "heard", "heartbeat_s", "out", "out_bytes", "state", "version")

    def __init__(self, role: Role, version: Version, rules: Rules, *, enveloped: bool) -> None:
        self._header: bytes = HEADERS[Dialect(role, version)]
        self._rules: Rules = rules
        self.version: Version = version
        self.enveloped: bool = enveloped
        self.epoch: int = 0
        self.heard: float = 0.0
        self.heartbeat_s: float = rules.heartbeat_s
        self.out: list[list[bytes]] = []
        self.out_bytes: int = 0
        self.state: State = State.GREETING

    def receive(self, header: bytes, body: bytes | None, now: float) -> None:
        """Take a message of one or two frames."""
        self.receive_frames([header] if body is None else [header, body], now)

    def receive_frames(self, frames: Sequence[bytes], now: float) -> None:
        """Take a message, from the header on. Never raises for what the peer can cause."""
        raise NotImplementedError

    def check(self, frames: Sequence[bytes]) -> None:
        """Raise ProtocolViolation if a message is of another role or version than the first, or lacks the empty frame."""
        if frames[0] != self._header:
            raise ProtocolViolation(f"{frames[0][:20].hex()} is not how this peer began", codec.SPECS[self.version])
        if self.version is Version.V01 and not self.enveloped:
            raise ProtocolViolation("there is no empty frame before the header", codec.SPECS[self.version])

    def unreachable(self) -> None:
        """What waits for it can't be sent."""
        self.out.clear()
        self.out_bytes = 0

    def excuse(self, late_s: float, now: float) -> None:
        """So long nobody listened: that is not its silence."""
        self.heard = min(self.heard + late_s, now)

    def say(self, frames: list[bytes], sink: Sink) -> None:
        """Have a message sent at the end of this turn."""
        if not self.out:
            sink.touch()
        self.out.append(frames)
        self.out_bytes += sum(map(len, frames))


class Client(Peer):
    """One who asks. It is known as long as its connection is there, and nothing depends on that."""

    __slots__ = ("_sink",)

    def __init__(self, sink: ClientSink, version: Version, rules: Rules, *, enveloped: bool) -> None:
        super().__init__(Role.CLIENT, version, rules, enveloped=enveloped)
        self._sink: ClientSink = sink

    def receive_frames(self, frames: Sequence[bytes], now: float) -> None:
        """See `Peer`: what is no request is dropped, as clients have no command for a no."""
        if self.state is State.CLOSED:
            return
        self.heard = now
        try:
            self.check(frames)
            command = codec.decode_client(self.version, frames)
        except ProtocolViolation as violation:
            self._sink.violated(violation.reason)
            return
        if self.state is State.GREETING:
            if not self._sink.admit():
                return
            self.state = State.READY
            self.epoch += 1
        self._sink.request(command)

    def fail(self, reason: str) -> None:
        """A message can't be understood: drop it."""
        self._sink.violated(reason)

    def answer(self, service: bytes, body: Sequence[bytes], *, final: bool) -> None:
        """Pass on a reply."""
        self.say(codec.reply(self.version, service, body, final=final), self._sink)

    def tick(self, now: float) -> bool:
        """Forget it after a long silence."""
        if now - self.heard >= self._rules.quiet_s:
            self.end()
            return False
        return True

    def goodbye(self, _code: int, _text: str) -> None:
        """End; clients have no command for that."""
        if not self.out:
            self.end()

    def unreachable(self) -> None:
        """What waits for it can't be sent, and is counted."""
        if self.out:
            self._sink.unclaimed(len(self.out))
        super().unreachable()

    def end(self) -> None:
        """It is gone, with what it was to be told."""
        self.state = State.CLOSED
        self.unreachable()


class Worker(Peer):
    """One who answers for a service. ``address``: what the reply must carry to the request that it has; None: it has none."""

    __slots__ = ("_beat_at", "_sink", "_spoke", "address", "service")

    def __init__(self, sink: WorkerSink, version: Version, rules: Rules, *, enveloped: bool) -> None:
        super().__init__(Role.WORKER, version, rules, enveloped=enveloped)
        self._sink: WorkerSink = sink
        self._beat_at: float = 0.0
        self._spoke: bool = False
        self.address: bytes | None = None
        self.service: str = ""

    # -- what it says

    def receive_frames(self, frames: Sequence[bytes], now: float) -> None:
        """See `Peer`."""
        if self.state is State.CLOSED:
            return
        self.heard = now
        try:
            self.check(frames)
            command = codec.decode_worker(self.version, frames)
        except ProtocolViolation as violation:
            self.fail(violation.reason)
            return
        match command:
            case Ready():
                self._ready(command, now)
            case Disconnect():
                self.unreachable()  # under its name there may be another by now, who must not get its request
                self.end()
            case _ if self.state is State.GREETING:
                # After READY all of this is right: it was a worker of a broker that has stopped, or was taken for dead.
                self._send_away()
            case Reply():
                self._reply(command)
            case Heartbeat():
                pass

    def _ready(self, command: Ready, now: float) -> None:
        if self.state is State.READY:
            self.fail("READY came twice")
            return
        if command.service.startswith(MMI):
            self.fail(f"{command.service} is for the broker alone")
            return
        self.state = State.READY
        self.epoch += 1
        self.service = command.service
        self._beat_at = now + self.heartbeat_s
        try:
            self._sink.register(command.service)
        except GatewayError as error:
            self._sink.refused(error.text)
            self.disconnect()

    def _reply(self, command: Reply) -> None:
        if self.address is None:
            self.fail("there is a reply, and no request")
        elif command.address != self.address:
            self.fail(f"the reply is to {command.address[:20].hex()}, the request came from {self.address.hex()}")
        else:
            if command.final:
                self.address = None
            self._sink.answer(command.body, final=command.final)

    def fail(self, reason: str) -> None:
        """The worker broke the protocol: tell it so, and end (RFC 7, RFC 18: Opening and Closing a Connection)."""
        self._sink.violated(reason)
        self.disconnect()

    def disconnect(self) -> None:
        """Tell it to begin anew on a new connection, and end. A request that was not sent is for others."""
        self.unreachable()
        self._send_away()
        self.end()

    def _send_away(self) -> None:
        self.say(codec.disconnect(self.version), self._sink)

    # -- what it is told

    def ask(self, address: bytes, body: Sequence[bytes]) -> None:
        """Hand over a request; there must be none that is not answered."""
        self.address = address
        self._spoke = True
        self.say(codec.request(self.version, address, body), self._sink)

    def beat(self, now: float) -> None:
        """Say that the broker is alive, unless something else has said so."""
        if now < self._beat_at or self.state is not State.READY:
            return
        if not self._spoke:
            self.say(codec.heartbeat(self.version), self._sink)
        self._spoke = False
        self._beat_at = now + self.heartbeat_s

    # -- the end

    def tick(self, now: float) -> bool:
        """Look whether it is alive; those that do one thing at a time are silent while they have a request."""
        limit_s = self._rules.liveness * self.heartbeat_s
        if self.address is not None:
            limit_s = max(limit_s, self._rules.busy_s)
        if now - self.heard >= limit_s:
            self.end()
            return False
        return True

    def goodbye(self, _code: int, _text: str) -> None:
        """Tell it that the broker stops, and end."""
        if self.state is State.READY:
            self.disconnect()

    def end(self) -> None:
        """It is gone: its request goes back. Again, or before it was one: nothing happens."""
        if self.state is State.READY:
            self.state = State.CLOSED
            self.address = None
            self._sink.ended()
