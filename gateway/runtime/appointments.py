"""When does the engine learn that the time for something has come?"""

from __future__ import annotations

import trio

from gateway.engine.engine import Engine
from gateway.engine.timers import NOTHING_DUE
from gateway.runtime.clock import Clock


class Appointments:
    """Wakes the loop when the engine's next appointment is due, and has it kept."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._token = trio.lowlevel.current_trio_token()
        self._alarm = trio.CancelScope()
        self._armed_ms = NOTHING_DUE

    def end_of_turn(self) -> None:
        """Be woken earlier, if an earlier appointment was made."""
        if self._engine.timers.next_due_ms < self._armed_ms:
            self._armed_ms = self._engine.timers.next_due_ms
            self._token.run_sync_soon(self._set_alarm, idempotent=True)

    def clock_was_set(self) -> None:
        """The time to wait has changed."""
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._armed_ms < NOTHING_DUE:
            self._alarm.deadline = trio.current_time() + max(self._armed_ms - self._clock.now_ms(), 0) / 1e3

    async def run(self) -> None:
        """Keep appointments. Cancellation: safe."""
        engine = self._engine
        while True:
            self._armed_ms = NOTHING_DUE
            with trio.CancelScope() as self._alarm:
                await trio.sleep_forever()
            engine.now_ms = self._clock.now_ms()
            if engine.timers.next_due_ms <= engine.now_ms:
                engine.advance(engine.now_ms)
