"""How is a task woken where tasks can't be rescheduled: at the end of a turn?"""

from __future__ import annotations

import trio


class Alarm:
    """An event that may be set at any time, again and again, by this thread."""

    __slots__ = ("_event", "_token")

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def ring(self) -> None:
        """Let the one who waits go on."""
        self._token.run_sync_soon(self._set, idempotent=True)

    def _set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Wait until it rings. Cancellation: safe."""
        await self._event.wait()
        self._event = trio.Event()
