"""What does a PUSH endpoint with ``ack = "pong"`` do with its queue and its peers?"""

from __future__ import annotations

import socket
from typing import Final

import trio

from gateway.api import AccessRefused, Principal
from gateway_zeromq.endpoints.feed import Feed, Item
from gateway_zeromq.endpoints.pong.links import Links
from gateway_zeromq.endpoints.pong.shares import Shares
from gateway_zeromq.endpoints.pong.terms import Rules, State
from gateway_zeromq.endpoints.pong.wires import Writer, writer_of
from gateway_zeromq.endpoints.pong.worker import Worker
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.security.zap import Request
from gateway_zeromq.settings import PushEndpoint
from gateway_zeromq.standing import Rounds
from gateway_zeromq.zmtp.conversation import Conversation
from gateway_zeromq.zmtp.frames import Limits
from gateway_zeromq.zmtp.mechanisms import Login, Mechanism, Null, PlainServer

PER_TURN: Final = 1_024
"""Messages that are asked for at a time: others get their turn in between."""
DRAIN_S: Final = 5.0
"""How long the end waits for PONGs; who is busy for longer gets its messages again."""
_TICK_S: Final = (0.02, 0.25)
_GONE: Final = "peer gone"
_PEERS: Final = frozenset({"PULL"})
_PROPERTIES: Final = {"Socket-Type": b"PUSH"}
_LIMITS: Final = Limits(command_bytes=4_096, frame_bytes=4_096, message_bytes=4_096, frames=1)
"""A PULL peer has little to say."""


class PongSocket:
    """One PUSH endpoint with ``ack = "pong"``: a consumer of its queue, which shares it among its peers (`Crew` to each).

    Credit is given by hand, as much as the peers have room for: the rest stays in the queue, for other consumers too.
    """

    def __init__(self, spot: Spot, settings: PushEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._gateway = spot.gateway
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
        self._workers: set[Worker] = set()
        self._shares = Shares()  # of those that can be sent messages
        self._done: list[Item] = []
        self._ended = False
        self._feed = Feed(spot, principal, settings.queue, self)
        self._feed.has_room = False

    # -- as every endpoint (see `kinds.Socket`)

    def open(self) -> None:
        """Bind and connect. Errors as `Links.open`."""
        self._links.open()

    async def start(self) -> None:
        """Become a consumer of the queue. Errors and cancellation as `Feed.start`."""
        await self._feed.start()

    async def run(self) -> None:
        """Serve peers until cancelled. Cancellation: they stay, for `drain`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._links.run, self._serve)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._feed.run)

    async def drain(self) -> None:
        """Send no more; wait a while for PONGs to what was sent. Cancellation: safe."""
        self._ended = True
        self._feed.has_room = False
        self._feed.hold(held=True)
        self._give_back_pending()
        with trio.move_on_after(DRAIN_S):
            async with trio.open_nursery() as nursery:
                for worker in list(self._workers):
                    self._feed.give_back(worker.traffic.take_back(), _GONE)
                    if worker.waits:
                        nursery.start_soon(worker.run)
                while any(worker.waits for worker in self._workers):  # noqa: ASYNC110 - it is the end
                    await trio.sleep(_TICK_S[0])
                nursery.cancel_scope.cancel()
        self.flush()

    def close(self) -> None:
        """Close sockets and channel; what was not ponged goes back to the queue."""
        self._ended = True
        self._links.close()
        for worker in list(self._workers):
            worker.end("the broker stops")
            worker.close()
        self._feed.close()

    # -- peers

    async def _serve(self, sock: socket.socket, peer: str, connected: bool) -> bool:
        worker = Worker(sock, peer, self._conversation(connected=connected), self, self._rules)
        self._workers.add(worker)
        try:
            await worker.run()
        except Exception as error:  # an edge: one connection
            self._gateway.log.error(  # noqa: TRY400 - not logging's
                "a connection failed", endpoint=self._spot.name, peer=peer, error=repr(error), exc_info=error
            )
            worker.end("it failed")
            worker.close()
        self._workers.discard(worker)
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
            self._shares.pace(interval_s)
            for worker in list(self._workers):
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
        self._shares.add(worker.traffic)
        self.freed()

    def gone(self, worker: Worker, items: list[Item]) -> None:
        """See `Crew.gone`."""
        self._shares.remove(worker.traffic)
        self._feed.give_back(items, _GONE)
        if worker.is_violation:
            self._gateway.count("violations")
            self._spot.say_once("protocol violation", f"violation {worker.reason}", peer=worker.peer, reason=worker.reason)
        elif worker.is_refused:
            self._gateway.count("refused_handshakes", reason="not let in")
            self._spot.say_once("a peer is not let in", worker.reason, peer=worker.peer, reason=worker.reason)
        if items and not self._ended:
            self._gateway.count("requeued", len(items), reason="peer gone")
            self._gateway.log.info(
                "a peer has gone", endpoint=self._spot.name, peer=worker.peer, reason=worker.reason, unacknowledged=len(items)
            )
        self.freed()

    def freed(self) -> None:
        """See `Crew.freed`."""
        self._feed.touch()

    def settled(self, items: list[Item]) -> None:
        """See `Crew.settled`: all of a turn are settled at its end."""
        self._done += items
        self._feed.touch()

    def handed(self, items: list[Item]) -> None:
        """See `Crew.handed`."""
        self._feed.hand_over(items)

    # -- the way of every message

    def flush(self) -> None:
        """See `gateway.api.Flushable`: settle what was ponged in this turn, send what was collected, ask for more."""
        feed = self._feed
        if self._done:
            done, self._done = self._done, []
            feed.ack(done)
        if not self._ended:
            self._shares.deal(feed.pending)
        feed.taken()  # what has come of it so far is dealt with here
        if not self._ended:
            self._grant()

    def _grant(self) -> None:
        """Give credit for what there is room for; give back what nobody can be sent."""
        feed = self._feed
        room = self._shares.room(PER_TURN)
        feed.has_room = room > 0
        if self._shares:
            feed.hold(held=False)
            feed.grant(room - len(feed.pending))
        else:
            feed.hold(held=True)
            self._give_back_pending()

    def _give_back_pending(self) -> None:
        items, self._feed.pending[:] = self._feed.pending[:], []
        self._feed.give_back(items, _GONE)
