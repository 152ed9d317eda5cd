"""One peer on a byte stream: who reads and writes its socket?"""

from __future__ import annotations

import math
import os
from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio

from gateway.api.stream import CloseReason, CongestionSink, Receiver
from gateway.errors import ProtocolViolation
from gateway.runtime.streams.pace import FIRST_PACE, SIZES, next_pace
from gateway.runtime.streams.parting import NO_NUMBER, say_no_more
from gateway.runtime.streams.served import RECEIVE_BYTES, Served
from gateway.runtime.streams.stages import GONE, LINGERING, LOST, OPEN, SENDING

if TYPE_CHECKING:
    from gateway.runtime.streams.layer import Layer
    from gateway.runtime.streams.listener import Listeners

HEARD_BYTES: Final = 1_024
"""A part of a packet that is as long as this says that the peer lives; a trickle does not."""
SEND_BYTES: Final = 65_536
"""What waits to be sent is put together up to about this."""
LINGER_S = 2.0
"""How long a closing connection may take to have its goodbye read."""
UNREAD_TIMES: Final = 16
"""How often a connection that is to close is read from in one go."""


class StreamConnection(Served):
    """A connection (`gateway.api.Connection` says what each method does).

    Open: `readable` feeds the receiver, `flush` sends at the end of the turn, what the kernel does not take waits for `writable`.
    Then `close` gives a reason; at the end of that turn the receiver is told, and the socket lingers without any of what it served.

    ``pace``: how much is read at once; it begins low, and grows as long as what is read takes no time.
    ``handled``: a handler's task has it, and sees to its end. ``resting``: not read from, as what it sends is not welcome now.
    ``heard_at``: by the listeners' `heard_now`. ``watched``: the `Way`'s own. ``layer``, ``peer``, ``is_loopback`` may be changed.
    """

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_carrier",
        "_touch",
        "deadline_at",
        "handled",
        "heard_at",
        "idle_timeout_s",
        "is_loopback",
        "out",
        "pace",
        "peer",
        "publisher",
        "refused_in",
        "resting",
        "stage",
        "watched",
    )

    def __init__(self, number: int, peer: str, carrier: str, *, is_loopback: bool, listeners: Listeners) -> None:
        super().__init__(number, listeners)
        self.peer = peer
        self._carrier = carrier
        self.is_loopback = is_loopback
        self._touch = listeners.turns.touch
        self.out: list[bytes] = []
        self._backlog: list[bytes | memoryview] | None = None
        self._backlog_bytes = 0
        self.stage = OPEN
        self.handled = self.resting = False
        self.pace = FIRST_PACE
        self.watched = 0
        self.heard_at = 0.0
        self.idle_timeout_s = 0.0
        self.deadline_at = 0.0
        # What `Alarms` knows of it: in which alarm it has published, and as whose channel, and in which it is refused.
        self.refused_in = 0
        self.publisher: object = None

    @property
    def transport(self) -> str:
        """See `gateway.api.Connection.transport`."""
        if self.layer is not None:
            return self.layer.transport
        return self._carrier

    @property
    def certificate_subject(self) -> str | None:
        """See `gateway.api.Connection.certificate_subject`."""
        return self.layer.certificate_subject if self.layer is not None else None

    def touch(self) -> None:
        """See `gateway.api.Connection.touch`."""
        self._touch(self)

    def watch(self, sink: CongestionSink) -> None:
        """See `gateway.api.Connection.watch`."""
        self._congestion = sink

    # -- receiving ----------------------------------------------------------

    def attach(self, receiver: Receiver, *, idle_timeout_s: float = 0.0, deadline_s: float = 0.0) -> None:
        """See `gateway.api.Connection.attach`."""
        fresh = self._receiver is None
        self._receiver = receiver
        self.idle_timeout_s = idle_timeout_s
        if self.resting:
            self.heard_at = math.inf
        elif idle_timeout_s:  # else nobody asks
            self.heard_at = self._listeners.heard_now()
        self.deadline_at = self._listeners.now() + deadline_s if deadline_s else 0.0
        if self.reason is not None:
            self._touch(self)  # to have it told
        elif fresh and self._listeners.arriving is not self:
            self._listeners.way.read(self)

    def readable(self, now: float) -> bool:
        """Feed what has come; return whether anything had. Errors of whatever kind end this connection only.

        Args:
            now: what the listeners' `heard_now` says.
        """
        if self.reason is not None:
            if self.stage == LINGERING:
                self._empty(1)
            return False
        if (self.held_in or self.is_congested) and self._hold():
            return False
        most = SIZES[self.pace]
        try:
            data = os.read(self.number, most)
        except BlockingIOError:
            return False
        except OSError:
            self.lost()
            return False
        if not data:
            self.close(CloseReason.EOF)
            return False
        try:
            if self._feed_timed(data, most) if len(data) > SIZES[0] or self.pace < FIRST_PACE else self._feed(data):
                self.heard_at = now
        except Exception as error:  # an edge: one connection
            self.fail(error)
        return True

    def catch_up(self) -> None:
        """See `gateway.api.Connection.catch_up`."""
        now = self._listeners.heard_now()
        for _ in range(UNREAD_TIMES):
            if self.reason is not None or not self.readable(now):
                return

    def go_on(self) -> None:
        """Have the layer do what it has put off. Errors of whatever kind end this connection only."""
        if self.reason is not None or self.layer is None:
            return
        try:
            self._feed(b"")
        except Exception as error:  # an edge: one connection
            self.fail(error)

    def _feed_timed(self, data: bytes, most: int) -> bool:
        """Feed what may take long, and see how long it does."""
        began, heard = perf_counter(), self._feed(data)
        self.pace = next_pace(self.pace, perf_counter() - began, full=len(data) == most)
        return heard

    def _feed(self, data: bytes) -> bool:
        """Return whether the peer is heard."""
        size = len(data)
        layer = self.layer
        if layer is not None:
            data = self._through(layer, data)
        receiver = self._receiver
        heard = receiver is not None and bool(data) and (receiver.feed(data) is not False or size >= HEARD_BYTES)
        if layer is not None and layer.ended:
            self.close(CloseReason.EOF)
        return heard

    def _through(self, layer: Layer, data: bytes) -> bytes:
        try:
            return layer.received(data)
        finally:
            if layer.out:
                answer = b"".join(layer.out)
                layer.out.clear()
                self._send(answer)

    def fail(self, error: Exception) -> None:
        """Close: what a peer did against its protocol is counted, what a front-end did wrong is logged."""
        if isinstance(error, ProtocolViolation):
            self._listeners.violated(self, error)
            self.close(CloseReason.VIOLATION)
        else:
            self._listeners.failed(self, error)
            self.close(CloseReason.ERROR)

    def _hold(self) -> bool:
        """Stop reading while what this peer sends is not welcome; False: it is."""
        if self.held_in and not self._listeners.alarms.may_be_read(self, 0.0):
            self._listeners.hold(self)
        elif self._congestion is not None or not self.is_congested:
            return False
        self.resting = True
        self.heard_at = math.inf  # it is not silent: nobody listens
        self._listeners.way.unread(self)
        return True

    def resume(self) -> None:
        """Read again, if it was only held back."""
        if self.resting:
            self.resting = False
            self.heard_at = self._listeners.heard_now()
            if self.reason is None:
                self._listeners.way.read(self)

    # -- sending ------------------------------------------------------------

    def flush(self) -> None:
        """Send what the turn collected, in one send; see to the end if there is one. Never blocks."""
        out = self.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._listeners.sent_bytes += len(data)
            if self.layer is not None:
                data = self.layer.sending(data)
            if self.stage == OPEN and data:
                self._send(data)
        if self.reason is not None:
            self._wind_up(self.reason)

    def _send(self, data: bytes) -> None:
        if self._backlog is None:
            try:
                sent = os.write(self.number, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.lost()
                return
            if sent == len(data):
                return
            self._backlog = [memoryview(data)[sent:]]
            self._listeners.way.write(self)
        else:
            sent = 0
            self._backlog.append(data)
        self._backlog_bytes += len(data) - sent
        if self._backlog_bytes > self._listeners.limits.outgoing_bytes and not self.is_congested:
            self._fell_behind()

    def writable(self) -> None:
        """Send what the kernel did not take before."""
        backlog = self._backlog
        if backlog is None:
            self._listeners.way.unwrite(self)
            return
        if len(backlog) > 1 and len(backlog[0]) < SEND_BYTES:
            backlog[:] = [b"".join(backlog)]
        data = backlog[0]
        try:
            sent = os.write(self.number, data)
        except BlockingIOError:
            return
        except OSError:
            self.lost()
            return
        self._backlog_bytes -= sent
        if sent < len(data):
            backlog[0] = memoryview(data)[sent:]
        else:
            del backlog[0]
            if not backlog:
                self._all_sent()
        if self.is_congested and self._backlog_bytes < self._listeners.limits.outgoing_bytes // 4:
            self._caught_up()

    def _all_sent(self) -> None:
        self._backlog = None
        self._listeners.way.unwrite(self)
        if self.stage == SENDING:
            self._leave()

    def _fell_behind(self) -> None:
        self.is_congested = True
        self._listeners.flow.fell_behind(trio.current_time())
        if self._congestion is not None:
            self._congestion.congested()

    def _caught_up(self) -> None:
        self.is_congested = False
        self._listeners.flow.caught_up()
        if self._relieved is not None:
            self._relieved.set()
            self._relieved = None
        if self.reason is None:
            self.resume()
            if self._congestion is not None:
                self._congestion.decongested()

    # -- the end ------------------------------------------------------------

    def close(self, reason: CloseReason = CloseReason.LOCAL) -> None:
        """See `gateway.api.Connection.close`."""
        if self.reason is None:
            self.reason = reason
            self._touch(self)

    def abort(self, reason: CloseReason = CloseReason.ERROR) -> None:
        """See `gateway.api.Connection.abort`."""
        self.out.clear()
        self._backlog = None
        if self.stage < LOST:
            self.stage = LOST
            self._touch(self)
        self.close(reason)

    def lost(self) -> None:
        """See `Served.lost`."""
        self.abort(CloseReason.ERROR)

    def let_go(self) -> None:
        """Take it from its handler, which has returned: it lives on if a receiver is attached."""
        self.handled = False
        if self._receiver is None:
            self.close(CloseReason.LOCAL)
        if self.reason is not None:
            self._touch(self)

    def _wind_up(self, reason: CloseReason) -> None:
        """Tell who served it, at the end of the turn in which it was closed; keep but what its goodbye needs."""
        receiver = self._receiver
        if receiver is not None:
            self._receiver = None
            self._listeners.way.unread(self)
            self._listeners.tell_end(self, receiver, reason)
            if self.out:
                self.flush()
                return
        if self._scopes is not None:
            for scope in self._scopes:
                scope.cancel()
            self._listeners.turns.wake()
        if self.handled:
            return
        if self.stage == OPEN:
            self._part()
        if self.stage == LOST:
            self.dispose()
        elif self.stage == SENDING and self._backlog is None:
            self._leave()

    def _part(self) -> None:
        self.stage = SENDING
        self.publisher = self._congestion = None
        self.idle_timeout_s = 0.0
        self.deadline_at = trio.current_time() + LINGER_S
        self._listeners.way.unread(self)
        self._listeners.lingers(self)
        if self.layer is not None:
            goodbye = self.layer.goodbye()
            if goodbye:
                self._send(goodbye)

    def _leave(self) -> None:
        """Have the goodbye read: a socket that is closed with something unread would take it back."""
        if self.reason is CloseReason.EOF:
            self.dispose()
            return
        self.stage = LINGERING
        self._empty(UNREAD_TIMES)
        if self.stage == GONE:
            return
        try:
            say_no_more(self.number)
        except OSError:
            self.dispose()
            return
        if self.reason is CloseReason.SHUTDOWN:
            self.dispose()
        else:
            self._listeners.way.read(self)

    def _empty(self, times: int) -> None:
        """Drop what still comes; it may be a flood."""
        for _ in range(times):
            try:
                if os.read(self.number, RECEIVE_BYTES):
                    continue
            except BlockingIOError:
                return
            except OSError:
                pass
            self.dispose()
            return

    def dispose(self) -> None:
        """Close the socket, whatever it was about."""
        if self.stage == GONE:
            return
        self.stage = GONE
        self.out.clear()
        self._backlog = None
        if self.is_congested:
            self._caught_up()
        self._listeners.way.forget(self)
        os.close(self.number)
        self.number = NO_NUMBER
        self._listeners.gone(self)
