"""How is a message sent that is more than plain, and when is there room for it?"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

from gateway.api import (
    DEFAULT_EXCHANGE,
    AccessRefused,
    BindingOptions,
    Channel,
    Connection,
    Delivery,
    Gateway,
    Message,
    NotFound,
    Outcome,
)
from gateway_mqtt.codec.names import MQTT_5
from gateway_mqtt.codec.packets import MAX_IDENTIFIER
from gateway_mqtt.outbound.client import ClientLimits, SentAliases
from gateway_mqtt.outbound.exactly_once import DUP, ExactlyOnce, Expect, Handshake
from gateway_mqtt.outbound.peer import Peer
from gateway_mqtt.outbound.pulse import Pulse
from gateway_mqtt.outbound.quality import RETAINED, last_value, published_flags, quality
from gateway_mqtt.outbound.replies import Replies
from gateway_mqtt.retained import RetainedQueue
from gateway_mqtt.session import Session
from gateway_mqtt.store import SessionStore
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.sessions import session_queue_name

IDENTIFIERS: Final = tuple(number.to_bytes(2, "big") for number in range(MAX_IDENTIFIER + 1))
_identifiers_5: list[tuple[bytes, ...]] = []
_NEVER: Final = BindingOptions()
"""Options that no delivery has: this very object is nobody's."""


def identifiers(level: int) -> tuple[bytes, ...]:
    """Return what is between the front of a plain PUBLISH of QoS 1 and its body, by packet identifier."""
    if level < MQTT_5:
        return IDENTIFIERS
    if not _identifiers_5:  # of use to few brokers, and not small
        _identifiers_5.append(tuple(number + b"\0" for number in IDENTIFIERS))
    return _identifiers_5[0]


class Sending(Peer):
    """Messages of all qualities, under identifiers, as the client's limits want them. It is a `Flushable`.

    What does not fit into the client's window is held until it does. The credit of queues bounds how much that is.

    ``window``: so many identifiers may be in use at a time; queues are to be consumed with no more credit than that.
    """

    __slots__ = (
        "_aliases", "_blocked", "_channel", "_client", "_encoder", "_expect", "_extra", "_held", "_live_most", "_looks",
        "_missed", "_most_bytes", "_plain", "_plain_low", "_pulse", "_queues_retained", "_retained", "_settled",
        "_shared", "_store", "_strict", "_two", "_unfit", "window",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what it brings together
        self,
        gateway: Gateway,
        connection: Connection,
        session: Session[Delivery],
        encoder: Encoder,
        max_inflight: int,
        client: ClientLimits,
        store: SessionStore | None,
        pulse: Pulse,
        replies: Replies | None,
    ) -> None:
        super().__init__(gateway, connection, session, replies)
        self._encoder: Encoder = encoder
        self._client: ClientLimits = client
        self._store: SessionStore | None = store
        self._pulse: Pulse = pulse
        self._expect: Expect | None = None
        self.window: int = min(max_inflight, client.receive_maximum)
        most = client.topic_alias_maximum
        self._aliases: SentAliases | None = SentAliases(most) if most else None
        self._most_bytes: int = client.maximum_packet_bytes
        self._strict: bool = client.is_strict
        self._looks: bool = client.has_options or self._strict
        self._plain: BindingOptions | None = _NEVER
        self._plain_low: BindingOptions | None = _NEVER
        self._extra: int = 0
        self._missed: int = 0
        self._live_most: int = self.window
        self._blocked: bool = False
        self._held: deque[tuple[Delivery, BindingOptions | None]] | None = None
        self._shared: dict[int, Delivery] = {}
        self._unfit: list[Delivery] | None = None
        self._settled: list[Delivery] | None = None
        self._retained: RetainedQueue | None = None
        self._two: ExactlyOnce | None = None
        self._queues_retained: bool = store is not None and store.lasts

    def attach_to(self, channel: Channel, expect: Expect | None) -> None:
        """Settle on this channel."""
        self._channel: Channel = channel
        self._expect = expect
        if self._store is not None and self._store.lasts and self._store.kept.outgoing:
            self._exactly_once()

    def _exactly_once(self) -> ExactlyOnce:
        """Return what sees to QoS 2; most connections never need it."""
        two = self._two
        if two is None:
            level = self._client.level
            two = ExactlyOnce(self._gateway, self._channel, self._session, self, level, self._pulse, self._store, self._expect)
            self._two = two
            if self._consumer is not None:
                two.open()
        return two

    # -- which way ----------------------------------------------------------

    def _is_plain(self, options: BindingOptions | None) -> bool:
        """Say whether nothing but QoS 1 is to be looked at for messages that come with these options."""
        if self._strict or self._extra or self._blocked or self._live_most < self.window:
            return False
        if options is not None and (options.subscription_ids or not options.qos):
            return False
        self._plain = options
        return True

    def _is_plain_low(self, options: BindingOptions | None) -> bool:
        """Say the same of messages of QoS 0, which count nowhere. They may have the RETAIN flag."""
        if self._strict or (options is not None and (options.subscription_ids or options.retain_as_published)):
            return False
        self._plain_low = options
        return True

    def _look_again(self) -> None:
        """Something has changed that every delivery has to do with, or has no more to do with."""
        self._blocked = bool(self._held) or (self._retained is not None and self._retained.wants_room)
        always = self._client.has_options or self._strict
        self._looks = always or self._blocked or self._extra > 0 or self._live_most < self.window
        self._plain = _NEVER

    def _deliver_odd(self, delivery: Delivery) -> None:
        """Send with the QoS that it was published and granted with, as soon as the client's window has room."""
        if not quality(delivery.message, delivery.options):
            self._send_low(delivery, delivery.options)
        elif self._held or not self._has_room():
            self._hold(delivery, None)
        else:
            self._send(delivery)

    def _send(self, delivery: Delivery) -> None:
        message, options = delivery.message, delivery.options
        if quality(message, options) > 1:
            self._exactly_once().deliver(delivery, message, options)
            return
        session = self._session
        known = delivery.redelivered and delivery.position in session.resend
        parts = self._parts(message, 1, published_flags(message, options), options)
        if not parts or not parts[0]:
            self._unsendable(delivery, fits=bool(parts))
            return
        packet_id = self._identify_again(delivery) if delivery.redelivered else self.identify(delivery)
        start = parts[0]
        if known or (delivery.redelivered and not session.exact):
            start = bytes((start[0] | DUP,)) + start[1:]  # [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT5-3.3.1-1]
        self._append((start, IDENTIFIERS[packet_id], parts[1] + message.body if parts[1] else message.body))

    def _identify_again(self, delivery: Delivery) -> int:
        session = self._session
        return session.identify_again(delivery) if delivery.position in session.resend else self.identify(delivery)

    def _send_low(self, delivery: Delivery, options: BindingOptions | None) -> None:
        """Send what has waited in a queue, though it is of QoS 0; it is settled at the end of the turn."""
        self._transient_odd(delivery.message, options)
        self._settle_later(delivery)

    def _transient_odd(self, message: Message, options: BindingOptions | None) -> None:
        parts = self._parts(message, 0, published_flags(message, options), options)
        if parts and parts[0]:
            self._append((*parts, message.body))
        elif parts:
            self._gateway.count("undeliverable", reason="topic")

    def _encoded(self, message: Message) -> bytes:
        packet = self._encoder.encode_packet(message)
        if not packet:
            self._gateway.count("undeliverable", reason="topic")
        return packet

    def _drop(self, count: int) -> None:
        """QoS 0 is not worth the memory of a client that does not keep up."""
        self._dropped += count
        self._missed = self._channel.retained_mark() + 1  # if it is retained, that will be its number
        if self._retained is not None:
            self._retained.missed(self._missed)

    # -- shared subscriptions -----------------------------------------------

    def deliver_shared(self, delivery: Delivery, wanted: BindingOptions) -> None:
        """Send what comes from the queue of a shared subscription, to which it goes back if the connection ends.

        What is of QoS 2 is settled as it is sent: no other member may get it [MQTT5-4.8.2-5].

        Args:
            wanted: the options of this client's subscription.
        """
        if not quality(delivery.message, wanted):
            self._send_low(delivery, wanted)
        elif self._held or not self._has_room():
            self._hold(delivery, wanted)
        else:
            self._send_shared(delivery, wanted)

    def _send_shared(self, delivery: Delivery, wanted: BindingOptions) -> None:
        message = delivery.message
        if quality(message, wanted) > 1:
            self._exactly_once().send_loose(message, wanted, retain=False)
            self._settle_later(delivery)
            return
        parts = self._parts(message, 1, published_flags(message, wanted), wanted)
        if not parts or not parts[0]:
            self._unsendable(delivery, fits=bool(parts))
            return
        packet_id = self.identify(None)
        self._shared[packet_id] = delivery
        self.uncredited(1)
        self._append((parts[0], IDENTIFIERS[packet_id], parts[1] + message.body if parts[1] else message.body))

    # -- what a packet looks like -------------------------------------------

    def transmit(self, shake: Handshake, flags: int) -> None:
        """Send with QoS 2 [MQTT-4.3.3-1]."""
        message, options, delivery = shake.message, shake.options, shake.delivery
        assert message is not None
        assert self._two is not None
        flags |= RETAINED if shake.retain else published_flags(message, options)
        parts = self._parts(message, 2, flags, options)
        if parts and parts[0]:
            self._append((parts[0], IDENTIFIERS[shake.packet_id], parts[1] + message.body))
            return
        self._two.drop(shake)
        if delivery is not None:
            self._unsendable(delivery, fits=bool(parts))

    def _parts(self, message: Message, qos: int, flags: int, options: BindingOptions | None) -> tuple[bytes, bytes] | tuple[()]:
        """Return a PUBLISH up to its identifier, and what is between that and the body.

        Two empty parts: MQTT can't carry it. None at all: it is larger than the client takes [MQTT5-3.1.2-24].
        """
        ids = options.subscription_ids if options is not None else ()
        encoder, aliases = self._encoder, self._aliases
        if aliases is None:
            parts = encoder.packet_parts(message, qos, flags, ids)
            return parts if self._fits(parts, message, qos) else ()
        key = message.address.routing_key
        alias = aliases.of(key)
        if alias:
            parts = encoder.packet_parts(message, qos, flags, ids, alias, with_topic=False)
            return parts if self._fits(parts, message, qos) else ()
        alias = aliases.next(key)
        if alias:
            parts = encoder.packet_parts(message, qos, flags, ids, alias)
            if self._fits(parts, message, qos):
                if parts[0]:
                    aliases.sent(key)
                return parts
        parts = encoder.packet_parts(message, qos, flags, ids)
        return parts if self._fits(parts, message, qos) else ()

    def _fits(self, parts: tuple[bytes, bytes], message: Message, qos: int) -> bool:
        identifier = 2 if qos else 0
        fits = len(parts[0]) + identifier + len(parts[1]) + len(message.body) <= self._most_bytes
        if not fits:
            self._gateway.count("dropped", reason="larger than the client takes")
        return fits

    # -- what is not sent ---------------------------------------------------

    def _unsendable(self, delivery: Delivery, *, fits: bool) -> None:
        """Give back what MQTT can't carry; what is merely too large for the client counts as sent [MQTT5-3.1.2-25]."""
        if not fits:
            self._settle_later(delivery)
            return
        self._gateway.count("undeliverable", reason="topic")
        if self._unfit is None:
            self._unfit = []
            self._gateway.touch(self)
        self._unfit.append(delivery)

    def _settle_later(self, delivery: Delivery) -> None:
        if self._settled is None:
            self._settled = []
            self._gateway.touch(self)
        self._settled.append(delivery)

    def flush(self) -> None:
        """Do at the end of the turn what could not be done in the middle of a delivery; count what is sent, and send it."""
        if self._unfit is not None or self._settled is not None:
            self._give_back()  # and what comes for it is to be counted
        self.send_collected()

    def _give_back(self) -> None:
        unfit, self._unfit = self._unfit, None  # the next ones come at once: they have their own flush, as others have theirs
        settled, self._settled = self._settled, None
        for delivery in unfit or ():
            with suppress(NotFound):  # its queue was deleted meanwhile
                self._channel.nack(delivery, requeue=False)
        if settled:
            with suppress(NotFound):
                self._channel.ack_many(settled)

    def _wait_in_queue(self, message: Message, qos: int, ids: tuple[int, ...]) -> bool:
        """Have a retained message sent by the session's own queue, if it lasts: it is sent again then as live ones are.

        Return False: it does not last, or may not be written to, or can't be now. Only at the end of a turn.
        """
        if not self._queues_retained or self._expect is None:
            return False
        channel = self._channel
        try:
            route = channel.route(DEFAULT_EXCHANGE, session_queue_name(self._session.client_id))
        except AccessRefused:
            return False
        number = channel.publish(route, last_value(message, qos, self._encoder.own_properties(message), ids))
        self._expect(number, _told)
        return channel.refused(number) is None

    # -- the window ---------------------------------------------------------

    def uncredited(self, change: int) -> None:
        """So many identifiers more, or less, are in use that the queue's credit does not count: retained ones, PUBRELs."""
        before = self._extra
        self._extra += change
        if not before or not self._extra:
            self._look_again()
        if self._blocked and change < 0:
            self._go_on()

    def _has_room(self) -> bool:
        """Say whether one more live message may be sent."""
        outstanding = self._session.outstanding
        if outstanding >= self.window or self._retained is None:
            return outstanding < self.window
        return outstanding - len(self._retained.unacked) < self._live_most

    def _room_again(self) -> None:
        """There may be room for what is retained."""

    def _hold(self, delivery: Delivery, wanted: BindingOptions | None) -> None:
        """The window is full [MQTT5-3.3.4-7] [MQTT5-4.9.0-1]."""
        if self._held is None:
            self._held = deque()
        self._held.append((delivery, wanted))
        if not self._blocked:
            self._look_again()

    def _go_on(self) -> None:
        """There is room again: for what was held, and for retained messages."""
        held = self._held
        while held and self._has_room():
            self._send_held(*held.popleft())
        self._room_again()
        if not held:
            self._held = None  # an empty one is not small
            self._look_again()

    def _was_sent(self, delivery: Delivery) -> bool:
        """Say whether it was sent on an earlier connection: then it is sent again, however late it is."""
        two = self._two
        return delivery.position in self._session.resend or (two is not None and two.was_sent(delivery.position))

    def _send_held(self, delivery: Delivery, wanted: BindingOptions | None) -> None:
        expires_at_ms = delivery.message.expires_at_ms
        if 0 < expires_at_ms <= self._gateway.now_ms() and not self._was_sent(delivery):  # [MQTT5-3.3.2-5]
            self._gateway.count("dropped", reason="expired")
            self._settle_later(delivery)
        elif wanted is None:
            self._send(delivery)
        else:
            self._send_shared(delivery, wanted)


def _told(_: Outcome) -> None:
    """It was refused at once, or is sent."""
