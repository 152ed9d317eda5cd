"""Which retained messages is a client still to be sent, and when is its turn?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from gateway.api import TOPIC_EXCHANGE, Channel, Flushable, LookUp, Message, swap_key

SLICE = 40
"""So many retained messages are sent to one client before another has its turn. A turn of the loop has eight such slices."""
VISITS = 80
"""So many keys are looked at for them."""
SLICE_BYTES = 64 * 1024
OVERHEAD_BYTES = 64
"""What a retained message without a body costs of a slice."""


Source: TypeAlias = Callable[[str], Sequence[Message]]
"""Gives the last values that are not the broker's, by MQTT pattern."""


class Wanted:
    """What a subscription is owed: at most this QoS, what is not newer than ``mark``, with these subscription identifiers."""

    __slots__ = ("granted", "ids", "mark")

    def __init__(self, granted: int, mark: int, ids: tuple[int, ...]) -> None:
        self.granted: int = granted
        self.mark: int = mark
        self.ids: tuple[int, ...] = ids


class RetainedQueue:
    """What a new subscription is owed, looked up in slices as it is sent.

    Live messages are not held back meanwhile: what was retained since the subscription was made has come live, or is about
    to, and is left out here. So nobody gets a message twice, or an older one after a newer one.

    ``unacked``: packet identifiers under which some were sent with QoS 1.

    Args:
        source: where else there are last values; they are sent as they are when it is their turn, before the broker's.
    """

    __slots__ = (
        "_above_0",
        "_channel",
        "_look_up",
        "_missed",
        "_now",
        "_others",
        "_pattern",
        "_ready",
        "_source",
        "_wanted",
        "unacked",
    )

    def __init__(self, channel: Channel, source: Source | None = None) -> None:
        self._channel: Channel = channel
        self._source: Source | None = source
        self._wanted: dict[str, Wanted] = {}
        self._above_0: int = 0
        self._ready: deque[Message] = deque()
        self._others: deque[Message] = deque()
        self._look_up: LookUp | None = None
        self._pattern: str = ""
        self._now: Wanted = Wanted(0, 0, ())
        self._missed: int = 0
        self.unacked: set[int] = set()

    @property
    def done(self) -> bool:
        """There is no more to be sent."""
        return not self._ready and not self._others and self._look_up is None and not self._wanted

    @property
    def wants_room(self) -> bool:
        """What is to be sent may need packet identifiers."""
        if self._now.granted and (self._ready or self._others or self._look_up is not None):
            return True
        return self._above_0 > 0

    def want(self, pattern: str, granted: int, mark: int, ids: tuple[int, ...] = ()) -> None:
        """Add what is retained under a pattern, with at most this QoS.

        Args:
            mark: `Channel.retained_mark` when it was bound.
            ids: subscription identifiers.
        """
        self._take(pattern)
        self._wanted[pattern] = Wanted(granted, mark, ids)
        self._above_0 += granted > 0

    def _take(self, pattern: str) -> Wanted | None:
        wanted = self._wanted.pop(pattern, None)
        if wanted is not None:
            self._above_0 -= wanted.granted > 0
        return wanted

    def unwant(self, pattern: str) -> None:
        """The subscription is no more: what has not been sent is not sent."""
        self._take(pattern)
        if self._look_up is not None and pattern == self._pattern:
            self._look_up = None
            self._ready.clear()
            self._others.clear()

    def missed(self, through: int) -> None:
        """Live messages of QoS 0 were dropped: they may have been retained, under numbers up to this one."""
        self._missed = through

    def next_slice(self, most: int) -> list[tuple[Message, int, tuple[int, ...]]]:
        """Return some of the next messages, the QoS granted, subscription identifiers. None is not the end, `done` is."""
        ready, others = self._ready, self._others
        later = bool(ready)
        if not later and not others:
            self._read(min(most, SLICE))
        granted, ids = self._now.granted, self._now.ids
        found: list[tuple[Message, int, tuple[int, ...]]] = []
        left = SLICE_BYTES
        while (others or ready) and len(found) < most and left > 0:
            if others:
                message: Message | None = others.popleft()
            else:
                first = ready.popleft()
                message = self._as_it_is_now(first) if later else first
            if message is not None:
                found.append((message, granted if message.persistent else 0, ids))
                left -= len(message.body) + OVERHEAD_BYTES
        if not ready and self._look_up is not None and self._look_up.done:
            self._look_up = None
        return found

    def _read(self, most: int) -> None:
        """Look the next ones up."""
        if self._look_up is None:
            if not self._wanted:
                return
            self._pattern = next(iter(self._wanted))
            self._now = self._take(self._pattern) or self._now
            if self._source is not None:
                self._others.extend(self._source(self._pattern))
            self._look_up = self._channel.look_up(TOPIC_EXCHANGE, swap_key(self._pattern), mqtt=True)
        found = self._look_up.next_slice(most, VISITS)
        self._ready.extend(message for message, number in found if not self._is_live(message, number))

    def _is_live(self, message: Message, number: int) -> bool:
        """Say whether the subscription itself has brought it."""
        kept = message.persistent and self._now.granted > 0
        return number > self._now.mark and (kept or number > self._missed)

    def _as_it_is_now(self, message: Message) -> Message | None:
        """Return what is retained in place of a message that was looked up some time ago."""
        key = message.routing_key
        now = self._channel.look_up(TOPIC_EXCHANGE, key).next_slice(1, VISITS)
        return next((found for found, number in now if found.routing_key == key and not self._is_live(found, number)), None)


class Sender(Protocol):
    """A client that is owed retained messages."""

    def send_retained(self) -> bool:
        """Send a slice; say whether the next one could be sent at once."""


class Rota:
    """Who is sent retained messages next? It is a `Flushable`.

    However many clients subscribe to however much, one slice is sent per flush, and the loop has other work between.
    """

    __slots__ = ("_touch", "_waiting")

    def __init__(self, touch: Callable[[Flushable], None]) -> None:
        self._touch: Callable[[Flushable], None] = touch
        self._waiting: dict[Sender, None] = {}

    def join(self, sender: Sender) -> None:
        """Have a client sent a slice when it is its turn."""
        if not self._waiting:
            self._touch(self)
        self._waiting[sender] = None

    def flush(self) -> None:
        """Let the first have its turn; it is the last then."""
        if not self._waiting:
            return
        sender = next(iter(self._waiting))
        del self._waiting[sender]
        try:
            more = sender.send_retained()
        finally:
            if self._waiting:
                self._touch(self)
        if more:
            self.join(sender)
