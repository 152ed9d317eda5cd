"""Which way does each message take to a client, and what does each answer settle?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from gateway.api import BindingOptions, Channel, Connection, Consumer, Delivery, Gateway, Message, MessageRun, NotFound
from gateway_mqtt.codec.packets import MAX_IDENTIFIER, PUBACK, PUBCOMP, PUBREC, Subscription, malformed
from gateway_mqtt.outbound.client import ClientLimits
from gateway_mqtt.outbound.exactly_once import REFUSED, Expect, wrong_answer
from gateway_mqtt.outbound.peer import PIECES_OF_AN_IDENTIFIER, Goodbye
from gateway_mqtt.outbound.pulse import Pulse
from gateway_mqtt.outbound.quality import RETAINED, published_qos
from gateway_mqtt.outbound.replies import Replies
from gateway_mqtt.outbound.sending import IDENTIFIERS, Sending, identifiers
from gateway_mqtt.retained import SLICE, RetainedQueue, Rota, Source
from gateway_mqtt.session import Session
from gateway_mqtt.store import SessionStore
from gateway_mqtt.translate.messages import Encoder, PacketRun
from gateway_mqtt.translate.properties import WIRE_TAG


class Outbound(Sending):
    """Deliveries to one client (a `ConsumerSink`), its answers (an `AckSink`), and what waits meanwhile (a `CongestionSink`).

    Retained messages are sent beside the live ones, a slice at a time (it is a `Sender`).

    Args:
        max_inflight: of the settings; `window` is what holds.
        client: what its level and its CONNECT ask for.
        store: the session's, if it lasts.
        pulse: shared by all connections.
        more_retained: last values that are not in the broker, by MQTT pattern (``$SYS``).
        replies: the connection's, if somebody else answers, too.
    """

    __slots__ = ("_identifiers", "_inflight", "_oldest", "_rota", "_settle", "_source", "_watched")

    def __init__(  # noqa: PLR0913 - what it brings together
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
        replies: Replies | None = None,
    ) -> None:
        limits = client or ClientLimits()
        super().__init__(gateway, connection, session, encoder, max_inflight, limits, store, pulse or Pulse(), replies)
        self._rota: Rota = rota or Rota(gateway.touch)
        self._source: Source | None = more_retained
        self._inflight: dict[int, Delivery | None] = session.inflight
        self._identifiers: tuple[bytes, ...] = identifiers(limits.level)
        self._watched: bool = False
        self._oldest: Delivery | None = None
        if store is not None and store.lasts:
            self._touch = self._begin_and_watch
            session.resume(store.kept, exact=store.kept.exact)
            self.beside = -PIECES_OF_AN_IDENTIFIER * session.next_id

    def attach(self, channel: Channel, expect: Expect | None = None, goodbye: Goodbye | None = None) -> None:
        """Settle on this channel, before anything is consumed.

        Args:
            expect: has a number's outcome told.
            goodbye: called before a connection is closed because its session is gone.
        """
        self._settle: Callable[[Delivery], None] = channel.ack
        self._goodbye = goodbye
        self.attach_to(channel, expect)

    def open(self, consumer: Consumer) -> None:
        """The CONNACK is in `Connection.out`: send what was collected behind it."""
        self._consumer = consumer
        collected, self._out = self._out, self._connection.out
        self._out += collected
        self._touch()
        self._connection.watch(self)
        if self._two is not None:
            self._two.open()
        if self.ended is not None:
            self.cancelled(self.ended)  # meanwhile

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
        out = self._out
        if not out:
            self._touch()
        inflight = self._inflight
        session = self._session
        packet_id = session.next_id
        if packet_id in inflight:
            packet_id = self._free_from(packet_id)
        session.next_id = packet_id + 1 if packet_id < MAX_IDENTIFIER else self._first_again()
        inflight[packet_id] = delivery
        out += (front, self._identifiers[packet_id], message.body)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """Send with QoS 0 [MQTT-4.3.1-1]."""
        if self._slow:
            self._drop(1)
            return
        if self._looks and options is not self._plain_low and not self._is_plain_low(options):
            self._transient_odd(message, options)
            return
        encoder = self._encoder
        packet = encoder.packet if message is encoder.plain else self._encoded(message)
        out = self._out
        if not out:
            self._touch()
        out.append(packet)

    def deliver_run(self, run: MessageRun, options: BindingOptions | None) -> None:
        """Send several with QoS 0 [MQTT-4.3.1-1], as they were received if this client is sent just that."""
        if self._slow:
            self._drop(run.count)
            return
        if isinstance(run, PacketRun) and (not self._looks or options is self._plain_low or self._is_plain_low(options)):
            encoder = self._encoder
            packets = run.packets if encoder is run.encoder else run.packets_for(encoder)
            if packets:
                out = self._out
                if not out:
                    self._touch()
                out.append(packets)
                self.beside -= run.count - 1
                return
        for message in run.messages():
            self.deliver_transient(message, options)

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
        elif self._session.is_to_be_resent(packet_id):
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
        if self._waits_for_puback(packet_id):
            raise wrong_answer(self._client.level, PUBREC, 1)  # [MQTT-4.8.0-1]
        two = self._exactly_once()
        if not two.received(packet_id, code):
            two.unknown(packet_id, code)
        elif self._blocked:
            self._go_on()

    def completed(self, packet_id: int, code: int = 0) -> None:
        """PUBCOMP."""
        if not packet_id:
            raise malformed("PUBCOMP with packet identifier 0", "[MQTT-2.3.1-1]")
        if self._waits_for_puback(packet_id):  # before: what waited may be sent under it as soon as it is free
            raise wrong_answer(self._client.level, PUBCOMP, 1)  # [MQTT-4.8.0-1]
        if self._two is not None:
            self._two.completed(packet_id)

    def _waits_for_puback(self, packet_id: int) -> bool:
        """Say whether something was sent with QoS 1 under an identifier on this connection."""
        if self._inflight.get(packet_id) is not None or packet_id in self._shared:
            return True
        return self._retained is not None and packet_id in self._retained.unacked

    # -- retained messages --------------------------------------------------

    def want_retained(
        self, wanted: Subscription | str, granted: int, mark: int, ids: tuple[int, ...] = (), *, new: bool = True
    ) -> None:
        """Send the last values of what matches a new subscription [MQTT-3.3.1-6] [MQTT5-3.3.1-9], as its retain handling says.

        With QoS 1 and 2 they go by the queue of a session that lasts [MQTT-4.4.0-1] [MQTT5-4.4.0-1]; else they have identifiers
        of their own, and are gone with the connection.

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
        """While retained messages need identifiers, a part of the window is theirs (all of it, if it is one).

        In a session that lasts they wait in one queue with the live ones.
        """
        retained = self._retained
        most = self.window
        if retained is not None and retained.wants_room and not self._queues_retained:
            most -= max(most // 4, 1)
        if most != self._live_most:
            self._live_most = most
            self._look_again()
            if self._blocked:
                self._go_on()

    def _retained_room(self, retained: RetainedQueue) -> int:
        """Return how many retained messages may be sent. Where live ones wait, each of both has its part of the window."""
        room = self.window - self._session.outstanding
        if self._queues_retained:
            return room - len(self._held or ())
        return min(room, max(self._live_most, 1) - len(retained.unacked)) if self._held else room

    def _room_again(self) -> None:
        if self._retained is not None and self._retained.wants_room and self._retained_room(self._retained) > 0:
            self._rota.join(self)

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
        if qos and self._wait_in_queue(message, qos, ids):
            return
        options = BindingOptions(subscription_ids=ids) if ids else None
        if qos > 1:
            self._exactly_once().send_loose(message, options, retain=True)
            return
        parts = self._parts(message, qos, RETAINED, options)
        if parts and not parts[0]:
            self._gateway.count("undeliverable", reason="topic")
        elif parts and not qos:
            self._append((*parts, message.body))
        elif parts:
            packet_id = self.identify(None)
            retained.unacked.add(packet_id)
            self.uncredited(1)
            self._append((parts[0], IDENTIFIERS[packet_id], parts[1] + message.body))

    def decongested(self) -> None:
        """The client has caught up."""
        super().decongested()
        if self._retained is not None:
            self._rota.join(self)

    # -- what is in flight, now and then ------------------------------------

    def _begin_and_watch(self) -> None:
        self._begin()
        self._watch()

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._pulse.join(self)

    def beat(self) -> int:
        """Have identifiers of QoS 1 journaled, if something has been in flight since the last time."""
        store = self._store
        if store is None or self._connection.closing:
            return 0
        self._watched = False
        oldest = self._oldest_in_flight()
        if oldest is None:
            if not self._session.resend:
                store.in_flight((), exact=self._session.exact)
            return 0
        self._forget_gone(oldest)
        effort = 0
        if oldest is self._oldest:
            effort = self._write_down(store)
        self._oldest = oldest
        self._watched = True
        self._pulse.join(self)
        return effort

    def _forget_gone(self, oldest: Delivery) -> None:
        """New entries are in flight, and older ones no more: what was sent before and has not come again is gone."""
        if not oldest.redelivered and not self._held:
            self._session.release_reserved()
            self._session.exact = True

    def _oldest_in_flight(self) -> Delivery | None:
        return next((delivery for delivery in self._inflight.values() if delivery is not None), None)

    def _write_down(self, store: SessionStore) -> int:
        store.in_flight(self._session.in_flight(), exact=self._session.exact)
        return len(self._inflight)

    def leave(self) -> None:
        """The connection has ended: keep what its session's next one needs. To be called before the channel is closed."""
        self._pulse.leave(self)
        self.count()
        if self._two is not None:
            self._two.leave()
        if self._store is not None and self._store.lasts:
            oldest = self._oldest_in_flight()
            if oldest is not None:
                self._forget_gone(oldest)
            for delivery in self._inflight.values():
                if delivery is not None and delivery.message.expires_at_ms:
                    delivery.spare()  # it has been sent, so it is sent again [MQTT-4.4.0-1] [MQTT5-4.4.0-1]
            self._write_down(self._store)
            self._store.close()
