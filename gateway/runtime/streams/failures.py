"""Which failed handshakes are worth a line in the log?"""

from __future__ import annotations

from collections import Counter
from typing import Final

from gateway.api.frontend import Log

AGAIN_S: Final = 60.0
"""A peer's failures are logged once in this time."""
MOST_LINES: Final = 10
"""Of all peers so many are logged in this time."""


class Failures:
    """Counts handshakes that failed; logs a few, since a port that others can reach is tried all day."""

    def __init__(self, log: Log, counters: Counter[str]) -> None:
        self._log = log
        self._counters = counters
        self._since = 0.0
        self._told: set[str] = set()
        self._untold = 0

    def failed(self, peer: str, reason: str, now: float) -> None:
        """Note a failure. `peer`: with its port; `now`: in seconds, of any clock."""
        self._counters["tls_failures"] += 1
        if now - self._since >= AGAIN_S:
            if self._untold:
                self._log.warning("more TLS handshakes failed", times=self._untold)
            self._since, self._untold = now, 0
            self._told.clear()
        host = peer.rpartition(":")[0]
        if host in self._told or len(self._told) >= MOST_LINES:
            self._untold += 1
            return
        self._told.add(host)
        self._log.warning("a TLS handshake failed", peer=peer, reason=reason)
