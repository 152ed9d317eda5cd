"""What does a program hold of a message that it was handed, and of the queue that it comes from?"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol, Self

from gateway.client.errors import ClientError
from gateway.client.wire import Command

Properties = Mapping[str, Any]
"""AMQP's basic properties by name: content_type, content_encoding, headers, priority, correlation_id, reply_to,
expiration_ms, message_id, timestamp_s, type, user_id, app_id (docs/tgp.md)."""


class Settler(Protocol):
    """Who sends what is said of a delivery (`gateway.client.session.Session`)."""

    def settle(self, command: Command, delivery: Delivery, *fields: Any) -> bool:
        """Send it if the delivery belongs to the present connection."""

    def need(self, capability: str) -> None:
        """Raise RequestRefused (540) if the gateway can't do that."""


class Delivery:
    """A message that the gateway handed over; it stays in its queue until it is acked.

    ``redelivered``: it may have been delivered before. ``connection`` says on which of the client's connections it came.
    """

    __slots__ = ("_settler", "body", "connection", "exchange", "number", "properties", "redelivered", "routing_key", "tag")

    def __init__(self, settler: Settler, connection: int, tag: str, fields: list[Any], body: bytes) -> None:
        self.number, self.redelivered, self.exchange, self.routing_key, properties = fields
        self.properties: Properties = properties or {}
        self.body = body
        self.tag = tag
        self.connection = connection
        self._settler = settler

    def ack(self, *, multiple: bool = False) -> bool:
        """Tell the gateway that the message is dealt with; `multiple`: and all before it of this consumer.

        Returns:
            False: the connection that brought it is gone; the gateway delivers it again, to this consumer or another.
        """
        return self._settler.settle(Command.ACK, self, multiple)

    def nack(self, *, requeue: bool = True, multiple: bool = False, delay_ms: int = 0) -> bool:
        """Give the message back to its old place in the queue, or (`requeue` False) reject it. Returns as `ack`.

        Args:
            delay_ms: it is not delivered again before so long.
        Raises:
            RequestRefused: 540, the gateway knows no delays.
        """
        if not delay_ms:
            return self._settler.settle(Command.NACK, self, multiple, requeue)
        self._settler.need("nack_delay")
        return self._settler.settle(Command.NACK, self, multiple, requeue, delay_ms)

    def extend(self, lease_ms: int) -> bool:
        """Hold it for so many ms from now, whatever its queue's `x-consumer-timeout` says. Returns as `ack`.

        Raises:
            RequestRefused: 540, the gateway can't do that.
        """
        self._settler.need("extend")
        return self._settler.settle(Command.EXTEND, self, lease_ms)


class Subscription:
    """A queue's messages as they come, however they are waited for.

    Args (attributes):
        credit: how many deliveries may be unsettled at once. used: how many need credit that no ACK gives back (`no_ack`).
        options: of CONSUME.
    """

    __slots__ = ("buffer", "credit", "error", "options", "queue", "tag", "used")

    def __init__(self, queue: str, tag: str, credit: int, options: dict[str, Any]) -> None:
        self.queue = queue
        self.tag = tag
        self.credit = credit
        self.used = 0
        self.options = options
        self.error: ClientError | None = None
        self.buffer: deque[Delivery] = deque()

    def put(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self.buffer.append(delivery)

    def end(self, error: ClientError) -> None:
        """Take it that there will be no more, and why; the first reason counts."""
        self.error = self.error or error


class Deliverer(Protocol):
    """Who fetches deliveries and ends consumers (`gateway.client.Client`)."""

    def next_delivery(self, consumer: Consumer, timeout: float | None) -> Delivery | None:
        """Return the next one; None when the time is over."""

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer."""


class Consumer(Subscription):
    """A queue's messages, one after the other: iterate over it, or call `receive`. Leave it with `cancel` or ``with``.

    Args (attributes):
        idle_timeout: seconds after which iteration ends when nothing comes; None: it never ends.
    """

    __slots__ = ("_owner", "idle_timeout")

    def __init__(self, owner: Deliverer, queue: str, tag: str, credit: int, options: dict[str, Any]) -> None:
        super().__init__(queue, tag, credit, options)
        self.idle_timeout: float | None = None
        self._owner = owner

    def receive(self, timeout: float | None = None) -> Delivery | None:
        """Return the next delivery; None after `timeout` seconds without one (None: wait for ever).

        Raises:
            ConsumerCancelled: the gateway ended it.
        """
        return self._owner.next_delivery(self, timeout)

    def cancel(self) -> None:
        """End it; what it was handed and did not settle goes back to the queue with the connection."""
        self._owner.cancel(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delivery:
        delivery = self.receive(self.idle_timeout)
        if delivery is None:
            raise StopIteration
        return delivery

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()
