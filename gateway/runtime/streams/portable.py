"""How are sockets waited for where nothing but trio is known of the system?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.lowlevel import notify_closing, wait_readable, wait_writable

from gateway.runtime.alarms import CONNECTION

if TYPE_CHECKING:
    from gateway.runtime.streams.connection import StreamConnection
    from gateway.runtime.streams.door import Door
    from gateway.runtime.streams.listener import Listeners


class Tasks:
    """A `Way`: a task per connection that is read from, and one while something waits to be sent."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._reading: dict[StreamConnection, trio.CancelScope] = {}
        self._writing: dict[StreamConnection, trio.CancelScope] = {}

    async def run(self, nursery: trio.Nursery) -> None:
        """See `Way.run`: there is nothing to do, connections have tasks."""

    def read(self, connection: StreamConnection) -> None:
        """See `Way.read`."""
        if connection not in self._reading:
            scope = self._reading[connection] = trio.CancelScope()
            self._listeners.spawn(self._read, connection, scope)

    async def _read(self, connection: StreamConnection, scope: trio.CancelScope) -> None:
        CONNECTION.set(connection)
        listeners = self._listeners
        with scope:
            while not scope.cancel_called:  # then the socket may be closed
                await wait_readable(connection.number)
                if connection.reason is None:
                    if listeners.draining:
                        await trio.sleep_forever()
                    if listeners.flow.holding:
                        await listeners.flow.until_released()
                connection.readable(listeners.heard_now())

    def unread(self, connection: StreamConnection) -> None:
        """See `Way.unread`."""
        self._stop(self._reading, connection)

    def write(self, connection: StreamConnection) -> None:
        """See `Way.write`."""
        if connection not in self._writing:
            scope = self._writing[connection] = trio.CancelScope()
            self._listeners.spawn(self._write, connection, scope)

    async def _write(self, connection: StreamConnection, scope: trio.CancelScope) -> None:
        with scope:
            while not scope.cancel_called:  # then the socket may be closed
                await wait_writable(connection.number)
                connection.writable()

    def unwrite(self, connection: StreamConnection) -> None:
        """See `Way.unwrite`."""
        self._stop(self._writing, connection)

    def _stop(self, tasks: dict[StreamConnection, trio.CancelScope], connection: StreamConnection) -> None:
        scope = tasks.pop(connection, None)
        if scope is not None:
            scope.cancel()
            self._listeners.turns.wake()

    def forget(self, connection: StreamConnection) -> None:
        """See `Way.forget`."""
        self.unread(connection)
        self.unwrite(connection)
        notify_closing(connection.number)

    def open_door(self, number: int, door: Door) -> None:
        """See `Way.open_door`: only its task does."""

    def close_door(self, number: int) -> None:
        """See `Way.close_door`."""

    def stay(self) -> None:
        """See `Way.stay`: connections have tasks."""

    def close(self) -> None:
        """See `Way.close`."""
