"""Which patterns match this key?"""

from __future__ import annotations

from typing import TypeAlias

from gateway.errors import PreconditionFailed
from gateway.model.declare import Binding
from gateway.model.names import words
from gateway.routing.exchange import Found, HeaderSource, Targets, add, add_all, check_key, target

MAX_PATTERN_WORDS = 256
"""A pattern costs one node per word. Every key that AMQP can write (255 bytes) has no more."""


class Node:
    """A place in the tree of patterns: the words from the root to here."""

    __slots__ = ("children", "rest", "spares_dollar", "star", "stays", "targets")

    def __init__(self, *, stays: bool, spares_dollar: bool) -> None:
        self.children: dict[str, Node] | None = None
        self.star: Node | None = None
        self.rest: Node | None = None  # the child under `#`
        self.targets: Targets | None = None
        self.stays: bool = stays  # this is a `#`: any further word leads here again
        self.spares_dollar: bool = spares_dollar  # the first word of the pattern is a wildcard

    @property
    def is_last(self) -> bool:
        """No pattern goes on from here."""
        return self.children is None and self.star is None and self.rest is None

    def child(self, word: str) -> Node | None:
        """Return the next place along a pattern."""
        if word == "*":
            return self.star
        if word == "#":
            return self.rest
        return self.children.get(word) if self.children is not None else None

    def grow(self, word: str, *, root: bool) -> Node:
        """Make the next place along a pattern."""
        node = Node(stays=word == "#", spares_dollar=word in ("*", "#") if root else self.spares_dollar)
        if word == "*":
            self.star = node
        elif word == "#":
            self.rest = node
        elif self.children is None:
            self.children = {word: node}
        else:
            self.children[word] = node
        return node

    def drop(self, word: str) -> None:
        """Forget the next place along a pattern."""
        if word == "*":
            self.star = None
        elif word == "#":
            self.rest = None
        elif self.children is not None:
            del self.children[word]
            if not self.children:
                self.children = None


Places: TypeAlias = dict[Node, None]
"""A set of nodes that keeps its order, so that equal input gives equal output."""


def enter(node: Node, active: Places, ended: Places) -> None:
    """Add a node, and what `#` reaches from it with zero words.

    A `#` that ends its pattern matches whatever follows: it goes to `ended` and costs nothing from then on.
    """
    active[node] = None
    rest = node.rest
    while rest is not None:
        (ended if rest.is_last else active)[rest] = None
        rest = rest.rest


def advance(active: Places, word: str, ended: Places) -> Places:
    """Return where one more word leads from all `active` nodes at once.

    Cost: the number of active nodes, each of which is there once, however many ways lead to it.
    """
    reached: Places = {}
    for node in active:
        if node.stays:
            reached[node] = None
        if node.children is not None:
            child = node.children.get(word)
            if child is not None:
                enter(child, reached, ended)
        if node.star is not None:
            enter(node.star, reached, ended)
    return reached


class Topic:
    """The topic exchange type (AMQP 0-9-1 §3.1.3.3): a tree of patterns by words."""

    __slots__ = ("_count", "_root", "cacheable")

    def __init__(self) -> None:
        self.cacheable: bool = True
        self._root: Node = Node(stays=False, spares_dollar=False)
        self._count: int = 0

    def __len__(self) -> int:
        return self._count

    def bind(self, key: str, destination: object, binding: Binding) -> None:
        """See `ExchangeType.bind`. A pattern has at most `MAX_PATTERN_WORDS` words."""
        check_key(key)
        pattern = words(key)
        if len(pattern) > MAX_PATTERN_WORDS:
            raise PreconditionFailed(f"a pattern has at most {MAX_PATTERN_WORDS} words, not {len(pattern)}")
        node = self._root
        for word in pattern:
            node = node.child(word) or node.grow(word, root=node is self._root)
        if node.targets is None:
            node.targets = {}
        before = len(node.targets)
        node.targets[target(key, destination, binding)] = binding.options
        self._count += len(node.targets) - before

    def unbind(self, key: str, destination: object, binding: Binding) -> bool:
        """See `ExchangeType.unbind`. Cost: the words of the pattern."""
        node = self._root
        path: list[tuple[Node, str]] = []
        for word in words(key):
            path.append((node, word))
            child = node.child(word)
            if child is None:
                return False
            node = child
        if node.targets is None or node.targets.pop(target(key, destination, binding), None) is None:
            return False
        self._count -= 1
        _prune(node, path)
        return True

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """See `ExchangeType.route`.

        Cost: the words of the key times the nodes that match so far, and the bindings that match.
        """
        first_is_dollar = key.startswith("$")
        for node in self.matching(key):
            if node.targets is None:
                continue
            if first_is_dollar and node.spares_dollar:
                _add_sparing(node.targets, found)
            else:
                add_all(node.targets, found)

    def matching(self, key: str) -> Places:
        """Return the nodes whose patterns match a key, those without bindings included."""
        active: Places = {}
        ended: Places = {}
        enter(self._root, active, ended)
        for word in words(key):
            active = advance(active, word, ended)
            if not active:
                break
        ended.update(active)
        return ended


def _add_sparing(targets: Targets, found: Found) -> None:
    """Leave out MQTT's bindings: their leading wildcard spares `$` (MQTT 3.1.1 §4.7.2 [MQTT-4.7.2-1])."""
    for (destination, _, _), options in targets.items():
        if not options.mqtt:
            add(destination, options, found)


def _prune(node: Node, path: list[tuple[Node, str]]) -> None:
    """Cut what carries no binding any more, from the end of a pattern towards the root."""
    if not node.targets:
        node.targets = None
    for parent, word in reversed(path):
        if node.targets is not None or not node.is_last:
            return
        parent.drop(word)
        node = parent
