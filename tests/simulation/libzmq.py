"""What stands in for libzmq under the whole ZeroMQ front-end?

Sockets are in memory, and so are their peers' ends; whatever a front-end makes of them is its own. With the sockets go `Pump` and
`Monitor`, which wait for descriptors that these have not: wherever the front-end has taken their names, it finds those from here.
"""

from __future__ import annotations

import errno
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio
import zmq

from trio_zmq.monitor import Monitor
from trio_zmq.pump import BATCH, POLLIN, POLLOUT, Pump

SNDMORE = int(zmq.SNDMORE)
ROOM = 200
"""Messages that wait for one peer."""


class Frame:
    """A received frame, as pyzmq has it; ``get`` tells by which connection it came."""

    def __init__(self, data: bytes, descriptor: int, *, more: bool) -> None:
        self.bytes = data
        self.more = more
        self._descriptor = descriptor

    def __len__(self) -> int:
        return len(self.bytes)

    def get(self, option: int) -> int:
        return self._descriptor


class Peer:
    """The other end of one connection.

    ``inbox``: messages that it has not read. ``told``: called with every message when it is sent, read or not. ``is_there``: it has
    not left.
    """

    def __init__(self, socket: SimSocket, name: bytes, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.inbox: deque[list[bytes]] = deque()
        self.told: Callable[[list[bytes]], None] | None = None
        self.is_there = True
        self._socket = socket

    def say(self, *frames: bytes, taken: Callable[[], None] | None = None) -> None:
        """Send a message. `taken`: called when the broker takes it."""
        if self.is_there:
            head = [self.name] if self._socket.is_router else []
            self._socket.arrive([*head, *frames], self.descriptor, taken)

    def take(self, most: int = 1_000_000) -> list[list[bytes]]:
        """Return what was sent, and make room."""
        taken = [self.inbox.popleft() for _ in range(min(most, len(self.inbox)))]
        if taken:
            self._socket.news()
        return taken

    def hear(self, frames: list[bytes]) -> None:
        """Be sent a message."""
        if self.is_there:
            self.inbox.append(frames)
            if self.told is not None:
                self.told(frames)

    def leave(self, *, noticed: bool = True) -> None:
        """Go. `noticed`: libzmq tells so at once; else it takes what is sent, for nobody, until `leave` comes again."""
        self.is_there = False
        self.told = None
        if noticed:
            self._socket.lose(self)


class SimSocket:
    """A socket of any kind that a front-end uses.

    ``peers``: who is connected, by name. ``alone_at``: the last time at which nobody was. ``news``: called when something happens.
    ``gone``: called when a connection has gone.
    """

    closed = False

    def __init__(self, kind: int) -> None:
        self.is_router = kind == zmq.ROUTER
        self.options: dict[int, Any] = {}
        self.peers: dict[bytes, Peer] = {}
        self.room = ROOM
        self.alone_at = trio.current_time()
        self.news: Callable[[], None] = lambda: None
        self.gone: Callable[[int], None] = lambda _: None
        self._arrived: deque[tuple[list[bytes], int, Callable[[], None] | None]] = deque()
        self._reading: deque[Frame] = deque()
        self._parts: list[bytes] = []

    # -- the peers' side

    def connect(self, address: str) -> None:
        """Endpoints of a world bind."""
        raise NotImplementedError

    def meet(self, name: bytes, descriptor: int) -> Peer:
        """Let somebody connect; who has its name already is lost first."""
        if name in self.peers:
            self.peers[name].leave()
        peer = self.peers[name] = Peer(self, name, descriptor)
        self.news()
        return peer

    def lose(self, peer: Peer) -> None:
        if self.peers.get(peer.name) is peer:
            del self.peers[peer.name]
            if not self.peers:
                self.alone_at = trio.current_time()
            self.gone(peer.descriptor)
            self.news()

    def arrive(self, frames: list[bytes], descriptor: int = 0, taken: Callable[[], None] | None = None) -> None:
        self._arrived.append((frames, descriptor, taken))
        self.news()

    # -- pyzmq's

    def setsockopt(self, option: int, value: object) -> None:
        self.options[option] = value

    def get(self, option: int) -> Any:
        return self.options.get(option, 0)

    def get_string(self, option: int) -> str:
        return f"tcp://127.0.0.1:{self.options.get(option, 1)}"

    def bind(self, address: str) -> None:
        pass

    def recv(self, flags: int = 0, copy: bool = True) -> Any:
        if not self._reading:
            if not self._arrived:
                raise zmq.Again
            frames, descriptor, taken = self._arrived.popleft()
            last = len(frames) - 1
            self._reading.extend(Frame(frame, descriptor, more=at < last) for at, frame in enumerate(frames))
            if taken is not None:
                taken()
        frame = self._reading.popleft()
        return frame.bytes if copy else frame

    def send(self, frame: bytes, flags: int = 0, copy: bool = True) -> None:
        if not self._parts:
            self._check_room(frame)
        self._parts.append(frame)
        if not flags & SNDMORE:
            parts, self._parts = self._parts, []
            if self.is_router:
                self.peers[parts[0]].hear(parts[1:])
            else:
                self._next_in_turn().hear(parts)

    def _has_room(self, peer: Peer) -> bool:
        return len(peer.inbox) < self.room

    def _next_in_turn(self) -> Peer:
        found = next(peer for peer in self.peers.values() if self._has_room(peer))
        self.peers[found.name] = self.peers.pop(found.name)
        return found

    def _check_room(self, first: bytes) -> None:
        if self.is_router and first not in self.peers:
            raise zmq.ZMQError(errno.EHOSTUNREACH)
        if not (self._has_room(self.peers[first]) if self.is_router else self.is_writable):
            raise zmq.Again

    @property
    def is_writable(self) -> bool:
        return any(map(self._has_room, self.peers.values()))

    @property
    def is_readable(self) -> bool:
        return bool(self._arrived)


class SimContext:
    """Makes sockets. ``made``: all of them, in order."""

    def __init__(self) -> None:
        self.made: list[SimSocket] = []

    def socket(self, kind: int) -> SimSocket:
        self.made.append(SimSocket(int(kind)))
        return self.made[-1]


class SimPump:
    """`trio_zmq.pump.Pump` for such a socket."""

    def __init__(self, socket: SimSocket, take: Callable[[], Any]) -> None:
        self.socket = socket
        self.send = socket.send
        self.closed = False
        self.drained = False
        self._take = take
        self._token = trio.lowlevel.current_trio_token()
        self._woken = False
        self._edge = trio.Event()
        socket.news = self._rouse

    def _rouse(self) -> None:
        edge, self._edge = self._edge, trio.Event()
        edge.set()

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("closed")

    async def _wait(self) -> None:
        await self._edge.wait()
        self._check_open()

    async def receive(self, limit: int = BATCH) -> list[Any]:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        batch = self._take_up_to(limit)
        if not batch and not self._woken:
            await self._wait()
            batch = self._take_up_to(limit)
        self._woken = False
        await trio.lowlevel.cancel_shielded_checkpoint()
        return batch

    def _take_up_to(self, limit: int) -> list[Any]:
        batch: list[Any] = []
        self.drained = False
        try:
            while len(batch) < limit:
                batch.append(self._take())
        except zmq.Again:
            self.drained = True
        return batch

    async def writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.events() & POLLOUT:
            await self._wait()

    def events(self) -> int:
        self._check_open()
        return (POLLIN if self.socket.is_readable else 0) | (POLLOUT if self.socket.is_writable else 0)

    def offer(self, frames: Sequence[bytes]) -> bool:
        self._check_open()
        try:
            self.send_frames(frames)
        except zmq.Again:
            return False
        return True

    def send_frames(self, frames: Sequence[bytes]) -> None:
        for frame in frames[:-1]:
            self.send(frame, SNDMORE)
        self.send(frames[-1], 0)

    def recheck(self) -> None:
        pass

    def wake(self) -> None:
        self._woken = True
        self._token.run_sync_soon(self._rouse)

    def close(self, linger_ms: int = 0) -> None:
        self.closed = True
        self._token.run_sync_soon(self._rouse)


class SimMonitor:
    """`trio_zmq.monitor.Monitor` for such a socket."""

    def __init__(self, socket: SimSocket, gone: Callable[[int], None], **_: object) -> None:
        self._gone = gone
        self._news: deque[int] = deque()
        self._edge = trio.Event()
        socket.gone = self._note

    def _note(self, descriptor: int) -> None:
        self._news.append(descriptor)
        self._edge.set()

    async def run(self) -> None:
        while True:
            await self._edge.wait()
            self._edge = trio.Event()
            self.look()

    def look(self) -> None:
        while self._news:
            self._gone(self._news.popleft())

    def close(self) -> None:
        self._news.clear()


STANDINS: dict[str, tuple[type, type]] = {"Pump": (Pump, SimPump), "Monitor": (Monitor, SimMonitor)}


@contextmanager
def without_libzmq() -> Iterator[None]:
    """Have the sockets of the front-end that are made now be driven from here, whichever of its modules makes them."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.partition(".")[0] == "gateway_zeromq"]
    places = [(module, name) for module in modules for name, (real, _) in STANDINS.items() if vars(module).get(name) is real]
    for module, name in places:
        setattr(module, name, STANDINS[name][1])
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, STANDINS[name][0])
