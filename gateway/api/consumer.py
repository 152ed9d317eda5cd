"""What does a front-end that consumes give and get?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError
from gateway.model.declare import BindingOptions
from gateway.model.message import Message


class Delivery(Protocol):
    """A message handed to a consumer; also the opaque delivery tag that settles it."""

    @property
    def message(self) -> Message:
        """The message; shared, never to be changed."""

    @property
    def redelivered(self) -> bool:
        """It may have been delivered before."""

    @property
    def count(self) -> int:
        """How often it was delivered, this time included, as far as known."""

    @property
    def position(self) -> int:
        """Its number in its queue, rising."""

    @property
    def options(self) -> BindingOptions | None:
        """What the bindings that brought it say; None for the default."""

    def spare(self) -> None:
        """Don't let it expire any more, even if it comes back: it has been sent. On disk with the next commit."""


class MessageRun(Protocol):
    """Messages in a row to one address, of which nobody awaits an outcome. Implemented by the front-end that they come through.

    All of them have the address, a body, and nothing else: they are not persistent, have no `Message.wire`, do not expire.
    """

    @property
    def count(self) -> int:
        """How many."""

    @property
    def largest(self) -> int:
        """Bytes of the largest body."""

    def messages(self) -> Sequence[Message]:
        """Return them, always the same ones; not to be asked for by who can do without, as this is what takes time."""


class ConsumerSink(Protocol):
    """Who is handed messages. Implemented by the front-end. None of these may call the channel."""

    def deliver(self, delivery: Delivery) -> None:
        """Take one message; it counts against the credit until it is settled (with no_ack: it is settled already)."""

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """Take one message that needs no acknowledgement, past the queue (queues with `keep_transient` False only)."""

    def cancelled(self, reason: GatewayError) -> None:
        """The consumer is gone though nobody cancelled it: its queue was deleted, or its sink failed."""


class RunSink(ConsumerSink, Protocol):
    """A `ConsumerSink` that can make use of several messages at a time. Any sink that has this method is one."""

    def deliver_run(self, run: MessageRun, options: BindingOptions | None) -> None:
        """Take what `deliver_transient` would be called with, message after message.

        If it fails all of the run counts as taken: none of it goes to another consumer.
        """


@dataclass(frozen=True, slots=True)
class ConsumeOptions:
    """How a consumer takes messages.

    Args:
        prefetch: initial credit, messages delivered and not yet settled; 0: no limit. With `grant` the credit is
            given by hand and settling gives none back.
        no_ack: a delivery is settled automatically after the sink took it.
        exclusive: no other consumer may be on the queue.
        manual_credit: credit comes by `Consumer.credit` only; settling gives none back.
        priority: consumers of a higher priority get messages first, as long as they can take any.
        paused: it begins paused, and is handed nothing before `Consumer.resume`.
    """

    prefetch: int = 0
    no_ack: bool = False
    exclusive: bool = False
    manual_credit: bool = False
    priority: int = 0
    paused: bool = False


class Consumer(Protocol):
    """The handle of a consumer, the result of `consume`.

    `pause` may be called from within its sink's `deliver`: what it is given then is the last that it is handed.
    """

    def credit(self, delta: int) -> None:
        """Allow `delta` more messages; what is ready is delivered at once."""

    def pause(self) -> None:
        """Deliver nothing until `resume`, whatever the credit (its connection has too much to send)."""

    def resume(self) -> None:
        """Undo `pause`."""
