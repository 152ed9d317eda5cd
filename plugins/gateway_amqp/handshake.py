"""May a newcomer come in, as who, where to, and how is its connection tuned?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pamqp import commands

from gateway.api import AccessRefused, Credentials, NotFound, Principal
from gateway_amqp.codec.methods import decode, encode
from gateway_amqp.codec.names import (
    ACCESS_REFUSED,
    CHANNEL_ERROR,
    CONNECTION_CLOSE,
    CONNECTION_OPEN,
    CONNECTION_START_OK,
    CONNECTION_TUNE,
    CONNECTION_TUNE_OK,
    FRAME_MIN_SIZE,
    NOT_ALLOWED,
    RESOURCE_ERROR,
    UNEXPECTED_FRAME,
    HardError,
)
from gateway_amqp.codec.splitter import Splitter
from gateway_amqp.sasl import credentials, mechanisms

if TYPE_CHECKING:
    from gateway_amqp.protocol import Protocol

HEADER: Final = b"AMQP\x00\x00\x09\x01"
HEADER_SIZE: Final = len(HEADER)
OPEN_OK: Final = encode(0, commands.Connection.OpenOk())
STARTING, SECURING, TUNING, OPENING, OVER = "starting", "securing", "tuning", "opening", "over"
MOST_AHEAD: Final = 16
"""Methods that may come while a password is checked: a client that does not wait sends TuneOk, Open and a few more."""

CAPABILITIES: Final = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}
"""What works here beyond AMQP 0-9-1."""


class Handshake:
    """A connection between its protocol header and the answer to Connection.Open (AMQP 0-9-1 §2.2.4)."""

    __slots__ = ("_ahead", "_given", "_link", "_mechanism", "_splitter", "_state", "_tells_failure")

    def __init__(self, link: Protocol, splitter: Splitter) -> None:
        self._link: Protocol = link
        self._splitter: Splitter = splitter
        self._state: str = STARTING
        self._mechanism: str = ""
        self._given: Credentials | None = None
        self._tells_failure: bool = False
        self._ahead: list[tuple[int, int, bytes]] = []

    def begin(self) -> None:
        """Send Connection.Start."""
        link = self._link
        link.send(link.broker.start(mechanisms(link.connection)))

    def on_method(self, number: int, method: int, arguments: bytes) -> None:
        """Take what the client says.

        Raises:
            HardError: it may not say this, or not now.
        """
        if self._state == SECURING:
            self._later(number, method, arguments)
        elif number:
            raise HardError(UNEXPECTED_FRAME, f"a method on channel {number} in connection state {self._state}", method)
        elif method == CONNECTION_START_OK and self._state == STARTING:
            self._start_ok(decode(method, arguments))
        elif method == CONNECTION_TUNE_OK and self._state == TUNING:
            self._tune_ok(decode(method, arguments))
        elif method == CONNECTION_OPEN and self._state == OPENING:
            self._open(decode(method, arguments).virtual_host)
        elif method == CONNECTION_CLOSE and self._state != STARTING:
            decode(method, arguments)
            self._link.close()
        else:
            raise HardError(CHANNEL_ERROR, f"unexpected method in connection state {self._state}", method)

    def _later(self, number: int, method: int, arguments: bytes) -> None:
        if len(self._ahead) >= MOST_AHEAD:
            raise HardError(RESOURCE_ERROR, "too much before authentication is over", method)
        self._ahead.append((number, method, arguments))

    def stop(self) -> None:
        """The connection is over."""
        self._state = OVER
        self._ahead = []

    # -- who ----------------------------------------------------------------

    def _start_ok(self, said: Any) -> None:
        """Take a `commands.Connection.StartOk`, whose response may be bytes whatever pamqp says of it."""
        link = self._link
        capable = _capabilities(said.client_properties)
        link.tells_of_cancel = capable.get("consumer_cancel_notify") is True
        link.blocked_notify = capable.get("connection.blocked") is True
        self._tells_failure = capable.get("authentication_failure_close") is True
        self._mechanism = said.mechanism
        response: str | bytes = said.response
        given = credentials(link.connection, said.mechanism, response.encode() if isinstance(response, str) else response)
        link.user = given.user
        self._given = given
        try:
            principal = link.gateway.authenticate_now(given)
        except AccessRefused as error:
            self._refuse(error)
            return
        if principal is None:
            self._state = SECURING
            link.connection.start(self._authenticate)
        else:
            self._let_in(principal)

    async def _authenticate(self) -> None:
        """Wait for the answer. Cancellation: the connection has ended."""
        given = self._given
        assert given is not None
        try:
            principal = await self._link.gateway.authenticate(given)
        except AccessRefused as error:
            self._refuse(error)
            return
        if self._state == SECURING:
            self._let_in(principal)
            self._go_on()

    def _go_on(self) -> None:
        """Take what came meanwhile."""
        link = self._link
        ahead, self._ahead = self._ahead, []
        try:
            for number, method, arguments in ahead:
                if link.is_over:
                    return
                link.on_frame(number, method, arguments)
        except HardError as error:
            link.fail(error)

    def _refuse(self, error: AccessRefused) -> None:
        """Tell the client, if it wants to be told, that it is not let in; why exactly is for the log."""
        link = self._link
        if link.is_over:
            return
        link.gateway.count("connects_refused")
        link.gateway.log.warning("a client was refused", peer=link.connection.peer, reason=error.text)
        text = f"Login was refused using authentication mechanism {self._mechanism}. For details see the broker logfile."
        if self._tells_failure:
            link.fail(HardError(ACCESS_REFUSED, text))
        else:
            link.hang_up()

    def _let_in(self, principal: Principal) -> None:
        link = self._link
        link.principal = principal
        self._state = TUNING
        self._splitter.frame_max = link.frame_max
        link.send(link.broker.tune)

    # -- how ----------------------------------------------------------------

    def _tune_ok(self, said: commands.Connection.TuneOk) -> None:
        link = self._link
        settings = link.broker.settings
        link.frame_max = _negotiated("frame_max", FRAME_MIN_SIZE, settings.frame_max, said.frame_max)
        link.channel_max = _negotiated("channel_max", 1, settings.channel_max, said.channel_max)
        link.heartbeat_s = said.heartbeat
        self._splitter.frame_max = link.frame_max
        self._state = OPENING

    # -- where to -----------------------------------------------------------

    def _open(self, vhost: str) -> None:
        link = self._link
        try:
            link.principal = link.gateway.enter(link.principal, vhost)
        except NotFound:
            raise HardError(NOT_ALLOWED, f"vhost {vhost} not found", CONNECTION_OPEN) from None
        except AccessRefused:
            text = f"access to vhost '{vhost}' refused for user '{link.principal.user}'"
            raise HardError(NOT_ALLOWED, text, CONNECTION_OPEN) from None
        link.vhost = vhost
        self._state = OVER
        link.send(OPEN_OK)
        link.opened()


def _capabilities(properties: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found = (properties or {}).get("capabilities")
    return found if isinstance(found, dict) else {}


def _negotiated(name: str, least: int, most: int, said: int) -> int:
    """Return what holds; a client's 0 means that it has no limit of its own.

    Raises:
        HardError: it can't be that.
    """
    if not said:
        return most
    if said < least:
        raise HardError(
            NOT_ALLOWED, f"negotiated {name} = {said} is lower than the minimum allowed value ({least})", CONNECTION_TUNE
        )
    if said > most:
        raise HardError(
            NOT_ALLOWED, f"negotiated {name} = {said} is higher than the maximum allowed value ({most})", CONNECTION_TUNE
        )
    return said
