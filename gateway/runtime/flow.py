"""When must publishers wait for the journal, or for who reads slowly?"""

from __future__ import annotations

import trio

from gateway.config import Limits
from gateway.engine.engine import Engine

RECORD_COST_BYTES = 400
"""What a message or another record of the open batch costs in memory beside the body."""
GATE_S = 0.05
"""How long a peer that reads too slowly may hold back those who feed it, each time it falls behind."""


class Flow:
    """Holds publishers back while the journal is behind, and for a moment when a peer can't be fed as fast as they publish.

    A peer that falls behind closes a gate; it opens when the peer has caught up, or after GATE_S: so a fast publisher
    is slowed to the pace of a fast reader, and a slow reader stops nobody.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._open_batch_bytes = limits.open_batch_bytes
        self._gate: trio.Event | None = None
        self._gate_until = 0.0
        self._slow = 0
        self._waiting = 0
        self._waiting_since = 0.0
        self._waited_s = 0.0
        self._token = trio.lowlevel.current_trio_token()
        self._released: trio.Event | None = None

    @property
    def holding(self) -> bool:
        """Publishers should not be read from now."""
        if self._gate is not None:
            return True
        batch = self._engine.batch
        return batch.body_bytes + RECORD_COST_BYTES * (len(batch.messages) + len(batch.records)) > self._open_batch_bytes

    def _is_batch_full(self) -> bool:
        batch = self._engine.batch
        return batch.body_bytes + RECORD_COST_BYTES * (len(batch.messages) + len(batch.records)) > self._open_batch_bytes

    async def until_released(self) -> None:
        """Wait while `holding`. Cancellation: safe."""
        if not self._waiting:
            self._waiting_since = trio.current_time()
        self._waiting += 1
        try:
            await self._until_released()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._waited_s += trio.current_time() - self._waiting_since

    def unheard_s(self, now_s: float) -> float:
        """Return for how long, all in all, somebody waited here: what peers sent in that time was not read."""
        return self._waited_s + now_s - self._waiting_since if self._waiting else self._waited_s

    async def _until_released(self) -> None:
        while self._is_batch_full():
            if self._released is None:
                self._released = trio.Event()
            await self._released.wait()
        gate = self._gate
        if gate is not None:
            with trio.move_on_at(self._gate_until):
                await gate.wait()
            if self._gate is gate:
                self._open_gate()

    def batch_taken(self) -> None:
        """The open batch is empty again. Safe at the end of a turn."""
        if self._released is not None:
            self._token.run_sync_soon(self._released.set)
            self._released = None

    def fell_behind(self, now_s: float) -> None:
        """A peer has more to read than it may."""
        self._slow += 1
        if self._gate is None:
            self._gate = trio.Event()
            self._gate_until = now_s + GATE_S

    def caught_up(self) -> None:
        """A peer that fell behind has read, or is gone."""
        self._slow -= 1
        if not self._slow:
            self._open_gate()

    def _open_gate(self) -> None:
        if self._gate is not None:
            self._gate.set()
            self._gate = None
