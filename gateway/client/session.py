"""What is said on the connection, what is still unanswered, and what is said again on the next one? No socket, no clock."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

from gateway.client.deliveries import Delivery, Properties, Subscription
from gateway.client.errors import ClientError, ConsumerCancelled, Disconnected, RequestRefused
from gateway.client.replies import Publishing, Reply, Returned
from gateway.client.wire import MANDATORY, VERSION, Command, batches, decode, encode

log = logging.getLogger("gateway.client")

HELLO_FIRST = 401
PASSING = frozenset({200, 320})
"""Codes of a BYE after which the client comes back: the broker stops, or closed a connection by force."""


_REFUSED_KEPT = 1000


class State(Enum):
    """Where a connection stands (docs/tgp.md, state table)."""

    LOST = "no connection"
    GREETING = "HELLO sent"
    READY = "ready"
    CLOSED = "closed"


Confirmed = TypeVar("Confirmed", bound=Publishing)
Consuming = TypeVar("Consuming", bound=Subscription)
Message: TypeAlias = tuple[str, str, bytes] | tuple[str, str, bytes, Properties | None]
"""Exchange, routing key, body, and properties if there are any."""


class Session(Generic[Confirmed, Consuming]):
    """The client's half of TGP/1.

    Args:
        send: takes header and body; never blocks.
        options: of HELLO.
        make_confirm: from number, command and body.
        make_consumer: from queue, tag, credit and options.
    """

    def __init__(
        self,
        send: Callable[[bytes, bytes | None], None],
        options: dict[str, Any],
        make_confirm: Callable[[int, tuple[Any, ...], bytes], Confirmed],
        make_consumer: Callable[[str, str, int, dict[str, Any]], Consuming],
    ) -> None:
        self.state = State.LOST
        self.failure: ClientError | None = None
        self.ready: dict[str, Any] = {}
        self.connections = 0
        self.unconfirmed: OrderedDict[int, Confirmed] = OrderedDict()
        self.unconfirmed_bytes = 0
        self.refused: deque[Reply] = deque(maxlen=_REFUSED_KEPT)
        self.last_seq = 0
        self._send = send
        self._options = options
        self._make_confirm = make_confirm
        self._make_consumer = make_consumer
        self._asked = 0
        self._requests: dict[int, tuple[Reply, tuple[Any, ...]]] = {}
        self._consumers: dict[str, Consuming] = {}
        self._settled_tags: set[str] = set()  # of cancelled consumers on this connection that settled nothing
        self._receivers: dict[int, Callable[[list[Any], bytes], None]] = {
            Command.READY: self._on_ready,
            Command.CONFIRM: self._on_confirm,
            Command.RETURN: self._on_return,
            Command.DELIVER: self._on_deliver,
            Command.CANCEL: self._on_cancel,
            Command.EMPTY: self._on_empty,
            Command.GOT: self._on_got,
            Command.OK: self._on_ok,
            Command.ERROR: self._on_error,
            Command.PING: self._on_ping,
            Command.PONG: lambda _fields, _body: None,
            Command.BYE: self._on_bye,
        }

    # -- connections

    def greet(self) -> None:
        """Begin on a new connection. What was delivered on the old one goes back to its queue, so it is forgotten here."""
        self.connections += 1
        for consumer in self._consumers.values():
            consumer.buffer.clear()
            consumer.used = 0
        self._settled_tags.clear()
        self.state = State.GREETING
        options = {**self._options, "session": self.ready["session"]} if "session" in self.ready else self._options
        self._asked += 1
        self._send(encode((Command.HELLO, self._asked, VERSION, options)), None)

    def lost(self) -> None:
        """Note that the connection is gone."""
        if self.state is not State.CLOSED:
            self.state = State.LOST

    def close(self, failure: ClientError) -> None:
        """End for good; every open reply is answered with `failure`."""
        self.state = State.CLOSED
        self.failure = failure
        replies: list[Reply] = [*self.unconfirmed.values(), *(reply for reply, _ in self._requests.values())]
        for reply in replies:
            reply.resolve(error=failure)
        for consumer in self._consumers.values():
            consumer.end(failure)
        self.unconfirmed.clear()
        self._requests.clear()

    def _on_ready(self, fields: list[Any], _body: bytes) -> None:
        _r, version, options = fields
        if version != VERSION:
            self.close(Disconnected(501, f"the gateway chose version {version} of the protocol, this client speaks {VERSION}"))
            return
        self.ready = options
        self.state = State.READY
        self._go_on(options.get("last_seq") or 0, options.get("refused") or [])

    def _go_on(self, decided: int, refused: list[list[int]]) -> None:
        """Say again what the gateway has not: requests, consumers, messages above its sequence mark."""
        while self.unconfirmed and (seq := next(iter(self.unconfirmed))) <= decided:
            self._settle_oldest(next((status for first, last, status in refused if first <= seq <= last), 0))
        self.last_seq = max(self.last_seq, decided)
        for r in [r for r, (_, command) in self._requests.items() if self._is_past(command)]:
            self._answer(r)  # that consumer went with its connection, or was given up before it began
        asked = {command[2] for _, command in self._requests.values() if command[0] is Command.CONSUME}
        for r, (_, command) in self._requests.items():
            self._send(encode((command[0], r, *command[1:])), None)
        for consumer in self._consumers.values():
            if consumer.tag not in asked:
                self._ask_consume(consumer)
        self._send_publishes(self.unconfirmed.values())

    def _is_past(self, command: tuple[Any, ...]) -> bool:
        """Say whether a request is about a consumer that a new connection need not have."""
        return command[0] is Command.CANCEL or (command[0] is Command.CONSUME and command[2] not in self._consumers)

    # -- what the program says

    def publish(self, message: Message, *, mandatory: bool = False, due_ms: int = 0) -> Confirmed:
        """Send a message; it is sent again on every new connection until it is confirmed.

        Raises:
            RequestRefused: 540, it has a time, and the gateway schedules nothing.
        """
        self.check_open()
        if due_ms:
            self.need("schedule")
        confirm = self._numbered(message, MANDATORY if mandatory else 0, due_ms)
        if self.state is State.READY:
            self._send(encode(confirm.command), confirm.body)
        return confirm

    def publish_many(self, messages: Iterable[Message], *, mandatory: bool) -> list[Confirmed]:
        """Send messages as `publish` does, in as few of ZeroMQ's as the gateway takes them in."""
        self.check_open()
        confirms = [self._numbered(message, MANDATORY if mandatory else 0) for message in messages]
        if self.state is State.READY:
            self._send_publishes(confirms)
        return confirms

    def _numbered(self, message: Message, flags: int, due_ms: int = 0) -> Confirmed:
        exchange, routing_key, body, *properties = message
        seq = self.last_seq = self.last_seq + 1
        command = (Command.PUBLISH, seq, exchange, routing_key, *(properties or (None,)), flags)
        confirm = self._make_confirm(seq, (*command, due_ms) if due_ms else command, body)
        self.unconfirmed[seq] = confirm
        self.unconfirmed_bytes += len(body)
        return confirm

    def _send_publishes(self, confirms: Iterable[Confirmed]) -> None:
        pairs = ((confirm.command, confirm.body) for confirm in confirms)
        if "batch" in self.ready.get("caps", ()):
            for header, body in batches(pairs, self.ready.get("max_body_bytes") or 0):
                self._send(header, body)
        else:
            for command, body in pairs:
                self._send(encode(command), body)

    def need(self, capability: str) -> None:
        """Make sure that the gateway can do something beyond the least that there is.

        Raises:
            RequestRefused: 540, it can't.
        """
        self.check_open()
        if capability not in self.ready.get("caps", ()):
            raise RequestRefused(540, f"this gateway does not offer {capability!r}")

    def request(self, command: Command, *fields: Any) -> Reply:
        """Ask; what is unanswered when the connection goes is asked again on the next one."""
        self.check_open()
        reply = Reply()
        self._asked += 1
        self._requests[self._asked] = (reply, (command, *fields))
        if self.state is State.READY:
            self._send(encode((command, self._asked, *fields)), None)
        return reply

    def check_open(self) -> None:
        """Raise what ended the session, if it has ended."""
        if self.failure is not None:
            raise self.failure

    def is_decided(self, seq: int) -> bool:
        """Say whether all publishes up to this one are confirmed or refused."""
        return not self.unconfirmed or next(iter(self.unconfirmed)) > seq

    def forget(self, reply: Reply) -> None:
        """Wait no longer for an answer, and don't ask again."""
        for r in [r for r, (waiting, _) in self._requests.items() if waiting is reply]:
            del self._requests[r]

    def consume(self, queue: str, credit: int, options: dict[str, Any]) -> tuple[Consuming, Reply]:
        """Begin to take messages of a queue; begun again on every new connection."""
        self.check_open()
        consumer = self._make_consumer(queue, f"c{self._asked + 1}", credit, options)
        self._consumers[consumer.tag] = consumer
        return consumer, self._ask_consume(consumer)

    def _ask_consume(self, consumer: Subscription) -> Reply:
        return self.request(Command.CONSUME, consumer.queue, consumer.tag, consumer.credit, consumer.options)

    def cancel(self, consumer: Subscription) -> Reply | None:
        """End a consumer and give back what it has not looked at; None: it was ended before."""
        if self._consumers.pop(consumer.tag, None) is None:
            return None
        consumer.end(ConsumerCancelled(0, f"consumer {consumer.tag} was cancelled by its own program"))
        reply = self.request(Command.CANCEL, consumer.tag)
        if consumer.options.get("no_ack"):
            self._settled_tags.add(consumer.tag)
            consumer.buffer.clear()
        while consumer.buffer:
            consumer.buffer.pop().nack()
        return reply

    def settle(self, command: Command, delivery: Delivery, *fields: Any) -> bool:
        """Send ACK, NACK or EXTEND, unless the delivery came on an earlier connection."""
        if delivery.connection != self.connections or self.state is not State.READY:
            return False
        if not delivery.number:  # it needs no acknowledgement
            return True
        self._send(encode((command, delivery.tag, delivery.number, *fields)), None)
        return True

    def grant(self, consumer: Subscription) -> None:
        """Give credit back for deliveries that are never settled; rarely, and before they run out."""
        if consumer.used and (not consumer.buffer or 2 * consumer.used >= consumer.credit) and self.state is State.READY:
            self._send(encode((Command.CREDIT, consumer.tag, consumer.used)), None)
            consumer.used = 0

    def ping(self) -> None:
        """Ask whether anybody is there."""
        self._send(encode((Command.PING,)), None)

    def bye(self) -> None:
        """Say goodbye."""
        if self.state is State.READY:
            self._send(encode((Command.BYE, 200, "done")), None)

    # -- what the gateway says

    def receive(self, header: bytes, body: bytes | None) -> None:
        """Take one message.

        Raises:
            ClientError: 501, it is none of TGP/1.
        """
        command, *fields = decode(header)
        receiver = self._receivers.get(command)
        if receiver is None:
            raise ClientError(501, f"the gateway sent command {command}, which TGP/1 does not give it")
        try:
            receiver(fields, body or b"")
        except (ValueError, TypeError, LookupError) as error:
            raise ClientError(501, f"the gateway sent {Command(command).name} with wrong fields: {error}") from None

    def _on_confirm(self, fields: list[Any], _body: bytes) -> None:
        seq, multiple, status, *scheduled = fields
        if not multiple:
            confirm = self.unconfirmed.pop(seq, None)
            if confirm is not None:
                confirm.scheduled_id = scheduled[0] if scheduled else None
                self._decide(confirm, status)
            return
        while self.unconfirmed and next(iter(self.unconfirmed)) <= seq:
            self._settle_oldest(status)

    def _settle_oldest(self, status: int) -> None:
        self._decide(self.unconfirmed.popitem(last=False)[1], status)

    def _decide(self, confirm: Confirmed, status: int) -> None:
        self.unconfirmed_bytes -= len(confirm.body)
        confirm.settle(status)
        if confirm.error is not None:
            self.refused.append(confirm)

    def _on_return(self, fields: list[Any], body: bytes) -> None:
        seq, code, exchange, routing_key = fields
        if seq in self.unconfirmed:
            self.unconfirmed[seq].returned = Returned(code, exchange, routing_key, body)

    def _on_deliver(self, fields: list[Any], body: bytes) -> None:
        delivery = Delivery(self, self.connections, fields[0], fields[1:], body)
        consumer = self._consumers.get(fields[0])
        if consumer is not None:
            consumer.put(delivery)
        elif fields[0] not in self._settled_tags:
            delivery.nack()

    def _on_cancel(self, fields: list[Any], _body: bytes) -> None:
        self._end_consumer(fields[1], ConsumerCancelled(404, "the gateway cancelled the consumer: its queue is gone"))

    def _end_consumer(self, tag: str, error: ClientError) -> None:
        consumer = self._consumers.pop(tag, None)
        if consumer is not None:
            consumer.end(error)

    def _answer(self, r: int, result: Any = None, error: ClientError | None = None) -> bool:
        waiting = self._requests.pop(r, None)
        if waiting is None:
            return False
        reply, command = waiting
        if command[0] is Command.CANCEL:
            self._settled_tags.discard(command[1])
        if error is not None and command[0] is Command.CONSUME:
            self._end_consumer(command[2], ConsumerCancelled(error.code, error.text))
        reply.resolve(result, error)
        return True

    def _on_empty(self, fields: list[Any], _body: bytes) -> None:
        self._answer(fields[0])

    def _on_got(self, fields: list[Any], body: bytes) -> None:
        delivery = Delivery(self, self.connections, "", fields[1:], body)
        if not self._answer(fields[0], delivery):
            delivery.nack()

    def _on_ok(self, fields: list[Any], _body: bytes) -> None:
        self._answer(fields[0], fields[1] if len(fields) > 1 else None)

    def _on_error(self, fields: list[Any], _body: bytes) -> None:
        r, code, text, *_ = fields
        if code == HELLO_FIRST:
            self.lost()
        elif self.state is State.GREETING:
            self.close(Disconnected(code, text))
        elif r is None or not self._answer(r, error=RequestRefused(code, text)):
            log.warning("the gateway refused a command: %s %s", code, text)

    def _on_ping(self, fields: list[Any], _body: bytes) -> None:
        self._send(encode((Command.PONG, *fields)), None)

    def _on_bye(self, fields: list[Any], _body: bytes) -> None:
        code, text = fields
        if code in PASSING:
            self.lost()
        else:
            self.close(Disconnected(code, text))


AnySession: TypeAlias = Session[Any, Any]
