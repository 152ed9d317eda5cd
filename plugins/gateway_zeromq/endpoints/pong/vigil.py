"""Is a peer alive, and when does it have to be asked?"""

from __future__ import annotations

from typing import Final

import trio

from gateway_zeromq.endpoints.pong.terms import Rules
from gateway_zeromq.endpoints.pong.traffic import Traffic
from gateway_zeromq.zmtp.frames import Violation

HANDSHAKE_S: Final = 10.0
MOST_UNASKED: Final = 300
"""Commands that nobody asked for, between two looks: a heartbeat each millisecond is less."""
MOST_UNASKED_PER_S: Final = 1_200
"""So many more after each second in which nobody looked: whoever was kept from listening finds them all at once."""
DEAD_AFTER: Final = 3
"""Heartbeats without an answer while nothing else is under way."""


class Vigil:
    """What is known of one peer's being alive; all times are trio's, in seconds.

    ``heard``: something came from it; `look` takes note. ``ttl_s``: it may be silent for so long, as it said; 0.0: it did not.
    """

    __slots__ = ("_deadline", "_heard_at", "_looked_at", "_progress_at", "_rules", "_unasked", "heard", "ttl_s")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._heard_at = self._looked_at = self._progress_at = trio.current_time()
        self._deadline = self._heard_at + HANDSHAKE_S
        self._unasked = 0
        self.heard = False
        self.ttl_s = 0.0

    def note_unasked(self) -> None:
        """It said what nobody asked for. Raises: Violation: far too often, and others would have to wait."""
        self._unasked += 1
        if self._unasked <= MOST_UNASKED:
            return
        if self._unasked > MOST_UNASKED + MOST_UNASKED_PER_S * (trio.current_time() - self._looked_at):
            raise Violation("more commands than anybody needs")

    def await_answer(self) -> None:
        """It was asked: from now on it has as long as for its handshake."""
        self._deadline = trio.current_time() + HANDSHAKE_S

    def excuse(self, late_s: float, now: float) -> None:
        """Before `look`: nobody listened for so long."""
        self._heard_at = min(self._heard_at + late_s, now)
        self._progress_at = min(self._progress_at + late_s, now)
        self._deadline += late_s

    def look(self, now: float, traffic: Traffic) -> None:
        """Take note of what happened since the last look."""
        self._unasked = 0
        self._looked_at = now
        if self.heard:
            self.heard, self._heard_at = False, now
        if traffic.take_progress() or not (traffic.pings or traffic.blocked):
            self._progress_at = now

    def is_late(self, now: float) -> bool:
        """Say whether it takes too long for its handshake, or for the answer that was waited for."""
        return now > self._deadline

    def why_dead(self, now: float, traffic: Traffic) -> str:
        """Return why a peer that was met is taken for dead; empty: it is not."""
        if self.ttl_s and now - self._heard_at > self.ttl_s:
            return "it is silent for longer than it said it would be"
        timeout_s = self._timeout_s(traffic)
        return f"no PONG for {timeout_s:g} s" if timeout_s and now - self._progress_at > timeout_s else ""

    def _timeout_s(self, traffic: Traffic) -> float:
        """Return how long nothing may move; 0.0: for ever."""
        if traffic.window.pings and not traffic.window.unponged:
            return DEAD_AFTER * self._rules.heartbeat_s
        return self._rules.pong_timeout_s if traffic.window.pings or traffic.blocked else 0.0

    def wants_ping(self, now: float, traffic: Traffic) -> bool:
        """Say whether nothing has moved for so long that it has to be asked whether it is alive; it is asked then."""
        if not traffic.pings or traffic.window.pings or traffic.blocked or now - self._progress_at < self._rules.heartbeat_s:
            return False
        self._progress_at = now
        return True
