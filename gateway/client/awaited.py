"""What does a trio program wait for: confirms, and the messages of a queue?"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, Protocol, Self

import trio

from gateway.client.deliveries import Delivery, Subscription
from gateway.client.errors import ClientError
from gateway.client.replies import Publishing, Reply


class Waiter(Protocol):
    """Who can wait for a reply (`gateway.client.on_trio.Client`)."""

    async def wait_for(self, reply: Reply, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Return the result, or raise the error."""


class Deliverer(Protocol):
    """Whose consumers these are (`gateway.client.on_trio.Client`)."""

    def handed(self, consumer: Consumer, delivery: Delivery) -> Delivery:
        """Note that a delivery is in the program's hands."""

    async def cancel(self, consumer: Consumer) -> None:
        """End a consumer."""


class Confirm(Publishing):
    """The gateway's word on one published message; await it, as often as you like."""

    __slots__ = ("_client",)

    def __init__(self, client: Waiter, seq: int, command: tuple[Any, ...], body: bytes) -> None:
        super().__init__(seq, command, body)
        self._client = client

    async def wait(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the name that the other client has
        """Wait until the message is on disk in every durable queue that it reached.

        Args:
            timeout: seconds; None: the client's.
        Raises:
            PublishRefused: it was not stored. Unroutable: it was mandatory and reached no queue.
            TimedOut: no word yet; it may be stored, and will be sent again if need be.
        Cancellation: safe; the message is sent all the same.
        """
        await self._client.wait_for(self, timeout)

    def __await__(self) -> Generator[Any, Any, None]:
        return self.wait().__await__()


class Consumer(Subscription):
    """A queue's messages, one after the other: iterate over it, or call `receive`. Several tasks may do so at once.

    Args (attributes):
        idle_timeout: seconds after which iteration ends when nothing comes; None: it never ends.
    """

    __slots__ = ("_client", "_waiting", "idle_timeout")

    def __init__(self, client: Deliverer, queue: str, tag: str, credit: int, options: dict[str, Any]) -> None:
        super().__init__(queue, tag, credit, options)
        self.idle_timeout: float | None = None
        self._client = client
        self._waiting = trio.lowlevel.ParkingLot()

    def put(self, delivery: Delivery) -> None:
        """Take a delivery."""
        super().put(delivery)
        self._waiting.unpark()

    def end(self, error: ClientError) -> None:
        """Take it that there will be no more, and why."""
        super().end(error)
        self._waiting.unpark_all()

    async def receive(self, timeout: float | None = None) -> Delivery | None:  # noqa: ASYNC109
        """Return the next delivery; None after `timeout` seconds without one (None: wait for ever).

        Raises:
            ConsumerCancelled: the gateway ended it. Disconnected: the client has ended.
        Cancellation: safe, none is lost.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(math.inf if timeout is None else timeout):
            while not self.buffer and self.error is None:
                await self._waiting.park()
        if self.buffer:
            return self._client.handed(self, self.buffer.popleft())
        if self.error is not None:
            raise self.error
        return None

    async def cancel(self) -> None:
        """End it; what it was handed and did not settle goes back to the queue with the connection. Cancellation: safe."""
        await self._client.cancel(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        delivery = await self.receive(self.idle_timeout)
        if delivery is None:
            raise StopAsyncIteration
        return delivery
