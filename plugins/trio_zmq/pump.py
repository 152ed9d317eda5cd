"""How does a trio program drive a pyzmq socket at full speed, without losing a wake-up or a message?

A ZeroMQ socket has one file descriptor, and its readability is an edge, not a level: it says that *something* happened inside
(a message came, room to send appeared, a peer left), once, to whoever looks next, and every call on the socket may be the one
that looks. A `Pump` keeps the rules that follow from it:

a. One task sits on the descriptor; others that wait are parked beside it and look for themselves whenever it wakes.
b. It sleeps only after a receive found nothing, or the socket's EVENTS show nothing.
c. After sends or receives by anybody else EVENTS are read again and the sleeper is woken (`Pump.recheck`).
d. Waiting for room to send is waiting for the descriptor to be *readable* as well.
e. Cancellation is looked at before messages are taken, never after: what was taken is returned.
f. Closing marks the pump closed, wakes who waits (`trio.ClosedResourceError`), and only then closes the socket.

Messages come in batches, as one wait per message costs ten times as much as the message. This module knows pyzmq and trio and
nothing else: it can be used in any trio program::

    pump = Pump(socket, whole_messages(socket))
    while True:
        for message in await pump.receive():
            ...

All methods are for the thread that runs trio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar

import trio
import zmq

NOBLOCK = int(zmq.NOBLOCK)
MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
POLLIN = int(zmq.POLLIN)
POLLOUT = int(zmq.POLLOUT)
_EVENTS = int(zmq.EVENTS)
_FD = int(zmq.FD)
_TYPE = int(zmq.TYPE)
_PAIR = int(zmq.PAIR)
_TERMINATED = "the ZeroMQ context was terminated"

BATCH = 64
"""Messages per wait: more saves little, and makes everybody else wait."""
_SLICE = 4
_LONG_S = 0.003
COPY_BELOW_BYTES = 65_536
"""Sending without a copy costs more than it saves on smaller frames."""

Taken = TypeVar("Taken")


class Oversized:
    """What is left of a message that broke the limits: how many frames and bytes it had."""

    __slots__ = ("body_bytes", "frames")

    def __init__(self, frames: int, body_bytes: int) -> None:
        self.frames: int = frames
        self.body_bytes: int = body_bytes


Whole: TypeAlias = bytes | list[bytes] | Oversized


def whole_messages(socket: zmq.Socket[bytes], *, max_frames: int = 16, max_bytes: int = 1 << 30) -> Callable[[], Whole]:
    """Return a function that takes one message: bytes if it is one frame, a list of bytes if it is more.

    A message of more frames or bytes is read to its end and dropped, frame by frame; `Oversized` tells of it.
    The function raises `zmq.Again` when there is none.
    """
    recv = socket.recv

    def take() -> Whole:
        frame = recv(NOBLOCK, False)
        body = frame.bytes
        if not frame.more:
            return body if len(body) <= max_bytes else Oversized(1, len(body))
        frame = recv(NOBLOCK, False)
        second = frame.bytes
        if not frame.more and len(body) + len(second) <= max_bytes and max_frames > 1:
            return [body, second]
        return rest_of_message(socket, [body, second], max_frames, max_bytes, more=frame.more)

    return take


def rest_of_message(
    socket: zmq.Socket[bytes], frames: list[bytes], max_frames: int, max_bytes: int, *, more: bool = True
) -> list[bytes] | Oversized:
    """Read to the end of a message whose first frames have been read, and return all of it. `more`: there are more."""
    count, size = len(frames), sum(map(len, frames))
    while more:
        frame = socket.recv(NOBLOCK, copy=False)
        count += 1
        size += len(frame)
        if count <= max_frames and size <= max_bytes:
            frames.append(frame.bytes)
        more = frame.more
    return frames if count <= max_frames and size <= max_bytes else Oversized(count, size)


class Pump(Generic[Taken]):
    """A pyzmq socket under trio.

    ``send`` is the socket's own non-blocking send, ``send(frame, flags, copy)``, for loops where every call counts: flags are
    `NOBLOCK` or `MORE`, it raises `zmq.Again` when there is no room, and `recheck` must follow the loop. ``drained``: the last
    receive took all that there was; False where it took as much as it may, and nobody knows.

    Args:
        socket: not used by anybody else from now on, but for options.
        take: takes one message or raises `zmq.Again` (`whole_messages` makes one). It must read to the message's end.
    """

    __slots__ = (
        "_closed",
        "_fd",
        "_get",
        "_parked",
        "_readers",
        "_seat",
        "_take",
        "_token",
        "_woken",
        "_writers",
        "drained",
        "send",
        "socket",
    )

    def __init__(self, socket: zmq.Socket[bytes], take: Callable[[], Taken]) -> None:
        self.socket = socket
        # pyzmq's outer send() looks at options that no socket here has, and takes twice as long.
        self.send: Callable[..., Any] = super(zmq.Socket, socket).send
        self.drained = False
        self._take = take
        self._get: Callable[[int], Any] = socket.get
        self._fd = int(socket.get(_FD))
        self._token = trio.lowlevel.current_trio_token()
        self._seat: trio.CancelScope | None = None  # of the task that sits on the descriptor
        self._parked = trio.lowlevel.ParkingLot()
        self._readers = self._writers = 0
        self._woken = self._closed = False

    # -- receiving

    async def receive(self, limit: int = BATCH) -> list[Taken]:
        """Wait for messages and take up to `limit` of them; at least one other task runs in between.

        Returns:
            Messages in order. Empty after `wake`, and when only something else happened (room to send, a peer left).

        Raises:
            trio.ClosedResourceError: the pump is closed, or its context is.
        Cancellation: safe; no message is taken and lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        stirred = False
        while True:
            batch = self._take_up_to(limit) if not self.drained or self.events() & POLLIN else []
            if batch or self._woken or stirred:
                self._woken = False
                self.recheck()
                await trio.lowlevel.cancel_shielded_checkpoint()
                return batch
            self._readers += 1
            try:
                await self._wait()
            finally:
                self._readers -= 1
            stirred = True
            self.drained = False

    def _take_up_to(self, limit: int) -> list[Taken]:
        self._check_open()
        self.drained = False
        take = self._take
        batch: list[Taken] = []
        append = batch.append
        try:
            began, left = perf_counter(), limit
            while left > 0:
                for _ in range(min(left, _SLICE)):
                    append(take())
                left -= _SLICE
                if perf_counter() - began > _LONG_S:  # large ones: others have their turn
                    break
        except zmq.Again:
            self.drained = True
        except zmq.ContextTerminated:
            self._terminated()
            if not batch:
                raise trio.ClosedResourceError(_TERMINATED) from None
        except zmq.ZMQError:
            if not batch:  # otherwise it comes again with the next call; what was taken is returned
                raise
        return batch

    # -- sending

    def offer(self, frames: Sequence[bytes]) -> bool:
        """Send one message now, whole or not at all; False: there is no room.

        Raises:
            zmq.ZMQError: EHOSTUNREACH, a ROUTER that is told to say so knows nobody of that name.
            trio.ClosedResourceError: the pump is closed, or its context is.
        """
        self._check_open()
        try:
            self.send_frames(frames)
        except zmq.Again:
            return False
        except zmq.ContextTerminated:
            self._terminated()
            raise trio.ClosedResourceError(_TERMINATED) from None
        finally:
            self.recheck()
        return True

    def send_frames(self, frames: Sequence[bytes]) -> None:
        """Send one message. As ``send``: it raises `zmq.Again`, and `recheck` must follow."""
        last = len(frames) - 1
        send = self.send
        number = 0
        try:
            for number, frame in enumerate(frames):
                send(frame, MORE if number < last else NOBLOCK, len(frame) < COPY_BELOW_BYTES)
        except zmq.Again:
            if 0 < number < last:
                self._finish_dropped(frames[number + 1 :])
            raise

    def _finish_dropped(self, frames: Sequence[bytes]) -> None:
        """Send the rest of a message whose peer went in the middle of it.

        libzmq has dropped it, and drops what comes next until a last frame has come: that would be another message. But for PAIR,
        which begins a message with whatever comes next.
        """
        if int(self._get(_TYPE)) != _PAIR:
            with suppress(zmq.Again):
                for frame in frames[:-1]:
                    self.send(frame, MORE)
                self.send(frames[-1], NOBLOCK)

    async def writable(self) -> None:
        """Wait until there is room to send.

        Raises:
            trio.ClosedResourceError: the pump is closed.
        Cancellation: safe.
        """
        await trio.lowlevel.checkpoint()
        while not self.events() & POLLOUT:
            self._writers += 1
            try:
                await self._wait()
            finally:
                self._writers -= 1

    # -- waiting

    def events(self) -> int:
        """Return the socket's EVENTS now. Who waits for one of them is woken, as the descriptor won't tell it any more."""
        self._check_open()
        try:
            events = int(self._get(_EVENTS))
        except zmq.ContextTerminated:
            self._terminated()
            raise trio.ClosedResourceError(_TERMINATED) from None
        if events & ((POLLIN if self._readers else 0) | (POLLOUT if self._writers else 0)):
            self._token.run_sync_soon(self._rouse, idempotent=True)
        return events

    def recheck(self) -> None:
        """Look again on behalf of who waits: call it after the socket was used past them (rule c)."""
        if (self._readers or self._writers) and not self._closed:
            self.events()

    def wake(self) -> None:
        """Make the present or next `receive` return, with what there is. Works where tasks can't be rescheduled, too."""
        self._woken = True
        self._token.run_sync_soon(self._rouse, idempotent=True)

    def _terminated(self) -> None:
        """Note that the context is gone. The descriptor has told so to this task, and won't tell the sleeper any more."""
        self._closed = True
        self._token.run_sync_soon(self._rouse, idempotent=True)

    def _rouse(self) -> None:
        if self._seat is not None:
            self._seat.cancel()

    async def _wait(self) -> None:
        if self._readers + self._writers > 1:
            self.events()  # what this task has just used up may have been another's news
        if self._seat is not None:
            await self._parked.park()
            return
        self._seat = trio.CancelScope()
        try:
            with self._seat:
                await trio.lowlevel.wait_readable(self._fd)
        finally:
            self._seat = None
            self._parked.unpark_all()

    # -- the end

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the ZeroMQ socket is closed")

    @property
    def closed(self) -> bool:
        """`close` was called, or the context is gone."""
        return self._closed

    def close(self, linger_ms: int = 0) -> None:
        """Close the socket; who waits gets `trio.ClosedResourceError`. Again: nothing happens.

        Args:
            linger_ms: how long libzmq may go on, in the background, to send what it has taken.
        """
        if not (self._closed and self.socket.closed):
            self._closed = True
            trio.lowlevel.notify_closing(self._fd)  # the one who sits there wakes the others
            self.socket.close(linger_ms)
