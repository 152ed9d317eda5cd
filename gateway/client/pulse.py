"""When is silence asked about, when is it death, and when is a new connection tried? No clock: `now`, in seconds, is given."""

from __future__ import annotations

from gateway.client.session import AnySession, State

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
BEATS_TO_DEATH = 3


class Pulse:
    """What a client has heard of its gateway, and when (docs/tgp.md, liveness).

    Args:
        session: is told.
        wish_ms: heartbeat until the gateway has said what it is.
    """

    def __init__(self, session: AnySession, wish_ms: int, now: float) -> None:
        self._session = session
        self._wish_ms = wish_ms
        self._heard = now
        self._pinged_at: float | None = None
        self._pause_s = 0.0

    @property
    def _heartbeat_s(self) -> float:
        return (self._session.ready.get("heartbeat_ms") or self._wish_ms) / 1000

    @property
    def _patience_s(self) -> float:
        """So long an answer is waited for. It counts from the question: before that this side may have stood still itself."""
        return (BEATS_TO_DEATH - 1) * self._heartbeat_s

    def began(self, now: float) -> None:
        """A connection was begun."""
        self._heard, self._pinged_at = now, None

    def heard(self, now: float) -> None:
        """The gateway said something."""
        self._heard, self._pinged_at = now, None
        if self._session.state is State.READY:
            self._pause_s = 0.0

    def rest_s(self, now: float) -> float:
        """Return how long it may stay silent before `check` has something to do."""
        if self._pinged_at is None:
            return max(0.0, self._heard + self._heartbeat_s - now)
        return max(0.0, self._pinged_at + self._patience_s - now)

    def check(self, now: float, *, broken: bool) -> None:
        """Ask whether it is there, or give it up. `broken`: the connection is known to be gone."""
        if broken or (self._pinged_at is not None and now - self._pinged_at >= self._patience_s):
            self._session.lost()
        elif now - self._heard >= self._heartbeat_s and self._pinged_at is None:
            self._pinged_at = now
            self._session.ping()

    def next_pause_s(self) -> float:
        """Return how long to wait before the next connection: at first not at all, then longer each time."""
        pause_s = self._pause_s
        self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * pause_s))
        return pause_s
