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

    __slots__ = ("_channel", "_patterns", "_ready", "unacked")

    def __init__(self, channel: Channel) -> None:
        self._channel: Channel = channel
        self._patterns: deque[tuple[str, int]] = deque()
        self._ready: deque[tuple[Message, int, int]] = deque()
        self.unacked: set[int] = set()

    def want(self, pattern: str, granted: int) -> None:
        """Add what is retained under a pattern, with at most this QoS."""
        self._patterns.append((pattern, granted))

    def follow(self, message: Message) -> None:
        """Put a message that was published since behind what is there; with QoS 0."""
        self._ready.append((message, 0, 0))

    def __len__(self) -> int:
        return len(self._ready)

    def first(self) -> tuple[Message, int, int] | None:
        """Return the next message, its QoS and its flags; None: there is no more."""
        while not self._ready and self._patterns:
            pattern, granted = self._patterns.popleft()
            for message in self._channel.retained(TOPIC_EXCHANGE, swap_key(pattern), mqtt=True):
                self._ready.append((message, min(granted, int(message.persistent)), RETAIN))  # [MQTT-3.3.1-8]
        return self._ready[0] if self._ready else None

    def sent(self) -> None:
        """The first one is sent."""
        self._ready.popleft()
