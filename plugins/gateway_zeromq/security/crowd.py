"""How many connections has an endpoint, and is there room for one more?"""

from __future__ import annotations

from collections.abc import Callable


class Crowd:
    """The connections of one endpoint, by their file descriptors.

    libzmq lets nobody count them and closes none, but it tells of each, and before it lets one in it asks.

    Args:
        endpoint: its name.
        most: connections that it may have.
    """

    look: Callable[[], None]
    """Takes what libzmq has told by now; set by whoever listens."""

    def __init__(self, endpoint: str, most: int) -> None:
        self.endpoint = endpoint
        self.most = most
        self._here: set[int] = set()

    def came(self, descriptor: int) -> None:
        """Somebody connected."""
        self._here.add(descriptor)

    def gone(self, descriptor: int) -> None:
        """A connection ended."""
        self._here.discard(descriptor)

    def is_full(self) -> bool:
        """Say whether there are more than may be, the one that asks included."""
        self.look()
        return len(self._here) > self.most
