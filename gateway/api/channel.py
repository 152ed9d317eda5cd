"""How does a front-end reach exchanges, queues and acknowledgements?

Submit now, learn the outcome later: every call that can be refused returns a number at once and never an outcome. Outcomes
arrive in the order of the numbers, many at a time, when what they stand for is on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from gateway.api.consumer import ConsumeOptions, Consumer, ConsumerSink, Delivery, MessageRun
from gateway.errors import GatewayError
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.message import Address, Message
from gateway.model.records import Scheduled


class Outcome:
    """What became of one submitted number, where it is more than "stored".

    Args:
        number: as returned by the call.
        error: why it was refused; None: it was not.
        unroutable: a publish that reached no queue (confirmed all the same).
        result: what a declaration, `consume` or `get` answers.
    """

    __slots__ = ("error", "number", "result", "unroutable")

    def __init__(self, number: int, error: GatewayError | None = None, unroutable: bool = False, result: Any = None) -> None:
        self.number: int = number
        self.error: GatewayError | None = error
        self.unroutable: bool = unroutable
        self.result: Any = result


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """Answer to a queue's declaration: its name (chosen, if none was given), ready messages, consumers.

    ``body_bytes`` is of the bodies that count against ``max_length_bytes``: of ready and unacked messages.
    """

    name: str
    messages: int
    consumers: int
    body_bytes: int = 0


class Route(Protocol):
    """A resolved way for messages to one address; get it once, use it for every message.

    It stays valid as bindings come and go. Make messages with its `address`.
    """

    @property
    def address(self) -> Address:
        """The address that messages published on this route carry."""


Settlement: TypeAlias = tuple[Delivery, Literal["ack", "requeue", "reject"]]
"""What becomes of a delivery in a transaction: as `Channel.ack`, or `Channel.nack` with or without `requeue`."""


class OutcomeSink(Protocol):
    """Who is told the outcomes of a channel. Implemented by the front-end."""

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """All numbers up to and including `through` are decided, and stored, but for `exceptions` (in order of number).

        Called with rising `through`, at most once per commit. Numbers of declarations, `consume` and `get` are always
        among the exceptions, as they have results. Must not call the channel's `publish`; may append to a connection.
        """


class LookUp(Protocol):
    """Last values, a slice at a time, over as many turns as it takes.

    A key that has a value all the while is given once, with the value that it has at that time. One that gets its first
    value, or loses it, meanwhile may be given or not. Nothing has to be closed.
    """

    @property
    def done(self) -> bool:
        """There is no more."""

    def next_slice(self, most: int, visits: int) -> Sequence[tuple[Message, int]]:
        """Return at most so many more values, having looked at about so many keys, and the number of each value's putting.

        None is not the end: `done` is. What was put after a binding was made (its number is above `Channel.retained_mark` at
        that time) was published to the queue as well.

        Cost: for exact patterns and for ``#`` behind words, what is returned; for others, `visits`.
        """


class Channel(Protocol):
    """The scope of numbers, delivery tags and consumers; opened by a principal.

    Synchronous methods never block and never raise for what the other side can cause; misuse raises.
    """

    def route(self, exchange: str, routing_key: str, *, local_to: str = "", also: tuple[str, ...] = ()) -> Route:
        """Return the route for an address.

        The exchange need not exist yet; a publish to one that does not is refused (NotFound). On the default exchange a key that
        is a reply address (`reply_address`) leads to the exchange and key that it names.

        Args:
            local_to: the publisher's own queue: bindings of that queue with ``no_local`` are left out.
            also: further keys on the same exchange (AMQP's headers CC and BCC): a queue that several of all keys reach gets the
                message once. Where a key selects nothing, or one binding of several, the first key alone counts; an alternate
                exchange gets what none of them brings anywhere. With further keys no key is taken for a reply address. At
                most `MAX_KEYS` keys of at most `MAX_KEY_WORDS` words.

        Raises:
            AccessRefused: the principal may not publish there (with one of the keys), a reply address has more than
                `MAX_KEY_WORDS` words, or there are too many keys.
        """

    def reaches(self, route: Route) -> bool:
        """Say whether a message without properties on this route would reach a queue now. Costs as little as publishing to none."""

    def refusal(self, route: Route) -> GatewayError | None:
        """Return why any message on this route is refused now (NotFound, AccessRefused); None: it is not. Costs as `reaches`."""

    def publish(self, route: Route, message: Message) -> int:
        """Submit a message whose outcome counts; return its number."""

    def refused(self, number: int) -> GatewayError | None:
        """Return why what was submitted last is refused, if that is certain at once; None: it isn't, or it is not refused.

        For state that is put in the same turn and must not claim the message (a sequence mark). Answer nobody by it: the
        outcome comes in its turn.
        """

    def result(self, number: int) -> Any:
        """Return the result of what was submitted last, if that is known at once (the name of a queue, a `Consumer`); else None.

        For what depends on it in the same turn. Answer nobody by it, as of `refused`.
        """

    def post(self, route: Route, message: Message) -> None:
        """Submit a message whose outcome nobody waits for (QoS 0)."""

    def post_run(self, route: Route, run: MessageRun) -> bool:
        """Submit a run of messages with the address of `route` at once, for what it costs to submit one.

        Return False: nothing was done. Whatever needs a look at every message is not for runs: queues that keep such messages,
        exchanges that delay or look for repetitions, a limit, an alarm, a refusal, a route that has changed. `post` them.
        """

    def schedule(self, route: Route, message: Message, due_ms: int) -> int:
        """Submit a message that is published at `due_ms` (wall time; at once if that is past). Result: its id, an integer.

        The outcome comes when it is on disk; a message that is not persistent is kept in memory only. Where it goes is decided
        when it is due. Errors: NotFound (no such exchange), AccessRefused (an internal one), Overloaded.
        """

    def cancel_scheduled(self, scheduled_id: int) -> int:
        """Forget a scheduled message. Result None. Errors: NotFound (published already, or never scheduled here)."""

    def scheduled(self, limit: int | None = None, after: Scheduled | None = None) -> list[Scheduled]:
        """Return what is scheduled in this virtual host, by time, then by id.

        Args:
            limit: so many at most; None: all, which holds up everybody if there are many.
            after: go on behind this one, the last of those that were returned before.

        Cost: what comes before, and what is returned.
        """

    def retain(self, route: Route, message: Message) -> None:
        """Make it the last value of its exchange and key (an empty body clears it), on disk with the next commit.

        It says so of the next `publish` or `post` on this channel, whose outcome covers both: what is refused is not kept, and
        what can't be kept (MessageRefused: too large, or there are too many) is not published.
        """

    def retained(self, exchange: str, pattern: str, *, mqtt: bool = False) -> Iterator[Message]:
        """Yield the last values whose keys match a topic pattern. `mqtt`: a leading wildcard spares ``$`` levels.

        What is put or removed while it is read may be seen or not. Where there may be many, use `look_up`: a turn that reads
        them all holds up everybody.
        """

    def look_up(self, exchange: str, pattern: str, *, mqtt: bool = False) -> LookUp:
        """Begin to read the last values whose keys match, a slice at a time. Cost: in proportion to the pattern."""

    def retained_mark(self) -> int:
        """Return the number of the last value that was put last, in all virtual hosts; numbers rise."""

    def declare_exchange(self, spec: ExchangeSpec, *, passive: bool = False) -> int:
        """Result None.

        Errors: NotFound (passive), PreconditionFailed, CommandInvalid (no such type), NotSupported, AccessRefused.
        """

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> int:
        """Result None. Errors: NotFound, PreconditionFailed (in use), AccessRefused."""

    def declare_queue(self, spec: QueueSpec, *, passive: bool = False, prefix: str = "amq.gen-") -> int:
        """Result `QueueInfo`. Errors: NotFound (passive), PreconditionFailed, ResourceLocked, AccessRefused.

        Args:
            prefix: how the name begins that is chosen for a queue without one. No such name was given before.
        """

    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Result: number of messages that went with it. Errors: NotFound, PreconditionFailed, ResourceLocked."""

    def purge_queue(self, name: str) -> int:
        """Result: number of ready messages removed; delivered ones stay. Errors: NotFound, ResourceLocked."""

    def bind(self, binding: Binding) -> int:
        """Result None. Errors: NotFound, AccessRefused, PreconditionFailed (a pattern or argument that can't be)."""

    def unbind(self, binding: Binding) -> int:
        """Result None. Errors: NotFound (exchange or queue; a binding that isn't there is no error)."""

    def bindings(self, destination: str, *, to_exchange: bool = False) -> list[Binding]:
        """Return what is bound to a queue or exchange of this virtual host; empty if it does not exist."""

    def queue_exists(self, name: str) -> bool:
        """Say whether there is such a queue now."""

    def queue_info(self, name: str) -> QueueInfo | None:
        """Return what a queue holds now; None: there is none."""

    def consume(self, queue: str, sink: ConsumerSink, options: ConsumeOptions) -> int:
        """Result `Consumer`. Deliveries may come before the outcome. Errors: NotFound, ResourceLocked, AccessRefused."""

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; what it holds unsettled stays unsettled until it is settled or the channel closes."""

    def get(self, queue: str, *, no_ack: bool = False) -> int:
        """Result `Delivery`, or None if the queue is empty. Errors: NotFound, ResourceLocked, AccessRefused."""

    def ack(self, delivery: Delivery) -> None:
        """Settle a delivery: the consumer has it.

        Raises:
            NotHeld: it is not held by this channel (settled already, requeued, another's).
        """

    def ack_many(self, deliveries: Sequence[Delivery]) -> None:
        """Settle deliveries, as `ack` does each; for less than one by one.

        Raises:
            NotHeld: this channel does not hold some of them; the others are settled.
        """

    def move(self, delivery: Delivery, route: Route, message: Message) -> GatewayError | None:
        """Settle a delivery by publishing a message in its place: on disk both are done with one commit, or none of them.

        While the journal fails it holds too, and is written when it works again: what was moved is never withdrawn.

        Returns:
            None, or why the message is refused or reaches no queue: then the delivery is still unsettled.

        Raises:
            NotHeld: as for `ack`; nothing is published.
        """

    def transact(self, publishes: Sequence[tuple[Route, Message]], settle: Sequence[Settlement]) -> int:
        """Submit messages and settlements that are one change: on disk with one commit, or nothing of them happens.

        Everything that can be refused is looked at first: exchanges, sizes, alarms, the journal, deliveries that this channel does
        not hold, and queues that refuse when full, for which all messages count together (what the same transaction settles
        leaves no room for them). The messages are published before anything is settled. `retain` does not speak of them.

        Result: the indices of the messages that reached no queue, rising. Errors: as of `publish` and `ack`: nothing has happened.
        But Overloaded, if the journal fails after the transaction was taken: as of `move` it holds, and is written when the
        journal works again; if the broker ends before that, nothing of it has happened.
        """

    def nack(self, delivery: Delivery, *, requeue: bool, delay_ms: int = 0) -> None:
        """Give a delivery back: to its old place, or (requeue False) reject it, so that it is dead-lettered.

        Args:
            delay_ms: it is not delivered again before; the longer of this and of what the queue's retry says. Durable.

        Raises:
            NotHeld: as for `ack`.
        """

    def nack_many(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        """Give deliveries back as `nack` does each; all are in their old places before any is handed out again.

        Raises:
            NotHeld: this channel does not hold some of them; the others are given back.
        """

    def extend(self, delivery: Delivery, lease_ms: int) -> None:
        """Let a delivery's lease (the queue's delivery timeout) end so many ms from now. Nothing happens if there is no lease.

        Raises:
            NotHeld: as for `ack`.
        """

    def settle_handed_over(self, delivery: Delivery) -> None:
        """Settle a delivery that went where no acknowledgement comes from (libzmq, a socket).

        Automatic settlement: a message that is not on disk yet is written first, so its publisher is never confirmed
        early and nothing is elided. Raises as `ack`.
        """

    def put_state(self, namespace: str, key: str, value: bytes | None) -> None:
        """Keep a small value; None deletes it. On disk with the commit that holds what is published in the same turn."""

    def get_state(self, namespace: str, key: str) -> bytes | None:
        """Return what was put."""

    def scan_state(self, namespace: str) -> Iterator[tuple[str, bytes]]:
        """Yield key and value of a namespace; the order means nothing."""

    def barrier(self) -> int:
        """Return a number whose outcome comes when everything submitted before is decided and on disk.

        Errors: Overloaded: all of it is decided, but the journal fails, and nobody knows what of it is on disk.
        """

    async def outcome(self, number: int) -> Outcome:
        """Wait for a number's outcome; only on a channel that was opened without an OutcomeSink, and once for each number.

        Raises:
            GatewayError: it was refused.
            RuntimeError: it was told already, or there is no such number.
        Cancellation: safe; the number is decided all the same.
        """

    async def send(self, exchange: str, routing_key: str, body: bytes, *, persistent: bool = True) -> Outcome:
        """Publish and wait until it is committed: the simple form. Raises and cancellation as `outcome`."""

    def close(self) -> None:
        """Cancel the consumers, requeue what is unsettled, delete exclusive queues if this channel owns them."""
