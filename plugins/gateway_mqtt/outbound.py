"""What is a client sent, under which identifiers, and what if it does not keep up?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

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
from gateway_mqtt.codec.packets import MAX_IDENTIFIER, malformed
from gateway_mqtt.retained import RetainedQueue, Rota
from gateway_mqtt.session import Session
from gateway_mqtt.translate.messages import Encoder, retained_start, with_flags

IDENTIFIERS = tuple(number.to_bytes(2, "big") for number in range(MAX_IDENTIFIER + 1))
DUP = 8
MOST_UNREAD_REPLIES_BYTES = 1024 * 1024
"""What a client may cause to be answered while it does not read."""


class Outbound:
    """Deliveries to one client (a `ConsumerSink`), its PUBACKs (an `AckSink`), and what waits meanwhile (a `CongestionSink`).

    Retained messages are sent beside the live ones, a slice at a time (it is a `Sender`).

    Until `open`, what comes is collected: nothing may be sent before the CONNACK [MQTT-3.2.0-1].
    ``slow``: the connection is congested.
    ``ended``: why the session is gone, if it is.
    """

    __slots__ = (
        "_channel",
        "_connection",
        "_consumer",
        "_dropped",
        "_encoder",
        "_gateway",
        "_inflight",
        "_max_inflight",
        "_missed",
        "_out",
        "_replied",
        "_retained",
        "_rota",
        "_session",
        "_settle",
        "_slow",
        "_touch",
        "_unfit",
        "ended",
    )

    def __init__(
        self,
        gateway: Gateway,
        connection: Connection,
        encoder: Encoder,
        session: Session[Delivery],
        max_inflight: int,
        rota: Rota | None = None,
    ) -> None:
        self._gateway: Gateway = gateway
        self._connection: Connection = connection
        self._encoder: Encoder = encoder
        self._session: Session[Delivery] = session
        self._inflight: dict[int, Delivery | None] = session.inflight
        self._max_inflight: int = max_inflight
        self._touch: Callable[[], None] = connection.touch
        self._out: list[bytes] = []
        self._consumer: Consumer | None = None
        self._slow: bool = False
        self._dropped: int = 0
        self._replied: int = 0
        self._unfit: list[Delivery] = []
        self._rota: Rota = rota or Rota(gateway.touch)
        self._missed: int = 0
        self._retained: RetainedQueue | None = None
        self.ended: GatewayError | None = None

    def attach(self, channel: Channel) -> None:
        """Settle on this channel."""
        self._channel: Channel = channel
        self._settle: Callable[[Delivery], None] = channel.ack

    def open(self, consumer: Consumer) -> None:
        """The CONNACK is in `Connection.out`: send what was collected behind it."""
        self._consumer = consumer
        collected = self._out
        self._out = self._connection.out
        self._out += collected
        self._touch()
        self._connection.watch(self)

    # -- the path of every message ------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Send with QoS 1 [MQTT-4.3.2-1]."""
        message = delivery.message
        encoder = self._encoder
        front = encoder.front if message is encoder.confirmed else encoder.encode_front(message)
        if delivery.redelivered or not front:
            self._deliver_odd(delivery, front)
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
        out += (front, IDENTIFIERS[packet_id], message.body)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """Send with QoS 0 [MQTT-4.3.1-1]."""
        if self._slow:
            self._drop()
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

    def reply(self, data: bytes) -> None:
        """Send what is no message: PUBACKs, SUBACKs and so on. A client that asks and never reads is cut off."""
        connection = self._connection
        if not connection.out:
            self._touch()
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

    def _deliver_odd(self, delivery: Delivery, front: bytes) -> None:
        """Send again [MQTT-3.3.1-1] [MQTT-4.4.0-1], or give back what MQTT can't carry."""
        if not front:
            self._unfit.append(delivery)
            self._gateway.count("undeliverable", reason="topic")
            self._gateway.touch(self)
            return
        packet_id = self._session.identify_again(delivery)
        self._append((with_flags(front, DUP), IDENTIFIERS[packet_id], delivery.message.body))

    def _append(self, parts: tuple[bytes, ...]) -> None:
        if not self._out:
            self._touch()
        self._out += parts

    def _acknowledged_odd(self, packet_id: int) -> None:
        """PUBACK for a retained message, or for nothing that is in flight (an answer to an earlier connection's packet)."""
        if not packet_id:
            raise malformed("PUBACK with packet identifier 0", "[MQTT-2.3.1-1]")
        retained = self._retained
        if retained is not None and packet_id in retained.unacked:
            retained.unacked.discard(packet_id)
            if not retained.done:
                self._rota.join(self)
            elif not retained.unacked:
                self._retained = None

    def _drop(self) -> None:
        """QoS 0 is not worth the memory of a client that does not keep up."""
        self._dropped += 1
        self._missed = self._channel.retained_mark() + 1  # if it is retained, that will be its number
        if self._retained is not None:
            self._retained.missed(self._missed)

    def flush(self) -> None:
        """Do at the end of the turn what could not be done in the middle of a delivery."""
        unfit, self._unfit = self._unfit, []  # the next ones come at once: they have their own flush, as others have theirs
        for delivery in unfit:
            with suppress(NotFound):  # its queue was deleted meanwhile
                self._channel.nack(delivery, requeue=False)

    # -- retained messages --------------------------------------------------

    def want_retained(self, pattern: str, granted: int, mark: int) -> None:
        """Send the last values of what matches a new subscription [MQTT-3.3.1-6].

        With QoS 1 they have identifiers of their own: they are not sent again on the next connection. `mark`: see
        `RetainedQueue.want`.
        """
        if self._retained is None:
            self._retained = RetainedQueue(self._channel)
            self._retained.missed(self._missed)
        self._retained.want(pattern, granted, mark)
        self._rota.join(self)

    def unwant_retained(self, pattern: str) -> None:
        """A subscription has ended."""
        if self._retained is not None:
            self._retained.unwant(pattern)

    def send_retained(self) -> bool:
        """Send what fits into a slice and into the client's window; return whether there is more to be sent at once.

        If not, `decongested` or a PUBACK goes on.
        """
        retained = self._retained
        if retained is None or self._connection.closing or self._connection.is_congested:
            return False
        room = self._max_inflight - len(retained.unacked)
        if room <= 0:
            return False
        for message, qos in retained.next_slice(room):
            packet_id = self._send_one(message, qos)
            if packet_id:
                retained.unacked.add(packet_id)
        if not retained.done:
            return True
        if not retained.unacked:
            self._retained = None
        return False

    def _send_one(self, message: Message, qos: int) -> int:
        """Send one retained message; return its packet identifier."""
        start = retained_start(message, qos)
        if not start:
            self._gateway.count("undeliverable", reason="topic")
            return 0
        if not qos:
            self._append((start, message.body))
            return 0
        packet_id = self._session.identify(None)
        self._append((start, IDENTIFIERS[packet_id], message.body))
        return packet_id

    # -- congestion and the end ---------------------------------------------

    def congested(self) -> None:
        """The client reads too slowly: QoS 1 waits in the queue, QoS 0 is dropped."""
        self._slow = True
        if self._consumer is not None:
            self._consumer.pause()

    def decongested(self) -> None:
        """The client has caught up."""
        self._replied = 0
        self.report()
        self._slow = False
        if self._consumer is not None:
            self._consumer.resume()
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
