"""Which way does each message take to a client, and what if it does not keep up?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.api import (
    BindingOptions,
    Channel,
    CloseReason,
    Connection,
    Consumer,
    Delivery,
    Gateway,
    GatewayError,
    Message,
    NotFound,
)
from gateway_mqtt.codec.packets import MAX_IDENTIFIER, PUBACK, Subscription, malformed
from gateway_mqtt.outbound.client import ClientLimits, SentAliases
from gateway_mqtt.outbound.exactly_once import DUP, REFUSED, UNKNOWN, ExactlyOnce, Expect, Handshake, pubrel, wrong_answer
from gateway_mqtt.outbound.pulse import Pulse
from gateway_mqtt.retained import SLICE, RetainedQueue, Rota, Source
from gateway_mqtt.session import Session
from gateway_mqtt.store import SessionStore
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.properties import QOS, RETAIN, WIRE_TAG

IDENTIFIERS: Final = tuple(number.to_bytes(2, "big") for number in range(MAX_IDENTIFIER + 1))
MOST_UNREAD_REPLIES_BYTES: Final = 1024 * 1024
"""What a client may cause to be answered while it does not read."""

MQTT_5: Final = 5
RETAINED: Final = 1
FULL: Final = 0x97
_NEVER: Final = BindingOptions()
"""Options that no delivery has: this very object is nobody's."""
_identifiers_5: list[tuple[bytes, ...]] = []

Goodbye = Callable[[int, str], None]
"""``(reason code, why)``: have the client told, where its level can be told, before the connection is closed."""


def identifiers(level: int) -> tuple[bytes, ...]:
    """Return what is between the front of a plain PUBLISH of QoS 1 and its body, by packet identifier."""
    if level < MQTT_5:
        return IDENTIFIERS
    if not _identifiers_5:  # of use to few brokers, and not small
        _identifiers_5.append(tuple(number + b"\0" for number in IDENTIFIERS))
    return _identifiers_5[0]


class Outbound:
    """Deliveries to one client (a `ConsumerSink`), its answers (an `AckSink`), and what waits meanwhile (a `CongestionSink`).

    Retained messages are sent beside the live ones, a slice at a time (it is a `Sender`).

    Until `open`, what comes is collected: nothing may be sent before the CONNACK [MQTT-3.2.0-1].

    Args:
        max_inflight: of the settings; `window` is what holds.
        client: what its level and its CONNECT ask for.
        store: the session's, if it lasts.
        pulse: shared by all connections.
        more_retained: last values that are not in the broker, by MQTT pattern (``$SYS``).

    ``ended``: why the session is gone, if it is.
    """

    __slots__ = (
        "_aliases",
        "_blocked",
        "_channel",
        "_client",
        "_connection",
        "_consumer",
        "_consumers",
        "_dropped",
        "_encoder",
        "_extra",
        "_gateway",
        "_goodbye",
        "_held",
        "_identifiers",
        "_inflight",
        "_live_most",
        "_looks",
        "_looks_always",
        "_missed",
        "_most_bytes",
        "_oldest",
        "_out",
        "_plain",
        "_pulse",
        "_replied",
        "_retained",
        "_rota",
        "_session",
        "_settle",
        "_settled",
        "_shared",
        "_slow",
        "_source",
        "_store",
        "_strict",
        "_touch",
        "_two",
        "_unfit",
        "_watched",
        "ended",
        "window",
    )

    def __init__(  # noqa: PLR0913, PLR0915 - what it brings together
        self,
        gateway: Gateway,
        connection: Connection,
        encoder: Encoder,
        session: Session[Delivery],
        max_inflight: int,
        rota: Rota | None = None,
        *,
        client: ClientLimits | None = None,
        store: SessionStore | None = None,
        pulse: Pulse | None = None,
        more_retained: Source | None = None,
    ) -> None:
        self._gateway: Gateway = gateway
        self._connection: Connection = connection
        self._encoder: Encoder = encoder
        self._session: Session[Delivery] = session
        self._client: ClientLimits = client or ClientLimits()
        self._store: SessionStore | None = store
        self._pulse: Pulse = pulse or Pulse()
        self._source: Source | None = more_retained
        self._inflight: dict[int, Delivery | None] = session.inflight
        self.window: int = min(max_inflight, self._client.receive_maximum)
        self._live_most: int = self.window
        self._identifiers: tuple[bytes, ...] = identifiers(self._client.level)
        most = self._client.topic_alias_maximum
        self._aliases: SentAliases | None = SentAliases(most) if most else None
        self._most_bytes: int = self._client.maximum_packet_bytes
        self._strict: bool = self._client.is_strict
        self._looks_always: bool = self._client.has_options or self._strict
        self._looks: bool = self._looks_always
        self._plain: BindingOptions | None = _NEVER
        self._extra: int = 0
        self._held: deque[tuple[Delivery, BindingOptions | None]] = deque()
        self._shared: dict[int, Delivery] = {}
        self._consumers: list[Consumer] = []
        self._blocked: bool = False
        self._two: ExactlyOnce | None = None
        lasts = store is not None and store.lasts
        self._watched: bool = False
        self._oldest: Delivery | None = None
        self._touch: Callable[[], None] = self._touch_and_watch if lasts else connection.touch
        self._out: list[bytes] = []
        self._consumer: Consumer | None = None
        self._slow: bool = False
        self._dropped: int = 0
        self._replied: int = 0
        self._unfit: list[Delivery] = []
        self._settled: list[Delivery] = []
        self._rota: Rota = rota or Rota(gateway.touch)
        self._missed: int = 0
        self._retained: RetainedQueue | None = None
        self._goodbye: Goodbye | None = None
        self.ended: GatewayError | None = None
        if lasts and store is not None:
            session.resume(store.kept, exact=store.kept.exact)

    def attach(self, channel: Channel, expect: Expect | None = None, goodbye: Goodbye | None = None) -> None:
        """Settle on this channel, before anything is consumed.

        Args:
            expect: has a number's outcome told.
            goodbye: called before a connection is closed because its session is gone.
        """
        self._channel: Channel = channel
        self._settle: Callable[[Delivery], None] = channel.ack
        self._goodbye = goodbye
        self._two = ExactlyOnce(self._gateway, channel, self._session, self, self._client.level, self._pulse, self._store, expect)

    def open(self, consumer: Consumer) -> None:
        """The CONNACK is in `Connection.out`: send what was collected behind it."""
        self._consumer = consumer
        collected = self._out
        self._out = self._connection.out
        self._out += collected
        self._touch()
        self._connection.watch(self)
        if self._two is not None:
            self._two.open()

    # -- the path of every message ------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Send with QoS 1 [MQTT-4.3.2-1], if it is nothing but that; else look at it."""
        message = delivery.message
        encoder = self._encoder
        front = encoder.front if message is encoder.confirmed else encoder.encode_front(message)
        if (
            delivery.redelivered
            or not front
            or (message.wire and message.wire_tag == WIRE_TAG)
            or (self._looks and delivery.options is not self._plain and not self._is_plain(delivery.options))
        ):
            self._deliver_odd(delivery)
            return
        inflight = self._inflight
        session = self._session
        packet_id = session.next_id
        while packet_id in inflight:
            packet_id = packet_id % MAX_IDENTIFIER + 1
        session.next_id = packet_id + 1 if packet_id < MAX_IDENTIFIER else 1
        inflight[packet_id] = delivery
        out = self._out
        if not out:
            self._touch()
        out += (front, self._identifiers[packet_id], message.body)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """Send with QoS 0 [MQTT-4.3.1-1]."""
        if self._slow:
            self._drop()
            return
        if self._looks and options is not self._plain and not self._is_plain_low(options):
            self._transient_odd(message, options)
            return
        encoder = self._encoder
        packet = encoder.packet if message is encoder.plain else self._encoded(message)
        out = self._out
        if not out:
            self._touch()
        out.append(packet)

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK: settle the delivery."""
        delivery = self._inflight.pop(packet_id, None)
        if delivery is None:
            self._acknowledged_odd(packet_id)
            return
        try:  # not contextlib.suppress: this is for every message
            self._settle(delivery)
        except NotFound:
            self._gateway.count("late_acks")  # its queue was deleted meanwhile; `cancelled` closes the connection
        if self._blocked:
            self._go_on()

    def reply(self, data: bytes) -> None:
        """Send what is no message: PUBACKs, SUBACKs and so on. A client that asks and never reads is cut off."""
        connection = self._connection
        if not connection.out:
            connection.touch()
        connection.out.append(data)
        if connection.is_congested:
            self._replied += len(data)
            if self._replied > MOST_UNREAD_REPLIES_BYTES:
                self.give_up("it does not read what it is answered")

    # -- what is not of every message ---------------------------------------

    def _encoded(self, message: Message) -> bytes:
        packet = self._encoder.encode_packet(message)
        if not packet:
            self._gateway.count("undeliverable", reason="topic")
        return packet

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
        return not self._strict and (options is None or not (options.subscription_ids or options.retain_as_published))

    def _look_again(self) -> None:
        """Something has changed that every delivery has to do with, or has no more to do with."""
        self._blocked = bool(self._held) or (self._retained is not None and self._retained.wants_room)
        self._looks = self._looks_always or self._blocked or self._extra > 0 or self._live_most < self.window
        self._plain = _NEVER

    def _deliver_odd(self, delivery: Delivery) -> None:
        """Send with the QoS that it was published and granted with, as soon as the client's window has room."""
        if not quality(delivery.message, delivery.options):
            self._send_low(delivery, delivery.options)
        elif self._held or not self._has_room():
            self._hold(delivery, None)
        else:
            self._send(delivery)

    def _hold(self, delivery: Delivery, wanted: BindingOptions | None) -> None:
        """The window is full [MQTT5-3.3.4-7] [MQTT5-4.9.0-1]. The queue's credit bounds how much is held."""
        self._held.append((delivery, wanted))
        if not self._blocked:
            self._look_again()

    def _send(self, delivery: Delivery) -> None:
        message, options = delivery.message, delivery.options
        if quality(message, options) > 1:
            assert self._two is not None
            self._two.deliver(delivery, message, options)
            return
        session = self._session
        known = delivery.redelivered and delivery.position in session.resend
        parts = self._parts(message, 1, published_flags(message, options), options)
        if not parts or not parts[0]:
            self._unsendable(delivery, fits=bool(parts))
            return
        packet_id = session.identify_again(delivery) if delivery.redelivered else session.identify(delivery)
        start = parts[0]
        if known or (delivery.redelivered and not session.exact):
            start = bytes((start[0] | DUP,)) + start[1:]  # [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT5-3.3.1-1]
        self._append((start, IDENTIFIERS[packet_id], parts[1] + message.body if parts[1] else message.body))

    def _send_low(self, delivery: Delivery, options: BindingOptions | None) -> None:
        """Send what has waited in a queue, though it is of QoS 0; it is settled at the end of the turn."""
        self._transient_odd(delivery.message, options)
        self._settle_later(delivery)

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
            assert self._two is not None
            self._two.send_loose(message, wanted, retain=False)
            self._settle_later(delivery)
            return
        parts = self._parts(message, 1, published_flags(message, wanted), wanted)
        if not parts or not parts[0]:
            self._unsendable(delivery, fits=bool(parts))
            return
        packet_id = self._session.identify(None)
        self._shared[packet_id] = delivery
        self.uncredited(1)
        self._append((parts[0], IDENTIFIERS[packet_id], parts[1] + message.body if parts[1] else message.body))

    def add_consumer(self, consumer: Consumer) -> None:
        """Pause and resume this one too, as the client reads."""
        self._consumers.append(consumer)
        if self._slow:
            consumer.pause()

    def remove_consumer(self, consumer: Consumer) -> None:
        """Forget one that was added."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    # -- what a packet looks like -------------------------------------------

    def _transient_odd(self, message: Message, options: BindingOptions | None) -> None:
        parts = self._parts(message, 0, published_flags(message, options), options)
        if parts and parts[0]:
            self._append((*parts, message.body))
        elif parts:
            self._gateway.count("undeliverable", reason="topic")

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
            return parts if self._fits(parts, message) else ()
        key = message.address.routing_key
        alias = aliases.of(key)
        if alias:
            parts = encoder.packet_parts(message, qos, flags, ids, alias, with_topic=False)
            return parts if self._fits(parts, message) else ()
        alias = aliases.next(key)
        if alias:
            parts = encoder.packet_parts(message, qos, flags, ids, alias)
            if self._fits(parts, message):
                if parts[0]:
                    aliases.sent(key)
                return parts
        parts = encoder.packet_parts(message, qos, flags, ids)
        return parts if self._fits(parts, message) else ()

    def _fits(self, parts: tuple[bytes, bytes], message: Message) -> bool:
        fits = len(parts[0]) + 2 + len(parts[1]) + len(message.body) <= self._most_bytes
        if not fits:
            self._gateway.count("dropped", reason="larger than the client takes")
        return fits

    def _unsendable(self, delivery: Delivery, *, fits: bool) -> None:
        """Give back what MQTT can't carry; what is merely too large for the client counts as sent [MQTT5-3.1.2-25]."""
        if not fits:
            self._settle_later(delivery)
            return
        self._gateway.count("undeliverable", reason="topic")
        if not self._unfit:
            self._gateway.touch(self)
        self._unfit.append(delivery)

    def _settle_later(self, delivery: Delivery) -> None:
        if not self._settled:
            self._gateway.touch(self)
        self._settled.append(delivery)

    def _append(self, parts: tuple[bytes, ...]) -> None:
        if not self._out:
            self._touch()
        self._out += parts

    def emit(self, parts: tuple[bytes, ...]) -> None:
        """Send what belongs to messages: PUBRELs."""
        self._append(parts)

    def _drop(self) -> None:
        """QoS 0 is not worth the memory of a client that does not keep up."""
        self._dropped += 1
        self._missed = self._channel.retained_mark() + 1  # if it is retained, that will be its number
        if self._retained is not None:
            self._retained.missed(self._missed)

    def flush(self) -> None:
        """Do at the end of the turn what could not be done in the middle of a delivery."""
        unfit, self._unfit = self._unfit, []  # the next ones come at once: they have their own flush, as others have theirs
        settled, self._settled = self._settled, []
        for delivery in unfit:
            with suppress(NotFound):  # its queue was deleted meanwhile
                self._channel.nack(delivery, requeue=False)
        if settled:
            with suppress(NotFound):
                self._channel.ack_many(settled)

    # -- answers ------------------------------------------------------------

    def _acknowledged_odd(self, packet_id: int, code: int = 0) -> None:
        """PUBACK for what is not of the session's queue, or for nothing that is in flight (an answer to an earlier packet)."""
        if not packet_id:
            raise malformed("PUBACK with packet identifier 0", "[MQTT-2.3.1-1]")
        retained = self._retained
        if packet_id in self._shared:
            self._settle_shared(self._shared.pop(packet_id), code)
        elif retained is not None and packet_id in retained.unacked:
            retained.unacked.discard(packet_id)
            self.uncredited(-1)
            if retained.done and not retained.unacked:
                self._retained = None
        elif self._two is not None and self._two.has(packet_id):
            self._inflight[packet_id] = None
            raise wrong_answer(self._client.level, PUBACK, 2)
        elif packet_id in self._session.resend.values():
            self._inflight[packet_id] = None  # it is still reserved: its message comes again

    def _settle_shared(self, delivery: Delivery, code: int) -> None:
        self.uncredited(-1)  # before the credit comes back
        with suppress(NotFound):  # its queue was deleted meanwhile
            if code < REFUSED:
                self._channel.ack(delivery)
            else:
                self._channel.nack(delivery, requeue=False)

    def acknowledged_with(self, packet_id: int, code: int) -> None:
        """PUBACK with a reason; from 0x80 on the client rejects the message, which is dead-lettered."""
        if code < REFUSED:
            self.acknowledged(packet_id)
            return
        self._gateway.count("rejected")
        delivery = self._inflight.pop(packet_id, None)
        if delivery is None:
            self._acknowledged_odd(packet_id, code)
            return
        with suppress(NotFound):
            self._channel.nack(delivery, requeue=False)
        if self._blocked:
            self._go_on()

    def received(self, packet_id: int, code: int = 0) -> None:
        """PUBREC."""
        if not packet_id:
            raise malformed("PUBREC with packet identifier 0", "[MQTT-2.3.1-1]")
        two = self._two
        if two is None:
            self.emit((pubrel(packet_id, UNKNOWN if self._client.level == MQTT_5 else 0),))
        elif not two.received(packet_id, code):
            two.unknown(packet_id, code)
        elif self._blocked:
            self._go_on()

    def completed(self, packet_id: int, code: int = 0) -> None:
        """PUBCOMP."""
        if not packet_id:
            raise malformed("PUBCOMP with packet identifier 0", "[MQTT-2.3.1-1]")
        if self._two is not None:
            self._two.completed(packet_id)

    # -- the client's window ------------------------------------------------

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

    def _retained_room(self, retained: RetainedQueue) -> int:
        """Return how many retained messages may be sent. Where live ones wait, each of both has its part of the window."""
        room = self.window - self._session.outstanding
        return min(room, max(self._live_most, 1) - len(retained.unacked)) if self._held else room

    def _go_on(self) -> None:
        """There is room again: for what was held, and for retained messages."""
        held = self._held
        while held and self._has_room():
            self._send_held(*held.popleft())
        if self._retained is not None and self._retained.wants_room and self._retained_room(self._retained) > 0:
            self._rota.join(self)
        if not held:
            self._look_again()

    def _send_held(self, delivery: Delivery, wanted: BindingOptions | None) -> None:
        expires_at_ms = delivery.message.expires_at_ms
        if 0 < expires_at_ms <= self._gateway.now_ms():  # [MQTT5-3.3.2-5]
            self._gateway.count("dropped", reason="expired")
            self._settle_later(delivery)
        elif wanted is None:
            self._send(delivery)
        else:
            self._send_shared(delivery, wanted)

    # -- retained messages --------------------------------------------------

    def want_retained(
        self, wanted: Subscription | str, granted: int, mark: int, ids: tuple[int, ...] = (), *, new: bool = True
    ) -> None:
        """Send the last values of what matches a new subscription [MQTT-3.3.1-6] [MQTT5-3.3.1-9], as its retain handling says.

        With QoS 1 and 2 they have identifiers of their own: they are not sent again on the next connection.

        Args:
            wanted: as in the SUBSCRIBE; a filter alone: retain handling 0.
            mark: see `RetainedQueue.want`.
            ids: subscription identifiers.
            new: there was no such subscription before.
        """
        subscription = Subscription(wanted, granted) if isinstance(wanted, str) else wanted
        handling = subscription.retain_handling
        if handling > 1 or (handling == 1 and not new) or subscription.pattern.startswith("$share/"):
            return  # [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
        if self._retained is None:
            self._retained = RetainedQueue(self._channel, self._source)
            self._retained.missed(self._missed)
        self._retained.want(subscription.pattern, granted, mark, ids)
        self._share_window()
        self._rota.join(self)

    def unwant_retained(self, pattern: str) -> None:
        """A subscription has ended."""
        if self._retained is not None:
            self._retained.unwant(pattern)
            self._share_window()

    def _share_window(self) -> None:
        """While retained messages need identifiers, a part of the window is theirs (all of it, if it is one)."""
        retained = self._retained
        most = self.window
        if retained is not None and retained.wants_room:
            most -= max(most // 4, 1)
        if most != self._live_most:
            self._live_most = most
            self._look_again()
            if self._blocked:
                self._go_on()

    def send_retained(self) -> bool:
        """Send what fits into a slice and into the client's window; return whether there is more to be sent at once.

        If not, `decongested` or an answer of the client goes on.
        """
        retained = self._retained
        if retained is None or self._connection.closing or self._connection.is_congested:
            return False
        room = self._retained_room(retained) if retained.wants_room else SLICE
        if room <= 0:
            self._look_again()
            return False
        for message, qos, ids in retained.next_slice(room):
            self._send_one(retained, message, qos, ids)
        self._share_window()
        if not retained.done:
            return True
        if not retained.unacked:
            self._retained = None
        return False

    def _send_one(self, retained: RetainedQueue, message: Message, published_or_granted: int, ids: tuple[int, ...]) -> None:
        """Send one retained message, with the RETAIN flag [MQTT-3.3.1-8] [MQTT5-3.3.1-8]."""
        qos = min(published_or_granted, published_qos(message))
        options = BindingOptions(subscription_ids=ids) if ids else None
        if qos > 1:
            assert self._two is not None
            self._two.send_loose(message, options, retain=True)
            return
        parts = self._parts(message, qos, RETAINED, options)
        if parts and not parts[0]:
            self._gateway.count("undeliverable", reason="topic")
        elif parts and not qos:
            self._append((*parts, message.body))
        elif parts:
            packet_id = self._session.identify(None)
            retained.unacked.add(packet_id)
            self.uncredited(1)
            self._append((parts[0], IDENTIFIERS[packet_id], parts[1] + message.body))

    # -- what is in flight, now and then ------------------------------------

    def _touch_and_watch(self) -> None:
        self._connection.touch()
        if not self._watched:
            self._watched = True
            self._pulse.join(self)

    def beat(self) -> int:
        """Have identifiers of QoS 1 journaled, if something has been in flight since the last time."""
        store = self._store
        if store is None or self._connection.closing:
            return 0
        self._watched = False
        oldest = next((delivery for delivery in self._inflight.values() if delivery is not None), None)
        if oldest is None:
            if not self._session.resend:
                store.in_flight(())
            return 0
        if not oldest.redelivered and not self._held:
            self._session.release_reserved()
        effort = 0
        if oldest is self._oldest:
            effort = self._write_down(store)
        self._oldest = oldest
        self._watched = True
        self._pulse.join(self)
        return effort

    def _write_down(self, store: SessionStore) -> int:
        store.in_flight(self._session.in_flight())
        return len(self._inflight)

    def leave(self) -> None:
        """The connection has ended: keep what its session's next one needs. To be called before the channel is closed."""
        self._pulse.leave(self)
        if self._two is not None:
            self._two.leave()
        if self._store is not None and self._store.lasts:
            self._write_down(self._store)
            self._store.kept.exact = True

    # -- congestion and the end ---------------------------------------------

    def congested(self) -> None:
        """The client reads too slowly: QoS 1 waits in the queue, QoS 0 is dropped."""
        self._slow = True
        if self._consumer is not None:
            self._consumer.pause()
        for consumer in self._consumers:
            consumer.pause()

    def decongested(self) -> None:
        """The client has caught up."""
        self._replied = 0
        self.report()
        self._slow = False
        if self._consumer is not None:
            self._consumer.resume()
        for consumer in list(self._consumers):
            consumer.resume()
        if self._retained is not None:
            self._rota.join(self)

    def cancelled(self, reason: GatewayError) -> None:
        """The session's queue is gone, so the session is: it was full, or somebody deleted it."""
        self.ended = reason
        self._gateway.count("sessions_ended")
        if self._consumer is None:
            return  # the CONNECT is not answered yet: it will be refused
        self._gateway.log.warning(
            "a session has ended: connection closed", client=self._session.client_id, peer=self._connection.peer, reason=reason.text
        )
        if self._goodbye is not None:
            self._goodbye(FULL, reason.text)
        self._connection.close(CloseReason.LOCAL)

    def give_up(self, reason: str) -> None:
        """Cut a client off that does not keep up."""
        if self._connection.closing:
            return
        self._gateway.count("slow_clients")
        self._gateway.log.warning(
            "a client does not keep up: connection closed",
            client=self._session.client_id,
            peer=self._connection.peer,
            reason=reason,
        )
        self._connection.abort(CloseReason.SLOW)

    def report(self) -> None:
        """Count and log what was dropped since the last time."""
        if self._dropped:
            self._gateway.count("dropped", self._dropped, reason="slow reader")
            self._gateway.log.warning(
                "QoS 0 messages were dropped: the client reads too slowly",
                client=self._session.client_id,
                peer=self._connection.peer,
                messages=self._dropped,
            )
            self._dropped = 0


def published_qos(message: Message) -> int:
    """Return the QoS that a message was published with; one that came by another protocol has 1 if it is persistent."""
    if message.wire_tag == WIRE_TAG:
        return message.wire[0] & QOS
    return int(message.persistent)


def quality(message: Message, options: BindingOptions | None) -> int:
    """Return the QoS that a delivery has: the published one, or the granted one if that is lower [MQTT-3.8.4-6]."""
    if not message.persistent:
        return 0
    published = published_qos(message)
    return published if options is None else min(published, options.qos)


def published_flags(message: Message, options: BindingOptions | None) -> int:
    """Return the RETAIN flag of a live message [MQTT-3.3.1-9] [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]."""
    if options is not None and options.retain_as_published and message.wire_tag == WIRE_TAG:
        return RETAINED if message.wire[0] & RETAIN else 0
    return 0
