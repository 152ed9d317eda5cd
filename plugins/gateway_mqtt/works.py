"""What does a client need to do something, and when is it made?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.api import Channel, Connection, Delivery, Principal
from gateway_mqtt.inbound import Inbound
from gateway_mqtt.outbound import Outbound, Replies
from gateway_mqtt.protocol import Connected
from gateway_mqtt.session import Session, SessionKey
from gateway_mqtt.store import SessionStore
from gateway_mqtt.translate.topics import Routes

if TYPE_CHECKING:
    from gateway_mqtt.broker import Broker
    from gateway_mqtt.wants import Wants


class Works:
    """The half of a link that is made when it is asked for: many clients only say that they are there, or only publish.

    Args:
        key: of the session [MQTT-3.1.3-2] [MQTT5-3.1.3-2].
        durable: the session's queue is in the journal: it outlives the connection, or did so before.
    """

    __slots__ = (
        "_accepted",
        "_channel",
        "_inbound",
        "_outbound",
        "_principal",
        "_protocol",
        "_replies",
        "_session",
        "_wants",
        "broker",
        "connection",
        "durable",
        "key",
        "level",
        "store",
    )

    def __init__(  # noqa: PLR0913 - what is known when a client enters
        self,
        broker: Broker,
        connection: Connection,
        principal: Principal,
        key: SessionKey,
        level: int,
        wants: Wants,
        *,
        durable: bool,
    ) -> None:
        self.broker: Broker = broker
        self.connection: Connection = connection
        self.key: SessionKey = key
        self.level: int = level
        self.durable: bool = durable
        self._principal: Principal = principal
        self._wants: Wants = wants
        self._accepted: bool = False
        self.store: SessionStore | None = broker.stores.open(broker.absences.channel(key[0]), key, lasts=True) if durable else None
        self._session: Session[Delivery] | None = None
        self._replies: Replies | None = None
        self._inbound: Inbound | None = None
        self._channel: Channel | None = None
        self._protocol: Connected | None = None
        self._outbound: Outbound | None = None

    @property
    def session(self) -> Session[Delivery]:
        """What of the client's state is here."""
        session = self._session
        if session is None:
            vhost, client_id = self.key
            session = self._session = Session(vhost, client_id, clean=not self.durable, lasts=self.durable)
        return session

    @property
    def replies(self) -> Replies:
        """What sends all that is no message."""
        replies = self._replies
        if replies is None:
            broker = self.broker
            replies = self._replies = Replies(broker.gateway, self.connection, self.key[1], broker.traffic.sent)
            if self._accepted:
                self.connection.watch(replies)
        return replies

    @property
    def inbound(self) -> Inbound:
        """What takes the client's publishes, and the outcomes of all that is done for it."""
        inbound = self._inbound
        return inbound if inbound is not None else self._opened()[0]

    @property
    def channel(self) -> Channel:
        """What it is done on."""
        channel = self._channel
        return channel if channel is not None else self._opened()[1]

    def _opened(self) -> tuple[Inbound, Channel]:
        broker, principal = self.broker, self._principal
        inbound = self._inbound = Inbound(
            broker.gateway,
            self.connection,
            broker.encoders[self.level],
            self.key[1],
            self.replies.reply,
            self._wants.terms,
            self.say_last,
        )
        channel = self._channel = broker.gateway.open_channel(principal, inbound)
        inbound.attach(channel, Routes(channel, principal, broker.topic_limits), self.store)
        return inbound, channel

    @property
    def outbound(self) -> Outbound:
        """What sends messages, made when there may be some: many clients only publish."""
        outbound = self._outbound
        return outbound if outbound is not None else self._made_outbound()

    def _made_outbound(self) -> Outbound:
        broker, connection = self.broker, self.connection
        outbound = self._outbound = Outbound(
            broker.gateway,
            connection,
            broker.encoders[self.level],
            self.session,
            broker.settings.max_inflight,
            broker.rota,
            client=self._wants.limits,
            store=self.store,
            pulse=broker.pulse,
            more_retained=broker.sys_topics.look_up,
            replies=self.replies,
        )
        outbound.attach(self.channel, self.inbound.expect, self.say_goodbye)
        if self._protocol is not None:
            self._protocol.acknowledge_to(outbound)
        if self._accepted:
            connection.watch(outbound)
            if connection.is_congested:
                outbound.congested()
        return outbound

    def unacknowledged(self) -> int:
        """Return how many messages the client was sent, or is about to be, and has not acknowledged; have those sent counted."""
        if self._outbound is None:
            return 0
        self._outbound.count()
        return self.session.outstanding

    def say_goodbye(self, code: int, reason: str = "") -> None:
        """Send a DISCONNECT."""
        raise NotImplementedError

    def say_last(self, packet: bytes) -> None:
        """Send a packet, and nothing after it."""
        raise NotImplementedError
