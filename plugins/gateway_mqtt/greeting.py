"""May a newcomer come in, and as who?"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from gateway.api import AccessRefused, CloseReason, Connection, Credentials, GatewayError, Principal, ProtocolViolation
from gateway_mqtt.codec import reasons
from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.names import CLIENT, CONNECT, MQTT_5, MQTT_31, MQTT_311, NAMES, UnknownLevel
from gateway_mqtt.codec.packets import REFUSALS, ConnAck, Connect, MalformedPacket, malformed
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from gateway_mqtt.codec.splitter import Splitter
from gateway_mqtt.entering import Entering
from gateway_mqtt.translate.sessions import Refused, connect_refusal, return_code

if TYPE_CHECKING:
    from gateway_mqtt.broker import Broker
    from gateway_mqtt.link import Link

MAX_AHEAD_BYTES: Final = 256 * 1024
"""What may come behind a CONNECT before that is answered."""
_MQTT_5_START: Final = b"\x00\x04MQTT\x05"
LEAST_BYTES: Final = 2
ONE_DIGIT: Final = 127
"""A remaining length up to this is one byte."""


class Greeting:
    """A connection until its CONNECT is answered (a `Receiver`); then a `Link` takes its place.

    ``connect``: the packet, once it has come.
    """

    __slots__ = ("_accepted", "_ahead", "_broker", "_connection", "_entering", "_reading", "_splitter", "connect", "held_bytes")

    def __init__(self, broker: Broker, connection: Connection) -> None:
        self._broker = broker
        self._connection = connection
        self._splitter: Splitter | None = None
        self._entering: Entering | None = None
        self._accepted: Link | None = None
        self._ahead: list[bytes] | None = None
        self._reading = False
        self.connect: Connect | None = None
        self.held_bytes = 0

    # -- bytes --------------------------------------------------------------

    def feed(self, data: bytes) -> bool:
        """See `gateway.api.Receiver.feed`.

        Raises:
            ProtocolViolation: what came is no CONNECT, is malformed, or is too much.
        """
        self._broker.traffic.bytes_received += len(data)
        self.held_bytes += len(data)
        if self.connect is not None:
            self._keep(data)
            if self.held_bytes > MAX_AHEAD_BYTES:
                raise ProtocolViolation("too much before the CONNACK", "MQTT 3.1.1 §3.1.4")
            return False
        self._reading = True
        try:
            return self._receive(data)
        finally:
            self._reading = False

    def _keep(self, data: bytes) -> None:
        if self._ahead is None:
            self._ahead = []
        self._ahead.append(data)

    def _receive(self, data: bytes) -> bool:
        """Take a piece of a CONNECT; closed without a CONNACK if it is none [MQTT-3.1.4-1]."""
        payload = None
        try:
            packet = self._packet(data)
            if packet is None:
                return False
            head, payload = packet
            connect = decode(head, payload, MQTT_311, CLIENT, self._broker.bounds)
        except UnknownLevel as error:  # [MQTT-3.1.2-2]: so it is answered whatever it is [MQTT5-3.1.2-2]
            self._refuse(Refused(reasons.UNSUPPORTED_PROTOCOL_VERSION, error.reason), MQTT_311)
            return True
        except MalformedPacket as error:
            if payload is not None and payload.startswith(_MQTT_5_START):
                self._answer(error.code, MQTT_5, error.reason)  # [MQTT5-3.1.4-2]
            raise ProtocolViolation(error.reason, error.spec) from None
        assert isinstance(connect, Connect)
        self.connect = connect
        self._broker.traffic.connects += 1
        rest = self._splitter.rest() if self._splitter is not None else b""
        self.held_bytes = len(rest)
        if rest:
            self._keep(rest)
        self._take(connect)
        return True

    def _packet(self, data: bytes) -> tuple[int, bytes] | None:
        """Return the first packet, as soon as it is complete: most clients send it, and nothing but it, in one piece."""
        splitter = self._splitter
        if splitter is None:
            if len(data) > LEAST_BYTES and data[0] == CONNECT << 4 and data[1] == len(data) - 2 <= ONE_DIGIT:
                return data[0], data[2:]
            splitter = self._splitter = Splitter(self._broker.max_connect_bytes)
        self._broker.waiting.grown(self, len(data))
        splitter.feed(data)
        if splitter.type not in {None, CONNECT}:
            raise malformed(f"{NAMES.get(splitter.type, 'something else')} before CONNECT", "[MQTT-3.1.0-1]")
        return splitter.next()

    # -- who is it? ---------------------------------------------------------

    def _take(self, connect: Connect) -> None:
        try:
            client_id = self._client_id(connect)
            principal = self._broker.gateway.authenticate_now(self._credentials(connect))
            if principal is None:
                self._connection.start(self._authenticate)
            else:
                self._enter(principal, client_id)
        except AccessRefused as error:
            self._refuse(connect_refusal(error, named=connect.user is not None), connect.level)
        except Refused as refused:
            self._refuse(refused, connect.level)

    def _credentials(self, connect: Connect) -> Credentials:
        connection = self._connection
        return Credentials(
            "anonymous" if connect.user is None and connect.password is None else "password",
            connect.user,
            connect.password,
            front_end="mqtt",
            peer=connection.peer,
            loopback=connection.is_loopback,
            certificate_subject=connection.certificate_subject,
        )

    async def _authenticate(self) -> None:
        """Ask who it is, where that takes time. Cancellation: nothing has happened."""
        connect = self.connect
        assert connect is not None
        try:
            principal = await self._broker.gateway.authenticate(self._credentials(connect))
            self._enter(principal, self._client_id(connect))
        except AccessRefused as error:
            self._refuse(connect_refusal(error, named=connect.user is not None), connect.level)
        except Refused as refused:
            self._refuse(refused, connect.level)

    def _client_id(self, connect: Connect) -> str:
        """Return the client identifier, or an assigned one [MQTT-3.1.3-6] [MQTT5-3.1.3-6].

        Raises:
            Refused: it is not acceptable [MQTT-3.1.3-9] [MQTT5-3.1.3-8] (any of 1 to 23 letters is [MQTT-3.1.3-5] [MQTT5-3.1.3-5]),
                or nothing is before it is known who the client is.
        """
        if connect.properties.authentication_method is not None:
            raise Refused(reasons.BAD_AUTHENTICATION_METHOD, "an authentication method")  # [MQTT5-4.12.0-1] [MQTT5-4.12.0-4]
        client_id = connect.client_id
        if not client_id:
            if connect.level == MQTT_31 or (connect.level == MQTT_311 and not connect.clean):
                raise Refused(reasons.CLIENT_IDENTIFIER_NOT_VALID, "no client identifier")  # [MQTT-3.1.3-8]
            return f"auto-{secrets.token_hex(8)}"
        if len(client_id.encode()) > self._broker.settings.max_client_id_bytes:
            raise Refused(reasons.CLIENT_IDENTIFIER_NOT_VALID, "a client identifier that is too long")
        return client_id

    def _enter(self, principal: Principal, client_id: str) -> None:
        if self._connection.closing:
            return
        assert self.connect is not None
        self._entering = Entering(self, self._broker, self._connection, self.connect, client_id)
        self._entering.begin(principal)

    # -- the answer ---------------------------------------------------------

    def accepted(self, link: Link) -> None:
        """The CONNACK is in `Connection.out`: the link goes on, with what was received behind the CONNECT.

        Raises:
            ProtocolViolation: what came behind the CONNECT is against the standard.
        """
        self._broker.waiting.done(self)
        self._entering = None
        if not self._ahead:
            self._connection.attach(link, idle_timeout_s=link.idle_timeout_s)
        elif self._reading:
            self._go_on(link)
        else:  # outcomes are being told: nothing may be published from here
            self._accepted = link
            self._connection.start(self._go_on_later)

    async def _go_on_later(self) -> None:
        """Go on in a turn of its own. Cancellation: the connection has ended."""
        link, self._accepted = self._accepted, None
        if link is not None:
            self._go_on(link)

    def _go_on(self, link: Link) -> None:
        ahead = b"".join(self._ahead or ())
        self._ahead = None
        self._connection.attach(link, idle_timeout_s=link.idle_timeout_s)
        link.feed(ahead)

    def refuse(self, error: GatewayError) -> None:
        """The session can't be opened: answer with a no."""
        connect = self.connect
        assert connect is not None
        self._refuse(connect_refusal(error, named=connect.user is not None), connect.level)

    def _refuse(self, refused: Refused, level: int) -> None:
        """Answer with a no [MQTT-3.2.2-4] [MQTT5-3.2.2-6], if there is a code for it, and close [MQTT-3.2.2-5] [MQTT5-3.2.2-7].

        What came behind the CONNECT is not looked at [MQTT-3.1.4-5] [MQTT5-3.1.4-6].
        """
        gateway = self._broker.gateway
        connection = self._connection
        gateway.count("connects_refused", reason=REFUSALS[return_code(refused.code)] or reasons.TEXTS[refused.code])
        gateway.log.warning("a client was refused", peer=connection.peer, code=refused.code, reason=refused.reason)
        self._answer(refused.code, level, "" if refused.code in _FOR_THE_LOG else refused.reason)
        connection.close(CloseReason.LOCAL)

    def _answer(self, code: int, level: int, reason: str) -> None:
        if level != MQTT_5:
            if not return_code(code):
                return  # [MQTT-3.2.2-6]
            packet = encode(ConnAck(session_present=False, code=return_code(code)), level)
        else:
            limit = self.connect.properties.maximum_packet_size if self.connect is not None else None
            told = Properties(reason_string=reason) if reason else NO_PROPERTIES  # no user properties [MQTT5-3.2.2-20]
            packet = encode(ConnAck(False, code, told), level)
            if limit is not None and len(packet) > limit:
                packet = encode(ConnAck(False, code), level)  # [MQTT5-3.2.2-19]
                if len(packet) > limit:
                    return  # [MQTT5-3.1.2-24]
        self._broker.traffic.sent.other(packet)
        self._connection.out.append(packet)
        self._connection.touch()

    def ended(self, reason: CloseReason) -> None:
        """See `gateway.api.Receiver.ended`."""
        self._broker.waiting.done(self)
        link = self._entering.link if self._entering is not None else self._accepted
        self._entering = self._accepted = None
        if link is not None:
            link.ended(reason)
        if reason is CloseReason.IDLE:
            self._broker.gateway.count("connect_timeouts")
            self._broker.gateway.log.warning(
                "a client did not connect in time",
                peer=self._connection.peer,
                seconds=self._broker.settings.connect_timeout_s,
            )

    def give_up(self) -> None:
        """Too many wait, and this one has waited longest."""
        self._broker.gateway.count("unconnected_closed")
        self._connection.abort(CloseReason.LOCAL)


_FOR_THE_LOG: Final = frozenset((reasons.NOT_AUTHORIZED, reasons.BAD_USER_NAME_OR_PASSWORD, reasons.SERVER_UNAVAILABLE))
"""Why exactly is not for those who are refused."""
