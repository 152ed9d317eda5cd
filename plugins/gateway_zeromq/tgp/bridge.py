"""What does the gateway do for one TGP peer, and what do all TGP peers share?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from gateway.api import (
    Channel,
    ConsumeOptions,
    Consumer,
    Delivery,
    Gateway,
    GatewayError,
    Message,
    NotFound,
    Outcome,
    Overloaded,
    Principal,
)
from gateway_zeromq.tgp import translate
from gateway_zeromq.tgp.commands import (
    DEFAULT_CHOICES,
    Bind,
    Consume,
    Declare,
    Definition,
    Delete,
    Get,
    HelloOptions,
    Publish,
    Purge,
    Unbind,
    Unschedule,
)
from gateway_zeromq.tgp.publisher import MARKS, Marks, Publisher
from gateway_zeromq.tgp.replies import LOCKED, Greeting, Question, Rules
from gateway_zeromq.tgp.session import Session, Sessions

if TYPE_CHECKING:
    from gateway_zeromq.tgp.deliveries import Subscription
    from gateway_zeromq.tgp.protocol import Peer

EXPIRE_MS = 500
MOST_LEFT = 1_000
"""After so many sessions were left it is looked at once whether there are too many."""


class Desk:
    """What all TGP peers of a front-end share: the sessions, and the marks that they keep.

    Args:
        gateway: the host.
        principal: as whom marks are read and deleted.
        ttl_ms: how long a session without a client name waits for its client.
        make_token: returns a fresh secret.
    """

    def __init__(self, gateway: Gateway, principal: Principal, ttl_ms: int, make_token: Callable[[], str]) -> None:
        self.gateway = gateway
        self.sessions = Sessions(ttl_ms, make_token)
        self.marks = Marks()
        self._expired_ms = 0
        self._channel = gateway.open_channel(principal)
        for key in self.sessions.load(self._channel.scan_state(MARKS), gateway.now_ms()):
            gateway.log.warning("a sequence mark can't be read: what its client sends again may be stored twice", session=key)

    async def decided(self) -> None:
        """Wait until all that was published is decided, and its publishers are told. Cancellation: safe."""
        with suppress(Overloaded):  # the journal fails: then they are told that
            await self._channel.outcome(self._channel.barrier())

    def leave(self, session: Session) -> None:
        """Note that a session's connection has gone. One that never published says nothing that a new one would not say."""
        if session.mark or session.pending:
            self.sessions.leave(session, self.gateway.now_ms())
            if self.sessions.left >= MOST_LEFT:
                self._expire(self.gateway.now_ms())
        else:
            self.sessions.forget(session)
            if session.owner is not None:
                session.owner.channel.close()

    def expire(self) -> None:
        """Forget the sessions whose clients stay away, and their marks. It looks at all of them, and so not too often."""
        now_ms = self.gateway.now_ms()
        if now_ms - self._expired_ms >= EXPIRE_MS:
            self._expire(now_ms)

    def _expire(self, now_ms: int) -> None:
        self._expired_ms = now_ms
        for session in self.sessions.expire(now_ms):
            self._channel.put_state(MARKS, session.key, None)
            if session.owner is not None:
                session.owner.channel.close()


class Port(Protocol):
    """The socket's side of a peer (`gateway_zeromq.endpoints.router.RouterSocket`)."""

    refusing: bool
    """The journal is behind: what is published is refused."""

    def touch(self, peer: Peer) -> None:
        """There is something to be sent to it."""

    def violated(self, peer: Peer, reason: str) -> None:
        """It broke the protocol."""

    def has_room(self) -> bool:
        """One more peer can be let in."""


class Bridge:
    """Between one peer and its channels: a `PeerSink` and an `OutcomeSink`.

    Args:
        desk: what it shares with others.
        port: the socket's side.
        principal: as whom the peer acts.
        rules: what it may do.
    """

    __slots__ = ("_answers", "_channel", "_desk", "_gateway", "_port", "_principal", "_publisher", "_rules", "peer")

    peer: Peer
    """Whose bridge it is; set by whoever makes both."""

    def __init__(self, desk: Desk, port: Port, principal: Principal, rules: Rules) -> None:
        self._desk = desk
        self._gateway = desk.gateway
        self._port = port
        self._principal = principal
        self._rules = rules
        self._channel: Channel  # from `greet` on
        self._publisher: Publisher | None = None
        self._answers: dict[int, Callable[[Outcome], None]] = {}

    # -- coming and going

    def touch(self) -> None:
        """See `PeerSink`."""
        self._port.touch(self.peer)

    def violated(self, reason: str) -> None:
        """See `PeerSink`."""
        self._port.violated(self.peer, reason)

    def greet(self, options: HelloOptions) -> Greeting:
        """See `PeerSink`: find the session, and end whoever spoke for it before."""
        if not self._port.has_room():
            raise Overloaded("too many clients are connected")
        principal, now_ms = self._principal, self._gateway.now_ms()
        session, resumed = self._desk.sessions.open(options.client, options.session, principal.user, now_ms)
        publisher = self._publisher_of(session)
        before, publisher.peer = publisher.peer, None
        if before is not None:
            before.goodbye(LOCKED, "another connection goes on with this session")
        self._publisher = publisher
        publisher.resume(self.peer)
        self._answers = {}
        self._channel = self._gateway.open_channel(principal, self)
        # Who has the token knows what it sent, and sends again what is undecided; a new process must not use those numbers.
        last_seq = session.last_seq if options.session == session.token else session.mark
        refused = [refusal for refusal in session.refused if refusal[0] <= last_seq]
        return Greeting(session.token, resumed, last_seq, refused, principal.user)

    def _publisher_of(self, session: Session) -> Publisher:
        if session.owner is None:
            session.owner = Publisher(session, self._gateway, self._principal, self._rules, self._desk.marks)
        publisher: Publisher = session.owner
        return publisher

    def ended(self) -> None:
        """See `PeerSink`: what is unsettled goes back to its queue; the session stays."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None and publisher.peer is self.peer:
            publisher.peer = None
            self._desk.leave(publisher.session)
        self._answers = {}
        self._channel.close()

    # -- publishing

    def publish(self, command: Publish, body: bytes) -> None:
        """See `PeerSink`."""
        if self._publisher is not None:
            self._publisher.publish(command, body, refusing=self._port.refusing)

    # -- consuming

    def consume(self, question: Question, subscription: Subscription, command: Consume, credit: int) -> None:
        """See `ConsumingSink`."""
        chosen = command.options or DEFAULT_CHOICES
        options = ConsumeOptions(credit, subscription.no_ack, chosen.exclusive, manual_credit=True, priority=chosen.priority)
        number = self._channel.consume(command.queue, subscription, options)
        self._answers[number] = partial(self._consuming, question, subscription)

    def _consuming(self, question: Question, subscription: Subscription, outcome: Outcome) -> None:
        deliveries = self.peer.deliveries
        if outcome.error is not None:
            deliveries.not_consuming(question, subscription, translate.code_of(outcome.error), outcome.error.text)
        else:
            deliveries.consuming(question, subscription, outcome.result)

    def cancel(self, consumer: Consumer) -> None:
        """See `ConsumingSink`."""
        self._channel.cancel(consumer)

    def get(self, question: Question, command: Get) -> None:
        """See `PeerSink`."""
        number = self._channel.get(command.queue, no_ack=command.no_ack)
        self._answers[number] = partial(self._got, question, command.no_ack)

    def _got(self, question: Question, no_ack: bool, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.peer.deliveries.not_got(no_ack=no_ack)
            self._error(question, outcome.error)
        else:
            self.peer.deliveries.got(question, outcome.result, no_ack=no_ack)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `ConsumingSink`."""
        try:
            if len(deliveries) == 1:
                self._channel.ack(deliveries[0])
            else:
                self._channel.ack_many(deliveries)
        except NotFound:  # its queue was deleted meanwhile
            self._gateway.count("acks_without_delivery")

    def nack(self, delivery: Delivery, *, requeue: bool, delay_ms: int = 0) -> None:
        """See `ConsumingSink`."""
        try:
            self._channel.nack(delivery, requeue=requeue, delay_ms=delay_ms)
        except NotFound:
            self._gateway.count("acks_without_delivery")

    def extend(self, delivery: Delivery, lease_ms: int) -> bool:
        """See `ConsumingSink`."""
        try:
            self._channel.extend(delivery, lease_ms)
        except NotFound:
            return False
        return True

    def properties(self, message: Message, *, as_json: bool) -> Any:
        """See `ConsumingSink`."""
        return translate.properties_of(message, self._gateway.properties, self._gateway.now_ms, as_json=as_json)

    # -- what exists

    def define(self, question: Question, command: Definition) -> None:
        """See `PeerSink`."""
        try:
            number = self._submit(command)
        except GatewayError as error:
            self._error(question, error)
        else:
            self._answers[number] = partial(self._defined, question, command)

    def _submit(self, command: Definition) -> int:
        match command:
            case Declare():
                return self._declare(command)
            case Delete():
                delete = self._channel.delete_queue if command.kind == "queue" else self._channel.delete_exchange
                return delete(command.name, **translate.deletion_of(command))
            case Bind():
                return self._channel.bind(translate.binding_of(command))
            case Unbind():
                return self._channel.unbind(translate.binding_of(command))
            case Purge():
                return self._channel.purge_queue(command.queue)
            case Unschedule():
                return self._channel.cancel_scheduled(command.id)

    def _declare(self, command: Declare) -> int:
        if command.kind == "queue":
            queue, passive = translate.queue_of(command)
            return self._channel.declare_queue(queue, passive=passive)
        exchange, passive = translate.exchange_of(command)
        return self._channel.declare_exchange(exchange, passive=passive)

    def _defined(self, question: Question, command: Definition, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._error(question, outcome.error)
        else:
            self.peer.ok(question, translate.result_of(command, outcome))

    def _error(self, question: Question, error: GatewayError) -> None:
        self.peer.error(question, translate.code_of(error), error.text)

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: the answers to what was asked for."""
        for outcome in exceptions:
            answer = self._answers.pop(outcome.number, None)
            if answer is not None:
                answer(outcome)
