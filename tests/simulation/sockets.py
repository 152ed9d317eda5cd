"""What stands in for libzmq under the real sockets of the ZeroMQ front-end?"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio
import zmq

from gateway.api import Principal
from gateway_zeromq.endpoints import pull, push, router
from gateway_zeromq.endpoints.pull import PullSocket
from gateway_zeromq.endpoints.push import PushSocket
from gateway_zeromq.endpoints.router import RouterSocket
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.settings import PullEndpoint, PushEndpoint, RouterEndpoint
from gateway_zeromq.tgp.bridge import Desk
from trio_zmq.pump import POLLIN, POLLOUT

SNDMORE = int(zmq.SNDMORE)


class Frame:
    """A received frame. ``get`` tells by which connection it came."""

    def __init__(self, data: bytes, descriptor: int) -> None:
        self.bytes = data
        self._descriptor = descriptor

    def get(self, option: int) -> int:
        return self._descriptor


class SimPump:
    """A socket and its pump in one: `arrive` is what peers send; what is sent goes to `mailboxes`, or to the `line` of a PUSH."""

    def __init__(self, socket: Any, take: object) -> None:
        self.socket = self
        self.closed = False
        self.mailboxes: dict[bytes, list[list[bytes]]] = {}
        self.line: list[list[bytes]] | None = None
        self.room = 200
        self._arrived: list[Any] = []
        self._parts: list[bytes] = []
        self._token = trio.lowlevel.current_trio_token()
        self._news = trio.Event()

    def arrive(self, message: Any) -> None:
        self._arrived.append(message)
        self._news.set()

    @property
    def drained(self) -> bool:
        return not self._arrived

    async def _until_news(self) -> None:
        self._news = trio.Event()
        await self._news.wait()
        if self.closed:
            raise trio.ClosedResourceError("closed")

    async def receive(self, limit: int = 64) -> list[Any]:
        if not self._arrived:
            await self._until_news()
        batch, self._arrived = self._arrived[:limit], self._arrived[limit:]
        await trio.lowlevel.cancel_shielded_checkpoint()
        return batch

    async def writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.events() & POLLOUT:
            await self._until_news()

    def events(self) -> int:
        has_room = self.line is not None and len(self.line) < self.room
        return (POLLIN if self._arrived else 0) | (POLLOUT if has_room else 0)

    def send(self, frame: bytes, flags: int, copy: bool = True) -> None:
        if not self._parts:
            self._check_room(frame)
        self._parts.append(frame)
        if flags & SNDMORE:
            return
        parts, self._parts = self._parts, []
        if self.line is not None:
            self.line.append(parts)
        else:
            self.mailboxes[parts[0]].append(parts[1:])

    def send_frames(self, frames: list[bytes]) -> None:
        for frame in frames[:-1]:
            self.send(frame, SNDMORE)
        self.send(frames[-1], 0)

    def _check_room(self, name: bytes) -> None:
        if self.line is None and name not in self.mailboxes:
            raise zmq.ZMQError(errno.EHOSTUNREACH)
        if len(self.mailboxes[name] if self.line is None else self.line) >= self.room:
            raise zmq.Again

    def recheck(self) -> None:
        pass

    def wake(self) -> None:
        self._token.run_sync_soon(self._rouse)

    def _rouse(self) -> None:
        self._news.set()

    def close(self, linger_ms: int = 0) -> None:
        self.closed = True
        self._rouse()


class SimMonitor:
    """A monitor that says nothing by itself: the world tells the router of deaths."""

    def __init__(self, socket: object, gone: Callable[[int], None]) -> None:
        pass

    async def run(self) -> None:
        await trio.sleep_forever()

    def look(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Options:
    """A socket of which only options are set."""

    recv = None

    def setsockopt(self, option: int, value: object) -> None:
        pass


class SimSpot(Spot):
    """An endpoint without an address."""

    def socket(self) -> Any:
        return _Options()

    def attach(self, socket: object) -> None:
        pass


@contextmanager
def _without_libzmq() -> Iterator[None]:
    """Have sockets made with the pump and the monitor from here."""
    places = [(module, name) for module in (router, pull, push) for name in _STANDINS]
    saved = [(module, name, getattr(module, name)) for module, name in places if hasattr(module, name)]
    for module, name, _ in saved:
        setattr(module, name, _STANDINS[name])
    try:
        yield
    finally:
        for module, name, former in saved:
            setattr(module, name, former)


_STANDINS: dict[str, Any] = {"Pump": SimPump, "Monitor": SimMonitor, "whole_messages": lambda *_, **__: None}


class Sockets:
    """One ROUTER, one PULL and one PUSH of a life.

    Args:
        make_token: returns the secrets of sessions.
    """

    def __init__(self, gateway: Any, make_token: Callable[[], str], *, credit: int) -> None:
        self._gateway = gateway
        self._make_token = make_token
        self._router_settings = RouterEndpoint(
            name="tgp", bind=["tcp://127.0.0.1:0"], heartbeat_ms=1_000, max_credit=credit, sndhwm=50
        )
        self._pull_settings = PullEndpoint(name="pull", bind=["tcp://127.0.0.1:0"], exchange="amq.topic", frames="key,body")
        self._push_settings = PushEndpoint(name="push", bind=["tcp://127.0.0.1:0"], queue="pushed", frames="body", prefetch=8)

    async def start(self, nursery: trio.Nursery) -> None:
        principal = Principal("tgp")
        gateway: Any = self._gateway
        context: Any = None
        spots = [
            SimSpot(each.name, each, gateway, context) for each in (self._router_settings, self._pull_settings, self._push_settings)
        ]
        channel = gateway.open_channel(principal)
        await spots[1].declare_exchange(channel)
        await spots[2].declare_queue(channel)
        channel.close()
        with _without_libzmq():
            self.router = RouterSocket(
                spots[0], self._router_settings, principal, Desk(gateway, principal, 300_000, self._make_token)
            )
            self.pull = PullSocket(spots[1], self._pull_settings, principal)
            self.push = PushSocket(spots[2], self._push_settings, principal)
        self.pump: SimPump = self._pump_of(self.router)
        self.inlet = self._pump_of(self.pull)
        self.outlet = self._pump_of(self.push)
        self.outlet.line = []
        await self.push.start()
        for socket in (self.router, self.pull, self.push):
            nursery.start_soon(socket.run)

    @staticmethod
    def _pump_of(socket: Any) -> SimPump:
        pump: SimPump = socket._pump
        return pump

    async def drain(self) -> None:
        for socket in (self.router, self.pull, self.push):
            await socket.drain()

    def close(self) -> None:
        for socket in (self.router, self.pull, self.push):
            with suppress(AttributeError):
                socket.close()
