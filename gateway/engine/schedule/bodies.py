"""Which bodies of scheduled messages are in memory, and for how long?"""

from __future__ import annotations

from collections.abc import Container

from gateway.engine.schedule.later import weight
from gateway.model.message import Message

HELD_BYTES = 4 * 1024 * 1024
HELD_MS = 60_000


class Bodies:
    """Scheduled messages with their bodies, by their ids.

    Held are those that are not persistent, that are due soon (`HELD_MS`; so many bytes of them as the budget says), or that are
    not on disk yet; ``held_bytes`` is what they weigh. Any other is loaded when it is due: ``asked`` is what was asked for, and
    has not come yet.
    """

    __slots__ = ("_budget", "_fresh", "_held", "_loaded", "_writing", "asked", "held_bytes")

    def __init__(self, budget: int) -> None:
        self.held_bytes: int = 0
        self.asked: set[int] = set()
        self._budget: int = budget
        self._held: dict[int, Message] = {}
        self._fresh: list[int] = []
        self._writing: list[int] = []
        self._loaded: dict[int, Message] = {}

    def find(self, scheduled_id: int) -> Message | None:
        """Return a message that is in memory; None: it is on disk only."""
        return self._held.get(scheduled_id) or self._loaded.get(scheduled_id)

    def is_persistent(self, scheduled_id: int) -> bool:
        """Say whether a message is on disk, or will be."""
        message = self._held.get(scheduled_id)
        return message is None or message.persistent

    def hold(self, scheduled_id: int, message: Message, delay_ms: int) -> None:
        """Keep a body: as long as it takes, or only until it is on disk."""
        size = weight(message)
        fits = delay_ms <= HELD_MS and self.held_bytes + size <= self._budget
        if message.persistent and not fits:
            self._fresh.append(scheduled_id)
        self._held[scheduled_id] = message
        self.held_bytes += size

    def forget(self, scheduled_id: int) -> None:
        """The message is gone."""
        self._let_go(scheduled_id)
        self.unload(scheduled_id)

    def _let_go(self, scheduled_id: int) -> None:
        message = self._held.pop(scheduled_id, None)
        if message is not None:
            self.held_bytes -= weight(message)

    def batch_prepared(self) -> None:
        """The batch that was taken is on its way."""
        self._writing += self._fresh
        self._fresh = []

    def committed(self) -> None:
        """The batch that was taken is on disk: bodies that were kept only for that may go."""
        if self._writing:
            for scheduled_id in self._writing:
                self._let_go(scheduled_id)
            self._writing = []

    # -- from disk ----------------------------------------------------------

    def load(self, items: list[tuple[int, Message]], there: Container[int]) -> list[int]:
        """Take what was read of those that were ``asked`` for, and keep what is still wanted until it is published.

        Args:
            there: the ids of all messages that are scheduled.

        Returns:
            the ids of those among them that were asked for, and can't be read.
        """
        missing, self.asked = self.asked, set()
        for scheduled_id, message in items:
            if scheduled_id in there and scheduled_id not in self._held:
                self._loaded[scheduled_id] = message
            missing.discard(scheduled_id)
        return [scheduled_id for scheduled_id in sorted(missing) if scheduled_id in there and scheduled_id not in self._held]

    def unload(self, scheduled_id: int) -> None:
        """Have a message be read again: it can't be published yet."""
        self._loaded.pop(scheduled_id, None)
