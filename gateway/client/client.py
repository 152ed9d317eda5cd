"""How does a program without an event loop use a gateway?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self

import zmq

from gateway.client.deliveries import Consumer, Delivery, Properties
from gateway.client.errors import ClientError, Disconnected, TimedOut
from gateway.client.link import Link
from gateway.client.pulse import Pulse
from gateway.client.replies import Confirm, Reply
from gateway.client.security import Security
from gateway.client.session import Message, Session, State
from gateway.client.wire import BATCH_MESSAGES, Command

LINGER_MS = 500
_TURN_EVERY_S = 0.005


class Client:
    """One connection to a gateway, made again whenever it breaks. For one thread; never across a fork.

    Everything happens inside its calls: answers are read, pings answered and lost connections noticed while a call waits
    (and for a moment in every `publish`). A program that works for longer than two heartbeats between calls should call
    `poll` now and then, or ask for a longer heartbeat; otherwise the gateway takes it for dead and hands what it held to
    others.

    Args:
        address: of the gateway's ROUTER endpoint, ``tcp://127.0.0.1:5570``.
        client: a stable name of this program. With it the gateway keeps the sequence mark over its own restarts, so that
            nothing that is sent again is stored twice. Two programs at once must not share it. Empty: a mark for as long as
            the gateway remembers the session.
        heartbeat_ms: wish for the silence after which either side sends PING; three of them and the other is dead.
        timeout: seconds that a call waits for its answer, reconnects included, where nothing else is said.
        max_unconfirmed, max_unconfirmed_bytes: messages under way and their bodies; `publish` waits when there are more. The
            gateway has limits of its own (10,000 and 64 MiB, if its configuration says nothing else) and closes beyond them.
        credit_bytes: bodies of unsettled deliveries, of all consumers together; one is always delivered. 0: as the gateway has it.
        context: a ZeroMQ context to use; None: the process's.
        security: `Curve` or `Plain`, for an endpoint that has such security. Whom it does not let in waits until `timeout`: the
            gateway's log says why.

    Raises:
        TimedOut: nobody answered within `timeout`. Disconnected: the gateway refused.
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
        self._link = Link(address, context, security)
        hello: dict[str, Any] = {"client": client, "caps": [], "heartbeat_ms": heartbeat_ms}
        if credit_bytes:
            hello["credit_bytes"] = credit_bytes
        self._session = Session(self._link.send, hello, partial(Confirm, self), partial(Consumer, self))
        self._timeout = timeout
        self._max_unconfirmed = max_unconfirmed
        self._max_unconfirmed_bytes = max_unconfirmed_bytes
        self._open_at = self._turned = time.monotonic()
        self._pulse = Pulse(self._session, heartbeat_ms, self._turned)
        try:
            self._until(lambda: self._session.state is State.READY, timeout, f"the gateway at {address}")
        except BaseException:
            self.close()
            raise

    # -- publishing

    def publish(  # noqa: PLR0913 - what a message may have, by name
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
            The confirm; call its `wait`, or `flush` for all.
        Raises:
            As `Confirm.wait` (with `wait`); TimedOut: too many are unconfirmed for too long.
            RequestRefused: 540, this gateway schedules nothing.
        """
        confirm = self._session.publish((exchange, routing_key, body, properties), mandatory=mandatory, due_ms=due_ms)
        if self._is_time_to_turn():
            self._turn(0.0)
        if wait:
            confirm.wait()
        elif not self._has_room():
            self._until(self._has_room, self._timeout, "room for more unconfirmed messages")
        return confirm

    def publish_many(self, messages: Iterable[Message], *, mandatory: bool = False, wait: bool = False) -> list[Confirm]:
        """Send many messages, for a fraction of what it costs to `publish` each.

        They are stored or refused one by one, and confirmed as ever: it is no transaction.

        Args:
            messages: each is exchange, routing key, body, and properties if it has any.
        Raises:
            As `publish`.
        """
        confirms: list[Confirm] = []
        rest = iter(messages)
        while some := list(islice(rest, min(BATCH_MESSAGES, self._max_unconfirmed))):
            confirms += self._session.publish_many(some, mandatory=mandatory)
            self._turn(0.0)
            if not self._has_room():
                self._until(self._has_room, self._timeout, "room for more unconfirmed messages")
        for confirm in confirms if wait else ():
            confirm.wait()
        return confirms

    def unschedule(self, scheduled_id: int) -> None:
        """Take back what was published with `due_ms`. Raises: RequestRefused 404, it is published already; 540."""
        self._session.need("schedule")
        self._ask(Command.UNSCHEDULE, scheduled_id)

    def _has_room(self) -> bool:
        session = self._session
        over = session.unconfirmed_bytes > self._max_unconfirmed_bytes and len(session.unconfirmed) > 1
        return not over and len(session.unconfirmed) <= self._max_unconfirmed and not self._link.congested

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every message published so far is decided.

        Raises:
            PublishRefused, Unroutable: the first that was refused since the last `flush`.
            TimedOut: some are still undecided. Disconnected: some will stay undecided.
        """
        last = self._session.last_seq
        self._until(lambda: self._session.is_decided(last), timeout, "the confirms of all messages")
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

    def declare_queue(self, name: str = "", **arguments: Any) -> dict[str, Any]:
        """Make sure that there is such a queue (``durable=True`` by default; docs/tgp.md lists the arguments).

        Returns:
            ``name`` (chosen by the gateway if none was given), ``messages``, ``consumers``.
        Raises:
            RequestRefused: 406, it exists with other arguments; 405, another's; 540, an argument it doesn't know.
        """
        return dict(self._ask(Command.DECLARE, "queue", name, arguments) or {})

    def declare_exchange(self, name: str, type: str = "direct", **arguments: Any) -> None:  # noqa: A002 - AMQP's word
        """Make sure that there is such an exchange. Raises as `declare_queue`."""
        self._ask(Command.DECLARE, "exchange", name, {"type": type, **arguments})

    def bind(self, queue: str, exchange: str, key: str, **arguments: Any) -> None:
        """Have an exchange send a queue what matches `key`.

        Raises:
            RequestRefused: 404, one of them does not exist.
        """
        self._ask(Command.BIND, queue, exchange, key, arguments)

    def unbind(self, queue: str, exchange: str, key: str, **arguments: Any) -> None:
        """Undo `bind`. Raises as `bind`."""
        self._ask(Command.UNBIND, queue, exchange, key, arguments)

    def delete_queue(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Delete a queue with its messages (``if_unused``, ``if_empty``). Raises: RequestRefused 404, 405, 406."""
        return dict(self._ask(Command.DELETE, "queue", name, arguments) or {})

    def delete_exchange(self, name: str, **arguments: Any) -> None:
        """Delete an exchange (``if_unused``). Raises: RequestRefused 404, 406."""
        self._ask(Command.DELETE, "exchange", name, arguments)

    def purge(self, queue: str) -> int:
        """Remove the ready messages of a queue; return how many. Raises: RequestRefused 404."""
        return int((self._ask(Command.PURGE, queue) or {}).get("messages", 0))

    # -- taking

    def consume(self, queue: str, credit: int = 100, *, idle_timeout: float | None = None, **options: Any) -> Consumer:
        """Take a queue's messages, at most `credit` unsettled at once; iterate over the result.

        After a reconnect it goes on by itself; what was not settled before is delivered again, marked as redelivered.

        Args:
            idle_timeout: seconds without a message after which the iteration ends.
            options: ``no_ack``, ``exclusive``, ``priority``.
        Raises:
            RequestRefused: 404, there is no such queue; 405, another has it for itself.
        """
        consumer, reply = self._session.consume(queue, credit, options)
        consumer.idle_timeout = idle_timeout
        try:
            self.wait_for(reply)
        except TimedOut:
            self._session.cancel(consumer)
            raise
        return consumer

    def get(self, queue: str, *, no_ack: bool = False) -> Delivery | None:
        """Take one message, or None if the queue is empty. Raises: RequestRefused 404, 405."""
        delivery: Delivery | None = self._ask(Command.GET, queue, no_ack)
        return delivery

    def next_delivery(self, consumer: Consumer, timeout: float | None) -> Delivery | None:
        """Do what `Consumer.receive` says."""
        if not consumer.buffer or self._is_time_to_turn():
            try:
                self._until(lambda: bool(consumer.buffer or consumer.error), timeout, "a delivery", forever=True)
            except TimedOut:
                return None
        if not consumer.buffer and consumer.error is not None:
            raise consumer.error
        delivery = consumer.buffer.popleft()
        if consumer.options.get("no_ack"):
            consumer.used += 1
            self._session.grant(consumer)
        return delivery

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; nothing happens if it has ended already."""
        if self._session.state is State.CLOSED:
            return
        reply = self._session.cancel(consumer)
        if reply is not None:
            self.wait_for(reply)

    # -- waiting

    def poll(self, seconds: float = 0.0) -> None:
        """Answer the gateway's heartbeats and take what it says, for `seconds` or for what is here now.

        Raises:
            Disconnected: the client is closed, or was ended by the gateway.
        """
        deadline = time.monotonic() + seconds
        self._turn(0.0)
        while (rest := deadline - time.monotonic()) > 0:
            self._session.check_open()
            self._turn(rest)
        self._session.check_open()

    def wait_for(self, reply: Reply, timeout: float | None = None) -> Any:
        """Return the result of a reply. Raises: its error; TimedOut."""
        self._until(lambda: reply.done, timeout, "an answer")
        if reply.error is not None:
            if reply in self._session.refused:
                self._session.refused.remove(reply)
            raise reply.error
        return reply.result

    def _ask(self, command: Command, *fields: Any) -> Any:
        reply = self._session.request(command, *fields)
        try:
            return self.wait_for(reply)
        finally:
            self._session.forget(reply)

    def _is_time_to_turn(self) -> bool:
        return time.monotonic() - self._turned > _TURN_EVERY_S

    def _until(self, happened: Callable[[], bool], timeout: float | None, what: str, *, forever: bool = False) -> None:
        """Turn until it happened; `timeout` None is the client's, or no end if `forever`."""
        seconds = math.inf if timeout is None and forever else self._timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        self._turn(0.0)
        while not happened():
            self._session.check_open()
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise TimedOut(f"waited {seconds:g} s for {what} ({self._session.state.value})")
            self._turn(rest)

    def _turn(self, wait_s: float) -> None:
        """Take what is here, else wait for it; keep the connection alive, or make a new one."""
        now = self._turned = time.monotonic()
        if self._drain():
            return
        if self._session.state is State.LOST:
            self._reopen(now, wait_s)
        elif self._session.state is not State.CLOSED:
            self._link.wait(min(wait_s, self._pulse.rest_s(now)))
            if not self._drain():
                self._pulse.check(time.monotonic(), broken=self._link.lost)

    def _drain(self) -> bool:
        heard = False
        while (frames := self._link.receive()) is not None:
            heard = True
            try:
                self._session.receive(*frames)
            except ClientError as error:
                self._session.close(error)
                raise
        if heard:
            self._pulse.heard(time.monotonic())
        return heard

    def _reopen(self, now: float, wait_s: float) -> None:
        if self._link.is_open:
            self._link.close(linger_ms=0)
            self._open_at = now + self._pulse.next_pause_s()
        if now < self._open_at:
            self._link.wait(min(wait_s, self._open_at - now))
            return
        self._link.open()
        self._pulse.began(now)
        self._session.greet()

    # -- the end

    def close(self) -> None:
        """Say goodbye and end the connection. Unsettled messages go back to their queues; what is unconfirmed stays undecided."""
        self._session.bye()
        self._session.close(Disconnected(0, "the client is closed"))
        self._link.close(LINGER_MS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Without an exception: `flush`, then `close`."""
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()


def connect(address: str, *, client: str = "", **settings: Any) -> Client:
    """Return a connected `Client`; it takes the same arguments."""
    return Client(address, client=client, **settings)
