"""How does a queue's message get to a plain PULL peer, and how is it known that it got there?

By ZMTP's own PING and PONG, over streams of our own: what lies before a PING that comes back was taken by the peer's libzmq. It is
settled then, and not before; what a peer did not pong goes back to the queue when the peer goes.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from gateway.api import (
    AccessRefused,
    BindingOptions,
    ConfigError,
    ConsumeOptions,
    Consumer,
    Delivery,
    GatewayError,
    Message,
    NotFound,
    Outcome,
    Principal,
)
from gateway_zeromq.endpoints.links import Links
from gateway_zeromq.endpoints.spot import Alarm, Spot
from gateway_zeromq.endpoints.terms import Rules, State
from gateway_zeromq.endpoints.wires import Item, Writer, writer_of
from gateway_zeromq.endpoints.worker import Worker
from gateway_zeromq.security.zap import Request
from gateway_zeromq.settings import PushEndpoint
from gateway_zeromq.standing import Rounds
from gateway_zeromq.zmtp.conversation import Conversation
from gateway_zeromq.zmtp.frames import Limits
from gateway_zeromq.zmtp.mechanisms import Login, Mechanism, Null, PlainServer

PER_TURN: Final = 1_024
"""Messages that are asked for at a time: others get their turn in between."""
RETRY_S: Final = 1.0
DRAIN_S: Final = 5.0
"""How long the end waits for PONGs; who is busy for longer gets its messages again."""
_TICK_S: Final = (0.02, 0.25)
_MOST: Final = 1 << 30
_PORTIONS_PER_S: Final = 2_000
"""More sends than this cost too much: with more messages a second each peer gets several at a time."""
_MOST_PORTION: Final = 64
_PEERS: Final = frozenset({"PULL"})
_PROPERTIES: Final = {"Socket-Type": b"PUSH"}
_LIMITS: Final = Limits(command_bytes=4_096, frame_bytes=4_096, message_bytes=4_096, frames=1)
"""A PULL peer has little to say."""


class Loose:
    """A message that needs no settlement."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message: Message = message


class PongSocket:
    """One PUSH endpoint with ``ack = "pong"``: a consumer of its queue, which shares it among its peers (`Crew` to each).

    Credit is given by hand, as much as the peers have room for: the rest stays in the queue, for other consumers too.
    """

    def __init__(self, spot: Spot, settings: PushEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._gateway = spot.gateway
        self._principal = principal
        self._links = Links(spot)
        self._rules = Rules(
            settings.window,
            settings.window_bytes,
            settings.ping_every,
            0 if settings.worker_rcvhwm is None else settings.worker_rcvhwm + 1,
            settings.heartbeat_ms / 1000,
            settings.pong_timeout_ms / 1000,
            settings.older_peers,
        )
        self.writer: Writer = writer_of(settings.frames, spot.gateway.properties, mqtt=settings.key_syntax == "mqtt")
        self._workers: list[Worker] = []  # those that can be sent messages, in turns
        self._all: set[Worker] = set()
        self._pending: list[Item] = []
        self._done: list[Item] = []
        self._next = 0  # whose turn it is
        self._portion = 1  # messages that a peer is given at a time, if there are enough
        self._given = self._loose = 0
        self._consumer: Consumer | None = None
        self._failure: GatewayError | None = None
        self._answered = Alarm()
        self._lost = Alarm()
        self._touched = self._ended = self._gone = self._resting = False
        self._credit = 0
        self._channel = self._gateway.open_channel(principal, self)

    # -- as every endpoint (see `kinds.Socket`)

    def open(self) -> None:
        """Bind and connect. Errors as `Links.open`."""
        self._links.open()

    async def start(self) -> None:
        """Become a consumer of the queue.

        Raises:
            ConfigError: somebody else has it for itself.
        Cancellation: safe.
        """
        await self._consume()
        if self._failure is not None:
            raise ConfigError(f"ZeroMQ endpoint {self._spot.name!r} can't consume {self._settings.queue!r}: {self._failure.text}")

    async def run(self) -> None:
        """Serve peers until cancelled. Cancellation: they stay, for `drain`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._links.run, self._serve)
            nursery.start_soon(self._tick)
            while True:
                await self._lost.wait()
                while self._consumer is None:
                    await trio.sleep(RETRY_S)
                    self._begin_anew()
                    await self._consume()

    async def drain(self) -> None:
        """Send no more; wait a while for PONGs to what was sent. Cancellation: safe."""
        self._ended = True
        self._give_back(self._pending)
        self._pending = []
        with trio.move_on_after(DRAIN_S):
            async with trio.open_nursery() as nursery:
                for worker in list(self._all):
                    self._give_back(worker.take_back())
                    if worker.waits:
                        nursery.start_soon(worker.run)
                while any(worker.waits for worker in self._all):  # noqa: ASYNC110 - it is the end
                    await trio.sleep(_TICK_S[0])
                nursery.cancel_scope.cancel()
        self.flush()

    def close(self) -> None:
        """Close sockets and channel; what was not ponged goes back to the queue."""
        self._ended = True
        self._links.close()
        for worker in list(self._all):
            worker.end("the broker stops")
            worker.close()
        self._channel.close()

    # -- peers

    async def _serve(self, sock: socket.socket, peer: str, connected: bool) -> bool:
        worker = Worker(sock, peer, self._conversation(connected=connected), self, self._rules)
        self._all.add(worker)
        try:
            await worker.run()
        except Exception as error:  # an edge: one connection
            self._gateway.log.error(  # noqa: TRY400 - not logging's
                "a connection failed", endpoint=self._spot.name, peer=peer, error=repr(error), exc_info=error
            )
            worker.end("it failed")
            worker.close()
        self._all.discard(worker)
        return worker.version != (0, 0)

    def _conversation(self, *, connected: bool) -> Conversation:
        mechanism: Mechanism = Null(_PROPERTIES, first=connected)
        if self._spot.guard is not None:
            mechanism = PlainServer(_PROPERTIES)
        return Conversation(mechanism, "PUSH", _PEERS, _LIMITS)

    async def _tick(self) -> None:
        times = [self._rules.heartbeat_s, self._rules.pong_timeout_s or self._rules.heartbeat_s]
        interval_s = min(max(min(times) / 4, _TICK_S[0]), _TICK_S[1])
        rounds = Rounds(trio.current_time())
        while True:
            await trio.sleep(interval_s)
            now = trio.current_time()
            late_s = rounds.late_s(now, interval_s)
            self._portion = min(max(int(self._given / interval_s / _PORTIONS_PER_S), 1), _MOST_PORTION)
            self._given = 0
            for worker in list(self._all):
                if late_s:
                    worker.excuse(late_s, now)
                worker.tick(now)

    async def admit(self, login: Login, peer: str) -> None:
        """See `Crew.admit`."""
        guard = self._spot.guard
        if guard is None or guard.realm is None:
            raise AccessRefused("nobody is asked here")
        user = await guard.realm.admit(Request(b"", b"", guard.domain, peer, "PLAIN", tuple(login)))
        principal = guard.realm.principal_of(user)
        allowed = principal is not None and (principal.authorize is None or principal.authorize("read", self._settings.queue, ""))
        if not allowed:
            raise AccessRefused(f"{user!r} may not read {self._settings.queue!r}")

    def met(self, worker: Worker) -> None:
        """See `Crew.met`."""
        if worker.state is State.HANDING:
            version = ".".join(map(str, worker.version))
            self._gateway.count("peers_without_pong")
            self._spot.say_once(
                "a peer can't acknowledge: what the kernel takes for it counts as delivered",
                worker.peer,
                peer=worker.peer,
                zmtp=version,
            )
        if worker not in self._workers:
            self._workers.append(worker)
        self.room()

    def gone(self, worker: Worker, items: list[Item]) -> None:
        """See `Crew.gone`."""
        if worker in self._workers:
            self._workers.remove(worker)
        self._give_back(items)
        if worker.is_violation:
            self._gateway.count("violations")
            self._spot.say_once("protocol violation", f"violation {worker.reason}", peer=worker.peer, reason=worker.reason)
        elif worker.reason.startswith("refused"):
            self._gateway.count("refused_handshakes", reason="not let in")
            self._spot.say_once("a peer is not let in", worker.reason, peer=worker.peer, reason=worker.reason)
        if items and not self._ended:
            self._gateway.count("requeued", len(items), reason="peer gone")
            self._gateway.log.info(
                "a peer has gone", endpoint=self._spot.name, peer=worker.peer, reason=worker.reason, unacknowledged=len(items)
            )
        self.room()

    def room(self) -> None:
        """See `Crew.room`."""
        if not self._touched:
            self._touched = True
            self._gateway.touch(self)

    def settled(self, items: list[Item]) -> None:
        """See `Crew.settled`: all of a turn are settled at its end."""
        self._done += items
        self.room()

    def handed(self, items: list[Item]) -> None:
        """See `Crew.handed`."""
        for item in items:
            if not isinstance(item, Loose):
                try:
                    self._channel.settle_handed_over(item)  # type: ignore[arg-type]  # all others are deliveries
                except NotFound:
                    self._gateway.count("settled_without_delivery")

    # -- the consumer

    async def _consume(self) -> None:
        self._gone = False
        self._channel.consume(self._settings.queue, self, ConsumeOptions(prefetch=0, manual_credit=True))
        await self._answered.wait()
        self.room()

    def _begin_anew(self) -> None:
        """Give back what the ended consumer still holds; peers keep what they were sent."""
        self._pending = []
        self._done = []
        self._credit = 0
        self._resting = False
        self._channel.close()
        self._channel = self._gateway.open_channel(self._principal, self)

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: the answer to `consume`."""
        for outcome in exceptions:
            self._failure = outcome.error
            self._consumer = None if self._gone else outcome.result
            if outcome.error is not None:
                self._spot.say_once("queue can't be consumed", "consume", queue=self._settings.queue, reason=outcome.error.text)
        self._answered.ring()

    def cancelled(self, reason: GatewayError) -> None:
        """See `gateway.api.ConsumerSink`: the queue is gone; it is asked for again until it is back."""
        self._spot.say_once("consumer ended", "cancelled", queue=self._settings.queue, reason=reason.text)
        self._consumer = None
        self._gone = True  # even if it is not known yet that there was one
        self._lost.ring()

    def deliver(self, delivery: Delivery) -> None:
        """See `gateway.api.ConsumerSink`: collect; `flush` sends."""
        self._credit -= 1
        self._pending.append(delivery)
        if not self._touched:
            self._touched = True
            self._gateway.touch(self)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """See `gateway.api.ConsumerSink`: it is settled already, and dropped if there is no room."""
        if any(worker.room for worker in self._workers):
            self._loose += 1
            self._pending.append(Loose(message))
            self.room()
        else:
            self._gateway.count("dropped", reason="no room")

    # -- the way of every message

    def flush(self) -> None:
        """See `gateway.api.Flushable`: settle what was ponged in this turn, send what was collected, ask for more."""
        self._touched = True  # what comes of it is dealt with here
        if self._done:
            self._settle()
        if not self._ended:
            while self._pending and self._share():
                pass
        self._touched = False
        self._grant()

    def _settle(self) -> None:
        done, self._done = self._done, []
        if self._loose:
            done = [item for item in done if not isinstance(item, Loose)]
        try:
            self._channel.ack_many(done)  # type: ignore[arg-type]  # all others are deliveries
        except NotFound:  # its queue was deleted meanwhile
            self._gateway.count("settled_without_delivery")

    def _share(self) -> bool:
        """Deal out what is pending, one message after the other to the next peer; False: there is no room.

        When there are many messages a second not every peer gets its part in every turn: to send one message costs as much as ten.
        """
        pending = self._pending
        chosen, least = self._choose(-(-len(pending) // self._portion))
        turns = len(chosen)
        if not turns:
            return False
        share = pending[: least * turns]
        self._pending = pending[len(share) :]
        self._given += len(share)
        self._next = chosen[(len(share) - 1) % turns][0] + 1
        for number, (_, worker) in enumerate(chosen[: len(share)]):
            worker.give(share[number::turns])
            worker.work()
        return True

    def _choose(self, wanted: int) -> tuple[list[tuple[int, Worker]], int]:
        """Return the next peers with room, with their places, and the room that each of them has."""
        chosen: list[tuple[int, Worker]] = []
        least = _MOST
        workers = self._workers
        count = len(workers)
        for place in range(self._next, self._next + count):
            worker = workers[place % count]
            room = worker.room
            if room > 0:
                chosen.append((place % count, worker))
                least = min(least, room)
                if len(chosen) == wanted:
                    break
        return chosen, least

    def _grant(self) -> None:
        """Give credit for what there is room for; give back what nobody can be sent."""
        if self._consumer is None or self._ended:
            return
        if not self._workers:
            self._rest()
            return
        if self._resting:
            self._resting = False
            self._consumer.resume()
        room = 0
        for worker in self._workers:
            room += worker.room
            if room >= PER_TURN:
                room = PER_TURN
                break
        delta = room - self._credit - len(self._pending)
        if delta > 0:
            self._credit += delta
            self._consumer.credit(delta)

    def _rest(self) -> None:
        """Take nothing more while nobody is there, whatever the credit."""
        if self._consumer is not None and not self._resting:
            self._resting = True
            self._consumer.pause()
        items, self._pending = self._pending, []
        self._give_back(items)

    def _give_back(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Loose):
                self._gateway.count("dropped", reason="peer gone")
                continue
            with suppress(NotFound):  # its queue is gone, or was asked for anew
                self._channel.nack(item, requeue=True)  # type: ignore[arg-type]  # all others are deliveries
