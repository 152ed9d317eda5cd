"""What does one AMQP connection say about itself and its channels, and how does it end?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pamqp import commands

from gateway.api import CloseReason, Connection, Gateway, Principal
from gateway_amqp.channel import AmqpChannel, Frames
from gateway_amqp.closing import CLOSE_OK, Closing, Farewell
from gateway_amqp.codec.methods import decode, encode
from gateway_amqp.codec.names import (
    CHANNEL_ERROR,
    CHANNEL_OPEN,
    CONNECTION_CLOSE,
    CONNECTION_FORCED,
    CONNECTION_UPDATE_SECRET,
    NOT_ALLOWED,
    REPLIES,
    RESOURCE_ERROR,
    HardError,
    SoftError,
    reply_text,
)
from gateway_amqp.codec.splitter import Splitter
from gateway_amqp.codec.writing import HEARTBEAT
from gateway_amqp.handshake import HEADER, HEADER_SIZE, Handshake
from gateway_amqp.renewal import Renewal
from gateway_amqp.sasl import password_of
from gateway_amqp.transaction import Buffered

if TYPE_CHECKING:
    from gateway_amqp.broker import Broker
    from gateway_amqp.outflow import Outflow

UNBLOCKED: Final = encode(0, commands.Connection.Unblocked())
CHANNEL_OPENED: Final = commands.Channel.OpenOk()
CHANNEL_OPENED.channel_id = ""  # reserved
LINGER_S: Final = 5.0
"""How long a client may take to answer Connection.Close."""
MUCH_BYTES: Final = 1024 * 1024
"""When a turn has so much to answer that is large it is handed to the socket, to see whether the client reads."""
MOST_OWED_BYTES: Final = 16 * 1024 * 1024
"""What a client may ask for while it does not read; a message that goes beyond it is sent, whatever its size."""
NOBODY: Final = Principal("")


class Protocol:
    """One AMQP connection, from its protocol header to its end (a `Receiver` and a `CongestionSink`; the stray of its splitter).

    It owns the exclusive queues of its channels.

    ``out``: what is sent at the end of the turn. ``channels``: those that are open, or closed and not forgotten yet, by number.
    ``principal``, ``vhost``, ``frame_max``, ``channel_max``, ``heartbeat_s``: as settled by the handshake.
    ``user``: as whom it has given a password; None: it has given none.
    ``tells_of_cancel``, ``blocked_notify``: what the client says that it understands. ``is_congested``: the client does not read.
    ``outflow``: what the first consumer makes, for all of them.
    """

    __slots__ = (
        "_ahead",
        "_buffered",
        "_farewell",
        "_handshake",
        "_held",
        "_owed",
        "_publishes",
        "_renewal",
        "_splitter",
        "_told_blocked",
        "_unseen",
        "blocked_notify",
        "broker",
        "channel_max",
        "channels",
        "connection",
        "frame_max",
        "gateway",
        "heartbeat_s",
        "is_congested",
        "is_over",
        "out",
        "outflow",
        "principal",
        "tells_of_cancel",
        "user",
        "vhost",
    )

    def __init__(self, broker: Broker, connection: Connection) -> None:
        self.broker: Broker = broker
        self.gateway: Gateway = broker.gateway
        self.connection: Connection = connection
        self.out: list[bytes] = connection.out
        self.channels: dict[int, Frames] = {}
        self.principal: Principal = NOBODY
        self.user: str | None = None
        self.vhost: str = ""
        self.frame_max: int = broker.settings.frame_max
        self.channel_max: int = broker.settings.channel_max
        self.heartbeat_s: int = 0
        self.tells_of_cancel: bool = False
        self.blocked_notify: bool = False
        self.is_congested: bool = False
        self.is_over: bool = False
        self.outflow: Outflow | None = None
        self._buffered: Buffered | None = None
        self._held: int = 0
        self._owed: int = 0
        self._unseen: int = 0
        self._renewal: Renewal | None = None
        self._publishes: bool = False
        self._told_blocked: bool = False
        self._ahead: bytes = b""
        self._splitter: Splitter | None = None
        self._handshake: Handshake | None = None
        self._farewell: Farewell | None = None

    @property
    def buffered(self) -> Buffered:
        """How much the transactions of its channels hold."""
        buffered = self._buffered
        if buffered is None:
            buffered = self._buffered = Buffered(self)
        return buffered

    # -- bytes --------------------------------------------------------------

    def feed(self, data: bytes) -> bool:
        """See `gateway.api.Receiver.feed`."""
        splitter = self._splitter
        if splitter is None:
            return self._begin(data)
        try:
            whole = splitter.feed(data)
        except HardError as error:
            self.fail(error)
            return True
        held = splitter.held_bytes
        if held != self._held:
            self._hold(held)
        return whole

    def _hold(self, size: int) -> None:
        """Something is kept that is not complete."""
        if not self.is_over:
            self._held = size
            self.broker.partial.holds(self, size)

    def _begin(self, data: bytes) -> bool:
        """Take the protocol header."""
        if self.is_over:
            return False
        data = self._ahead + data
        if not HEADER.startswith(data[:HEADER_SIZE]):
            self.gateway.count("connection_errors", reason="protocol_header")
            self.gateway.log.warning("a peer does not speak AMQP 0-9-1", peer=self.connection.peer, began=repr(data[:HEADER_SIZE]))
            self._leave(HEADER)
            return True
        if len(data) < HEADER_SIZE:
            self._ahead = data
            return False
        self._ahead = b""
        splitter = self._splitter = Splitter(self, self.channels, self.broker.settings.max_message_bytes)
        handshake = self._handshake = Handshake(self, splitter)
        handshake.begin()
        if len(data) > HEADER_SIZE:
            self.feed(data[HEADER_SIZE:])
        return True

    def send(self, data: bytes) -> None:
        """Send at the end of the turn."""
        if self.is_congested:
            self.owe(len(data))
        out = self.out
        if not out:
            self.connection.touch()
        out.append(data)

    def send_large(self, data: bytes) -> None:
        """Send what a few bytes of the client's have asked for: thousands of such may come in one turn."""
        self.send(data)
        self._unseen += len(data)
        if self._unseen > MUCH_BYTES:
            self._unseen = 0
            self.connection.flush()

    # -- frames of no channel that there is -----------------------------------

    def on_stray(self, number: int, method: int, arguments: bytes) -> None:
        """Take a method of the connection itself, or of a channel that is not open.

        Raises:
            HardError: it may not come here, or now.
        """
        if self._handshake is not None:
            self._handshake.on_method(number, method, arguments)
        elif number == 0:
            self._own(method, arguments)
        elif method == CHANNEL_OPEN:
            decode(method, arguments)
            self._open(number)
        else:
            raise HardError(CHANNEL_ERROR, "expected 'channel.open'", method)

    def on_frame(self, number: int, method: int, arguments: bytes) -> None:
        """Take a method, whomever it is for. Raises as `on_stray`."""
        channel = self.channels.get(number)
        if channel is None:
            self.on_stray(number, method, arguments)
        else:
            channel.on_method(method, arguments)

    def on_heartbeat(self) -> None:
        """The client lives: that it was heard says so."""

    def _own(self, method: int, arguments: bytes) -> None:
        command = decode(method, arguments)
        if method == CONNECTION_CLOSE:
            self.close()
        elif method == CONNECTION_UPDATE_SECRET:
            self._update_secret(command.new_secret)
        else:
            raise HardError(CHANNEL_ERROR, "unexpected method in connection state running", method)

    def _open(self, number: int) -> None:
        """Open a channel. Its number is any; how many there are is what `channel_max` limits, as in RabbitMQ."""
        there = len(self.channels)
        if there >= self.channel_max:
            text = f"number of channels opened ({there}) has reached the negotiated channel_max ({self.channel_max})"
            raise HardError(NOT_ALLOWED, text, CHANNEL_OPEN)
        self.channels[number] = AmqpChannel(self, number)
        self.send(encode(number, CHANNEL_OPENED))

    # -- the beginning ------------------------------------------------------

    def opened(self) -> None:
        """The handshake is over: Connection.Open is answered."""
        self._handshake = None
        self.broker.opened(self)
        self.connection.watch(self)
        self.connection.attach(self, idle_timeout_s=2.0 * self.heartbeat_s)

    def give_up(self) -> None:
        """Too many are on their way, and this one has been for longest."""
        self.gateway.count("unconnected_closed")
        self.connection.abort(CloseReason.LOCAL)

    def too_much(self) -> None:
        """There is no room for all that connections have begun, and this one has the most."""
        self.gateway.count("partial_messages_closed")
        self.fail(HardError(RESOURCE_ERROR, "too much is kept of messages that are not complete"))

    def beat(self) -> None:
        """Send a heartbeat."""
        if not self.is_over:
            self.send(HEARTBEAT)

    # -- its user -----------------------------------------------------------

    def _update_secret(self, secret: str | bytes) -> None:
        if self.user is None:
            raise HardError(NOT_ALLOWED, "New secret was refused by one of the backends", CONNECTION_UPDATE_SECRET)
        if self._renewal is not None and self._renewal.is_waiting:
            raise HardError(RESOURCE_ERROR, "a new secret before the last one was checked", CONNECTION_UPDATE_SECRET)
        password = secret.encode() if isinstance(secret, str) else secret
        self._renewal = Renewal(self, password_of(self.connection, self.user, password, strict=False))
        self._renewal.begin()

    # -- alarms -------------------------------------------------------------

    def begin_publishing(self) -> None:
        """The client publishes, or is about to: from now on it is told when publishers are held back."""
        if not self._publishes:
            self._publishes = True
            self.block()

    def block(self) -> None:
        """Tell the client whether publishers are held back, if it publishes and wants to know."""
        why = self.broker.blocked
        leaves = self.is_over or self._farewell is not None
        if leaves or not self._publishes or not self.blocked_notify or bool(why) == self._told_blocked:
            return
        self._told_blocked = bool(why)
        self.send(encode(0, commands.Connection.Blocked(why)) if why else UNBLOCKED)

    # -- a peer that does not read ------------------------------------------

    def congested(self) -> None:
        """See `gateway.api.CongestionSink`."""
        self.is_congested = True
        self._owed = 0
        for channel in list(self.channels.values()):
            if isinstance(channel, AmqpChannel):
                channel.congested()

    def decongested(self) -> None:
        """See `gateway.api.CongestionSink`."""
        self.is_congested = False
        for channel in list(self.channels.values()):
            if isinstance(channel, AmqpChannel):
                channel.decongested()

    def owe(self, size: int) -> None:
        """So much more is to be sent though the client does not read: it may not go on asking like this."""
        if self._owed <= MOST_OWED_BYTES:
            self._owed += size
        elif not self.is_over:
            self.gateway.count("slow_readers_closed")
            self.gateway.log.warning("a client asks, and does not read the answers: connection closed", peer=self.connection.peer)
            self.end()
            self.connection.abort(CloseReason.SLOW)

    # -- the end ------------------------------------------------------------

    def refused(self, error: SoftError | HardError) -> None:
        """A channel was closed for an error."""
        self.gateway.count("channel_errors", reason=REPLIES.get(error.code, str(error.code)).lower())

    def close(self) -> None:
        """The client closes the connection: what it submitted before is told first, what comes behind is not carried out."""
        waiting = [channel for channel in self.channels.values() if isinstance(channel, AmqpChannel) and channel.is_waiting]
        if waiting and self._splitter is not None:
            self._splitter.stop()
            self._farewell = Farewell(self)
            for channel in self.channels.values():
                if isinstance(channel, AmqpChannel) and channel.transaction is not None:
                    channel.transaction.close()
        else:
            self.closed()

    def closed(self) -> None:
        """All is told. To close the socket is up to the client: some take it for an error if the broker does."""
        if self.is_over:
            return
        self.end()
        self.send(CLOSE_OK)
        self.connection.attach(Closing(self.connection), deadline_s=LINGER_S)

    def _leave(self, last: bytes) -> None:
        """Say a last thing, and close."""
        self.end()
        self.send(last)
        self.connection.close(CloseReason.LOCAL)

    def fail(self, error: HardError) -> None:
        """Close the connection for an error, and wait for the client's answer."""
        if self.is_over or self._farewell is not None:  # who leaves anyway counts on an answer to that, when all is told
            return
        reason = REPLIES.get(error.code, str(error.code))
        self.gateway.count("connection_errors", reason=reason.lower())
        self.gateway.log.warning(
            "a connection was closed for an error", peer=self.connection.peer, code=error.code, reason=error.text
        )
        self.end()
        method = error.method
        close = commands.Connection.Close(error.code, reply_text(error.code, error.text), method >> 16, method & 0xFFFF)
        self.send(encode(0, close))
        self.connection.attach(Closing(self.connection), deadline_s=LINGER_S)

    def hang_up(self) -> None:
        """Close without a word."""
        self.end()
        self.connection.close(CloseReason.LOCAL)

    def ended(self, reason: CloseReason) -> None:
        """See `gateway.api.Receiver.ended`."""
        if self.is_over:
            return
        opened = self._handshake is None and self._splitter is not None
        if reason is CloseReason.SHUTDOWN and opened:
            text = reply_text(CONNECTION_FORCED, "broker forced connection closure with reason 'shutdown'")
            self.send(encode(0, commands.Connection.Close(CONNECTION_FORCED, text, 0, 0)))
        elif reason is CloseReason.IDLE:
            self.gateway.count("heartbeats_missed" if opened else "connect_timeouts")
            what = "a client was not heard for two heartbeats" if opened else "a client did not open its connection in time"
            self.gateway.log.warning(what, peer=self.connection.peer)
        self.end()

    def end(self) -> None:
        """End the channels, delete exclusive queues; nothing that still comes counts. It may be called any number of times."""
        if self.is_over:
            return
        self.is_over = True
        if self._splitter is not None:
            self._splitter.stop()
        if self._handshake is not None:
            self._handshake.stop()
        if self._farewell is not None:
            self._farewell.close()
        self.broker.left(self)
        for channel in list(self.channels.values()):
            if isinstance(channel, AmqpChannel):
                channel.end()
        self.channels.clear()
        self.gateway.release(self)
