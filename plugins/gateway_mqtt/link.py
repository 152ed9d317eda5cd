"""What ties one MQTT client to its session, its subscriptions and its channel?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gateway.api import CloseReason, Connection, ConsumeOptions, Outcome, Principal, ProtocolViolation
from gateway_mqtt.codec import reasons
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.names import MQTT_5, PINGREQ, PINGRESP, MalformedPacket, malformed
from gateway_mqtt.codec.packets import Auth, Connect, Disconnect, Packet, Signal, Subscribe, Unsubscribe
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from gateway_mqtt.expiry import left
from gateway_mqtt.protocol import Connected
from gateway_mqtt.store import SessionRecord, StoredWill
from gateway_mqtt.subscriptions import Subscriptions
from gateway_mqtt.sys_topics import NONE, Stock
from gateway_mqtt.translate.sessions import keep_alive, session_queue, session_queue_name, shortest
from gateway_mqtt.works import Works

if TYPE_CHECKING:
    from gateway_mqtt.broker import Broker

KEEP_ALIVE_GRACE: Final = 1.5
PONG: Final = encode(Signal(PINGRESP))
PING: Final = encode(Signal(PINGREQ))
_DISCONNECT: Final = Disconnect()
_SIGNALS: Final = frozenset((PING, encode(_DISCONNECT)))
_GOODBYES: Final = {
    CloseReason.IDLE: reasons.KEEP_ALIVE_TIMEOUT,
    CloseReason.SHUTDOWN: reasons.SERVER_SHUTTING_DOWN,
}
"""What MQTT 5 clients are told when the host closes."""


class Link(Works):
    """One client from its CONNECT on (a `Receiver`). What it asks for besides messages ends up here (a `ControlSink`).

    Args:
        connect: is not kept, as a password may be in it.
        client_id: the one that it gave, or was assigned.
        expiry_s: how long its session is to outlive the connection.
        present: it goes on with a session that there was.

    ``declared``: the session has its queue. ``idle_timeout_s``: how long the client may be silent [MQTT-3.1.2-24].
    """

    __slots__ = (
        "_half",
        "_subscriptions",
        "_will",
        "bridge",
        "declared",
        "expiry_s",
        "idle_timeout_s",
        "is_over",
    )

    def __init__(  # noqa: PLR0913 - what is known when a client enters
        self,
        broker: Broker,
        connection: Connection,
        principal: Principal,
        connect: Connect,
        client_id: str,
        expiry_s: int,
        will: StoredWill | None,
        *,
        present: bool,
    ) -> None:
        durable = present or expiry_s > 0
        wants = broker.wants.of(connect, lasts=durable)
        super().__init__(broker, connection, principal, (principal.vhost, client_id), connect.level, wants, durable=durable)
        self.bridge: bool = connect.bridge
        self.expiry_s: int = expiry_s
        self.declared: bool = present
        # [MQTT-3.1.2-24] [MQTT5-3.1.2-22] [MQTT5-3.2.2-22]
        self.idle_timeout_s: float = KEEP_ALIVE_GRACE * keep_alive(connect.keep_alive_s, broker.settings.max_keep_alive_s)
        self.is_over: bool = False
        self._half: bool = False
        self._will: StoredWill | None = will
        self._subscriptions: Subscriptions | None = None

    # -- the beginning ------------------------------------------------------

    @property
    def queue(self) -> str:
        """Name of the queue that is the session."""
        return session_queue_name(self.key[1])

    def resume(self) -> None:
        """Go on with the subscriptions that there are."""
        subscriptions = Subscriptions(self)
        if subscriptions.resume():
            self._subscriptions = subscriptions

    def declare(self, then: Callable[[Outcome], None]) -> None:
        """Make the session's queue."""
        limits = self.broker.lasting_limits if self.durable else self.broker.clean_limits
        self.declared = True
        self.inbound.expect(self.channel.declare_queue(session_queue(self.key[1], limits, lasts=self.durable)), then)

    def consume(self, then: Callable[[Outcome], None]) -> None:
        """Have the session's messages delivered."""
        options = ConsumeOptions(prefetch=self.outbound.window, exclusive=True)
        self.inbound.expect(self.channel.consume(self.queue, self.outbound, options), then)

    def keep(self) -> None:
        """Write down what is known of a session that lasts."""
        if self.store is not None:
            self.store.put_record(self._record())

    def _record(self) -> SessionRecord:
        return SessionRecord(self.expiry_s, None, self.level, self._will, None, self._principal.user)

    def begin(self, connack: bytes) -> None:
        """The CONNECT is answered: what was collected meanwhile goes out behind the CONNACK."""
        self._accepted = True
        self.broker.traffic.connected(len(self.broker.sessions))
        if self._replies is None:  # nobody is beside it, and it can't be too much
            connection = self.connection
            if not connection.out:
                connection.touch()
            connection.out.append(connack)
            self.broker.traffic.sent.other(connack)
            return
        self._replies.reply(connack)
        self.connection.watch(self._replies if self._outbound is None else self._outbound)

    # -- bytes --------------------------------------------------------------

    def feed(self, data: bytes) -> bool:
        """See `gateway.api.Receiver.feed`.

        Raises:
            ProtocolViolation: the client broke the standard, or wants what it may not have; it was told, if it can be.
        """
        if self.is_over:
            return False
        broker = self.broker
        broker.traffic.bytes_received += len(data)
        protocol = self._protocol
        if protocol is None:
            if data in _SIGNALS:
                return self._hear(data)
            protocol = self._listening()
        try:
            whole = protocol.feed(data)
        except MalformedPacket as error:
            self.say_goodbye(error.code, error.reason)
            raise ProtocolViolation(error.reason, error.spec) from None
        if whole and self._half:
            self._half = False
            broker.halves.whole(self)
        held_bytes = protocol.held_bytes
        if held_bytes and not self.is_over:
            self._half = True
            broker.halves.part(self, held_bytes)
        return whole

    def _hear(self, signal: bytes) -> bool:
        """Understand who says no more than that: what it takes to understand others is made when there is something else."""
        self.broker.traffic.packets.signal(len(signal))
        if signal == PING:
            self.ping()
        else:
            self.disconnect(_DISCONNECT)
        return True

    def stuck(self) -> None:
        """A packet was begun, and does not go on."""
        self.broker.gateway.count("stuck_packets")
        self.dismiss(reasons.KEEP_ALIVE_TIMEOUT, "a packet was begun and not gone on with")

    def too_much(self) -> None:
        """There is no room for all the packets that were begun, and this connection's is among the largest."""
        self.broker.gateway.count("partial_packets_closed")
        self.broker.gateway.log.warning(
            "too much is kept of packets that are not complete: connection closed",
            client=self.key[1],
            peer=self.connection.peer,
            bytes=self._protocol.held_bytes if self._protocol is not None else 0,
        )
        self.dismiss(reasons.SERVER_BUSY, "too much is kept of packets that are not complete")

    def send(self, packet: Packet) -> None:
        """Send what is no message."""
        self.replies.reply(encode(packet, self.level))

    def _listening(self) -> Connected:
        """Make what understands the client."""
        broker = self.broker
        protocol = self._protocol = Connected(
            self.inbound, self, self, broker.settings.max_packet_bytes, self.level, broker.bounds, broker.traffic.packets
        )
        if self._outbound is not None:
            protocol.acknowledge_to(self._outbound)
        return protocol

    # -- what the client asks for -------------------------------------------

    def subscribe(self, packet: Subscribe) -> None:
        """See `gateway_mqtt.protocol.ControlSink`."""
        if self._subscriptions is None:  # made when there are some: many clients only publish
            self._subscriptions = Subscriptions(self)
        self._subscriptions.subscribe(packet)

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """See `gateway_mqtt.protocol.ControlSink`."""
        if self._subscriptions is None:
            self._subscriptions = Subscriptions(self)
        self._subscriptions.unsubscribe(packet)

    def ping(self) -> None:
        """Answer a PINGREQ [MQTT-3.12.4-1] [MQTT5-3.12.4-1]."""
        self.replies.reply(PONG)

    def authenticate(self, packet: Auth) -> None:
        """Refuse an AUTH: no authentication method was agreed upon (MQTT 5.0 §4.12).

        Raises:
            MalformedPacket: always.
        """
        raise malformed("AUTH, though the CONNECT named no authentication method", "[MQTT5-4.12.0-6]", reasons.PROTOCOL_ERROR)

    def disconnect(self, packet: Disconnect) -> None:
        """End in peace: forget the will [MQTT-3.14.4-3] [MQTT5-3.14.4-3], unless it is asked for.

        Raises:
            MalformedPacket: a session that was not to last shall do so now.
        """
        expiry_s = packet.properties.session_expiry_s
        if expiry_s is not None:
            if expiry_s and not self.expiry_s:
                raise malformed("a session that was not to last shall last now", "5 §3.14.2.2.2", reasons.PROTOCOL_ERROR)
            self.expiry_s = shortest(expiry_s, self.broker.settings.max_session_expiry_s)
        if packet.code == reasons.NORMAL_DISCONNECTION:
            self._will = None  # [MQTT-3.1.2-10] [MQTT5-3.1.2-10]
        self.end()
        self.connection.close(CloseReason.LOCAL)

    # -- what the client acknowledges though it was sent nothing (an `AckSink`) ---

    def acknowledged(self, packet_id: int) -> None:
        """See `gateway_mqtt.protocol.AckSink`."""
        self.outbound.acknowledged(packet_id)

    def acknowledged_with(self, packet_id: int, code: int) -> None:
        """See `gateway_mqtt.protocol.AckSink`."""
        self.outbound.acknowledged_with(packet_id, code)

    def received(self, packet_id: int, code: int) -> None:
        """See `gateway_mqtt.protocol.AckSink`."""
        self.outbound.received(packet_id, code)

    def completed(self, packet_id: int, code: int) -> None:
        """See `gateway_mqtt.protocol.AckSink`."""
        self.outbound.completed(packet_id, code)

    # -- the end ------------------------------------------------------------

    def say_goodbye(self, code: int, reason: str = "") -> None:
        """Send a DISCONNECT, which there is at level 5 only; nothing may be sent after it, and nothing that came is published."""
        if self.level != MQTT_5 or not self._accepted or self.is_over:
            return  # [MQTT5-3.14.0-1]
        terms = self._wants.terms
        told = Properties(reason_string=reason) if reason and terms.problem_information else NO_PROPERTIES
        packet = encode(Disconnect(code, told), self.level)
        if terms.most_bytes and len(packet) > terms.most_bytes:
            packet = encode(Disconnect(code), self.level)  # [MQTT5-3.14.2-3] [MQTT5-3.14.2-4]
        if self._inbound is not None:
            self._inbound.stop()
        self.say_last(packet)

    def say_last(self, packet: bytes) -> None:
        """Send a DISCONNECT: whatever comes behind it goes nowhere."""
        if self._outbound is None:
            self.replies.reply_last(packet)
        else:
            self._outbound.reply_last(packet)

    def dismiss(self, code: int, reason: str = "") -> None:
        """Say goodbye, and close [MQTT5-4.13.2-1]."""
        self.say_goodbye(code, reason)
        self.end()
        self.connection.close(CloseReason.LOCAL)

    def take_over(self) -> None:
        """Another connection has come with this client identifier [MQTT-3.1.4-2] [MQTT5-3.1.4-3].

        What its client said before, by this one, counts: a DISCONNECT most of all.
        """
        self.connection.catch_up()
        if self.is_over:
            return
        gateway = self.broker.gateway
        gateway.count("takeovers")
        gateway.log.info("another connection took over", client=self.key[1], peer=self.connection.peer)
        self.dismiss(reasons.SESSION_TAKEN_OVER)

    def ended(self, reason: CloseReason) -> None:
        """See `gateway.api.Receiver.ended`."""
        code = _GOODBYES.get(reason)
        if code is not None:
            self.say_goodbye(code)
        self.end()

    def end(self) -> None:
        """Leave the session, close the channel; it may be called any number of times.

        If the client did not say goodbye its will is published [MQTT-3.1.2-8] [MQTT5-3.1.2-8], at once or when its delay is over.
        """
        if self.is_over:
            return
        self.is_over = True
        if self._protocol is not None:
            self._protocol.stop()
        broker = self.broker
        if self._half:
            broker.halves.whole(self)
        if self._outbound is not None:
            self._outbound.report()
            self._outbound.leave()
        if self._inbound is not None:
            self._inbound.end()
        broker.sessions.leave(self.key, self)
        subscriptions = self._subscriptions.end() if self._subscriptions is not None else NONE
        if self._channel is not None:
            self._channel.close()
        self._bequeath(subscriptions)

    def _bequeath(self, subscriptions: Stock) -> None:
        """Leave behind what outlives the connection [MQTT-4.1.0-2]."""
        broker, key = self.broker, self.key
        if self.durable:
            record = self._record() if self._accepted else replace(self._record(), will=None)
            if broker.absences.channel(key[0]).queue_exists(self.queue):
                broker.absences.leave(key, left(record, broker.gateway.now_ms()), subscriptions)
            else:  # it was full, or somebody deleted it
                broker.absences.end(key, record)
        elif self._will is not None and self._accepted:  # else there is nothing to publish [MQTT-3.1.2-12]
            broker.absences.publish(key, self._will)
