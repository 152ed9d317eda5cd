"""How does one task wait for thousands of sockets?"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import checkpoint, wait_readable

from gateway.runtime.alarms import CONNECTION
from gateway.runtime.streams.pace import FIRST_PACE
from gateway.runtime.streams.pause import Pause

if TYPE_CHECKING:
    from gateway.runtime.streams.connection import StreamConnection
    from gateway.runtime.streams.door import Door
    from gateway.runtime.streams.listener import Listeners

HAS_EPOLL: Final = hasattr(select, "epoll")
PER_TURN: Final = 256
"""Connections that are seen to before others get their turn."""
TURN_S = 0.002
"""After so long others get their turn, though connections are left that have something: they come first in the next one."""

LONG_S: Final = 0.001
"""Who takes so long comes behind those who do not."""

PUT_OFF: Final = 4
"""Turns in which those who take long give way to others, one after the other."""

# What `StreamConnection.watched` says.
_READ: Final = 1
_READ_AT_LAST: Final = 2
_WRITE: Final = 4

Events = list[tuple[int, int]]


class EpollSet:
    """A `Way`: the kernel's sets of sockets, which can be waited for like sockets. Linux.

    There are two: who is open is read from as long as that is welcome; who waits to send, or for its end, is seen to always.
    Those whose packets took long are read from one per turn, in turns in which nobody else has something, or in every fifth.
    An event is a hint and no more: by the time that its turn comes the socket's number may be another's.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._open = select.epoll()
        self._leaving = select.epoll()
        self._number_of_open = self._open.fileno()
        self._pause = Pause(self._number_of_open)
        self._doors: dict[int, Door] = {}
        self._by_number: list[StreamConnection | None] = []
        self._slow: dict[int, None] = {}
        self._put_off = 0
        self._round: set[int] = set()
        self._left: Events = []
        self._suspected: set[int] = set()
        self._long: set[int] = set()
        self._lasted = False

    async def run(self, nursery: trio.Nursery) -> None:
        """See `Way.run`."""
        nursery.start_soon(self._see_to_leaving)
        await self._see_to_open()

    async def _see_to_open(self) -> None:
        listeners = self._listeners
        while True:
            if self._left:
                await checkpoint()
            else:
                await wait_readable(self._open)
            if listeners.draining:
                return
            if listeners.flow.holding:
                await listeners.flow.until_released()
            found = self._next(self._left)
            self._left = self._read_some(found) or self._read_on(PER_TURN - len(found))

    def _read_on(self, most: int) -> Events:
        """Answer what was read, and read what has come meanwhile; return whose turn did not come.

        Of what a packet costs that comes alone the loop's way round is a large part: it is spared as long as nobody must be
        waited for.

        Args:
            most: so many may still be read from before others get their turn; if nobody wants one, it begins anew.
        """
        listeners = self._listeners
        left = most
        until = time.perf_counter() + TURN_S
        while left > 0 and listeners.turns.end_now() and not listeners.flow.holding and not listeners.draining:
            found = self._next([], left)
            if found:
                left -= len(found)
                events = self._read_some(found)
                if events or time.perf_counter() > until:
                    return events
                continue
            number = self._pause.wait()
            if number == self._number_of_open:
                left = PER_TURN
                until = time.perf_counter() + TURN_S
            elif number is None or not self._let_in(number) or time.perf_counter() > until:
                break
        return []

    def stay(self) -> None:
        """See `Way.stay`."""
        if not self._left:
            self._left = self._read_on(PER_TURN)

    def _let_in(self, number: int) -> bool:
        """Say whether somebody came in: why nobody can is said by the task that waits at this door."""
        try:
            return self._doors[number].let_in() > 0
        except OSError:
            return False

    def open_door(self, number: int, door: Door) -> None:
        """See `Way.open_door`."""
        self._doors[number] = door
        self._pause.add(number)

    def close_door(self, number: int) -> None:
        """See `Way.close_door`."""
        self._pause.remove(number)
        del self._doors[number]

    def _next(self, left: Events, most: int = PER_TURN) -> Events:
        """Return who is read from next: newcomers come before those who are left, and nobody comes twice before these.

        But whenever somebody took long, those who do not are newcomers again: else each of their packets would wait for all who
        take long. They get no more than a turn for that, so those who are left wait twice as long at most.
        """
        found = self._open.poll(0, most)
        if self._long:
            found.sort(key=self._takes_long)
        if not left:
            self._lasted = False
            self._round = {number for number, _ in found} if len(found) > 1 else set()
            return found
        if self._lasted:
            self._lasted = False
            self._round = self._long.union([number for number, _ in left])
        fresh = [event for event in found if event[0] not in self._round][: most - len(left)]
        self._round.update([number for number, _ in fresh])
        return fresh + left

    def _note(self, number: int, took_s: float) -> None:
        """Remember who takes long; once may be the machine's fault."""
        if took_s > LONG_S:
            if number in self._suspected:
                self._long.add(number)
            self._suspected.add(number)
            self._lasted = True
        else:
            self._suspected.discard(number)
            self._long.discard(number)

    def _takes_long(self, event: tuple[int, int]) -> bool:
        return event[0] in self._long

    def _read_some(self, events: Events) -> Events:
        """Have some read; return whose turn did not come."""
        by_number = self._by_number
        flow = self._listeners.flow
        now = self._listeners.heard_now()
        short = self._listeners.alarms.level
        left = len(events)
        began = time.perf_counter() if left > 1 else 0.0
        until = began + TURN_S if left > 1 else 0.0
        for number, _ in events:
            left -= 1
            connection = by_number[number]
            if connection is not None and connection.watched & _READ:
                if connection.pace < FIRST_PACE:
                    self._slow[number] = None
                    continue
                if short:
                    CONNECTION.set(connection)
                connection.readable(now)
                if until:
                    ended = time.perf_counter()
                    if self._suspected or ended - began > LONG_S:
                        self._note(number, ended - began)
                    if left and (ended > until or flow.holding):
                        return events[-left:]
                    began = ended
        if self._slow and not flow.holding:
            if len(self._slow) < len(events) and self._put_off < PUT_OFF:
                self._put_off += 1
            else:
                self._put_off = 0
                self._read_slow(now, short=bool(short))
        return []

    def _read_slow(self, now: float, *, short: bool) -> None:
        """Have one of those read that take long, when all others have had their turn: they share the time of one."""
        number = next(iter(self._slow))
        del self._slow[number]
        connection = self._by_number[number]
        if connection is not None and connection.watched & _READ:
            if short:
                CONNECTION.set(connection)
            connection.readable(now)

    async def _see_to_leaving(self) -> None:
        events: Events = []
        while True:
            if events:
                await checkpoint()
            else:
                await wait_readable(self._leaving)
            events = self._help_some(events or self._leaving.poll(0, PER_TURN))

    def _help_some(self, events: Events) -> Events:
        """Have some send, or end; return whose turn did not come."""
        now = self._listeners.heard_now()
        until = time.perf_counter() + TURN_S
        for index, (number, _) in enumerate(events, 1):
            connection = self._by_number[number]
            if connection is not None and connection.watched & _WRITE:
                connection.writable()
            elif connection is not None and connection.watched & _READ_AT_LAST:
                connection.readable(now)
            if time.perf_counter() > until:
                return events[index:]
        return []

    def read(self, connection: StreamConnection) -> None:
        """See `Way.read`."""
        if connection.reason is None:
            if not connection.watched & _READ:
                number = self._number(connection)
                connection.watched |= _READ
                self._open.register(number, select.EPOLLIN)
        else:
            self._watch_leaving(connection, connection.watched | _READ_AT_LAST)

    def unread(self, connection: StreamConnection) -> None:
        """See `Way.unread`."""
        if connection.watched & _READ:
            connection.watched &= ~_READ
            self._open.unregister(connection.number)
        self._watch_leaving(connection, connection.watched & ~_READ_AT_LAST)

    def write(self, connection: StreamConnection) -> None:
        """See `Way.write`."""
        self._watch_leaving(connection, connection.watched | _WRITE)

    def unwrite(self, connection: StreamConnection) -> None:
        """See `Way.unwrite`."""
        self._watch_leaving(connection, connection.watched & ~_WRITE)

    def _watch_leaving(self, connection: StreamConnection, watched: int) -> None:
        before = connection.watched & ~_READ
        after = watched & ~_READ
        if before == after:
            return
        connection.watched = watched
        mask = (select.EPOLLOUT if after & _WRITE else 0) | (select.EPOLLIN if after & _READ_AT_LAST else 0)
        if not after:
            self._leaving.unregister(connection.number)
        elif before:
            self._leaving.modify(connection.number, mask)
        else:
            self._leaving.register(self._number(connection), mask)

    def _number(self, connection: StreamConnection) -> int:
        number = connection.number
        while number >= len(self._by_number):
            self._by_number.append(None)
        self._by_number[number] = connection
        return number

    def forget(self, connection: StreamConnection) -> None:
        """See `Way.forget`."""
        if connection.watched:
            self.unread(connection)
            self.unwrite(connection)
        number = connection.number
        if number < len(self._by_number):
            self._by_number[number] = None
        self._suspected.discard(number)
        self._long.discard(number)

    def close(self) -> None:
        """See `Way.close`."""
        self._pause.close()
        self._open.close()
        self._leaving.close()
