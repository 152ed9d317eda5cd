"""Does one pattern match, word by word?"""

from __future__ import annotations

from gateway.model.names import words


class Pattern:
    """A topic pattern as a machine whose state is a set of places in it, kept as the bits of one integer.

    Bit i says: the first i words of the pattern are used up. Zero: no match, whatever follows. A step costs one look-up
    and a few operations on as many bits as the pattern has words: nothing can make it exponential.

    Args:
        pattern: AMQP syntax.
        mqtt: a leading wildcard does not match a first word that begins with ``$`` (MQTT 3.1.1 §4.7.2).
    """

    __slots__ = ("_literal", "_rest", "_spares_dollar", "_star", "accept", "start", "tail", "words")

    def __init__(self, pattern: str, *, mqtt: bool = False) -> None:
        self.words: list[str] = _without_repeats(words(pattern))
        self._literal: dict[str, int] = {}
        self._star: int = 0
        self._rest: int = 0
        for index, word in enumerate(self.words):
            if word == "*":
                self._star |= 1 << index
            elif word == "#":
                self._rest |= 1 << index
            else:
                self._literal[word] = self._literal.get(word, 0) | 1 << index
        end = len(self.words)
        self.accept: int = 1 << end
        """Where this bit is set, the words so far match."""
        self.tail: int = 1 << (end - 1) & self._rest if end else 0
        """Where this bit is set, the words so far match, and all that begin with them."""
        self.start: int = self._closed(1)
        self._spares_dollar: bool = mqtt and bool((self._star | self._rest) & 1)

    def step(self, state: int, word: str) -> int:
        """Return the state after one more word."""
        used = state & (self._literal.get(word, 0) | self._star)
        return self._closed(used << 1 | state & self._rest)

    def first_step(self, word: str) -> int:
        """Return the state after the first word of a key."""
        return 0 if self._spares_dollar and word.startswith("$") else self.step(self.start, word)

    def only_word(self, state: int) -> str | None:
        """Return the one word that leads on from here; None: there may be others."""
        if state & (state - 1) or not state or state & (self._star | self._rest | self.accept):
            return None
        return self.words[state.bit_length() - 1]

    def matches(self, key: str) -> bool:
        """Say whether a whole key matches."""
        state = self.start
        for index, word in enumerate(words(key)):
            state = self.step(state, word) if index else self.first_step(word)
            if not state:
                return False
        return bool(state & self.accept)

    def _closed(self, state: int) -> int:
        return state | (state & self._rest) << 1  # `#` may stand for zero words; no two of them are neighbours


def _without_repeats(pattern: list[str]) -> list[str]:
    return [word for index, word in enumerate(pattern) if word != "#" or index == 0 or pattern[index - 1] != "#"]
