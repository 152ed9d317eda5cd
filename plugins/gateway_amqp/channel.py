"""What does one AMQP channel do with its methods, and how does it answer and end?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pamqp import commands

from gateway.api import Channel, Gateway, GatewayError, Principal
from gateway_amqp.answers import Answers, Then
from gateway_amqp.closing import Draining
from gateway_amqp.codec.methods import decode, encode
from gateway_amqp.codec.names import (
    BASIC_ACK,
    BASIC_PUBLISH,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    CHANNEL_ERROR,
    CHANNEL_FLOW,
    CHANNEL_FLOW_OK,
    CHANNEL_OPEN,
    COMMAND_INVALID,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    HardError,
    SoftError,
    reply_text,
)
from gateway_amqp.consuming import METHODS as CONSUMING
from gateway_amqp.consuming import Consuming
from gateway_amqp.declaring import METHODS as DECLARING
from gateway_amqp.declaring import Declaring
from gateway_amqp.direct_reply import DirectReply
from gateway_amqp.publishing import METHODS as PUBLISHING
from gateway_amqp.publishing import Publishing
from gateway_amqp.transaction import Transaction
from gateway_amqp.translate.errors import replied

if TYPE_CHECKING:
    from gateway_amqp.protocol import Protocol as Link


class Frames(Protocol):
    """Who takes the frames of one channel: the splitter calls these."""

    def on_method(self, method: int, arguments: bytes) -> None:
        """Take a method without content."""

    def on_publish(self, arguments: bytes, properties: bytes, body: bytes) -> None:
        """Take a Basic.Publish with all of its content."""

    def on_ack(self, delivery_tag: int, multiple: bool) -> None:
        """Take a Basic.Ack."""

    def on_too_large(self, size: int) -> None:
        """A Basic.Publish has more content than is taken; it is swallowed."""


class AmqpChannel:
    """A channel that is open (`Frames`).

    ``link``: its connection. ``number``: its own. ``principal``, ``gateway``, ``frame_max``: those of the connection.
    ``is_over``: it is closed, whoever closed it: nothing is sent on it any more but what belongs to the closing.
    ``transaction``: what is collected since Tx.Select; None: there was none.
    """

    __slots__ = (
        "_answers",
        "_answers_close",
        "_channel",
        "_consuming",
        "_declaring",
        "_direct_reply",
        "_publishing",
        "_swallows",
        "_too_late",
        "_untold",
        "frame_max",
        "gateway",
        "is_over",
        "link",
        "number",
        "principal",
        "transaction",
    )

    def __init__(self, link: Link, number: int) -> None:
        self.link: Link = link
        self.number: int = number
        self.principal: Principal = link.principal
        self.gateway: Gateway = link.gateway
        self.frame_max: int = link.frame_max
        self.is_over: bool = False
        self._swallows: bool = False
        self._answers_close: bool = False
        self._too_late: tuple[SoftError | HardError, int] | None = None
        self._channel: Channel | None = None
        self._publishing: Publishing | None = None
        self._consuming: Consuming | None = None
        self._declaring: Declaring | None = None
        self._direct_reply: DirectReply | None = None
        self.transaction: Transaction | None = None
        self._answers: Answers | None = None
        self._untold: list[bytes] | None = None

    # -- what it is made of: only what is used -------------------------------

    @property
    def channel(self) -> Channel:
        """The gateway's channel of methods, consumers and acknowledgements. Publishes have one of their own."""
        channel = self._channel
        if channel is None:
            channel = self._channel = self.gateway.open_channel(self.principal, self._answering(), owner=self.link)
        return channel

    @property
    def publishing(self) -> Publishing:
        """What the client publishes here, with Confirm and Tx."""
        room = self._publishing
        if room is None:
            room = self._publishing = Publishing(self)
            self.link.begin_publishing()
        return room

    @property
    def consuming(self) -> Consuming:
        """What the client consumes here, and acknowledges."""
        room = self._consuming
        if room is None:
            room = self._consuming = Consuming(self)
        return room

    @property
    def declaring(self) -> Declaring:
        """Exchanges, queues and bindings."""
        room = self._declaring
        if room is None:
            room = self._declaring = Declaring(self)
        return room

    @property
    def direct_reply(self) -> DirectReply:
        """The client's own address for answers."""
        room = self._direct_reply
        if room is None:
            room = self._direct_reply = DirectReply(self)
        return room

    # -- frames -------------------------------------------------------------

    def on_method(self, method: int, arguments: bytes) -> None:
        """See `Frames`.

        Raises:
            HardError: the connection is to be closed.
        """
        if self._swallows:
            self._answers_close = self._answers_close or method == CHANNEL_CLOSE
            return
        try:
            if method in PUBLISHING:
                PUBLISHING[method](self.publishing, arguments)
            elif method in CONSUMING:
                CONSUMING[method](self.consuming, arguments)
            elif method in DECLARING:
                self._declare(method, arguments)
            else:
                self._own(method, arguments)
        except SoftError as error:
            self.fail(error, method)
        except GatewayError as refusal:
            self.fail(refusal, method)

    def on_publish(self, arguments: bytes, properties: bytes, body: bytes) -> None:
        """See `Frames`. Raises as `on_method`."""
        if self._swallows:
            return
        room = self._publishing
        if room is None:
            room = self.publishing
        try:
            room.publish(arguments, properties, body)
        except SoftError as error:
            self.fail(error, BASIC_PUBLISH)
        except GatewayError as refusal:
            self.fail(refusal, BASIC_PUBLISH)

    def on_ack(self, delivery_tag: int, multiple: bool) -> None:
        """See `Frames`. Raises as `on_method`."""
        if self._swallows:
            return
        room = self._consuming
        if room is None:
            room = self.consuming
        try:
            room.ack(delivery_tag, multiple)
        except SoftError as error:
            self.fail(error, BASIC_ACK)
        except GatewayError as refusal:
            self.fail(refusal, BASIC_ACK)

    def on_too_large(self, size: int) -> None:
        """See `Frames`."""
        if not self._swallows:
            most = self.link.broker.settings.max_message_bytes
            text = f"message size {size} is larger than configured max size {most}"
            self.fail(SoftError(PRECONDITION_FAILED, text), BASIC_PUBLISH)

    def _declare(self, method: int, arguments: bytes) -> None:
        """Declare, bind or delete; what consumers of this channel are told of it comes behind the answer, as clients count on."""
        untold: list[bytes] = []
        self._untold = untold
        try:
            DECLARING[method](self.declaring, arguments)
        finally:
            self._untold = None
        for data in untold:
            self.answer(data)

    def _own(self, method: int, arguments: bytes) -> None:
        """Take what is about the channel itself."""
        if method == CHANNEL_CLOSE:
            decode(method, arguments)
            self._close()
        elif method == CHANNEL_FLOW:
            self._flow(decode(method, arguments))
        elif method == CHANNEL_OPEN:
            raise HardError(CHANNEL_ERROR, "second 'channel.open' seen", method)
        elif method not in (CHANNEL_CLOSE_OK, CHANNEL_FLOW_OK):
            decode(method, arguments)
            raise HardError(COMMAND_INVALID, "unimplemented method", method)

    def _flow(self, command: commands.Channel.Flow) -> None:
        if not command.active:
            raise HardError(NOT_IMPLEMENTED, "active=false", CHANNEL_FLOW)
        self.answer(encode(self.number, commands.Channel.FlowOk(active=True)))

    # -- answers ------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send frames of this channel: deliveries, confirms, and what else doesn't answer a method."""
        self.link.send(data)

    def tell(self, data: bytes) -> None:
        """Send frames that answer nothing, but behind the answer to the method that is carried out now."""
        untold = self._untold
        (self.answer if untold is None else untold.append)(data)

    def answer(self, data: bytes) -> None:
        """Send the answer to a method whose outcome is known: behind the answers to those before it."""
        answers = self._answers
        if answers is None:
            self.link.send(data)
        else:
            answers.send(data)

    def in_turn(self, then: Callable[[], None]) -> None:
        """Do something when all is answered that was said before."""
        answers = self._answers
        if answers is None:
            then()
        else:
            answers.in_turn(then)

    def expect(self, number: int, then: Then, method: int) -> None:
        """Have `then` called with the outcome of a number of `channel`, in order; if that is an error `fail` is, instead.

        What comes on this channel after a method that is refused already is not carried out.
        """
        channel = self.channel
        self._answering().expect(number, then, method)
        if channel.refused(number) is not None:
            self._swallows = True

    def _answering(self) -> Answers:
        answers = self._answers
        if answers is None:
            answers = self._answers = Answers(self)
        return answers

    # -- the end ------------------------------------------------------------

    def fail(self, error: SoftError | GatewayError, method: int) -> None:
        """Close the channel for an error, behind what is still to be told. What comes meanwhile is not carried out.

        If it is an error for the whole connection that is closed, at once.
        """
        if self.is_over:
            return
        told = replied(error, self.number)
        if self._swallows:
            if self._too_late is None and self._answers_close:
                self._too_late = told, method
            return
        if isinstance(told, HardError) or not self.is_waiting:
            self.fail_now(told, method)
        else:
            self._behind(lambda _: self.fail_now(told, method))

    def fail_now(self, error: SoftError | HardError, method: int) -> None:
        """Close the channel, or the connection, for an error: all that was to be told before is told."""
        if self.is_over:
            return
        if isinstance(error, HardError):
            self.link.fail(error if error.method else HardError(error.code, error.text, method))
            return
        link, number = self.link, self.number
        self.end()
        link.refused(error)
        close = commands.Channel.Close(error.code, reply_text(error.code, error.text), method >> 16, method & 0xFFFF)
        link.send(encode(number, close))
        if self._answers_close:
            link.send(encode(number, commands.Channel.CloseOk()))
        link.channels[number] = Draining(link, number, answered=self._answers_close)

    def _close(self) -> None:
        """The client closes it: what it submitted before is told first, and if that is refused it hears so before its answer."""
        if self.is_waiting:
            self._answers_close = True
            self._behind(lambda _: self._closed())
        else:
            self._closed()

    def _closed(self) -> None:
        if self._too_late is not None:
            self.fail_now(*self._too_late)
        elif not self.is_over:
            self.end()
            self.link.channels.pop(self.number, None)
            self.link.send(encode(self.number, commands.Channel.CloseOk()))

    @property
    def is_waiting(self) -> bool:
        """Something was submitted whose outcome is not told yet."""
        answers, publishing = self._answers, self._publishing
        return (answers is not None and answers.is_waiting) or (publishing is not None and publishing.is_waiting)

    def _behind(self, then: Then) -> None:
        """Have something done when all that was submitted is told; nothing that comes meanwhile is carried out."""
        self._swallows = True
        number = self.channel.barrier()
        if self._publishing is not None:
            then = partial(self._publishing.afterwards, then)
        self._answering().expect_always(number, then)

    def end(self) -> None:
        """Cancel the consumers, give back what is unsettled, tell no more outcomes; it may be called any number of times."""
        if self.is_over:
            return
        self.is_over = self._swallows = True
        self._answers = None
        if self._consuming is not None:
            self._consuming.close()
        if self._publishing is not None:
            self._publishing.close()
        if self._channel is not None:
            self._channel.close()

    # -- a peer that does not read ------------------------------------------

    def congested(self) -> None:
        """The client does not take what it is sent: pause the consumers."""
        if self._consuming is not None:
            self._consuming.congested()

    def decongested(self) -> None:
        """It does again."""
        if self._consuming is not None:
            self._consuming.decongested()
