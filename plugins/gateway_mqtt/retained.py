"""Which retained messages is a client still to be sent, and which of them has it not acknowledged?"""

from __future__ import annotations

from collections import deque

from gateway.api import TOPIC_EXCHANGE, Channel, Message, swap_key

RETAIN = 1


class RetainedQueue:
    """What a new subscription is owed before anything that is published later.

    Patterns are looked up one after the other, when everything of the former ones is sent: so a client that
    subscribes to much takes its memory and its time in small pieces.
    """

    __slots__ = ("_channel", "_followers", "_patterns", "_ready", "unacked")

    def __init__(self, channel: Channel) -> None:
        self._channel: Channel = channel
        self._patterns: dict[str, int] = {}
        self._ready: deque[tuple[Message, int, int]] = deque()
        self._followers: int = 0
        self.unacked: set[int] = set()

    def want(self, pattern: str, granted: int) -> None:
        """Add what is retained under a pattern, with at most this QoS."""
        self._patterns[pattern] = granted

    def unwant(self, pattern: str) -> None:
        """The subscription is no more: what has not been looked up is not sent."""
        self._patterns.pop(pattern, None)

    def follow(self, message: Message, most: int) -> bool:
        """Put a message of QoS 0 that was published since behind what is there; False: `most` of them are there already."""
        if self._followers >= most:
            return False
        self._followers += 1
        self._ready.append((message, 0, 0))
        return True

    def first(self) -> tuple[Message, int, int] | None:
        """Return the next message, its QoS and its flags; None: there is no more."""
        while not self._ready and self._patterns:
            pattern = next(iter(self._patterns))
            granted = self._patterns.pop(pattern)
            for message in self._channel.retained(TOPIC_EXCHANGE, swap_key(pattern), mqtt=True):
                self._ready.append((message, min(granted, int(message.persistent)), RETAIN))  # [MQTT-3.3.1-8]
        return self._ready[0] if self._ready else None

    def sent(self) -> None:
        """The first one is sent."""
        flags = self._ready.popleft()[2]
        self._followers -= not flags
