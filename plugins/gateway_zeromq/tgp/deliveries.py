"""What was a TGP peer handed, what may it still be handed, and what does it settle?"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

from gateway_zeromq.tgp import codec, commands
from gateway_zeromq.tgp.codec import Encoder
from gateway_zeromq.tgp.commands import Ack, Cancel, Consume, Credit, Extend, Get, Nack
from gateway_zeromq.tgp.replies import COMMAND_INVALID, NO_ROOM, NOT_BUILT, NOT_FOUND, Question, Rules

if TYPE_CHECKING:
    from gateway.api import BindingOptions, Consumer, Delivery, GatewayError, Message

GOT_TAG = ""
"""What GET brought is settled under this tag."""


class ConsumingSink(Protocol):
    """Who consumes and settles for a peer. Answers come by the methods of `Deliveries`, now or later."""

    def consume(self, question: Question, subscription: Subscription, command: Consume, credit: int) -> None:
        """Begin a consumer; `Deliveries.consuming` or `Deliveries.not_consuming` answer."""

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle deliveries, one at least."""

    def nack(self, delivery: Delivery, *, requeue: bool, delay_ms: int = 0) -> None:
        """Give a delivery back, not to be delivered again before so long."""

    def extend(self, delivery: Delivery, lease_ms: int) -> bool:
        """Let its lease end so many ms from now; False: it is not held any more."""

    def properties(self, message: Message, *, as_json: bool) -> Any:
        """Return a message's properties as they go into a header."""


class Mouth(Protocol):
    """Who says to the peer what is to be said (`gateway_zeromq.tgp.protocol.Peer`)."""

    form: Encoder
    enveloped: bool

    def say(self, header: bytes, body: bytes | None = None) -> None:
        """Have a message sent."""

    def ok(self, question: Question, result: Any) -> None:
        """Answer a request."""

    def error(self, question: Question, code: int, text: str) -> None:
        """Answer a request with a no."""

    def complain(self, command: Any, code: int, text: str) -> None:
        """Say what is wrong with a command that has no answer."""


class Subscription:
    """One consumer of a peer, and the sink of its deliveries.

    ``left``: credit that is not used up. ``unacked``: what was sent, by number. ``holding``: how many are on their way or
    unsettled. ``owed``: credit for the consumer that is not known yet. ``asked``: whether there will be one is not known yet.
    """

    __slots__ = ("active", "asked", "consumer", "deliveries", "holding", "left", "no_ack", "owed", "tag", "unacked")

    def __init__(self, deliveries: Deliveries, tag: str | int, *, no_ack: bool = False, credit: int = 0) -> None:
        self.deliveries: Deliveries = deliveries
        self.tag: str | int = tag
        self.no_ack: bool = no_ack
        self.left: int = credit
        self.holding: int = 0
        self.owed: int = 0
        self.unacked: dict[int, Delivery] = {}
        self.consumer: Consumer | None = None
        self.asked: bool = False
        self.active: bool = True

    def deliver(self, delivery: Delivery) -> None:
        """See `gateway.api.ConsumerSink`."""
        self.left -= 1
        self.deliveries.take(self, delivery)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """See `gateway.api.ConsumerSink`: what needs no acknowledgement is sent at once, whatever the credit."""
        self.deliveries.send_message(self, 0, message, redelivered=False)

    def cancelled(self, reason: GatewayError) -> None:
        """See `gateway.api.ConsumerSink`."""
        self.deliveries.gone(self)

    def take_out(self, number: int, *, multiple: bool) -> list[Delivery]:
        """Take out, and return, the delivery of that number, or all up to it (0: all there are)."""
        if not multiple:
            delivery = self.unacked.pop(number, None)
            return [] if delivery is None else [delivery]
        return [self.unacked.pop(known) for known in self.numbers(number, multiple=True)]

    def numbers(self, number: int, *, multiple: bool) -> list[int]:
        """Return which of its deliveries a number means."""
        if not multiple:
            return [number] if number in self.unacked else []
        return list(takewhile(number.__ge__, self.unacked)) if number else list(self.unacked)  # they are in order


class Deliveries:
    """The consumers of one peer on one connection.

    Args:
        peer: says what is to be said.
        sink: consumes and settles.
        rules: what the peer may do.
        credit_bytes: its wish how many bytes of bodies may be unsettled at once. One message is always sent.
    """

    __slots__ = ("_credit_bytes", "_getting", "_held", "_number", "_peer", "_rules", "_sink", "_subscriptions", "_unacked_bytes")

    def __init__(self, peer: Mouth, sink: ConsumingSink, rules: Rules, credit_bytes: int | None = None) -> None:
        self._peer: Mouth = peer
        self._sink: ConsumingSink = sink
        self._rules: Rules = rules
        self._credit_bytes: int = min(credit_bytes or rules.max_credit_bytes, rules.max_credit_bytes)
        self._number: int = 0
        self._getting: int = 0
        self._unacked_bytes: int = 0
        self._held: deque[tuple[Subscription, Delivery]] = deque()
        self._subscriptions: dict[str | int, Subscription] = {}

    @property
    def consumers(self) -> list[Consumer]:
        """Those that are known and not cancelled."""
        return [s.consumer for s in self._subscriptions.values() if s.consumer is not None and s.active]

    def clear(self) -> None:
        """Forget everything: the connection is gone."""
        for subscription in self._subscriptions.values():
            subscription.active = False
        self._subscriptions.clear()
        self._held.clear()

    # -- consumers

    def consume(self, question: Question, command: Consume) -> None:
        """Begin to take a queue's messages."""
        refusal = self._why_not(command)
        if refusal is not None:
            self._peer.error(question, *refusal)
            return
        no_ack = command.options is not None and command.options.no_ack
        credit = min(command.credit, self._rules.max_credit)
        subscription = self._subscriptions[command.tag] = Subscription(self, command.tag, no_ack=no_ack, credit=credit)
        subscription.asked = True
        self._sink.consume(question, subscription, command, credit)

    def _why_not(self, command: Consume) -> tuple[int, str] | None:
        if self._peer.enveloped:
            return NOT_BUILT, "a REQ client can't be sent deliveries: use GET, or a DEALER without the empty frame"
        if command.tag in self._subscriptions or command.tag == GOT_TAG:
            return COMMAND_INVALID, f"tag {command.tag!r} is in use"
        if len(self._subscriptions) >= self._rules.max_consumers:
            return NO_ROOM, f"at most {self._rules.max_consumers} consumers"
        return None

    def consuming(self, question: Question, subscription: Subscription, consumer: Consumer) -> None:
        """A consumer has begun."""
        subscription.consumer = consumer
        subscription.asked = False
        self._peer.ok(question, None)
        if not subscription.active:
            self._sink.cancel(consumer)
            self._give_back_unsent(subscription)
            self._tidy(subscription)
        elif subscription.owed:
            owed, subscription.owed = subscription.owed, 0
            consumer.credit(owed)

    def not_consuming(self, question: Question, subscription: Subscription, code: int, text: str) -> None:
        """A consumer could not begin."""
        subscription.active = subscription.asked = False
        self._tidy(subscription)
        self._peer.error(question, code, text)

    def cancel(self, question: Question, command: Cancel) -> None:
        """End a consumer; what was sent stays unsettled, what was not goes back."""
        subscription = self._subscriptions.get(command.tag)
        if subscription is None or not subscription.active:
            self._peer.error(question, NOT_FOUND, f"no consumer {command.tag!r}")
            return
        subscription.active = False
        if subscription.consumer is not None:
            self._sink.cancel(subscription.consumer)
        self._give_back_unsent(subscription)
        self._tidy(subscription)
        self._peer.ok(question, None)

    def gone(self, subscription: Subscription) -> None:
        """Tell that a consumer ended though nobody cancelled it. What it held can't be settled any more."""
        if subscription.active:
            subscription.active = False
            subscription.asked = False
            self._unsent(subscription)
            self._give_room(subscription.take_out(0, multiple=True))
            self._tidy(subscription)
            self._peer.say(self._peer.form(commands.CANCEL, 0, subscription.tag))

    def _give_back_unsent(self, subscription: Subscription) -> None:
        for delivery in self._unsent(subscription):
            self._sink.nack(delivery, requeue=True)

    def _unsent(self, subscription: Subscription) -> list[Delivery]:
        """Take out what is held back of a consumer."""
        unsent = [delivery for whose, delivery in self._held if whose is subscription]
        if unsent:
            self._held = deque(item for item in self._held if item[0] is not subscription)
        return unsent

    def _tidy(self, subscription: Subscription) -> None:
        """Forget a consumer that has ended and holds nothing: until it is known it may be handed something yet."""
        if not (subscription.active or subscription.asked or subscription.unacked):
            self._subscriptions.pop(subscription.tag, None)

    # -- settling

    def ack(self, command: Ack) -> None:
        """Settle: done."""
        subscription, settled = self._take_out(command)
        if settled:
            self._sink.ack(settled)
        self._settled(subscription, settled)

    def nack(self, command: Nack) -> None:
        """Settle: back to the queue, or rejected. The last first, so that each finds its old place at the head."""
        subscription, settled = self._take_out(command)
        for delivery in reversed(settled):
            self._sink.nack(delivery, requeue=command.requeue, delay_ms=command.delay_ms)
        self._settled(subscription, settled)

    def extend(self, command: Extend) -> None:
        """Let deliveries be held for longer. Who has lost one is told: it need not go on with it."""
        tag = GOT_TAG if command.tag is None else command.tag
        subscription = self._subscriptions.get(tag)
        numbers = [] if subscription is None else subscription.numbers(command.delivery, multiple=command.multiple)
        if subscription is None or not numbers:
            self._peer.complain(command, NOT_FOUND, f"no delivery {command.delivery} is held by consumer {tag!r}")
            return
        lost = [number for number in numbers if not self._sink.extend(subscription.unacked[number], command.lease_ms)]
        if lost:
            self._peer.complain(command, NOT_FOUND, f"delivery {lost[0]} of consumer {tag!r} was taken away")

    def _take_out(self, command: Ack | Nack) -> tuple[Subscription | None, list[Delivery]]:
        tag = GOT_TAG if command.tag is None else command.tag
        subscription = self._subscriptions.get(tag)
        settled = [] if subscription is None else subscription.take_out(command.delivery, multiple=command.multiple)
        if not settled:
            self._peer.complain(command, NOT_FOUND, f"no delivery {command.delivery} is held by consumer {tag!r}")
        return subscription, settled

    def _settled(self, subscription: Subscription | None, settled: list[Delivery]) -> None:
        """Give back what they took: credit, and room for bytes."""
        if subscription is None or not settled or subscription.tag == GOT_TAG:
            return
        subscription.holding -= len(settled)
        self._grant(subscription, len(settled))
        if not subscription.active:
            self._tidy(subscription)
        self._give_room(settled)

    def _give_room(self, settled: list[Delivery]) -> None:
        for delivery in settled:
            self._unacked_bytes -= len(delivery.message.body)
        while self._held and self._has_room(self._held[0][1]):
            self._send(*self._held.popleft())

    # -- credit

    def credit(self, command: Credit) -> None:
        """Allow more."""
        subscription = self._subscriptions.get(command.tag)
        if subscription is None or not subscription.active:
            self._peer.complain(command, NOT_FOUND, f"no consumer {command.tag!r}")
        else:
            self._grant(subscription, command.delta)

    def _grant(self, subscription: Subscription, delta: int) -> None:
        """Give a consumer credit, within the limit of what it may hold."""
        delta = min(delta, self._rules.max_credit - subscription.left - subscription.holding)
        if delta <= 0 or not subscription.active:
            return
        subscription.left += delta
        if subscription.consumer is None:
            subscription.owed += delta
        else:
            subscription.consumer.credit(delta)

    # -- messages

    def take(self, subscription: Subscription, delivery: Delivery) -> None:
        """Send a delivery, or hold it back until the peer has room for its bytes."""
        if not subscription.no_ack:
            subscription.holding += 1
            if self._held or not self._has_room(delivery):
                self._held.append((subscription, delivery))
                return
        self._send(subscription, delivery)

    def _has_room(self, delivery: Delivery) -> bool:
        return not self._unacked_bytes or self._unacked_bytes + len(delivery.message.body) <= self._credit_bytes

    def _send(self, subscription: Subscription, delivery: Delivery) -> None:
        number = self._number = self._number + 1
        message = delivery.message
        if not subscription.no_ack:
            subscription.unacked[number] = delivery
            self._unacked_bytes += len(message.body)
        self.send_message(subscription, number, message, redelivered=delivery.redelivered)

    def send_message(self, subscription: Subscription, number: int, message: Message, *, redelivered: bool) -> None:
        """Send a DELIVER."""
        form, address = self._peer.form, message.address
        says_more = message.wire_tag or message.expires_at_ms
        props = self._sink.properties(message, as_json=form is codec.encode_json) if says_more else None
        header = form(commands.DELIVER, subscription.tag, number, redelivered, address.exchange, address.routing_key, props)
        self._peer.say(header, message.body)

    def begin_get(self, command: Get) -> bool:
        """Say whether one more may be held for GET; if so, `got` or `not_got` follows."""
        if command.no_ack:
            return True
        holder = self._subscriptions.get(GOT_TAG)
        if self._getting + (0 if holder is None else len(holder.unacked)) >= self._rules.max_credit:
            return False
        self._getting += 1
        return True

    def not_got(self, *, no_ack: bool) -> None:
        """A GET could not be done; it is answered elsewhere."""
        self._getting -= not no_ack

    def got(self, question: Question, delivery: Delivery | None, *, no_ack: bool) -> None:
        """Answer a GET."""
        self._getting -= not no_ack
        if delivery is None:
            self._peer.say(question.encode(commands.EMPTY, question.r))
            return
        self._number += 1
        if not no_ack:
            holder = self._subscriptions.get(GOT_TAG)
            if holder is None:
                holder = self._subscriptions[GOT_TAG] = Subscription(self, GOT_TAG)
            holder.unacked[self._number] = delivery
        message = delivery.message
        props = self._sink.properties(message, as_json=question.encode is codec.encode_json)
        fields = (self._number, delivery.redelivered, message.exchange, message.routing_key, props)
        self._peer.say(question.encode(commands.GOT, question.r, *fields), message.body)
