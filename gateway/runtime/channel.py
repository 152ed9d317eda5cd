"""How does a front-end's call reach the engine, and how does its number get its outcome?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from gateway.api.channel import Outcome, OutcomeSink
from gateway.api.consumer import ConsumeOptions, ConsumerSink, MessageRun
from gateway.api.frontend import Principal
from gateway.engine.engine import LATER, UNROUTABLE, Engine, Unroutable
from gateway.engine.queues.consumer import Consumer
from gateway.engine.queues.delivery import Entry
from gateway.engine.retained import RetainedLookUp
from gateway.engine.route import RouteHandle
from gateway.errors import AccessRefused, GatewayError, NotFound
from gateway.model.message import Message
from gateway.model.names import MAX_KEY_WORDS, MAX_KEYS, parse_reply_address
from gateway.model.records import Scheduled
from gateway.runtime.answers import DEAF, Answers
from gateway.runtime.declaring import OUTCOME_COST_BYTES
from gateway.runtime.pending import Kept, stays
from gateway.runtime.settling import Settling

if TYPE_CHECKING:
    from gateway.runtime.alarms import Alarms
    from gateway.runtime.bounds import Bounds
    from gateway.runtime.committer import Committer

Publish = Callable[[RouteHandle, Message], "GatewayError | Unroutable | None"]

NO_EXCEPTIONS: Sequence[Outcome] = ()
_KEPT = Unroutable()
TIDY_FROM = 64
"""A channel with more consumers looks now and then which of them are gone."""


class BrokerChannel(Settling):
    """A channel of the gateway's own engine (`gateway.api.Channel` says what each method does)."""

    __slots__ = (
        "_answers", "_closed", "_consumers", "_decided_through", "_held_back", "_late", "_late_done",
        "_publish", "_sink", "_tidy_at", "_to_retain",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - the parts of the broker that it joins
        self,
        engine: Engine,
        principal: Principal,
        sink: OutcomeSink | None,
        owner: object | None,
        committer: Committer,
        alarms: Alarms,
        bounds: Bounds,
    ) -> None:
        super().__init__(engine, principal, owner, committer, alarms, bounds.max_message_bytes)
        self._publish: Publish = alarms.publish
        self._answers: Answers | None = None
        if sink is None:
            sink = self._answers = Answers()
        self._sink: OutcomeSink = sink
        self._consumers: dict[Consumer, None] | None = None
        self._tidy_at = TIDY_FROM
        self._to_retain: tuple[RouteHandle, Message] | None = None
        self._late: set[int] | None = None
        self._late_done: Sequence[Outcome] = NO_EXCEPTIONS
        self._held_back: tuple[int, list[Outcome]] | None = None
        self._decided_through = 0
        self._closed = False
        alarms.opened(self)

    @property
    def is_consuming(self) -> bool:
        """It has a consumer, or something to settle."""
        return bool(self._held) or any(consumer.active for consumer in self._consumers or ())

    def publish_by(self, publish: Publish) -> None:
        """Publish in another way from now on: by the engine, or by what holds publishers back."""
        self._publish = publish

    # -- publishing ---------------------------------------------------------

    def route(self, exchange: str, routing_key: str, *, local_to: str = "", also: tuple[str, ...] = ()) -> RouteHandle:
        """See `gateway.api.Channel.route`."""
        if also:
            return self._route_to_all(exchange, routing_key, local_to, also)
        if not exchange:
            address = parse_reply_address(routing_key)
            if address is not None:
                exchange, routing_key = address
                if routing_key.count(".") >= MAX_KEY_WORDS:
                    raise AccessRefused(f"a reply address of more than {MAX_KEY_WORDS} words")
        self._check("write", exchange, routing_key)
        return self._engine.vhost(self._vhost).route(exchange, routing_key, local_to)

    def _route_to_all(self, exchange: str, routing_key: str, local_to: str, also: tuple[str, ...]) -> RouteHandle:
        keys = tuple(dict.fromkeys((routing_key, *also)))
        if len(keys) > MAX_KEYS or any(key.count(".") >= MAX_KEY_WORDS for key in keys):
            raise AccessRefused(f"a message has at most {MAX_KEYS} keys of at most {MAX_KEY_WORDS} words")
        for key in keys:
            self._check("write", exchange, key)
        return self._engine.vhost(self._vhost).route(exchange, routing_key, local_to, keys[1:])

    def publish(self, route: RouteHandle, message: Message) -> int:
        """See `gateway.api.Channel.publish`."""
        if len(message.body) + len(message.wire) > self._most_bytes:
            problem: GatewayError | Unroutable | None = self._too_large(message)
        elif self._to_retain is None:
            problem = self._publish(route, message)
        else:
            problem = self._publish_and_retain(route, message, *self._to_retain)
        number = self._number = self._number + 1
        if problem is not None:
            self._exceptional(number, message, problem)
        if not self.pending:
            self.pending = True
            self._committer.waiting.append(self)
        return number

    def post(self, route: RouteHandle, message: Message) -> None:
        """See `gateway.api.Channel.post`."""
        if len(message.body) + len(message.wire) > self._most_bytes:
            problem: GatewayError | Unroutable | None = self._too_large(message)
        elif self._to_retain is None:
            problem = self._publish(route, message)
        else:
            problem = self._publish_and_retain(route, message, *self._to_retain)
        if isinstance(problem, GatewayError):
            self._alarms.count_refused(message, problem)

    def post_run(self, route: RouteHandle, run: MessageRun) -> bool:
        """See `gateway.api.Channel.post_run`."""
        if run.largest > self._most_bytes or self._to_retain is not None or self._publish is not self._alarms.publish:
            return False
        return self._engine.publish_run(route, run)

    def _too_large(self, message: Message) -> GatewayError:
        self._to_retain = None
        return self._larger_than_allowed(message)

    def _exceptional(self, number: int, message: Message, problem: GatewayError | Unroutable) -> None:
        self._engine.batch.body_bytes += OUTCOME_COST_BYTES
        if problem is UNROUTABLE or problem is _KEPT:
            self._exceptions.append((Kept if problem is _KEPT else Outcome)(number, unroutable=True))
        elif isinstance(problem, GatewayError):
            self._alarms.count_refused(message, problem)
            self._exceptions.append(Outcome(number, error=problem))

    def retain(self, route: RouteHandle, message: Message) -> None:
        """See `gateway.api.Channel.retain`."""
        self._to_retain = (route, message)

    def _publish_and_retain(
        self, route: RouteHandle, message: Message, kept_route: RouteHandle, value: Message
    ) -> GatewayError | Unroutable | None:
        self._to_retain = None
        answer = self._engine.kept.values.publish(self._publish, route, message, kept_route, value)
        return _KEPT if answer is UNROUTABLE else answer

    def retained(self, exchange: str, pattern: str, *, mqtt: bool = False) -> Iterator[Message]:
        """See `gateway.api.Channel.retained`."""
        return self._engine.kept.retained(self._vhost, exchange, pattern, mqtt=mqtt)

    def look_up(self, exchange: str, pattern: str, *, mqtt: bool = False) -> RetainedLookUp:
        """See `gateway.api.Channel.look_up`."""
        return self._engine.kept.values.look_up(self._vhost, exchange, pattern, mqtt=mqtt)

    def retained_mark(self) -> int:
        """See `gateway.api.Channel.retained_mark`."""
        return self._engine.kept.values.puts

    # -- scheduling ---------------------------------------------------------

    def schedule(self, route: RouteHandle, message: Message, due_ms: int) -> int:
        """See `gateway.api.Channel.schedule`."""
        return self._submit("write", route.address.exchange, partial(self._schedule, route, message, due_ms))

    def _schedule(self, route: RouteHandle, message: Message, due_ms: int) -> int:
        self._check("write", route.address.exchange, route.address.routing_key)
        too_large = len(message.body) + len(message.wire) > self._most_bytes
        refusal = self._too_large(message) if too_large else self._alarms.memory_refusal()
        if refusal is not None:
            self._alarms.count_refused(message, refusal)
            raise refusal
        return self._engine.schedule.add(route, message, due_ms)

    def cancel_scheduled(self, scheduled_id: int) -> int:
        """See `gateway.api.Channel.cancel_scheduled`."""
        number = self._next()
        try:
            self._check_scheduled(scheduled_id)
            self._alarms.removing(partial(self._engine.schedule.cancel, self._vhost, scheduled_id))
            self._exceptions.append(Outcome(number))
        except GatewayError as error:
            self._exceptions.append(Outcome(number, error=error))
        return number

    def _check_scheduled(self, scheduled_id: int) -> None:
        """Who may not write to an exchange learns nothing of what is scheduled for it."""
        address = self._engine.schedule.address_of(self._vhost, scheduled_id)
        if address is not None and not self._may_write(address.exchange, address.routing_key):
            raise NotFound(f"no scheduled message {scheduled_id} in vhost '{self._vhost}'")

    def _may_write(self, exchange: str, key: str) -> bool:
        return self._authorize is None or self._authorize("write", exchange, key)

    def scheduled(self, limit: int | None = None, after: Scheduled | None = None) -> list[Scheduled]:
        """See `gateway.api.Channel.scheduled`."""
        listed = self._engine.schedule.listed(self._vhost, after)
        mine = (item for item in listed if item is not None and self._may_write(item.exchange, item.routing_key))
        return list(islice(mine, limit))

    # -- consuming ----------------------------------------------------------

    def consume(self, queue: str, sink: ConsumerSink, options: ConsumeOptions) -> int:
        """See `gateway.api.Channel.consume`."""
        return self._submit("read", queue, partial(self._consume, queue, sink, options))

    def _consume(self, queue: str, sink: ConsumerSink, options: ConsumeOptions) -> Consumer:
        consumer = self._engine.consume(self._vhost, queue, sink, options, self._holds(), self.owner)
        consumers = self._consumers = self._consumers or {}
        consumers[consumer] = None
        if len(consumers) > self._tidy_at:  # a queue that goes takes its consumers with it, and tells no channel
            self._consumers = {consumer: None for consumer in consumers if consumer.active}
            self._tidy_at = 2 * len(self._consumers) + TIDY_FROM
        return consumer

    def _holds(self) -> set[Entry]:
        """Return where unsettled deliveries are noted; a channel that only publishes has no such set."""
        if not isinstance(self._held, set):
            self._held = self._engine.holdings[self] = set()
        return self._held

    def cancel(self, consumer: Consumer) -> None:
        """See `gateway.api.Channel.cancel`."""
        if self._consumers is not None:
            self._consumers.pop(consumer, None)
        self._engine.cancel(consumer)

    def get(self, queue: str, *, no_ack: bool = False) -> int:
        """See `gateway.api.Channel.get`."""
        number = self._next()
        try:
            self._check("read", queue, "")
            found = self._engine.definitions.usable_queue(self._vhost, queue, self.owner)
            getter = Consumer(found, None, ConsumeOptions(no_ack=no_ack), self._holds(), self.owner)
            entry = self._engine.get(found, getter, self, number)
        except GatewayError as error:
            self._exceptions.append(Outcome(number, error=error))
            return number
        if entry is LATER:
            self._late = self._late or set()
            self._late.add(number)
        else:
            self._exceptions.append(Outcome(number, result=entry))
        return number

    def got(self, number: int, entry: Entry | None) -> None:
        """Take the late answer to a `get`."""
        (self._late or set()).discard(number)
        self._late_done = [*self._late_done, Outcome(number, result=entry)]
        if self._held_back is not None and not self._late:
            (through, exceptions), self._held_back = self._held_back, None
            self._tell(through, self._with_late(through, exceptions))

    def _with_late(self, through: int, exceptions: Sequence[Outcome]) -> Sequence[Outcome]:
        """Put late answers into their places."""
        mine = [outcome for outcome in self._late_done if outcome.number <= through]
        self._late_done = [outcome for outcome in self._late_done if outcome.number > through]
        return sorted([*exceptions, *mine], key=attrgetter("number"))

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
        # While nothing can be written no commit comes that would have to fail first.
        error = self._engine.refusal if self._alarms.is_journal_failing else None
        self._exceptions.append(Outcome(number, error=error))
        return number

    def take_decided(self) -> tuple[int, Sequence[Outcome]]:
        """Return what the batch that is handed over decides: the last number, and what is to be said about some."""
        self.pending = False
        exceptions = self._exceptions
        if not exceptions:
            return self._number, NO_EXCEPTIONS
        self._exceptions = []
        return self._number, exceptions

    def refuse(self, through: int, exceptions: Sequence[Outcome], error: GatewayError) -> int:
        """Tell that all numbers up to `through` that are not decided are refused; return how many.

        Who was refused already keeps the reason. What needed no disk is told as it is: who was not told of a message or a consumer
        that it was given would never settle the one, nor expect what the other brings.
        """
        told = self._held_back[0] if self._held_back is not None else self._decided_through
        kept = {outcome.number: outcome for outcome in exceptions if stays(outcome)}
        numbers = [number for number in range(told + 1, through + 1) if not self._late or number not in self._late]
        self.decided(through, [kept.get(number) or Outcome(number, error=error) for number in numbers])
        return len(numbers) - len(kept)

    def decided(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """Pass outcomes on, unless an earlier number still waits for a page."""
        if self._closed:
            return
        if self._late:
            self._held_back = (through, [*(self._held_back[1] if self._held_back is not None else []), *exceptions])
            return
        self._tell(through, self._with_late(through, exceptions) if self._late_done else exceptions)

    def _tell(self, through: int, exceptions: Sequence[Outcome]) -> None:
        self._decided_through = through
        try:
            self._sink.on_outcomes(through, exceptions)
        except Exception as error:  # a front-end's fault must not reach the others
            self._sink = DEAF
            self._committer.sink_failed(self, error)

    async def outcome(self, number: int) -> Outcome:
        """See `gateway.api.Channel.outcome`."""
        if self._answers is None:
            raise RuntimeError("this channel's outcomes go to its sink")
        if 0 < number <= self._number:
            return await self._answers.outcome(number)
        raise RuntimeError(f"number {number} was never submitted here")

    async def send(self, exchange: str, routing_key: str, body: bytes, *, persistent: bool = True) -> Outcome:
        """See `gateway.api.Channel.send`."""
        route = self.route(exchange, routing_key)
        return await self.outcome(self.publish(route, Message(route.address, body, persistent)))

    def close(self) -> None:
        """See `gateway.api.Channel.close`."""
        if self._closed:
            return
        self._closed = True
        if self._late:
            self._engine.forget_waiting(self)
        self._engine.close_channel(self, self._consumers or ())
        self._consumers = None
        if self.owner is self:
            self._engine.definitions.release(self)
        self._alarms.closed(self)
        if self._answers is not None:
            self._answers.close()
