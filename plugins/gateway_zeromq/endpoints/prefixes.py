"""Which binding patterns bring what subscribers asked for, by the first bytes of the key?"""

from __future__ import annotations

from codecs import utf_8_decode
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

EVERYTHING = "#"
LONGEST_KEY = 65_535
LONGEST_PREFIX = 4_096
"""Of a subscription: libzmq keeps fifty bytes for each of its bytes, and takes as long to forget them."""
USUAL_BYTES = 256
"""So long all prefixes may be on average."""


class Change(NamedTuple):
    """What is to be bound, and what is not needed any more."""

    bind: Sequence[str] = ()
    unbind: Sequence[str] = ()


NO_CHANGE = Change()


def pattern_of(prefix: bytes) -> str | None:
    """Return the narrowest topic pattern that matches every key with this prefix; None: no key has it.

    Only whole words count, so the pattern may bring more than was asked for. Words that look like wildcards stay as they are: as a
    pattern they match themselves, and more.

    Args:
        prefix: of a key in AMQP's spelling, UTF-8; its last character may be cut.
    """
    if len(prefix) > LONGEST_KEY:
        return None
    words, dot, last = prefix.rpartition(b".")
    try:
        pattern = f"{words.decode()}.*.#" if dot else "*.#"
        utf_8_decode(last, "strict", False)
    except UnicodeDecodeError:
        return None
    return pattern if prefix and len(pattern.encode()) <= LONGEST_KEY else EVERYTHING


class Prefixes:
    """What is subscribed to at present.

    With too many of them it is bound to everything, until as many were given up as had come: who filters behind it knows better.
    Where every subscriber is heard of, and only the last one who goes (last values), it may stay so.

    Args:
        most: distinct prefixes that are remembered, and no more bytes than so many usually have.
    """

    __slots__ = ("_bytes", "_known", "_lengths", "_most", "_patterns", "_untold", "overflowed")

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._known: dict[bytes, str | None] = {}
        self._patterns: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()
        self._untold = 0  # how many there are, if there are too many
        self.overflowed = False

    def __bool__(self) -> bool:
        """Say whether anybody may be there."""
        return self.overflowed or bool(self._known)

    def __contains__(self, prefix: bytes) -> bool:
        """Say whether this may be subscribed to."""
        return self.overflowed or prefix in self._known

    def patterns(self) -> Sequence[str]:
        """Return what is to be bound now."""
        return [EVERYTHING] if self.overflowed else list(self._patterns)

    def add(self, prefix: bytes) -> Change:
        """Take a subscription; one that is known already changes nothing."""
        if self.overflowed:
            self._untold += 1
            return NO_CHANGE
        if prefix in self._known:
            return NO_CHANGE
        self._bytes += len(prefix)
        if len(self._known) >= self._most or self._bytes > self._most * USUAL_BYTES:
            return self._overflow()
        pattern = self._known[prefix] = pattern_of(prefix)
        self._lengths[len(prefix)] += 1
        if pattern is None:
            return NO_CHANGE
        self._patterns[pattern] += 1
        return Change(bind=(pattern,)) if self._patterns[pattern] == 1 else NO_CHANGE

    def remove(self, prefix: bytes) -> Change:
        """The last who had this subscription gave it up; one that is not known changes nothing."""
        if self.overflowed:
            return self._one_less()
        if prefix not in self._known:
            return NO_CHANGE
        pattern = self._known.pop(prefix)
        self._bytes -= len(prefix)
        _less(self._lengths, len(prefix))
        if pattern is None or _less(self._patterns, pattern):
            return NO_CHANGE
        return Change(unbind=(pattern,))

    def want(self, key: bytes) -> bool:
        """Say whether somebody may want this key. Cost: how many lengths of prefixes there are."""
        return self.overflowed or any(key[:length] in self._known for length in self._lengths)

    def _overflow(self) -> Change:
        self.overflowed = True
        self._untold = len(self._known) + 1
        self._bytes = 0
        old = [pattern for pattern in self._patterns if pattern != EVERYTHING]
        bound = EVERYTHING in self._patterns
        self._known.clear()
        self._patterns.clear()
        self._lengths.clear()
        return Change((() if bound else (EVERYTHING,)), old)

    def _one_less(self) -> Change:
        self._untold -= 1
        if self._untold:
            return NO_CHANGE
        self.overflowed = False
        return Change(unbind=(EVERYTHING,))


def _less(counter: Counter[Item], item: Item) -> int:
    """Count one less, and forget what is not there any more; return how many are left."""
    counter[item] -= 1
    left = counter[item]
    if not left:
        del counter[item]
    return left
