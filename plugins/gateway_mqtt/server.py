"""Who accepts MQTT connections, and sees each through its life?"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

import trio

from gateway.api import AccessRefused, CloseReason, Connection, Credentials, Gateway, Principal, ProtocolViolation
from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.packets import (
    BAD_IDENTIFIER,
    BAD_LEVEL,
    CONNECT,
    MAX_CONNECT_BYTES,
    NAMES,
    NOT_AUTHORIZED,
    REFUSALS,
    ConnAck,
    Connect,
    MalformedPacket,
    UnknownLevel,
    malformed,
)
from gateway_mqtt.codec.splitter import Splitter
from gateway_mqtt.link import Broker, Link
from gateway_mqtt.settings import MqttSettings
from gateway_mqtt.translate.sessions import MAX_CLIENT_ID_BYTES, connack_code

SUB_PROTOCOLS = ("mqtt", "mqttv3.1")
"""Over WebSocket [MQTT-6.0.0-3]; the second one is what clients of MQTT 3.1 ask for."""
FIRST_WITH_EMPTY = 4
"""MQTT 3.1 knows no empty client identifiers."""
SERVED_LEVELS = (3, 4)


class Server:
    """The MQTT front-end while it runs."""

    def __init__(self, gateway: Gateway, settings: MqttSettings) -> None:
        self._gateway = gateway
        self._settings = settings
        self._broker = Broker.make(gateway, settings)
        self._token = trio.lowlevel.current_trio_token()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the broker drains. Errors and cancellation as `FrontEnd.serve`."""
        async with trio.open_nursery() as nursery:
            serve = partial(
                self._gateway.serve_streams,
                self._settings.listen,
                self.handle,
                setting="frontend.mqtt.listen",
                websocket=SUB_PROTOCOLS,
            )
            await nursery.start(serve)
            task_status.started()

    async def handle(self, connection: Connection) -> None:
        """Serve one connection until it ends.

        Raises:
            ProtocolViolation: before or right after the CONNECT; the host says goodbye.
        Cancellation: ends the session as if the connection were lost.
        """
        link: Link | None = None
        decided = trio.Event()
        try:
            with trio.move_on_after(self._settings.connect_timeout_s) as patience:
                link = await self._enter(connection, partial(self._token.run_sync_soon, decided.set))
                if link is not None:
                    await decided.wait()
            if patience.cancelled_caught:
                self._time_out(connection)
            elif link is not None and link.accepted:
                del decided, patience  # idle connections are many
                link.feed_ahead()
                await connection.pump(link.feed, idle_timeout_s=link.idle_timeout_s)
        finally:
            if link is not None:
                link.end()

    async def _enter(self, connection: Connection, decided: Callable[[], None]) -> Link | None:
        """Take the CONNECT and see to its answer; None: it was refused, or there is none.

        Raises:
            ProtocolViolation: it is malformed.
        """
        received = await self._receive_connect(connection)
        if received is None:
            return None
        connect, ahead = received
        client_id = self._client_id(connect)
        if client_id is None:
            self._refuse(connection, BAD_IDENTIFIER, "client identifier not acceptable")
            return None
        principal = await self._admit(connection, connect)
        if principal is None:
            return None
        link = Link(self._broker, connection, principal, connect, client_id, decided)
        link.ahead = ahead
        try:
            link.open()
        except AccessRefused as error:  # the will's topic
            link.end()
            self._refuse(connection, NOT_AUTHORIZED, error.text)
            return None
        except MalformedPacket as error:
            link.end()
            raise ProtocolViolation(error.reason, error.spec) from None
        return link

    async def _receive_connect(self, connection: Connection) -> tuple[Connect, bytes] | None:
        """Return the CONNECT and what was received behind it; None: there is none, and the peer is gone or was answered.

        Raises:
            ProtocolViolation: it is none, or malformed: closed without a CONNACK [MQTT-3.1.4-1].
        """
        splitter = Splitter(min(self._settings.max_packet_bytes, MAX_CONNECT_BYTES))
        try:
            while data := await connection.receive():
                splitter.feed(data)
                if splitter.type not in {None, CONNECT}:
                    raise malformed(f"{NAMES.get(splitter.type, 'something else')} before CONNECT", "[MQTT-3.1.0-1]")
                packet = splitter.next()
                if packet is not None:
                    connect = decode(*packet)
                    assert isinstance(connect, Connect)
                    if connect.level not in SERVED_LEVELS or connect.bridge:
                        raise UnknownLevel(f"protocol level {connect.level} is not served", "MQTT 3.1.1 [MQTT-3.1.2-2]")  # noqa: TRY301
                    return connect, splitter.rest()
        except UnknownLevel as error:
            self._refuse(connection, BAD_LEVEL, error.reason)  # [MQTT-3.1.2-2]
        except MalformedPacket as error:
            raise ProtocolViolation(error.reason, error.spec) from None
        return None

    def _client_id(self, connect: Connect) -> str | None:
        """Return the client identifier, an assigned one [MQTT-3.1.3-6], or None: it is not acceptable [MQTT-3.1.3-9]."""
        if not connect.client_id:
            return f"auto-{secrets.token_hex(8)}" if connect.clean and connect.level >= FIRST_WITH_EMPTY else None  # [MQTT-3.1.3-8]
        return connect.client_id if len(connect.client_id.encode()) <= MAX_CLIENT_ID_BYTES else None

    async def _admit(self, connection: Connection, connect: Connect) -> Principal | None:
        """Authenticate; None: refused, and told."""
        credentials = Credentials(
            "anonymous" if connect.user is None else "password",
            connect.user,
            connect.password,
            front_end="mqtt",
            peer=connection.peer,
            loopback=connection.is_loopback,
            certificate_subject=connection.certificate_subject,
        )
        try:
            return await self._gateway.authenticate(credentials)
        except AccessRefused as error:
            self._refuse(connection, connack_code(error, connect), error.text)
            return None

    def _refuse(self, connection: Connection, code: int, reason: str) -> None:
        """Answer a CONNECT with a no [MQTT-3.2.2-4], and close [MQTT-3.2.2-5]."""
        self._gateway.count("connects_refused", reason=REFUSALS[code])
        self._gateway.log.warning("a client was refused", peer=connection.peer, code=code, reason=reason)
        connection.out.append(encode(ConnAck(session_present=False, code=code)))
        connection.close(CloseReason.LOCAL)

    def _time_out(self, connection: Connection) -> None:
        self._gateway.count("connect_timeouts")
        self._gateway.log.warning(
            "a client did not connect in time", peer=connection.peer, seconds=self._settings.connect_timeout_s
        )
        connection.abort(CloseReason.IDLE)
