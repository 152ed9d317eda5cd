"""May one more exchange, queue or binding be made?"""

from __future__ import annotations

from typing import Protocol


class Bounds(Protocol):
    """Is asked by `Definitions` before anything new is made; what the journal kept is never asked for.

    All of them raise PreconditionFailed if the limit is reached; the text names the setting.
    """

    def new_exchange(self) -> None:
        """Make room for an exchange."""

    def new_queue(self) -> None:
        """Make room for a queue."""

    def new_binding(self) -> None:
        """Make room for a binding."""

    def check_room(self, exchanges: int, queues: int, bindings: int) -> None:
        """Make sure that there is room for so many more of each, in one go. Cost: a count of all there are."""


class Boundless:
    """Where there is no limit (`Bounds`)."""

    def new_exchange(self) -> None:
        """Nothing is refused."""

    def new_queue(self) -> None:
        """Nothing is refused."""

    def new_binding(self) -> None:
        """Nothing is refused."""

    def check_room(self, exchanges: int, queues: int, bindings: int) -> None:
        """Nothing is refused."""
