"""How does a trio program use a gateway? Needs trio besides what the other client needs; names and meanings are the same.

async with connect("tcp://127.0.0.1:5570", client="billing") as client:
    await client.declare_queue("jobs")
    await (await client.publish("", "jobs", b"work"))
    async with client.consume("jobs", credit=10) as deliveries:
        async for delivery in deliveries:
            delivery.ack()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any

import trio
import zmq

from gateway.client.awaited import Confirm, Consumer
from gateway.client.deliveries import Delivery, Properties
from gateway.client.errors import ClientError, Disconnected, TimedOut
from gateway.client.pulse import Pulse
from gateway.client.replies import Reply
from gateway.client.security import Security
from gateway.client.session import Message, Session, State
from gateway.client.trio_link import TrioLink
from gateway.client.wire import BATCH_MESSAGES, Command

__all__ = ["Client", "Confirm", "Consumer", "connect"]

_LINGER_MS = 500
_MESSAGES_PER_TURN = 100
"""Then others have theirs."""


class Client:
    """One connection to a gateway, made again whenever it breaks. Made by `connect`; for any number of tasks.

    A task of its own reads answers, answers pings and notices lost connections, whatever the program does meanwhile. So that it
    can, the program must not hold up trio for longer than two heartbeats.

    Args:
        as `gateway.client.Client`.
    """

    def __init__(  # noqa: PLR0913 - settings, by name
        self,
        address: str,
        *,
        client: str = "",
        heartbeat_ms: int = 5000,
        timeout: float = 30.0,
        max_unconfirmed: int = 1000,
        max_unconfirmed_bytes: int = 16 * 1024 * 1024,
        credit_bytes: int = 0,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        security: Security | None = None,
    ) -> None:
        self._link = TrioLink(address, context, security)
        hello: dict[str, Any] = {"client": client, "caps": [], "heartbeat_ms": heartbeat_ms}
        if credit_bytes:
            hello["credit_bytes"] = credit_bytes
        self._session = Session(self._link.send, hello, partial(Confirm, self), partial(Consumer, self))
        self._pulse = Pulse(self._session, heartbeat_ms, trio.current_time())
        self._timeout = timeout
        self._max_unconfirmed = max_unconfirmed
        self._max_unconfirmed_bytes = max_unconfirmed_bytes
        self._turned = trio.lowlevel.ParkingLot()

    # -- publishing

    async def publish(  # noqa: PLR0913 - what a message may have, by name
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
        due_ms: int = 0,
        wait: bool = False,
    ) -> Confirm:
        """Send a message; it is sent again until the gateway has confirmed it.

        Args:
            exchange: ``""`` is the default exchange, where the routing key is a queue's name.
            routing_key: words between dots.
            mandatory: if no queue takes it, it comes back (`Unroutable`).
            due_ms: when it is to be published, in ms since 1970; 0: now. It is confirmed before; `Confirm.scheduled_id` then is
                what `unschedule` takes.
            wait: return only when it is confirmed.
        Returns:
            The confirm; await it, or `flush` for all.
        Raises:
            As `Confirm.wait` (with `wait`); TimedOut: too many are unconfirmed for too long.
            RequestRefused: 540, this gateway schedules nothing.
        Cancellation: before anything is sent, or while there is no room; what was sent stays sent.
        """
        await trio.lowlevel.checkpoint()
        confirm = self._session.publish((exchange, routing_key, body, properties), mandatory=mandatory, due_ms=due_ms)
        if wait:
            await confirm.wait()
        elif not self._has_room():
            await self._until(self._has_room, self._timeout, "room for more unconfirmed messages")
        return confirm

    async def publish_many(self, messages: Iterable[Message], *, mandatory: bool = False, wait: bool = False) -> list[Confirm]:
        """Send many messages, for a fraction of what it costs to `publish` each.

        They are stored or refused one by one, and confirmed as ever: it is no transaction.

        Args:
            messages: each is exchange, routing key, body, and properties if it has any.
        Raises:
            As `publish`.
        Cancellation: as `publish`; some may be sent.
        """
        confirms: list[Confirm] = []
        rest = iter(messages)
        while some := list(islice(rest, min(BATCH_MESSAGES, self._max_unconfirmed))):
            await trio.lowlevel.checkpoint()
            confirms += self._session.publish_many(some, mandatory=mandatory)
            if not self._has_room():
                await self._until(self._has_room, self._timeout, "room for more unconfirmed messages")
        for confirm in confirms if wait else ():
            await confirm.wait()
        return confirms

    async def unschedule(self, scheduled_id: int) -> None:
        """Take back what was published with `due_ms`. Raises: RequestRefused 404, it is published already; 540."""
        self._session.need("schedule")
        await self._ask(Command.UNSCHEDULE, scheduled_id)

    def _has_room(self) -> bool:
        session = self._session
        over = session.unconfirmed_bytes > self._max_unconfirmed_bytes and len(session.unconfirmed) > 1
        return not over and len(session.unconfirmed) <= self._max_unconfirmed and not self._link.congested

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Wait until every message published so far is decided.

        Raises:
            PublishRefused, Unroutable: the first that was refused since the last `flush`.
            TimedOut: some are still undecided. Disconnected: some will stay undecided.
        Cancellation: safe.
        """
        last = self._session.last_seq
        await self._until(lambda: self._session.is_decided(last), timeout, "the confirms of all messages")
        self._session.check_open()
        refused = list(self._session.refused)
        self._session.refused.clear()
        if refused and refused[0].error is not None:
            raise refused[0].error

    @property
    def unconfirmed(self) -> int:
        """How many published messages the gateway has not confirmed yet."""
        return len(self._session.unconfirmed)

    # -- declaring

    async def declare_queue(self, name: str = "", **arguments: Any) -> dict[str, Any]:
        """Make sure that there is such a queue (``durable=True`` by default; docs/tgp.md lists the arguments).

        Returns:
            ``name`` (chosen by the gateway if none was given), ``messages``, ``consumers``.
        Raises:
            RequestRefused: 406, it exists with other arguments; 405, another's; 540, an argument it doesn't know.
        Cancellation: it may be declared or not. So for all that is asked for here.
        """
        return dict(await self._ask(Command.DECLARE, "queue", name, arguments) or {})

    async def declare_exchange(self, name: str, type: str = "direct", **arguments: Any) -> None:  # noqa: A002 - AMQP's word
        """Make sure that there is such an exchange. Raises as `declare_queue`."""
        await self._ask(Command.DECLARE, "exchange", name, {"type": type, **arguments})

    async def bind(self, queue: str, exchange: str, key: str, **arguments: Any) -> None:
        """Have an exchange send a queue what matches `key`. Raises: RequestRefused 404, one of them does not exist."""
        await self._ask(Command.BIND, queue, exchange, key, arguments)

    async def unbind(self, queue: str, exchange: str, key: str, **arguments: Any) -> None:
        """Undo `bind`. Raises as `bind`."""
        await self._ask(Command.UNBIND, queue, exchange, key, arguments)

    async def delete_queue(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Delete a queue with its messages (``if_unused``, ``if_empty``). Raises: RequestRefused 404, 405, 406."""
        return dict(await self._ask(Command.DELETE, "queue", name, arguments) or {})

    async def delete_exchange(self, name: str, **arguments: Any) -> None:
        """Delete an exchange (``if_unused``). Raises: RequestRefused 404, 406."""
        await self._ask(Command.DELETE, "exchange", name, arguments)

    async def purge(self, queue: str) -> int:
        """Remove the ready messages of a queue; return how many. Raises: RequestRefused 404."""
        return int((await self._ask(Command.PURGE, queue) or {}).get("messages", 0))

    # -- taking

    @asynccontextmanager
    async def consume(
        self, queue: str, credit: int = 100, *, idle_timeout: float | None = None, **options: Any
    ) -> AsyncIterator[Consumer]:
        """Take a queue's messages, at most `credit` unsettled at once; iterate over what ``async with`` gives.

        After a reconnect it goes on by itself; what was not settled before is delivered again, marked as redelivered. Leaving the
        block ends it.

        Args:
            idle_timeout: seconds without a message after which the iteration ends.
            options: ``no_ack``, ``exclusive``, ``priority``.
        Raises:
            RequestRefused: 404, there is no such queue; 405, another has it for itself.
        """
        consumer, reply = self._session.consume(queue, credit, options)
        consumer.idle_timeout = idle_timeout
        try:
            await self.wait_for(reply)
            yield consumer
        except BaseException:
            if self._session.state is not State.CLOSED:
                self._session.cancel(consumer)  # no time to wait for the answer
            raise
        await self.cancel(consumer)

    async def get(self, queue: str, *, no_ack: bool = False) -> Delivery | None:
        """Take one message, or None if the queue is empty. Raises: RequestRefused 404, 405."""
        delivery: Delivery | None = await self._ask(Command.GET, queue, no_ack)
        return delivery

    def handed(self, consumer: Consumer, delivery: Delivery) -> Delivery:
        """Note that a delivery is in the program's hands."""
        if consumer.options.get("no_ack"):
            consumer.used += 1
            self._session.grant(consumer)
        return delivery

    async def cancel(self, consumer: Consumer) -> None:
        """End a consumer; nothing happens if it has ended already."""
        await trio.lowlevel.checkpoint()
        if self._session.state is State.CLOSED:
            return
        reply = self._session.cancel(consumer)
        if reply is not None:
            await self.wait_for(reply)

    # -- waiting

    async def wait_for(self, reply: Reply, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Return the result of a reply. Raises: its error; TimedOut. Cancellation: safe."""
        seconds = self._timeout if timeout is None else timeout
        answered = trio.Event()
        reply.watch(answered.set)
        try:
            with trio.move_on_after(seconds):
                await answered.wait()
        finally:
            reply.unwatch(answered.set)
        if not reply.done:
            raise TimedOut(f"waited {seconds:g} s for an answer ({self._session.state.value})")
        if reply.error is not None:
            if reply in self._session.refused:
                self._session.refused.remove(reply)
            raise reply.error
        return reply.result

    async def _ask(self, command: Command, *fields: Any) -> Any:
        reply = self._session.request(command, *fields)
        try:
            return await self.wait_for(reply)
        finally:
            self._session.forget(reply)

    async def _until(self, happened: Callable[[], bool], timeout: float | None, what: str) -> None:  # noqa: ASYNC109
        seconds = self._timeout if timeout is None else timeout
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(seconds):
            while not happened():
                self._session.check_open()
                await self._turned.park()
        if not happened():
            raise TimedOut(f"waited {seconds:g} s for {what} ({self._session.state.value})")

    # -- the task that keeps the connection

    async def run(self) -> None:
        """Keep connected until cancelled, or until the gateway ends it for good."""
        while True:
            await trio.sleep(self._pulse.next_pause_s())
            if self._session.state is State.CLOSED:
                return
            self._link.open()
            self._pulse.began(trio.current_time())
            self._session.greet()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._link.watch)
                await self._serve()
                nursery.cancel_scope.cancel()
            self._link.close(linger_ms=0)
            self._turned.unpark_all()

    async def _serve(self) -> None:
        while self._session.state in (State.GREETING, State.READY):
            if self._drain():
                self._turned.unpark_all()
                await trio.lowlevel.checkpoint()
                continue
            with trio.move_on_after(self._pulse.rest_s(trio.current_time())):
                await self._link.something()
            if not self._drain():
                self._pulse.check(trio.current_time(), broken=self._link.lost)
            self._turned.unpark_all()

    def _drain(self) -> bool:
        """Take what is here, or as much of it as is one turn's; say whether there was anything."""
        taken = 0
        try:
            while taken < _MESSAGES_PER_TURN and (frames := self._link.receive()) is not None:
                taken += 1
                self._session.receive(*frames)
        except ClientError as error:
            self._session.close(error)
        if taken:
            self._pulse.heard(trio.current_time())
        return bool(taken)

    async def opened(self) -> None:
        """Wait until the gateway has let the client in. Raises: TimedOut, Disconnected."""
        address = self._link.address
        await self._until(lambda: self._session.state is State.READY, self._timeout, f"the gateway at {address}")

    def close(self) -> None:
        """Say goodbye and end the connection. Unsettled messages go back to their queues; what is unconfirmed stays undecided."""
        self._session.bye()
        if self._session.state is not State.CLOSED:
            self._session.close(Disconnected(0, "the client is closed"))
        self._link.close(_LINGER_MS)
        self._turned.unpark_all()


@asynccontextmanager
async def connect(address: str, *, client: str = "", **settings: Any) -> AsyncIterator[Client]:
    """Give a connected `Client` to a block; it takes the same arguments. At its end it waits for what was published.

    Raises:
        TimedOut: nobody answered within `timeout`. Disconnected: the gateway refused. And, at the end, as `Client.flush`.
    Cancellation: ends the connection at once, with a goodbye.
    """
    made = Client(address, client=client, **settings)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            try:
                await made.opened()
                yield made
                await made.flush()
            except BaseException as error:  # raised outside of the nursery, which would wrap it
                failure = error
            finally:
                nursery.cancel_scope.cancel()
    finally:
        made.close()
    if failure is not None:
        raise failure
