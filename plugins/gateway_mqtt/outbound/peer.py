"""What if a client does not keep up, or its session is gone?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.api import CloseReason, Connection, Consumer, Delivery, Gateway, GatewayError, MessageRefused, NotFound
from gateway_mqtt.codec.names import MAX_IDENTIFIER
from gateway_mqtt.outbound.replies import Replies
from gateway_mqtt.session import Session

UNSPECIFIED: Final = 0x80
FULL: Final = 0x97
DELETED: Final = 0x98
PIECES_OF_AN_IDENTIFIER: Final = 2
"""Of a plain PUBLISH of QoS 1: its identifier, and its body behind that."""
MOST_UNSENT_BYTES: Final = 1024 * 1024
"""What is more than plain (the identifiers of thousands of subscriptions with each message) is sent before the turn ends when there
is so much of it: only then it is seen whether the client reads."""

Goodbye = Callable[[int, str], None]
"""``(reason code, why)``: have the client told, where its level can be told, before the connection is closed."""


class Peer:
    """A connection that is sent to (a `CongestionSink`).

    Until it is opened, what comes is collected: nothing may be sent before the CONNACK [MQTT-3.2.0-1].

    PUBLISHes are not counted one by one. What is sent are the pieces of ``out``, most of which are a PUBLISH each: one of QoS 0. A
    plain one of QoS 1 has two more, and takes the next packet identifier: so there are twice as many of those as identifiers were
    taken. Whatever else has more pieces than PUBLISHes, or fewer, says so as it is sent (``beside``).

    ``ended``: why the session is gone, if it is. ``beside``: pieces that are none of these PUBLISHes, since the connection began.
    """

    __slots__ = (
        "_connection",
        "_consumer",
        "_consumers",
        "_counted",
        "_dropped",
        "_gateway",
        "_goodbye",
        "_out",
        "_replies",
        "_session",
        "_slow",
        "_touch",
        "_unsent",
        "_written",
        "beside",
        "ended",
    )

    def __init__(
        self, gateway: Gateway, connection: Connection, session: Session[Delivery], replies: Replies | None = None
    ) -> None:
        self._gateway: Gateway = gateway
        self._connection: Connection = connection
        self._session: Session[Delivery] = session
        self._touch: Callable[[], None] = self._begin
        self._out: list[bytes] = []
        self._replies: Replies = replies or Replies(gateway, connection, session.client_id)
        self._replies.neighbour = self
        self._counted: int = 0
        self._written: int = 0
        self.beside: int = -PIECES_OF_AN_IDENTIFIER * session.next_id
        self._consumer: Consumer | None = None
        self._consumers: list[Consumer] | None = None
        self._slow: bool = False
        self._dropped: int = 0
        self._unsent: int = 0
        self._goodbye: Goodbye | None = None
        self.ended: GatewayError | None = None

    def reply(self, data: bytes) -> None:
        """See `Replies.reply`."""
        self._replies.reply(data)

    def reply_last(self, data: bytes) -> None:
        """See `Replies.reply_last`."""
        self.count()
        self._replies.reply_last(data)
        self._out = []

    def replying(self) -> None:
        """See `gateway_mqtt.outbound.replies.Neighbour`."""
        if not self._connection.out:
            self._begin()
        self.beside += 1

    def _append(self, parts: tuple[bytes, ...]) -> None:
        """Send a PUBLISH. If it has an identifier that is from `identify`."""
        if not self._out:
            self._touch()
        self._out += parts
        self.beside += len(parts) - 1
        for part in parts:
            self._unsent += len(part)
        if self._unsent > MOST_UNSENT_BYTES:
            self._send_early()

    def emit(self, packet: bytes) -> None:
        """Send what belongs to messages: PUBRELs."""
        self._append((packet,))
        self.beside += 1
        self._replies.sent.other(packet)

    def identify(self, delivery: Delivery | None) -> int:
        """Put something in flight that is not sent by `Outbound.deliver`."""
        session = self._session
        before = session.next_id
        packet_id = session.identify(delivery)
        self.beside -= PIECES_OF_AN_IDENTIFIER * (session.next_id - before)
        return packet_id

    def _free_from(self, taken: int) -> int:
        """Return the next free packet identifier."""
        inflight = self._session.inflight
        packet_id = taken
        while packet_id in inflight:
            packet_id = packet_id % MAX_IDENTIFIER + 1
        self.beside -= PIECES_OF_AN_IDENTIFIER * (packet_id - taken)  # which no message took
        return packet_id

    def _first_again(self) -> int:
        """Return the first packet identifier, which is next to the last one."""
        self.beside += PIECES_OF_AN_IDENTIFIER * MAX_IDENTIFIER
        return 1

    def _begin(self) -> None:
        """Have what comes sent at the end of this turn."""
        self._gateway.touch(self)

    def count(self) -> None:
        """Add the PUBLISHes that were sent since the last time, or are about to be, to what all connections were sent."""
        out = self._out
        if out is not self._connection.out:
            return  # they wait for the CONNACK, or come behind a DISCONNECT
        of_identifiers = PIECES_OF_AN_IDENTIFIER * self._session.next_id
        publishes = self._written + len(out) - of_identifiers - self.beside
        if publishes > self._counted:  # fewer: the connection was given up, with what had been collected
            self._replies.sent.publishes += publishes - self._counted
            self._counted = publishes

    def _send_early(self) -> None:
        """Send in the middle of a turn; not before the CONNACK, nor when the connection ends, which is for the end of a turn."""
        if self._out is self._connection.out and not self._connection.closing:
            self.send_collected()

    def send_collected(self) -> None:
        """Send what was collected, and have it counted."""
        connection = self._connection
        self._written += len(connection.out)
        self._unsent = 0
        try:
            connection.flush()
        except BaseException:
            connection.abort(CloseReason.ERROR)
            raise

    def flush(self) -> None:
        """See `gateway_mqtt.outbound.sending.Sending.flush`."""

    # -- congestion ---------------------------------------------------------

    def add_consumer(self, consumer: Consumer) -> None:
        """Pause and resume this one too, as the client reads."""
        if self._consumers is None:
            self._consumers = []
        self._consumers.append(consumer)
        if self._slow:
            consumer.pause()

    def remove_consumer(self, consumer: Consumer) -> None:
        """Forget one that was added."""
        if self._consumers is not None and consumer in self._consumers:
            self._consumers.remove(consumer)

    def congested(self) -> None:
        """The client reads too slowly: QoS 1 and 2 wait in the queue, QoS 0 is dropped."""
        self._slow = True
        for consumer in self._all_consumers():
            consumer.pause()

    def decongested(self) -> None:
        """The client has caught up."""
        self._replies.decongested()
        self.report()
        self._slow = False
        for consumer in self._all_consumers():
            consumer.resume()

    def _all_consumers(self) -> list[Consumer]:
        own = [self._consumer] if self._consumer is not None else []
        return own + self._consumers if self._consumers else own

    # -- the end ------------------------------------------------------------

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
            self._goodbye(goodbye_code(reason), reason.text)
        self._connection.close(CloseReason.LOCAL)

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


def goodbye_code(reason: GatewayError) -> int:
    """Return the reason code of a DISCONNECT that tells why a session is gone (MQTT 5.0 §3.14.2.1)."""
    if isinstance(reason, MessageRefused):
        return FULL
    return DELETED if isinstance(reason, NotFound) else UNSPECIFIED
