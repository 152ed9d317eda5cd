"""Who says when a socket can be read or written?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import trio

    from gateway.runtime.streams.connection import StreamConnection
    from gateway.runtime.streams.door import Door


class Way(Protocol):
    """Calls `StreamConnection.readable` and `StreamConnection.writable` when it is time. All of it is synchronous but `run`.

    Connections that are open are not read from while the broker drains, or holds publishers back; what is being sent, and what only
    waits for its end, goes on.
    """

    async def run(self, nursery: trio.Nursery) -> None:
        """Work until cancelled; tasks go into `nursery`."""

    def read(self, connection: StreamConnection) -> None:
        """Call `readable` from now on whenever something has come, or once too often."""

    def unread(self, connection: StreamConnection) -> None:
        """Undo `read`."""

    def write(self, connection: StreamConnection) -> None:
        """Call `writable` from now on whenever there is room."""

    def unwrite(self, connection: StreamConnection) -> None:
        """Undo `write`."""

    def forget(self, connection: StreamConnection) -> None:
        """Undo both: the socket is about to be closed."""

    def open_door(self, number: int, door: Door) -> None:
        """Others than the task that waits for this listening socket may have `door` let newcomers in, too."""

    def close_door(self, number: int) -> None:
        """Undo `open_door`: the socket is about to be closed."""

    def stay(self) -> None:
        """Newcomers were just let in: go on with them, and with all others, as long as the loop has nothing else to do."""

    def close(self) -> None:
        """Give back what it has of the system. No connection is left."""
