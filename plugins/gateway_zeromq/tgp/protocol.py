"""What does one TGP peer's command mean now, what is it answered, and what is it sent? No socket and no clock: `now` is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gateway.api import GatewayError, ProtocolViolation
from gateway_zeromq.standing import State
from gateway_zeromq.tgp import codec, commands
from gateway_zeromq.tgp.codec import Encoder
from gateway_zeromq.tgp.commands import (
    NO_CONFIRM,
    NUMBERS,
    Ack,
    Batch,
    Bind,
    Bye,
    Cancel,
    Consume,
    Credit,
    Declare,
    Definition,
    Delete,
    Extend,
    Get,
    Hello,
    HelloOptions,
    Nack,
    Ping,
    Pong,
    Publish,
    Purge,
    Unbind,
    Unschedule,
)
from gateway_zeromq.tgp.deliveries import ConsumingSink, Deliveries
from gateway_zeromq.tgp.replies import (
    COMMAND_INVALID,
    DONE,
    HELLO_FIRST,
    NO_ROOM,
    NO_ROUTE,
    NO_VERSION,
    NOT_BUILT,
    SYNTAX,
    TOO_LARGE,
    Greeting,
    Question,
    Rules,
)

SHORTEST_HEARTBEAT_MS = 50
LONGEST_HEARTBEAT_MS = 3_600_000
BEATS_TO_DEATH = 3


class PeerSink(ConsumingSink, Protocol):
    """Who does what a peer asks for. Answers come by the peer's methods, now or later."""

    def touch(self) -> None:
        """There is something to be sent now, where there was nothing."""

    def violated(self, reason: str) -> None:
        """The peer broke the protocol; it is told."""

    def greet(self, options: HelloOptions) -> Greeting:
        """Let a peer in. Raises: GatewayError."""

    def ended(self) -> None:
        """The peer is gone: give back what it holds. Called once per greeting."""

    def publish(self, command: Publish, body: bytes) -> None:
        """Take a message; `Peer.confirm` and `Peer.returned` answer."""

    def get(self, question: Question, command: Get) -> None:
        """Take one message; `Deliveries.got`, or `Deliveries.not_got` and `Peer.error`, answer."""

    def define(self, question: Question, command: Definition) -> None:
        """Change what exists; `Peer.ok` or `Peer.error` answer."""


class Peer:
    """One TGP peer, from its first message on.

    ``out``: headers and bodies to be sent, in order; whoever sends them takes them out and lowers ``out_bytes``.
    ``form``: the encoder of what is no answer. ``enveloped``: it is a REQ client, which must get exactly one answer to everything.
    ``epoch``: how often it was let in. ``heard``: when it spoke last.

    Args:
        sink: does what it asks for.
        rules: what it may do.
    """

    __slots__ = (
        "_asked",
        "_last_seq",
        "_pinged_at",
        "_rules",
        "_sink",
        "deliveries",
        "enveloped",
        "epoch",
        "form",
        "heard",
        "heartbeat_s",
        "out",
        "out_bytes",
        "state",
    )

    def __init__(self, sink: PeerSink, rules: Rules, *, enveloped: bool = False) -> None:
        self._sink: PeerSink = sink
        self._rules: Rules = rules
        self._asked: Encoder = codec.encode
        self._last_seq: int = 0
        self._pinged_at: float | None = None
        self.enveloped: bool = enveloped
        self.form: Encoder = codec.encode
        self.out: list[tuple[bytes, bytes | None]] = []
        self.out_bytes: int = 0
        self.epoch: int = 0
        self.heard: float = 0.0
        self.heartbeat_s: float = rules.heartbeat_ms / 1000
        self.state: State = State.GREETING
        self.deliveries: Deliveries = Deliveries(self, sink, rules)

    # -- what it says

    def receive(self, header: bytes, body: bytes | None, now: float) -> None:
        """Take one message. Never raises for what the peer can cause."""
        if self.state is State.CLOSED:
            return
        self.heard = now
        self._pinged_at = None
        self._asked = codec.encode_json if header[:1] == b"{" else codec.encode
        try:
            command = codec.decode(header)
        except ProtocolViolation as violation:
            self.fail(SYNTAX, violation.reason)
            return
        if body is not None and type(command) not in _WITH_BODY:
            self.fail(SYNTAX, f"{type(command).__name__.upper()} has a body")
        elif self.state is State.READY or type(command) is Hello:
            _ACTIONS[type(command)](self, command, body)
        elif not isinstance(command, (Pong, Bye)):
            self.complain(command, HELLO_FIRST, "HELLO first")

    def on_hello(self, command: Hello) -> None:
        """Let it in; what it was before, on this connection, has ended."""
        self.end()
        self.state = State.GREETING
        self.form = self._asked
        self._last_seq = 0
        question = self._question(command)
        options = command.options or HelloOptions()
        if command.version_max < commands.VERSION:
            self.error(question, NO_VERSION, f"this server speaks version {commands.VERSION}")
            return
        try:
            greeting = self._sink.greet(options)
        except GatewayError as error:
            self.error(question, error.code, error.text)
            return
        self.state = State.READY
        self.epoch += 1
        self.deliveries = Deliveries(self, self._sink, self._rules, options.credit_bytes)
        wish_ms = options.heartbeat_ms or self._rules.heartbeat_ms
        self.heartbeat_s = min(max(wish_ms, SHORTEST_HEARTBEAT_MS), LONGEST_HEARTBEAT_MS) / 1000
        self.say(self.form(commands.READY, command.r, commands.VERSION, self._ready(greeting)))

    def _ready(self, greeting: Greeting) -> dict[str, Any]:
        ready = {
            "session": greeting.token,
            "resumed": greeting.resumed,
            "heartbeat_ms": round(self.heartbeat_s * 1000),
            "max_body_bytes": self._rules.max_body_bytes,
            "caps": list(commands.CAPABILITIES),
            "user": greeting.user,
            "last_seq": greeting.last_seq,
        }
        return {**ready, "refused": [list(refusal) for refusal in greeting.refused]} if greeting.refused else ready

    def on_publish(self, command: Publish, body: bytes | None) -> None:
        """Take a message; its number must be higher than those before it on this connection."""
        if not self._rises(command):
            return
        self._last_seq = max(command.seq, self._last_seq)
        if body is not None and len(body) > self._rules.max_body_bytes:
            self.too_large(command.seq, len(body))
            return
        self._sink.publish(command, b"" if body is None else body)
        if command.flags & NO_CONFIRM:
            self._acknowledge()

    def _rises(self, command: Publish | Batch) -> bool:
        seq = command.seq
        if seq > self._last_seq or (not seq and command.flags & NO_CONFIRM):
            return True
        text = f"sequence numbers rise: {seq} came after {self._last_seq}; this message was not taken"
        self._sink.violated(text)
        self.complain(command, COMMAND_INVALID, text)
        return False

    def on_batch(self, command: Batch, body: bytes | None) -> None:
        """Take messages in a row, as if each had come by itself."""
        bodies, seq, start = body or b"", command.seq, 0
        claimed = sum(part.body_bytes for part in command.messages)
        if claimed != len(bodies):
            self.fail(SYNTAX, f"BATCH: messages of {claimed} bytes in a body of {len(bodies)}")
        elif self.enveloped:
            self.complain(command, NOT_BUILT, "a REQ client gets one answer, and a batch may have many")
        elif len(bodies) > self._rules.max_body_bytes:
            self.too_large(seq, len(bodies))
        elif seq + len(command.messages) - 1 > commands.HIGHEST:
            self.complain(command, COMMAND_INVALID, f"sequence numbers end at {commands.HIGHEST}; this batch was not taken")
        elif self._rises(command):
            self._last_seq = max(seq + len(command.messages) - 1 if seq else 0, self._last_seq)
            publish, flags, step = self._sink.publish, command.flags, min(seq, 1)
            for part in command.messages:
                end = start + part.body_bytes
                publish(Publish(seq, part.exchange, part.routing_key, part.props, flags), bodies[start:end])
                if self.state is not State.READY:  # one was too much
                    return
                seq, start = seq + step, end

    def too_large(self, seq: int, body_bytes: int) -> None:
        """Refuse a message that breaks the limit, and end the connection; `seq` 0: it is not known."""
        if self.state is State.READY and seq:
            self.confirm(seq, TOO_LARGE)
        self.fail(TOO_LARGE, f"a message of {body_bytes} bytes; at most {self._rules.max_body_bytes} are allowed")

    def on_consume(self, command: Consume) -> None:
        """See `Deliveries.consume`."""
        self.deliveries.consume(self._question(command), command)

    def on_cancel(self, command: Cancel) -> None:
        """See `Deliveries.cancel`."""
        self.deliveries.cancel(self._question(command), command)

    def on_ack(self, command: Ack) -> None:
        """See `Deliveries.ack`."""
        self.deliveries.ack(command)
        self._acknowledge()

    def on_nack(self, command: Nack) -> None:
        """See `Deliveries.nack`."""
        self.deliveries.nack(command)
        self._acknowledge()

    def on_extend(self, command: Extend) -> None:
        """See `Deliveries.extend`."""
        self.deliveries.extend(command)
        self._acknowledge()

    def on_credit(self, command: Credit) -> None:
        """See `Deliveries.credit`."""
        self.deliveries.credit(command)
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Answer a REQ client where nobody else is answered, unless it was answered with an ERROR."""
        if self.enveloped and not self.out:
            self.say(self._asked(commands.OK, None, None))

    def on_get(self, command: Get) -> None:
        """Ask for one message, unless too many that came so are unsettled."""
        if self.deliveries.begin_get(command):
            self._sink.get(self._question(command), command)
        else:
            self.error(self._question(command), NO_ROOM, f"at most {self._rules.max_credit} messages may be unsettled")

    def on_define(self, command: Definition) -> None:
        """Ask for a change of what exists."""
        self._sink.define(self._question(command), command)

    def on_ping(self, command: Ping) -> None:
        """Answer."""
        self.say(self._asked(commands.PONG, command.token))

    def on_bye(self, _command: Bye) -> None:
        """It goes."""
        if self.enveloped:
            self.say(self._asked(commands.BYE, DONE, ""))
        self.end()

    def _question(self, command: Any) -> Question:
        return Question(command.r, NUMBERS[type(command)], self._asked)

    # -- what it is told

    def say(self, header: bytes, body: bytes | None = None) -> None:
        """Have a message sent at the end of this turn."""
        if not self.out:
            self._sink.touch()
        self.out.append((header, body))
        self.out_bytes += len(header) + (len(body) if body is not None else 0)

    def ok(self, question: Question, result: Any) -> None:
        """Answer a request."""
        self.say(question.encode(commands.OK, question.r, result))

    def error(self, question: Question, code: int, text: str) -> None:
        """Answer a request with a no."""
        self.say(question.encode(commands.ERROR, question.r, code, text, question.number))

    def complain(self, command: Any, code: int, text: str) -> None:
        """Say what is wrong with the present command, whether it has an answer or not."""
        self.say(self._asked(commands.ERROR, getattr(command, "r", None), code, text, NUMBERS[type(command)]))

    def confirm(self, seq: int, status: int, *, multiple: bool = False) -> None:
        """Say what became of a message, or of all up to it."""
        self.say(self.form(commands.CONFIRM, seq, multiple, status))

    def scheduled(self, seq: int, scheduled_id: int) -> None:
        """Say that a message is kept until it is due, and by which number it can be taken back."""
        self.say(self.form(commands.CONFIRM, seq, False, 0, scheduled_id))

    def returned(self, seq: int, exchange: str, routing_key: str, body: bytes) -> None:
        """Give a mandatory message back that reached no queue; its CONFIRM follows."""
        self.say(self.form(commands.RETURN, seq, NO_ROUTE, exchange, routing_key), body)

    # -- the end

    def tick(self, now: float) -> bool:
        """Look whether it is alive. Returns False when it is not, and has been ended. Nobody is ended who was not asked first."""
        silence_s = now - self.heard
        if self.enveloped:
            is_dead = silence_s >= self._rules.quiet_s
        elif silence_s < self.heartbeat_s:
            return True
        elif self._pinged_at is None:
            self._pinged_at = now
            self.say(self.form(commands.PING, None))
            return True
        else:
            is_dead = now - self._pinged_at >= (BEATS_TO_DEATH - 1) * self.heartbeat_s
        if is_dead:
            self.end()
        return not is_dead

    def excuse(self, late_s: float, now: float) -> None:
        """So long nobody listened: that is not its silence."""
        if self.enveloped:
            self.heard = min(self.heard + late_s, now)
        elif self._pinged_at is not None:
            self._pinged_at += late_s

    def unreachable(self) -> None:
        """What waits for it can't be sent."""
        self.out.clear()
        self.out_bytes = 0

    def fail(self, code: int, text: str) -> None:
        """The peer broke the protocol: tell it so, and end."""
        self._sink.violated(text)
        self.say(self._asked(commands.ERROR, None, code, text, None))
        if self.state is State.READY and not self.enveloped:
            self.say(self.form(commands.BYE, code, text))
        self.end()

    def goodbye(self, code: int, text: str) -> None:
        """Tell it that the server ends this, and end."""
        if self.state is State.READY:
            self.say(self.form(commands.BYE, code, text))
        self.end()

    def end(self) -> None:
        """It is gone: give back what it holds. Again: nothing happens."""
        was_ready = self.state is State.READY
        self.state = State.CLOSED
        if was_ready:
            self.deliveries.clear()
            self._sink.ended()


_WITH_BODY = (Publish, Batch)

_ACTIONS: dict[type, Callable[[Peer, Any, bytes | None], None]] = {
    Hello: lambda peer, command, _: peer.on_hello(command),
    Publish: Peer.on_publish,
    Batch: Peer.on_batch,
    Consume: lambda peer, command, _: peer.on_consume(command),
    Cancel: lambda peer, command, _: peer.on_cancel(command),
    Ack: lambda peer, command, _: peer.on_ack(command),
    Nack: lambda peer, command, _: peer.on_nack(command),
    Extend: lambda peer, command, _: peer.on_extend(command),
    Credit: lambda peer, command, _: peer.on_credit(command),
    Get: lambda peer, command, _: peer.on_get(command),
    Declare: lambda peer, command, _: peer.on_define(command),
    Delete: lambda peer, command, _: peer.on_define(command),
    Bind: lambda peer, command, _: peer.on_define(command),
    Unbind: lambda peer, command, _: peer.on_define(command),
    Purge: lambda peer, command, _: peer.on_define(command),
    Unschedule: lambda peer, command, _: peer.on_define(command),
    Ping: lambda peer, command, _: peer.on_ping(command),
    Pong: lambda _peer, _command, _body: None,
    Bye: lambda peer, command, _: peer.on_bye(command),
}
