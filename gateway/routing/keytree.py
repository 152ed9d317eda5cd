"""Which of the stored keys match this pattern?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from gateway.model.names import words
from gateway.routing.ordered import Ordered
from gateway.routing.pattern import Pattern

V = TypeVar("V")

VISITS = 2_000
"""So many keys are looked at between two pauses of an iterator that nobody told otherwise."""
BYTES_PER_VISIT = 64
"""A longer key counts as several: what is done with it takes longer."""


class KeyTree(Generic[V]):
    """A map from keys to values that can be asked by pattern.

    The keys are kept in order beside the map. All that begin with the same words lie side by side (``a.b.`` to ``a.b/``, which
    is the next character), so a pattern's leading words are found by a search, whatever else is there, and a look-up that was
    broken off goes on behind the last key that it saw, whatever has changed since.
    """

    __slots__ = ("_keys", "_values")

    def __init__(self) -> None:
        self._keys: Ordered[str] = Ordered()
        self._values: dict[str, V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> V | None:
        """Return the value of a key. Cost: one look-up."""
        return self._values.get(key)

    def put(self, key: str, value: V) -> None:
        """Set the value of a key. Cost: one look-up; of a new key, a search."""
        if key not in self._values:
            self._keys.add(key)
        self._values[key] = value

    def remove(self, key: str) -> bool:
        """Forget a key; False: it was not there. Cost: a search."""
        if key not in self._values:
            return False
        del self._values[key]
        self._keys.discard(key)
        return True

    def moved(self) -> KeyTree[V]:
        """Return another tree with all that is here; this one is empty then, for look-ups under way, too."""
        other: KeyTree[V] = KeyTree()
        other._keys = self._keys.moved()
        self._values, other._values = other._values, self._values
        return other

    def take(self, most: int) -> list[tuple[str, V]]:
        """Take so many out at most; none is left if none is returned."""
        keys = self._keys.run_from("")[0][:most]
        found = [(key, self._values[key]) for key in keys]
        for key in keys:
            self.remove(key)
        return found

    def look_up(self, pattern: str, mqtt: bool = False) -> LookUp[V]:
        """Begin to look for the keys that match.

        Args:
            pattern: AMQP syntax.
            mqtt: a leading wildcard does not match a first word that begins with ``$`` (MQTT 3.1.1 §4.7.2).

        Cost: for words, and words with ``#`` at the end, what matches; else the keys below the words that lead the pattern.
        """
        return LookUp(self._keys, self._values, Pattern(pattern, mqtt=mqtt), mqtt)

    def match(self, pattern: str, mqtt: bool = False) -> Iterator[V]:
        """Yield the values whose keys match; `look_up` says which. What is put or removed meanwhile may be seen or not."""
        look_up = self.look_up(pattern, mqtt)
        while not look_up.done:
            yield from look_up.next_slice(VISITS, VISITS)


class LookUp(Generic[V]):
    """A look-up that can be broken off and goes on where it was, whatever is put and removed meanwhile.

    A key that is there all the time is seen once; one that comes or goes may be seen or not. ``done``: there is no more.
    """

    __slots__ = ("_at", "_end", "_keys", "_machine", "_prefix", "_ranges", "_start", "_values", "done")

    def __init__(self, keys: Ordered[str], values: dict[str, V], machine: Pattern, mqtt: bool) -> None:
        self._keys: Ordered[str] = keys
        self._values: dict[str, V] = values
        lead = _lead(machine.words)
        rest = machine.words[lead:]
        self._machine: Pattern | None = None if rest in ([], ["#"]) else machine
        self._prefix: int = lead
        self._start: int = machine.start
        for word in machine.words[:lead]:
            self._start = machine.step(self._start, word)
        self._ranges: list[tuple[str, str | None]] = _ranges(machine.words[:lead], rest, mqtt)
        self.done: bool = False
        self._at: str = ""
        self._end: str | None = None
        self._next_range()

    def next_slice(self, most: int, visits: int) -> list[V]:
        """Return at most so many more values, having looked at about so many keys; none is not the end, `done` is."""
        found: list[V] = []
        while not self.done and len(found) < most and visits > 0:
            run, index = self._keys.run_from(self._at)
            if self._machine is None:
                visits -= self._take(run, index, found, min(most - len(found), visits))
            else:
                visits -= self._sift(run, index, found, most, visits, self._machine)
        return found

    def _next_range(self) -> None:
        if self._ranges:
            self._at, self._end = self._ranges.pop()
        else:
            self.done = True

    def _take(self, run: list[str], index: int, found: list[V], most: int) -> int:
        """Take what lies side by side; return how many keys were looked at."""
        keys = run[index : index + most]
        if not keys:
            self._next_range()
            return 1
        end = self._end
        if end is not None and keys[-1] >= end:
            keys = [key for key in keys if key < end]
            self._next_range()
        else:
            self._at = _behind(keys[-1])
        values = self._values
        found += [values[key] for key in keys]
        return len(keys) + 1

    def _sift(self, run: list[str], index: int, found: list[V], most: int, visits: int, machine: Pattern) -> int:
        """Look at keys one by one, until there is a gap to jump over; return how many were looked at."""
        seen = 1
        end = self._end
        for key in run[index : index + visits]:
            if end is not None and key >= end:
                self._next_range()
                return seen
            seen += 1 + len(key) // BYTES_PER_VISIT
            follow = self._judge(key, machine, found)
            self._at = follow or _behind(key)
            if follow is not None or len(found) >= most or seen >= visits:
                return seen
        if index >= len(run):
            self._next_range()
        return seen

    def _judge(self, key: str, machine: Pattern, found: list[V]) -> str | None:
        """Take a key if it matches; return where the next that can match may be, None if that is the next one."""
        state = self._start
        parts = words(key)
        for index in range(self._prefix, len(parts)):
            after = machine.step(state, parts[index])
            if not after:
                over = state == machine.accept
                return _beyond(key, parts, index, None if over else machine.only_word(state), over=over)
            state = after
        if state & machine.accept:
            found.append(self._values[key])
        return None


def _lead(pattern: list[str]) -> int:
    """Return how many words lead a pattern before its first wildcard."""
    return next((index for index, word in enumerate(pattern) if word in ("*", "#")), len(pattern))


def _ranges(lead: list[str], rest: list[str], mqtt: bool) -> list[tuple[str, str | None]]:
    """Return where matching keys can lie, first and end of each range; the first range is the last element."""
    prefix = ".".join(lead)
    if not lead:
        if not rest:
            return [("", _behind(""))]
        return [("%", None), ("", "$")] if mqtt else [("", None)]
    below = [(f"{prefix}.", f"{prefix}/")] if rest else []
    itself = [(prefix, _behind(prefix))] if prefix and rest in ([], ["#"]) else []
    return [*below, *itself]


def _behind(key: str) -> str:
    """Return the least key that is greater."""
    return f"{key}\0"


def _beyond(key: str, parts: list[str], index: int, wanted: str | None, *, over: bool) -> str | None:
    """Return the least key behind `key` that can match, None if that is the next one.

    The words before `index`, one at least, may lead to a match; the one at `index` does not.

    Args:
        wanted: the one word that could stand there; None: any other may.
        over: nothing may stand there.
    """
    before = ".".join(parts[:index])
    if wanted is not None:
        for begin in (f"{before}.{wanted}", f"{before}.{wanted}."):
            if begin > key:
                return begin
        over = True
    if over:
        return f"{before}/"
    return f"{before}.{parts[index]}/" if index + 1 < len(parts) else None
