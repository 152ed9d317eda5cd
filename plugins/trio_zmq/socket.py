"""How does a task bind, connect, send and receive, and what if that can't be done?"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import trio
import trio.abc
import zmq

from trio_zmq.errors import AddressRefused, OutOfTurn, UnknownPeer
from trio_zmq.monitor import ALL, Monitor
from trio_zmq.owner import Owner
from trio_zmq.pump import BATCH, NOBLOCK, POLLOUT, Oversized, Pump, rest_of_message

Option: TypeAlias = int | bytes | str
Frames: TypeAlias = bytes | Sequence[bytes]

LINGER_MS = 1_000
"""How long libzmq may go on, after the end, to send what it has taken."""
MAX_FRAMES = 1_024
MAX_BYTES = 1 << 30
_RETRY_S = 0.005
"""How often a full peer of a ROUTER is tried again while others have room: the socket says nothing of single peers."""
_IN_TURN = frozenset({int(zmq.REQ), int(zmq.REP)})
_EVENTS = int(zmq.EVENTS)
_LINGER = int(zmq.LINGER)
_SUBSCRIBE = {True: b"\x01", False: b"\x00"}
_PORT = re.compile(r":([+-]?\d+)(?=;|$)")
_HIGHEST_PORT = 65_535


def checked_linger(linger_ms: int) -> int:
    """Return it, if it is finite. Raises: ValueError: it is not; the end would hang on a peer that never comes."""
    if linger_ms < 0:
        raise ValueError(f"linger_ms is 0 or more, not {linger_ms}: an end that waits for ever hangs")
    return linger_ms


def has_strange_port(address: str) -> bool:
    """Say whether it names a port that there is not. libzmq takes 99999 for 34463, the lowest 16 bits, without a word."""
    return address.startswith("tcp://") and any(not 0 <= int(port) <= _HIGHEST_PORT for port in _PORT.findall(address))


def checked_frames(frames: Frames) -> Sequence[bytes]:
    """Return a message as what can be sent to its end: a half message can't be taken back.

    Raises:
        TypeError: a frame is not bytes. ValueError: there is none.
    """
    if isinstance(frames, bytes | bytearray | memoryview):
        return (bytes(frames),)
    if isinstance(frames, str):
        raise TypeError("frames are bytes, not str: encode it")
    message = []
    for frame in frames:
        if not isinstance(frame, bytes | bytearray | memoryview):
            raise TypeError(f"frames are bytes, not {type(frame).__name__}")
        message.append(bytes(frame))
    if not message:
        raise ValueError("a message has at least one frame, which may be empty")
    return message


def _take_from(socket: zmq.Socket[bytes], max_frames: int, max_bytes: int) -> Callable[[], list[bytes] | Oversized]:
    recv = socket.recv

    def take() -> list[bytes] | Oversized:
        frame = recv(NOBLOCK, False)
        body = frame.bytes
        if not frame.more and len(body) <= max_bytes:
            return [body]
        return rest_of_message(socket, [body], max_frames, max_bytes, more=frame.more)

    return take


class Socket(trio.abc.Channel[list[bytes]]):
    """A ZeroMQ socket whose messages are lists of frames. `Context.socket` makes one.

    Any number of tasks may send and receive at once. ``async for message in socket`` goes on until somebody closes it
    (`trio.ClosedResourceError`).

    ``raw`` is the pyzmq socket, for options; ``pump`` its `Pump`, for loops in which every microsecond counts. ``oversized``
    counts messages that were dropped because they broke the limits; ``on_oversized`` is called with each of them, ``on_close``
    when the socket was closed. ``linger_ms`` may be changed until then.

    Args:
        raw: not used by anybody else from now on.
        options: by libzmq's numbers. A ROUTER has ``ROUTER_MANDATORY`` unless they say otherwise: `send` to nobody is an error.
        max_frames, max_bytes: of one message that is received. Longer ones are read to their end and dropped. libzmq itself has
            the whole message in memory before; ``zmq.MAXMSGSIZE`` limits single frames there.
        linger_ms: how long libzmq may go on, after `aclose`, to send what it has taken.
    """

    def __init__(
        self,
        raw: zmq.Socket[bytes],
        options: Mapping[int, Option] | None = None,
        *,
        max_frames: int = MAX_FRAMES,
        max_bytes: int = MAX_BYTES,
        linger_ms: int = LINGER_MS,
    ) -> None:
        if max_frames < 1 or max_bytes < 0:
            raise ValueError(f"max_frames is 1 or more and max_bytes 0 or more, not {max_frames} and {max_bytes}")
        self._owner = Owner()
        self.raw = raw
        self.linger_ms = checked_linger(linger_ms)
        self.oversized = 0
        self.on_oversized: Callable[[Oversized], None] | None = None
        self.on_close: Callable[[Socket], None] | None = None
        self._kind = int(raw.get(zmq.TYPE))
        self.pump: Pump[list[bytes] | Oversized] = Pump(raw, _take_from(raw, max_frames, max_bytes))
        self._monitor: Monitor | None = None
        raw.setsockopt(zmq.LINGER, self.linger_ms)
        if self._kind == zmq.ROUTER:
            raw.setsockopt(zmq.ROUTER_MANDATORY, 1)
        for option, value in (options or {}).items():
            self.set(option, value)

    def __repr__(self) -> str:
        return f"<{self.kind} socket{', closed' if self.pump.closed else ''}>"

    @property
    def kind(self) -> str:
        """``PUSH``, ``ROUTER``, ..."""
        return zmq.SocketType(self._kind).name

    # -- addresses

    def bind(self, address: str) -> str:
        """Listen, and return where: with a real port in place of ``*``.

        Raises:
            AddressRefused: it is taken, can't be had, or is none. ForeignUse, trio.ClosedResourceError.
        """
        self._attach("bind to", self.raw.bind, address)
        return str(self.raw.get_string(zmq.LAST_ENDPOINT))

    def connect(self, address: str) -> None:
        """Keep a connection from now on, as soon as somebody listens there. Errors as `bind`."""
        self._attach("connect to", self.raw.connect, address)

    def unbind(self, address: str) -> None:
        """Listen no more where `bind` said; the address is free a moment later. Errors as `bind`."""
        self._attach("unbind from", self.raw.unbind, address)

    def disconnect(self, address: str) -> None:
        """Keep a connection no more; what waits to be sent there may be lost. Errors as `bind`."""
        self._attach("disconnect from", self.raw.disconnect, address)

    def _attach(self, verb: str, do: Callable[[str], object], address: str) -> None:
        self._check()
        if has_strange_port(address):
            raise AddressRefused(errno.EINVAL, f"{self.kind} can't {verb} {address}: ports are from 0 to {_HIGHEST_PORT}")
        try:
            do(address)
        except zmq.ContextTerminated:
            raise trio.ClosedResourceError("the ZeroMQ context was terminated") from None
        except zmq.ZMQError as error:
            number = error.errno or errno.EINVAL
            undoes = verb.startswith(("un", "dis"))
            reason = "that was not done, or is undone" if undoes and number == errno.ENOENT else zmq.strerror(number).lower()
            raise AddressRefused(number, f"{self.kind} can't {verb} {address}: {reason}") from None
        finally:
            self.pump.recheck()  # libzmq looks at its news in these calls

    # -- receiving

    async def receive(self) -> list[bytes]:
        """Wait for one message, and take no other.

        Raises:
            trio.ClosedResourceError: the socket is closed, or its context. OutOfTurn. ForeignUse. TypeError: it only sends.
        Cancellation: safe; no message is taken and lost.
        """
        return (await self.receive_many(1))[0]

    async def receive_many(self, limit: int = BATCH) -> list[list[bytes]]:
        """Wait for messages, and take those that are there: 1 to `limit`. Ten times as fast as one by one.

        Errors and cancellation as `receive`.
        """
        if limit < 1:
            raise ValueError(f"limit is 1 or more, not {limit}")
        self._owner.check()
        limit = 1 if self._kind in _IN_TURN else limit
        while True:
            try:
                taken = await self.pump.receive(limit)
            except zmq.ZMQError as error:
                raise self._in_words(error) from None
            messages = [message for message in taken if isinstance(message, list)]
            if len(messages) < len(taken):
                self._count(message for message in taken if isinstance(message, Oversized))
            if messages:
                return messages

    def _count(self, dropped: Iterable[Oversized]) -> None:
        for message in dropped:
            self.oversized += 1
            if self.on_oversized is not None:
                self.on_oversized(message)

    # -- sending

    async def send(self, frames: Frames) -> None:
        """Send one message when there is room: libzmq has it then, and nobody else yet.

        Raises:
            UnknownPeer: a ROUTER's first frame names nobody. OutOfTurn. TypeError: it only receives, or a frame is not bytes.
            trio.ClosedResourceError: the socket is closed, or its context. ForeignUse.
        Cancellation: safe; a cancelled message is not sent, no frame of it.
        """
        message = checked_frames(frames)
        self._owner.check()
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._offer(message):
            if self.pump.events() & POLLOUT:
                await trio.sleep(_RETRY_S)
            else:
                await self.pump.writable()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def send_nowait(self, frames: Frames) -> None:
        """Send one message now. Raises: trio.WouldBlock: there is no room. Else as `send`."""
        message = checked_frames(frames)
        self._owner.check()
        if not self._offer(message):
            raise trio.WouldBlock

    def _offer(self, message: Sequence[bytes]) -> bool:
        pump = self.pump
        try:
            # libzmq doesn't look for news with every message, but does when it is asked for its EVENTS.
            return pump.offer(message) or (bool(pump.events() & POLLOUT) and pump.offer(message))
        except zmq.ZMQError as error:
            raise self._in_words(error) from None

    def _in_words(self, error: zmq.ZMQError) -> Exception:
        if error.errno == zmq.EFSM:
            order = "sends, then receives" if self._kind == zmq.REQ else "receives, then sends"
            return OutOfTurn(f"a {self.kind} socket {order}, in turns")
        if error.errno == zmq.EHOSTUNREACH:
            return UnknownPeer("the first frame names no peer that is connected: nothing was sent")
        if error.errno == zmq.ENOTSUP:
            return TypeError(f"a {self.kind} socket goes the other way only")
        return error

    # -- subscriptions and options

    def subscribe(self, prefix: bytes | str = b"") -> None:
        """Have messages whose first frame begins so; SUB and XSUB. Each subscription counts. Raises: TypeError: other kinds."""
        self._subscribe(prefix, wanted=True)

    def unsubscribe(self, prefix: bytes | str = b"") -> None:
        """Undo one `subscribe`. Raises: TypeError: other kinds."""
        self._subscribe(prefix, wanted=False)

    def _subscribe(self, prefix: bytes | str, *, wanted: bool) -> None:
        self._check()
        text = prefix.encode() if isinstance(prefix, str) else prefix
        if self._kind == zmq.SUB:
            self.set(zmq.SUBSCRIBE if wanted else zmq.UNSUBSCRIBE, text)
        elif self._kind == zmq.XSUB:
            self._offer((_SUBSCRIBE[wanted] + text,))
        else:
            raise TypeError(f"a {self.kind} socket has no subscriptions; SUB and XSUB have")

    def get(self, option: int) -> int | bytes:
        """Return an option by libzmq's number. Raises: zmq.ZMQError: there is none such."""
        self._check()
        if option == _EVENTS:  # who reads them uses up the news that they are
            return self.pump.events()
        value: int | bytes = self.raw.get(option)
        return value

    def set(self, option: int, value: Option) -> None:
        """Set an option by libzmq's number. Most hold for addresses that are bound or connected later.

        Raises: zmq.ZMQError: there is none such, or not with this value. ValueError: LINGER, which is `linger_ms` here.
        """
        self._check()
        if option == _LINGER:
            raise ValueError("say linger_ms instead of LINGER: it is what the end goes by")
        if isinstance(value, str):
            self.raw.setsockopt_string(option, value)
        else:
            self.raw.setsockopt(option, value)

    def monitor(self, kinds: int = ALL) -> Monitor:
        """Return a monitor of this socket's connections, which ends with it. A socket has one, and one more when that is closed.

        Args:
            kinds: which events, of `zmq.Event`.

        Raises: RuntimeError: there is one. zmq.ZMQError: EMFILE, no room for its two sockets.
        """
        self._check()
        if self._monitor is not None and not self._monitor.closed:
            raise RuntimeError("this socket has a monitor: close it before you make another")
        self._monitor = Monitor(self.raw, kinds=kinds)
        return self._monitor

    # -- the end

    def _check(self) -> None:
        self._owner.check()
        if self.pump.closed:
            raise trio.ClosedResourceError("the ZeroMQ socket is closed")

    def close(self) -> None:
        """Close at once; who waits gets `trio.ClosedResourceError`. libzmq goes on to send for ``linger_ms``. Again: nothing."""
        self._owner.check()
        if self._monitor is not None:
            self._monitor.close()
        if not self.raw.closed:
            self.pump.close(self.linger_ms)
            if self.on_close is not None:
                self.on_close(self)

    async def aclose(self, linger_ms: int | None = None) -> None:
        """Close, as `close`, and let others run. It waits for nobody.

        Args:
            linger_ms: None: as ``linger_ms``.
        Cancellation: it is closed all the same.
        """
        if linger_ms is not None:
            self.linger_ms = checked_linger(linger_ms)
        self.close()
        await trio.lowlevel.checkpoint()
