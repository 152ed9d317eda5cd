"""Which of the stored keys match this pattern?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from gateway.model.names import words
from gateway.routing.pattern import Pattern

V = TypeVar("V")


class _Twig(Generic[V]):
    """Some words of a key, one at least, kept as one string; below it the keys that go on."""

    __slots__ = ("branches", "filled", "label", "value")

    def __init__(self, label: str) -> None:
        self.label: str = label
        self.branches: dict[str, _Twig[V]] = {}
        self.value: V | None = None
        self.filled: bool = False


class KeyTree(Generic[V]):
    """A map from keys to values that can be asked by pattern.

    Words that no other key parts from lie on one twig, so memory is in proportion to the keys' bytes, also for keys of many
    thousand words.
    """

    __slots__ = ("_root", "_values")

    def __init__(self) -> None:
        self._root: _Twig[V] = _Twig("")
        self._values: dict[str, V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> V | None:
        """Return the value of a key. Cost: one look-up."""
        return self._values.get(key)

    def put(self, key: str, value: V) -> None:
        """Set the value of a key. Cost: its words."""
        self._values[key] = value
        twig = self._root
        left = words(key)
        while left:
            branch = twig.branches.get(left[0])
            if branch is None:
                branch = _Twig(".".join(left))
                twig.branches[left[0]] = branch
                left = []
            else:
                shared = _shared(branch.label.split("."), left)
                branch = _split(twig, branch, shared)
                left = left[shared:]
            twig = branch
        twig.value = value
        twig.filled = True

    def remove(self, key: str) -> bool:
        """Forget a key; False: it was not there. Cost: its words."""
        if key not in self._values:
            return False
        del self._values[key]
        path = [self._root]
        left = words(key)
        while left:
            twig = path[-1].branches[left[0]]
            path.append(twig)
            left = left[twig.label.count(".") + 1 :]
        path[-1].value = None
        path[-1].filled = False
        _tidy(path)
        return True

    def match(self, pattern: str, mqtt: bool = False) -> Iterator[V]:
        """Return the values whose keys match, as of now: what is put or removed meanwhile changes nothing.

        Args:
            pattern: AMQP syntax.
            mqtt: a leading wildcard does not match a first word that begins with ``$`` (MQTT 3.1.1 §4.7.2).

        Cost: for words, and words with ``#`` at the end, what matches; else the keys below the words that lead the pattern.
        """
        matched: list[V] = []
        machine = Pattern(pattern, mqtt=mqtt)
        pending = [(self._root, machine.start)]
        while pending:
            twig, state = pending.pop()
            if twig.filled and state & machine.accept:
                matched.append(twig.value)  # type: ignore[arg-type]
            for branch in _ways_on(twig, machine, state):
                after = _along(branch, machine, state, first=twig is self._root)
                if after:
                    pending.append((branch, after))
        return iter(matched)


def _ways_on(twig: _Twig[V], machine: Pattern, state: int) -> list[_Twig[V]]:
    word = machine.only_word(state)
    if word is None:
        return list(twig.branches.values())
    branch = twig.branches.get(word)
    return [] if branch is None else [branch]


def _along(twig: _Twig[V], machine: Pattern, state: int, *, first: bool) -> int:
    """Return the state at the end of a twig."""
    for word in twig.label.split("."):
        if state & machine.tail and not first:
            return state
        state = machine.first_step(word) if first else machine.step(state, word)
        first = False
        if not state:
            break
    return state


def _shared(one: list[str], other: list[str]) -> int:
    """Return how many words two keys have in common at their beginning."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _split(parent: _Twig[V], twig: _Twig[V], at: int) -> _Twig[V]:
    """Cut a twig after `at` words, at least one, and return the part next to the parent."""
    label = twig.label.split(".")
    if at == len(label):
        return twig
    upper: _Twig[V] = _Twig(".".join(label[:at]))
    twig.label = ".".join(label[at:])
    upper.branches[label[at]] = twig
    parent.branches[label[0]] = upper
    return upper


def _tidy(path: list[_Twig[V]]) -> None:
    """Take the last twig of a path away if nothing needs it, and join what need not be parted any more."""
    twig = path.pop()
    if path and not twig.branches and not twig.filled:
        parent = path.pop()
        del parent.branches[_first_word(twig)]
        _join(parent, path)
    else:
        _join(twig, path)


def _join(twig: _Twig[V], path: list[_Twig[V]]) -> None:
    """Put a twig and its only branch together; the root stays."""
    if not path or twig.filled or len(twig.branches) != 1:
        return
    (branch,) = twig.branches.values()
    branch.label = f"{twig.label}.{branch.label}"
    path[-1].branches[_first_word(twig)] = branch


def _first_word(twig: _Twig[V]) -> str:
    return twig.label.split(".", 1)[0]
