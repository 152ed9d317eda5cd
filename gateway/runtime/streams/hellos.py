"""Who is answered next, of those that begin to speak TLS?"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from gateway.runtime.streams.connection import StreamConnection


class Hellos:
    """Answers one client's first message at a time, and lets all others have their turn in between.

    An answer takes a signature: a millisecond with a key of RSA. Who is connected should not have to wait for hundreds of them.
    """

    def __init__(self) -> None:
        self._waiting: deque[StreamConnection] = deque()
        self._came = trio.Event()

    def append(self, connection: StreamConnection) -> None:
        """Have `StreamConnection.go_on` called when its turn comes."""
        self._waiting.append(connection)
        self._came.set()

    async def run(self) -> None:
        """Answer them, for as long as this is not cancelled."""
        while True:
            await self._came.wait()
            while self._waiting:
                self._waiting.popleft().go_on()
                await trio.lowlevel.checkpoint()
            self._came = trio.Event()
