"""How does a front-end's call reach the engine, and how does its number get its outcome?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from gateway.api.channel import ConsumeOptions, ConsumerSink, Outcome, OutcomeSink, QueueInfo
from gateway.api.frontend import Authorize, Principal
from gateway.engine.consumer import Consumer
from gateway.engine.delivery import Entry
from gateway.engine.engine import LATER, UNROUTABLE, Engine
from gateway.engine.route import RouteHandle
from gateway.errors import AccessRefused, GatewayError, NotFound
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.message import Message

if TYPE_CHECKING:
    from gateway.engine.engine import Unroutable
    from gateway.runtime.committer import Committer

NO_EXCEPTIONS: Sequence[Outcome] = ()
TIDY_FROM = 64
"""A channel with more consumers looks now and then which of them are gone."""
OUTCOME_COST_BYTES = 200
"""What an outcome costs in memory until it is told: the journal may take its time."""


class _Deaf:
    """In place of a sink that failed: had it not heard of a refusal, a later call would be a false confirm."""

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        pass


_DEAF = _Deaf()


class BrokerChannel:
    """A channel of the gateway's own engine (`gateway.api.Channel` says what each method does)."""

    __slots__ = (
        "_authorize",
        "_closed",
        "_committer",
        "_consumers",
        "_decided_through",
        "_engine",
        "_exceptions",
        "_held",
        "_held_back",
        "_late",
        "_late_done",
        "_number",
        "_parked",
        "_publish",
        "_results",
        "_sink",
        "_tidy_at",
        "_to_retain",
        "_vhost",
        "owner",
        "pending",
    )

    def __init__(
        self,
        engine: Engine,
        principal: Principal,
        sink: OutcomeSink | None,
        owner: object | None,
        committer: Committer,
    ) -> None:
        self._engine = engine
        self._publish = engine.publish
        self._authorize: Authorize | None = principal.authorize
        self._vhost = principal.vhost
        self._sink = sink
        self._committer = committer
        self.owner: object = owner if owner is not None else self
        self._held: set[Entry] = set()
        engine.holdings[self] = self._held
        self._consumers: dict[Consumer, None] = {}
        self._tidy_at = TIDY_FROM
        self._number = 0
        self.pending = False
        self._exceptions: list[Outcome] = []
        self._to_retain: tuple[RouteHandle, Message] | None = None
        self._late: set[int] = set()
        self._late_done: list[Outcome] = []
        self._held_back: tuple[int, list[Outcome]] | None = None
        self._decided_through = 0
        self._results: dict[int, Outcome] = {}
        self._parked: dict[int, trio.Event] = {}
        self._closed = False

    # -- publishing ---------------------------------------------------------

    def route(self, exchange: str, routing_key: str) -> RouteHandle:
        """See `gateway.api.Channel.route`."""
        self._check("write", exchange, routing_key)
        return self._engine.vhost(self._vhost).route(exchange, routing_key)

    def publish(self, route: RouteHandle, message: Message) -> int:
        """See `gateway.api.Channel.publish`."""
        problem = self._publish(route, message)
        number = self._number = self._number + 1
        if problem is not None or self._to_retain is not None:
            self._exceptional(number, problem)
        if not self.pending:
            self.pending = True
            self._committer.waiting.append(self)
        return number

    def refused(self, number: int) -> GatewayError | None:
        """See `gateway.api.Channel.refused`."""
        last = self._exceptions[-1] if self._exceptions else None
        return last.error if last is not None and last.number == number else None

    def post(self, route: RouteHandle, message: Message) -> None:
        """See `gateway.api.Channel.post`."""
        problem = self._publish(route, message)
        if self._to_retain is not None:
            self._retain_unless(problem)

    def _exceptional(self, number: int, problem: GatewayError | Unroutable | None) -> None:
        if self._to_retain is not None:
            problem = self._retain_unless(problem)
        self._engine.batch.body_bytes += OUTCOME_COST_BYTES
        if problem is UNROUTABLE:
            self._exceptions.append(Outcome(number, unroutable=True))
        elif isinstance(problem, GatewayError):
            self._exceptions.append(Outcome(number, error=problem))

    def retain(self, route: RouteHandle, message: Message) -> None:
        """See `gateway.api.Channel.retain`."""
        self._to_retain = (route, message)

    def _retain_unless(self, problem: GatewayError | Unroutable | None) -> GatewayError | Unroutable | None:
        """Keep the last value, unless the publish that it goes with was refused; return what is to be told of both."""
        to_retain, self._to_retain = self._to_retain, None
        if to_retain is None or isinstance(problem, GatewayError):
            return problem
        return self._engine.kept.retain(*to_retain) or problem

    def retained(self, exchange: str, pattern: str, *, mqtt: bool = False) -> Iterator[Message]:
        """See `gateway.api.Channel.retained`."""
        return self._engine.kept.retained(self._vhost, exchange, pattern, mqtt=mqtt)

    # -- definitions --------------------------------------------------------

    def declare_exchange(self, spec: ExchangeSpec, *, passive: bool = False) -> int:
        """See `gateway.api.Channel.declare_exchange`."""
        declare = self._engine.definitions.declare_exchange
        return self._submit("configure", spec.name, partial(declare, self._vhost, spec, passive=passive))

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> int:
        """See `gateway.api.Channel.delete_exchange`."""
        delete = self._engine.definitions.delete_exchange
        return self._submit("configure", name, partial(delete, self._vhost, name, if_unused=if_unused))

    def declare_queue(self, spec: QueueSpec, *, passive: bool = False) -> int:
        """See `gateway.api.Channel.declare_queue`."""
        declare = self._engine.definitions.declare_queue
        return self._submit("configure", spec.name, partial(declare, self._vhost, spec, self.owner, passive=passive))

    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """See `gateway.api.Channel.delete_queue`."""
        delete = self._engine.definitions.delete_queue
        call = partial(delete, self._vhost, name, self.owner, if_unused=if_unused, if_empty=if_empty)
        return self._submit("configure", name, call)

    def purge_queue(self, name: str) -> int:
        """See `gateway.api.Channel.purge_queue`."""
        return self._submit("read", name, partial(self._engine.definitions.purge_queue, self._vhost, name, self.owner))

    def bind(self, binding: Binding) -> int:
        """See `gateway.api.Channel.bind`."""
        call = partial(self._engine.definitions.bind, self._vhost, binding, self.owner)
        return self._submit("read", binding.source, partial(self._bound, binding, call))

    def unbind(self, binding: Binding) -> int:
        """See `gateway.api.Channel.unbind`."""
        call = partial(self._engine.definitions.unbind, self._vhost, binding, self.owner)
        return self._submit("read", binding.source, partial(self._bound, binding, call))

    def _bound(self, binding: Binding, call: Callable[[], None]) -> None:
        self._check("write", binding.destination, binding.key)
        call()

    def bindings(self, destination: str, *, to_exchange: bool = False) -> list[Binding]:
        """See `gateway.api.Channel.bindings`."""
        return self._engine.vhost(self._vhost).table.bindings_of(destination, to_exchange=to_exchange)

    def queue_exists(self, name: str) -> bool:
        """See `gateway.api.Channel.queue_exists`."""
        return name in self._engine.vhost(self._vhost).queues

    def queue_info(self, name: str) -> QueueInfo | None:
        """See `gateway.api.Channel.queue_info`."""
        queue = self._engine.vhost(self._vhost).queues.get(name)
        return None if queue is None else QueueInfo(name, queue.ready_count, len(queue.consumers), queue.body_bytes)

    def _check(self, action: str, resource: str, key: str) -> None:
        if self._authorize is not None and not self._authorize(action, resource, key):
            raise AccessRefused(f"no permission to {action} {resource!r}")

    def _submit(self, action: str, resource: str, call: Callable[[], Any]) -> int:
        """Do something whose answer is an outcome."""
        number = self._next()
        try:
            self._check(action, resource, "")
            self._exceptions.append(Outcome(number, result=call()))
        except GatewayError as error:
            self._exceptions.append(Outcome(number, error=error))
        return number

    def _next(self) -> int:
        self._number += 1
        if not self.pending:
            self.pending = True
            self._committer.waiting.append(self)
        self._engine.batch.body_bytes += OUTCOME_COST_BYTES
        return self._number

    # -- consuming ----------------------------------------------------------

    def consume(self, queue: str, sink: ConsumerSink, options: ConsumeOptions) -> int:
        """See `gateway.api.Channel.consume`."""
        return self._submit("read", queue, partial(self._consume, queue, sink, options))

    def _consume(self, queue: str, sink: ConsumerSink, options: ConsumeOptions) -> Consumer:
        consumer = self._engine.consume(self._vhost, queue, sink, options, self._held, self.owner)
        self._consumers[consumer] = None
        if len(self._consumers) > self._tidy_at:  # a queue that goes takes its consumers with it, and tells no channel
            self._consumers = {consumer: None for consumer in self._consumers if consumer.active}
            self._tidy_at = 2 * len(self._consumers) + TIDY_FROM
        return consumer

    def cancel(self, consumer: Consumer) -> None:
        """See `gateway.api.Channel.cancel`."""
        self._consumers.pop(consumer, None)
        self._engine.cancel(consumer)

    def get(self, queue: str, *, no_ack: bool = False) -> int:
        """See `gateway.api.Channel.get`."""
        number = self._next()
        try:
            self._check("read", queue, "")
            found = self._engine.definitions.usable_queue(self._vhost, queue, self.owner)
            getter = Consumer(found, None, ConsumeOptions(no_ack=no_ack), self._held, self.owner)
            entry = self._engine.get(found, getter, self, number)
        except GatewayError as error:
            self._exceptions.append(Outcome(number, error=error))
            return number
        if entry is LATER:
            self._late.add(number)
        else:
            self._exceptions.append(Outcome(number, result=entry))
        return number

    def got(self, number: int, entry: Entry | None) -> None:
        """Take the late answer to a `get`."""
        self._late.discard(number)
        self._late_done.append(Outcome(number, result=entry))
        if self._held_back is not None and not self._late:
            (through, exceptions), self._held_back = self._held_back, None
            self._tell(through, self._with_late(through, exceptions))

    def _with_late(self, through: int, exceptions: Sequence[Outcome]) -> Sequence[Outcome]:
        """Put late answers into their places."""
        mine = [outcome for outcome in self._late_done if outcome.number <= through]
        self._late_done = [outcome for outcome in self._late_done if outcome.number > through]
        return sorted([*exceptions, *mine], key=_number)

    def ack(self, delivery: Entry) -> None:
        """See `gateway.api.Channel.ack`."""
        if delivery not in self._held:
            raise NotFound("unknown delivery tag")
        self._engine.ack(delivery)

    def nack(self, delivery: Entry, *, requeue: bool) -> None:
        """See `gateway.api.Channel.nack`."""
        if delivery not in self._held:
            raise NotFound("unknown delivery tag")
        self._engine.nack(delivery, requeue=requeue)

    def settle_handed_over(self, delivery: Entry) -> None:
        """See `gateway.api.Channel.settle_handed_over`."""
        if delivery not in self._held:
            raise NotFound("unknown delivery tag")
        self._engine.handed_over(delivery)

    # -- state --------------------------------------------------------------

    def put_state(self, namespace: str, key: str, value: bytes | None) -> None:
        """See `gateway.api.Channel.put_state`."""
        self._engine.kept.put_state(namespace, key, value)

    def get_state(self, namespace: str, key: str) -> bytes | None:
        """See `gateway.api.Channel.get_state`."""
        return self._engine.kept.state(namespace).get(key)

    def scan_state(self, namespace: str) -> Iterator[tuple[str, bytes]]:
        """See `gateway.api.Channel.scan_state`."""
        return iter(list(self._engine.kept.state(namespace).items()))

    # -- outcomes -----------------------------------------------------------

    def barrier(self) -> int:
        """See `gateway.api.Channel.barrier`."""
        number = self._next()
        self._exceptions.append(Outcome(number))
        return number

    def take_decided(self) -> tuple[int, Sequence[Outcome]]:
        """Return what the batch that is handed over decides: the last number, and what is to be said about some."""
        self.pending = False
        exceptions = self._exceptions
        if not exceptions:
            return self._number, NO_EXCEPTIONS
        self._exceptions = []
        return self._number, exceptions

    def refuse(self, through: int, exceptions: Sequence[Outcome], error: GatewayError) -> None:
        """Tell that all numbers up to `through` that are not decided are refused; who was refused already keeps the reason."""
        told = self._held_back[0] if self._held_back is not None else self._decided_through
        kept = {outcome.number: outcome for outcome in exceptions if outcome.error is not None or outcome.unroutable}
        late = self._late
        numbers = [number for number in range(told + 1, through + 1) if number not in late]
        self.decided(through, [kept.get(number) or Outcome(number, error=error) for number in numbers])

    def decided(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """Pass outcomes on, unless an earlier number still waits for a page."""
        if self._closed:
            return
        if self._late:
            before = self._held_back[1] if self._held_back is not None else []
            self._held_back = (through, [*before, *exceptions])
            return
        self._tell(through, self._with_late(through, exceptions) if self._late_done else exceptions)

    def _tell(self, through: int, exceptions: Sequence[Outcome]) -> None:
        self._decided_through = through
        if self._sink is not None:
            try:
                self._sink.on_outcomes(through, exceptions)
            except Exception as error:  # a front-end's fault must not reach the others
                self._sink = _DEAF
                self._committer.sink_failed(self, error)
            return
        for outcome in exceptions:
            self._results[outcome.number] = outcome
        for number in [number for number in self._parked if number <= through]:
            # At the end of a turn: a task that is woken directly would sleep on until something else happens.
            trio.lowlevel.current_trio_token().run_sync_soon(self._parked.pop(number).set)

    async def outcome(self, number: int) -> Outcome:
        """See `gateway.api.Channel.outcome`."""
        if self._sink is not None:
            raise RuntimeError("this channel's outcomes go to its sink")
        if number > self._decided_through and not self._closed:
            event = self._parked.setdefault(number, trio.Event())
            await event.wait()
        else:
            await trio.lowlevel.checkpoint()
        if number > self._decided_through:
            raise GatewayError("the channel was closed before this was decided")
        outcome = self._results.pop(number, None) or Outcome(number)
        if outcome.error is not None:
            raise outcome.error
        return outcome

    async def send(self, exchange: str, routing_key: str, body: bytes, *, persistent: bool = True) -> Outcome:
        """See `gateway.api.Channel.send`."""
        route = self.route(exchange, routing_key)
        return await self.outcome(self.publish(route, Message(route.address, body, persistent)))

    def close(self) -> None:
        """See `gateway.api.Channel.close`."""
        if self._closed:
            return
        self._closed = True
        for consumer in list(self._consumers):
            self.cancel(consumer)
        if self._late:
            self._engine.forget_waiting(self)
        self._engine.close_channel(self)
        if self.owner is self:
            self._engine.definitions.release(self)
        for event in self._parked.values():
            trio.lowlevel.current_trio_token().run_sync_soon(event.set)
        self._parked.clear()


def _number(outcome: Outcome) -> int:
    return outcome.number
