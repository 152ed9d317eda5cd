"""How does a client get answers without a queue that it declares (direct reply-to)?

There is a queue all the same, as anybody may be the one who answers, by whatever protocol: ``reply_to`` names it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from gateway.api import Outcome, QueueInfo, QueueSpec
from gateway_amqp.codec.names import BASIC_CONSUME, BASIC_PUBLISH, PRECONDITION_FAILED, SoftError

if TYPE_CHECKING:
    from gateway_amqp.channel import AmqpChannel

NAME: Final = "amq.rabbitmq.reply-to"
"""What clients consume from, and write into ``reply_to``."""
PREFIX: Final = NAME + "."
_TOKEN_BYTES: Final = 24


class DirectReply:
    """The reply queue of one channel. ``tag``: of its consumer."""

    __slots__ = ("_amqp", "_queue", "tag")

    def __init__(self, amqp: AmqpChannel) -> None:
        self._amqp: AmqpChannel = amqp
        self._queue: str = ""
        self.tag: str = ""

    def open(self, tag: str, no_ack: bool) -> str:
        """Declare the queue for a consumer; return its name, which is good at once; empty: it is refused.

        Raises:
            SoftError: the consumer would acknowledge, or there is one already.
        """
        if not no_ack:
            raise SoftError(PRECONDITION_FAILED, "reply consumer cannot acknowledge", BASIC_CONSUME)
        if self._queue:
            raise SoftError(PRECONDITION_FAILED, "reply consumer already set", BASIC_CONSUME)
        amqp = self._amqp
        channel = amqp.channel
        prefix = f"{PREFIX}{secrets.token_urlsafe(_TOKEN_BYTES)}-"  # nobody else must guess the name
        number = channel.declare_queue(QueueSpec(durable=False, exclusive=True, auto_delete=True), prefix=prefix)
        declared: QueueInfo | None = channel.result(number)
        amqp.expect(number, _nothing, BASIC_CONSUME)
        self._queue = declared.name if declared is not None else ""  # refused: the channel is closed as soon as that is told
        self.tag = tag
        return self._queue

    def cancelled(self, tag: str) -> None:
        """A consumer of the channel is gone; the queue goes with its own."""
        if self._queue and tag == self.tag:
            self._queue = self.tag = ""

    def address(self) -> bytes:
        """Return what ``reply_to`` says in place of `NAME`.

        Raises:
            SoftError: the channel has no reply consumer.
        """
        if not self._queue:
            raise SoftError(PRECONDITION_FAILED, "fast reply consumer does not exist", BASIC_PUBLISH)
        return self._queue.encode()

    def exists(self, name: str) -> bool:
        """Say whether somebody can be answered under a name that begins with `NAME`."""
        return name == NAME or self._amqp.channel.queue_exists(name)


def _nothing(_outcome: Outcome) -> None:
    """The consumer's own outcome says it."""
