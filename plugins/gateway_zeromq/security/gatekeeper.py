"""Who answers libzmq when it asks whether a peer may come in, and what if that one dies?"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import trio
import zmq

from gateway.api import AccessRefused, Gateway
from gateway_zeromq.security.crowd import Crowd
from gateway_zeromq.security.realm import Realm
from gateway_zeromq.security.zap import ADDRESS, Malformed, Request, Status, answer, parse
from trio_zmq.pump import Pump, Whole, whole_messages

ANSWER_S = 10.0
"""A question without an answer for so long is answered with 500: nobody hangs."""
MOST_PENDING = 256
DEATHS_ALLOWED = 5
"""Within `DEATHS_WITHIN_S`; more, and there is no sense in beginning anew."""
DEATHS_WITHIN_S = 60.0
_MOST_TRIES = 200
_RETRY_S = 0.005
_MOST_SAID = 1_000


class Door(NamedTuple):
    """What a domain is for. ``realm``: who is let in; None: whoever comes. ``crowd``: how many; None: any number."""

    realm: Realm | None
    crowd: Crowd | None = None


class Gatekeeper:
    """The ZAP handler of a context.

    Args:
        gateway: the host.
        context: of all sockets.
        doors: by domain.
    """

    def __init__(self, gateway: Gateway, context: zmq.Context[zmq.Socket[bytes]], doors: Mapping[str, Door]) -> None:
        self._gateway = gateway
        self._context = context
        self._doors = doors
        self._said: set[tuple[str, ...]] = set()
        self._crowded: set[str] = set()
        self._pending = 0
        self._ended = False
        self._pump: Pump[Whole] | None = None

    def open(self) -> None:
        """Be there for questions; before any socket with a domain is bound. Raises: zmq.ZMQError: somebody else is."""
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        try:
            socket.bind(ADDRESS)
        except zmq.ZMQError:
            socket.close()
            raise
        self._pump = Pump(socket, whole_messages(socket))

    async def run(self) -> None:
        """Answer until cancelled or closed. Should that fail, it begins anew at once, with a socket of its own.

        Raises:
            RuntimeError: it fails again and again; whoever runs this must close all sockets, as handshakes would hang.
        Cancellation: safe; questions stay unanswered.
        """
        deaths: deque[float] = deque(maxlen=DEATHS_ALLOWED)
        while not self._ended:
            try:
                await self._serve()
            except Exception as error:  # an edge: whatever it is, handshakes must not hang
                now = trio.current_time()
                if len(deaths) == DEATHS_ALLOWED and now - deaths[0] < DEATHS_WITHIN_S:
                    raise RuntimeError("who answers for the security of ZeroMQ sockets fails again and again") from error
                deaths.append(now)
                self._gateway.count("zap_deaths")
                self._gateway.log.error(  # noqa: TRY400 - not logging's
                    "security of ZeroMQ sockets: the one who answers failed, and begins anew", error=_text(error)
                )
                await self._reopen()

    async def _reopen(self) -> None:
        """Take the socket's place with a new one. libzmq gives the address free when it has closed the old one, a moment later."""
        if self._pump is not None:
            self._pump.close()
        for _ in range(_MOST_TRIES):
            try:
                self.open()
            except zmq.ZMQError:
                await trio.sleep(_RETRY_S)
            else:
                return
        self.open()

    async def _serve(self) -> None:
        pump = self._pump
        assert pump is not None
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    for frames in await pump.receive():
                        self._take(pump, nursery, frames)
            except trio.ClosedResourceError:
                if not self._ended:
                    raise

    def _take(self, pump: Pump[Whole], nursery: trio.Nursery, frames: Whole) -> None:
        try:
            request = parse(frames if isinstance(frames, list) else ())
        except Malformed as error:
            self._gateway.count("zap_malformed")
            if error.reply is not None:
                pump.offer(error.reply)
            return
        if self._pending >= MOST_PENDING:
            pump.offer(answer(request, Status.LATER, "too many at once"))
            return
        self._pending += 1
        nursery.start_soon(self._answer, pump, request)

    async def _answer(self, pump: Pump[Whole], request: Request) -> None:
        try:
            reply = await self._decide(request)
        finally:
            self._pending -= 1
        if not pump.closed:
            pump.offer(reply)

    async def _decide(self, request: Request) -> list[bytes]:
        """Return the answer, whatever happens. Cancellation: safe."""
        try:
            door = self._doors.get(request.domain)
            if door is not None and door.crowd is not None and door.crowd.is_full():
                return self._too_many(request, door.crowd)
            with trio.fail_after(ANSWER_S):
                return answer(request, Status.OK, "OK", await _admit(request, door))
        except AccessRefused as error:
            self._say("peer refused", request, error.text)
            return answer(request, Status.REFUSED, "not let in")
        except Exception as error:  # an edge: who asks must get an answer
            self._gateway.count("zap_failures")
            self._say("security failed: a peer was not let in", request, _text(error))
            return answer(request, Status.BROKEN, "internal error")

    def _too_many(self, request: Request, crowd: Crowd) -> list[bytes]:
        """Return the answer that is no no: libzmq's clients come again."""
        self._gateway.count("refused_peers")
        if crowd.endpoint not in self._crowded:
            self._crowded.add(crowd.endpoint)
            self._gateway.log.warning("no more peers are let in", endpoint=crowd.endpoint, max_peers=crowd.most)
        return answer(request, Status.LATER, "too many peers")

    def _say(self, event: str, request: Request, reason: str) -> None:
        """Log once per address; libzmq's clients come again and again. All are counted by the sockets' monitors."""
        key = (event, request.domain, request.address)
        if key not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(key)
            self._gateway.log.warning(event, domain=request.domain, address=request.address, reason=reason)

    def close(self) -> None:
        """Answer no more."""
        self._ended = True
        if self._pump is not None:
            self._pump.close()


async def _admit(request: Request, door: Door | None) -> str:
    if door is None:
        raise AccessRefused(f"there is no domain {request.domain!r}")
    return "" if door.realm is None else await door.realm.admit(request)


def _text(error: BaseException) -> str:
    """Return the innermost of the errors that a nursery wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
