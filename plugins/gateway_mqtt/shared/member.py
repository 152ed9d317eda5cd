"""How does a connection get its part of what is sent to a group?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.api import (
    DEFAULT_EXCHANGE,
    TOPIC_EXCHANGE,
    AccessRefused,
    Binding,
    BindingOptions,
    Channel,
    ConsumeOptions,
    Consumer,
    Delivery,
    Gateway,
    GatewayError,
    Message,
    NotFound,
    Outcome,
    Route,
    swap_key,
)
from gateway_mqtt.codec.fields import encode_length
from gateway_mqtt.outbound.exactly_once import Expect
from gateway_mqtt.outbound.quality import SUBSCRIPTION_ID, quality
from gateway_mqtt.outbound.sink import Outbound
from gateway_mqtt.shared.groups import Group, Shares, Wish, parse_share, share_queue_name

if TYPE_CHECKING:
    from gateway_mqtt.session import SessionKey

MOST_AT_ONCE: Final = 64
"""So many messages of one shared subscription a member may hold: what it holds no other can have."""
AGAIN_MS: Final = 1_000
"""What can't be moved to a session now comes again after so long."""
_FIRST_OF_ALL: Final = 1_000_000

Then = Callable[["GatewayError | None"], None]


class Member:
    """One connection's shared subscriptions. It is a `Flushable`.

    Args:
        channel, expect: the connection's.
        key: of its session; `queue` is the session's own, `lasts`: the session outlives the connection.
    """

    __slots__ = (
        "_again", "_channel", "_expect", "_gateway", "_key", "_lasts", "_lost", "_moving", "_out", "_queue", "_seats", "_shares",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what it brings together
        self,
        shares: Shares,
        gateway: Gateway,
        channel: Channel,
        expect: Expect,
        out: Outbound,
        key: SessionKey,
        queue: str,
        *,
        lasts: bool,
    ) -> None:
        self._shares: Shares = shares
        self._gateway: Gateway = gateway
        self._channel: Channel = channel
        self._expect: Expect = expect
        self._out: Outbound = out
        self._key: SessionKey = key
        self._queue: str = queue
        self._lasts: bool = lasts
        self._seats: dict[str, Seat] = {}
        self._moving: list[tuple[Delivery, tuple[int, ...]]] = []
        self._again: list[Seat] = []
        self._lost: list[Seat] = []

    @property
    def lasts(self) -> bool:
        """It stays a member when its connection ends."""
        return self._lasts

    def __contains__(self, pattern: str) -> bool:
        return pattern in self._seats

    def patterns(self) -> list[str]:
        """Return the shared subscriptions."""
        return list(self._seats)

    def resume(self) -> None:
        """Take part again in what the session was a member of before; for a session that goes on."""
        for wish in self._shares.wishes(self._channel, self._key):
            self.join(wish, _nothing)

    def join(self, wish: Wish, then: Then) -> None:
        """Subscribe, or change what is wanted of a subscription.

        Args:
            then: called once, when all of it is on disk (None) or was refused.
        """
        seat = self._seats.get(wish.pattern)
        if seat is not None:
            seat.wanted = wish.options()
            if self._lasts:
                self._shares.remember(self._channel, self._key, wish)
            self._expect(self._channel.barrier(), partial(_kept, seat, then))
            return
        group = self._shares.group(self._channel, self._key[0], wish.pattern)
        seat = self._seats[wish.pattern] = Seat(self, wish.pattern, wish.options())
        problems: list[GatewayError] = []
        self._prepare(group, wish.pattern, problems)
        group.live[self] = None
        if self._lasts:
            self._shares.remember(self._channel, self._key, wish)
        self._consume(seat, problems, then)

    def _prepare(self, group: Group, pattern: str, problems: list[GatewayError]) -> None:
        """Make sure that there is a queue, and that it lasts if it has to."""
        channel = self._channel
        name = share_queue_name(pattern)
        exists = channel.queue_exists(name)
        if exists and (group.durable or not self._lasts or not group.ours):
            return
        kept: list[Message] = []
        route: Route | None = None
        if exists:
            try:
                route = channel.route(DEFAULT_EXCHANGE, name)
            except AccessRefused as error:  # what waits could not be put back
                problems.append(error)
                return
            kept = self._take_out(name, group)
        group.durable = self._lasts
        group.ours = True
        note = partial(_note, problems)
        self._expect(channel.declare_queue(self._shares.queue_spec(pattern, durable=self._lasts)), note)
        options = BindingOptions(mqtt=True)  # what each member wants is looked at when it is its turn
        key = swap_key(parse_share(pattern)[1])
        self._expect(channel.bind(Binding(TOPIC_EXCHANGE, name, key, options=options)), note)
        if route is not None:
            self._put_in(route, kept)
        for member in group.live:
            member.queue_is_new(pattern)

    def _take_out(self, name: str, group: Group) -> list[Message]:
        """Take what waits out of a queue that is not durable, and delete it: one that is takes its place.

        What members hold unacknowledged stays with them.
        """
        collector = Collector()
        self._expect(self._channel.consume(name, collector, ConsumeOptions(priority=_FIRST_OF_ALL)), _ignore)
        for member in group.live:
            member.queue_goes(name)
        self._expect(self._channel.delete_queue(name), _ignore)
        return collector.messages

    def _put_in(self, route: Route, messages: list[Message]) -> None:
        for message in messages:
            if message.persistent:
                self._expect(self._channel.publish(route, _copy(message)), _ignore)
            else:
                self._channel.post(route, _copy(message))

    def queue_goes(self, name: str) -> None:
        """The queue is about to be deleted, to be made anew."""
        for seat in self._seats.values():
            if share_queue_name(seat.pattern) == name:
                seat.ends = True

    def queue_is_new(self, pattern: str) -> None:
        """There is a queue again: consume from it."""
        seat = self._seats.get(pattern)
        if seat is not None:
            self._again.append(seat)
            self._gateway.touch(self)

    def _consume(self, seat: Seat, problems: list[GatewayError], then: Then) -> None:
        prefetch = min(self._out.window, MOST_AT_ONCE)
        number = self._channel.consume(share_queue_name(seat.pattern), seat, ConsumeOptions(prefetch=prefetch))
        self._expect(number, partial(self._consuming, seat, problems, then))

    def _consuming(self, seat: Seat, problems: list[GatewayError], then: Then, outcome: Outcome) -> None:
        if outcome.error is not None:
            problems.append(outcome.error)
        else:
            seat.consumer = outcome.result
            self._out.add_consumer(outcome.result)
        seat.problem = problems[0] if problems else None
        if self._seats.get(seat.pattern) is not seat:  # unsubscribed meanwhile, and maybe subscribed again
            self._cancel(seat)
        elif problems:
            self._quit(seat)
        then(seat.problem)

    def leave(self, pattern: str) -> bool:
        """Unsubscribe; say whether it was a member. What it holds unacknowledged is still its own."""
        seat = self._seats.get(pattern)
        if seat is None:
            return False
        self._quit(seat)
        return True

    def _quit(self, seat: Seat) -> None:
        del self._seats[seat.pattern]
        self._cancel(seat)
        vhost = self._key[0]
        self._shares.group(self._channel, vhost, seat.pattern).live.pop(self, None)
        if self._lasts:
            number = self._shares.forget(self._channel, self._key, seat.pattern)
        else:
            number = self._shares.tidy(self._channel, vhost, seat.pattern)
        if number:
            self._expect(number, _ignore)  # else it would be taken for a publish

    def _cancel(self, seat: Seat) -> None:
        if seat.consumer is not None:
            self._out.remove_consumer(seat.consumer)
            self._channel.cancel(seat.consumer)
            seat.consumer = None

    def away(self) -> None:
        """The connection has ended; to be called before its channel is closed. A session that lasts is still a member."""
        for seat in list(self._seats.values()):
            if self._lasts:
                self._shares.group(self._channel, self._key[0], seat.pattern).live.pop(self, None)
            else:
                self._quit(seat)
        self._seats.clear()
        self._moving.clear()  # it goes back to the group

    def lost(self, seat: Seat, consumer: Consumer | None, reason: GatewayError) -> None:
        """A queue is gone. If nobody is to make it anew, somebody has deleted it, and that ends the subscription."""
        if consumer is not None:
            self._out.remove_consumer(consumer)
        if seat.ends:
            return
        self._gateway.count("subscriptions_lost")
        self._gateway.log.warning(
            "a shared subscription has ended", client=self._key[1], subscription=seat.pattern, reason=reason.text
        )
        self._lost.append(seat)
        self._gateway.touch(self)

    # -- messages -----------------------------------------------------------

    def take(self, delivery: Delivery, wanted: BindingOptions) -> None:
        """Send a message of a group's queue; what is of QoS 2 goes by the queue of a session that lasts [MQTT5-4.8.2-4]."""
        if self._lasts and quality(delivery.message, wanted) > 1:
            if not self._moving:
                self._gateway.touch(self)
            self._moving.append((delivery, wanted.subscription_ids))
        else:
            self._out.deliver_shared(delivery, wanted)

    def flush(self) -> None:
        """Do what can't be done in the middle of a delivery."""
        moving, self._moving = self._moving, []
        for delivery, ids in moving:
            self._move(delivery, ids)
        lost, self._lost = self._lost, []
        for seat in lost:
            if self._seats.get(seat.pattern) is seat:
                self._quit(seat)
        again, self._again = self._again, []
        for seat in again:
            if seat.pattern in self._seats:
                seat.ends = False
                self._consume(seat, [], _nothing)

    def _move(self, delivery: Delivery, ids: tuple[int, ...]) -> None:
        """Put it into the session's own queue, in the commit that takes it out of the group's."""
        channel = self._channel
        try:
            route = channel.route(DEFAULT_EXCHANGE, self._queue)
        except AccessRefused:  # it may not write there: then it is sent as to a session that does not last
            self._out.deliver_shared(delivery, BindingOptions(subscription_ids=ids))
            return
        try:
            error = channel.move(delivery, route, _copy(delivery.message, ids))
            if error is not None:
                channel.nack(delivery, requeue=True, delay_ms=AGAIN_MS)
        except NotFound:
            self._gateway.count("late_acks")
            return
        if error is not None:
            self._gateway.log.warning(
                "a message of a shared subscription could not be moved to its session", client=self._key[1], reason=error.text
            )


class Seat:
    """A member's place in one group (a `ConsumerSink`).

    ``ends``: the queue goes, and another takes its place. ``problem``: why there is no such place, if it could not be made.
    """

    __slots__ = ("_member", "consumer", "ends", "pattern", "problem", "wanted")

    def __init__(self, member: Member, pattern: str, wanted: BindingOptions) -> None:
        self._member: Member = member
        self.pattern: str = pattern
        self.wanted: BindingOptions = wanted
        self.consumer: Consumer | None = None
        self.ends: bool = False
        self.problem: GatewayError | None = None

    def deliver(self, delivery: Delivery) -> None:
        """Take the next message."""
        self._member.take(delivery, self.wanted)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """Nothing comes past the queue."""

    def cancelled(self, reason: GatewayError) -> None:
        """The queue is gone."""
        consumer, self.consumer = self.consumer, None
        self._member.lost(self, consumer, reason)


class Collector:
    """Takes all that waits in a queue."""

    __slots__ = ("messages",)

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def deliver(self, delivery: Delivery) -> None:
        """Take one."""
        self.messages.append(delivery.message)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """Nothing comes past the queue."""

    def cancelled(self, reason: GatewayError) -> None:
        """That is its end."""


def _copy(message: Message, ids: tuple[int, ...] = ()) -> Message:
    """Return a message to be published once more: the one that was belongs to the batch that it is in.

    Args:
        ids: subscription identifiers that brought it, as a session's own queue knows of none; of MQTT's messages only.
    """
    wire = message.wire + b"".join(SUBSCRIPTION_ID + encode_length(number) for number in ids)
    return Message(
        message.address, message.body, message.persistent, message.wire_tag, wire, message.priority, message.expires_at_ms
    )


def _kept(seat: Seat, then: Then, outcome: Outcome) -> None:
    # If the place itself could not be made, there is nothing to change: that is known before what was submitted later.
    then(seat.problem or outcome.error)


def _note(problems: list[GatewayError], outcome: Outcome) -> None:
    if outcome.error is not None:
        problems.append(outcome.error)


def _ignore(_: Outcome) -> None:
    """It is but a step on the way."""


def _nothing(_: GatewayError | None) -> None:
    """Nobody asked."""
