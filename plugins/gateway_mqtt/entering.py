"""How does a client that was let in get into its session, and what is it told?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.api import Connection, Consumer, GatewayError, Outcome, Overloaded, Principal
from gateway_mqtt.codec import reasons
from gateway_mqtt.codec.encoding import encode
from gateway_mqtt.codec.names import MAX_LENGTH, MQTT_5, MQTT_31
from gateway_mqtt.codec.packets import ACCEPTED, ConnAck, Connect
from gateway_mqtt.codec.properties import Properties
from gateway_mqtt.link import Link
from gateway_mqtt.translate.sessions import (
    NEVER_S,
    Refused,
    connect_refusal,
    keep_alive,
    response_topic,
    session_queue_name,
    shortest,
)
from gateway_mqtt.wills import check_will, stored_will

if TYPE_CHECKING:
    from gateway_mqtt.broker import Broker
    from gateway_mqtt.greeting import Greeting
    from gateway_mqtt.settings import MqttSettings

MOST_RECEIVED: Final = 65_535
HIGHEST_QOS: Final = 2
MOST_CONNACKS = 1_000
"""So many different ones are remembered."""
_CONNACKS: Final = (encode(ConnAck(False, ACCEPTED)), encode(ConnAck(True, ACCEPTED)))
"""Below level 5: without and with a session that was there."""


class Entering:
    """The way from a CONNECT whose sender is known to its CONNACK.

    ``link``: what is to take the connection over; None: it has not begun.
    """

    __slots__ = ("_broker", "_connect", "_connection", "_greeting", "_present", "client_id", "link")

    def __init__(self, greeting: Greeting, broker: Broker, connection: Connection, connect: Connect, client_id: str) -> None:
        self._greeting: Greeting = greeting
        self._broker: Broker = broker
        self._connection: Connection = connection
        self._connect: Connect = connect
        self._present: bool = False
        self.client_id: str = client_id
        self.link: Link | None = None

    def begin(self, principal: Principal) -> None:
        """Enter the session, ending whoever holds it now; the greeting is told when the CONNECT is answered.

        Raises:
            Refused: its will can't be what it is, it can't be answered, or what it had can't be ended.
        """
        broker, connect = self._broker, self._connect
        will = None
        if connect.will is not None:
            check_will(connect.will, broker.gateway, principal, broker.topic_limits, broker.settings)
            will = stored_will(connect.will, broker.settings.max_will_bytes)
        expiry_s = expiry_asked(connect, broker.settings)
        self._check_size()
        queue = session_queue_name(self.client_id)
        channel = broker.absences.channel(principal.vhost)
        if connect.clean and channel.queue_exists(queue):
            self._check_end(principal.vhost)
        key = (principal.vhost, self.client_id)  # [MQTT-3.1.3-2] [MQTT5-3.1.3-2]
        holder = broker.sessions.holder(key)
        if holder is not None:
            holder.take_over()  # [MQTT-3.1.4-2] [MQTT5-3.1.4-3]
        exists = channel.queue_exists(queue)
        present = self._present = exists and not connect.clean  # [MQTT-3.1.4-3] [MQTT5-3.1.4-4] [MQTT5-3.1.2-5]
        broker.absences.come_back(key, ends=not present)
        link = self.link = Link(broker, self._connection, principal, connect, self.client_id, expiry_s, will, present=present)
        broker.sessions.enter(key, link)
        if present:
            link.resume()
        elif exists:  # [MQTT-3.1.2-6] [MQTT5-3.1.2-4]
            link.inbound.expect(link.channel.delete_queue(queue), self._prepared if link.durable else self._deleted)
        if link.durable:
            link.keep()  # [MQTT-3.1.2-4] [MQTT-4.1.0-1] [MQTT5-3.1.2-23] [MQTT5-4.1.0-1]
            link.declare(self._found if present else self._prepared)  # [MQTT5-3.1.2-6]
            link.consume(self._consuming)
        elif not exists:
            self._accept()

    def _check_size(self) -> None:
        """Refuse a client that takes no CONNACK at all [MQTT5-3.1.2-24]."""
        most = self._connect.properties.maximum_packet_size
        if most is not None and len(encode(ConnAck(False, ACCEPTED), MQTT_5)) > most:
            raise Refused(reasons.PACKET_TOO_LARGE, f"packets of at most {most} bytes")

    def _check_end(self, vhost: str) -> None:
        """Refuse to begin anew while what is there can't be ended: it is kept whole, with all that is known of it."""
        error = self._broker.absences.hindrance(vhost)
        if error is not None:
            raise connect_refusal(error, named=self._connect.user is not None)

    def _prepared(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._refuse(outcome.error)

    def _found(self, outcome: Outcome) -> None:
        """Refuse to go on with a session that nobody knows to be on disk. Its limits may be others: it keeps those that it has."""
        if isinstance(outcome.error, Overloaded):
            self._refuse(outcome.error)

    def _deleted(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._refuse(outcome.error)
        elif self.link is not None and not self.link.is_over:
            self._accept()

    def _consuming(self, outcome: Outcome) -> None:
        link = self.link
        assert link is not None
        if link.is_over:
            return
        error = outcome.error or link.outbound.ended
        if error is not None:
            self._refuse(error)
        else:
            self._accept(outcome.result)

    def _accept(self, consumer: Consumer | None = None) -> None:
        link = self.link
        assert link is not None
        # [MQTT-3.2.0-1] [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT5-3.2.0-1] [MQTT5-3.2.2-2] [MQTT5-3.2.2-3]
        # [MQTT-3.1.4-4] [MQTT5-3.1.4-5] [MQTT5-3.2.0-2]
        present = self._present and link.level != MQTT_31  # where the flag is reserved
        link.begin(self._connack(link.expiry_s, present=present) if link.level == MQTT_5 else _CONNACKS[present])
        if consumer is not None:
            link.outbound.open(consumer)
        self._greeting.accepted(link)

    def _refuse(self, error: GatewayError) -> None:
        link = self.link
        assert link is not None
        if not link.is_over:
            self._broker.gateway.log.warning(
                "a session can't be opened", client=self.client_id, peer=self._connection.peer, reason=error.text
            )
            link.end()
            self._greeting.refuse(error)

    def _connack(self, expiry_s: int, *, present: bool) -> bytes:
        connect, broker = self._connect, self._broker
        asked = connect.properties
        keep_alive_s = keep_alive(connect.keep_alive_s, broker.settings.max_keep_alive_s)
        expiry_told = expiry_s if expiry_s != (asked.session_expiry_s or 0) else None
        keep_alive_told = keep_alive_s if keep_alive_s != connect.keep_alive_s else None  # [MQTT5-3.2.2-21]
        if not connect.client_id or asked.request_response_information or asked.maximum_packet_size is not None:
            return self._own_connack(expiry_told, keep_alive_told, present=present)
        said = (present, expiry_told, keep_alive_told)
        connack = broker.connacks.get(said)
        if connack is None:
            if len(broker.connacks) >= MOST_CONNACKS:
                broker.connacks.clear()
            connack = broker.connacks[said] = self._own_connack(expiry_told, keep_alive_told, present=present)
        return connack

    def _own_connack(self, expiry_s: int | None, keep_alive_s: int | None, *, present: bool) -> bytes:
        connack = encode(ConnAck(present, ACCEPTED, self._told(expiry_s, keep_alive_s)), MQTT_5)
        most = self._connect.properties.maximum_packet_size
        if most is not None and len(connack) > most:
            return encode(ConnAck(present, ACCEPTED), MQTT_5)  # [MQTT5-3.1.2-24]
        return connack

    def _told(self, expiry_s: int | None, keep_alive_s: int | None) -> Properties:
        """Return what differs from what a client takes for granted (MQTT 5.0 §3.2.2.3). None: that doesn't."""
        settings = self._broker.settings
        connect = self._connect
        informed = connect.properties.request_response_information and settings.response_prefix  # [MQTT5-3.1.2-28]
        return Properties(
            session_expiry_s=expiry_s,
            receive_maximum=settings.receive_maximum if settings.receive_maximum < MOST_RECEIVED else None,
            maximum_qos=settings.maximum_qos if settings.maximum_qos < HIGHEST_QOS else None,  # [MQTT5-3.2.2-9]
            retain_available=None if settings.retained else False,
            maximum_packet_size=largest_packet(settings.max_packet_bytes),
            assigned_client_id=self.client_id if not connect.client_id else None,  # [MQTT5-3.1.3-7] [MQTT5-3.2.2-16]
            topic_alias_maximum=settings.topic_alias_maximum or None,
            wildcard_available=None if settings.wildcards else False,
            subscription_ids_available=None if settings.subscription_identifiers else False,
            shared_available=None if settings.shared_subscriptions else False,
            server_keep_alive_s=keep_alive_s,
            response_information=response_topic(settings.response_prefix, self.client_id) if informed else None,
        )


def expiry_asked(connect: Connect, settings: MqttSettings) -> int:
    """Return how long a session is to outlive its connection, in seconds; 0: not at all, `NEVER_S`: for ever."""
    if connect.level == MQTT_5:
        return shortest(connect.properties.session_expiry_s or 0, settings.max_session_expiry_s)
    if connect.clean:
        return 0
    return shortest(settings.persistent_session_expiry_s or NEVER_S, settings.max_session_expiry_s)


def largest_packet(body_bytes: int) -> int | None:
    """Return the Maximum Packet Size for a limit of what is behind the remaining length; None: that is none."""
    if body_bytes >= MAX_LENGTH:
        return None
    return 1 + max((body_bytes.bit_length() + 6) // 7, 1) + body_bytes
