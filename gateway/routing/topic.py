"""Which patterns match this key?"""

from __future__ import annotations

from collections.abc import Iterator
from sys import intern
from typing import TypeAlias

from gateway.errors import PreconditionFailed
from gateway.model.declare import BindingOptions
from gateway.model.names import OWN_KEYS, words
from gateway.routing.exchange import Found, HeaderSource, Link, Links, check_key, each, with_link, without_link

MAX_PATTERN_WORDS = 256
"""A pattern costs one node per word. Every key that AMQP can write (255 bytes) has no more."""


class Node:
    """A place in the tree of patterns: the words from the root to here.

    ``children`` by literal word; where there is one only, it is `only`, and `only_word` its word: most places have no more, and
    a dict costs twice what a node does.
    """

    __slots__ = ("children", "links", "only", "only_word", "rest", "spares_dollar", "star", "stays")

    def __init__(self, *, stays: bool, spares_dollar: bool) -> None:
        self.children: dict[str, Node] | None = None
        self.only: Node | None = None
        self.only_word: str | None = None
        self.star: Node | None = None
        self.rest: Node | None = None  # the child under `#`
        self.links: Links | None = None
        self.stays: bool = stays  # this is a `#`: any further word leads here again
        self.spares_dollar: bool = spares_dollar  # the first word of the pattern is a wildcard

    @property
    def is_last(self) -> bool:
        """No pattern goes on from here."""
        return self.only is None and self.children is None and self.star is None and self.rest is None

    def child(self, word: str) -> Node | None:
        """Return the next place along a pattern."""
        if word == "*":
            return self.star
        if word == "#":
            return self.rest
        if self.children is not None:
            return self.children.get(word)
        return self.only if word == self.only_word else None

    def grow(self, word: str, *, root: bool) -> Node:
        """Make the next place along a pattern."""
        node = Node(stays=word == "#", spares_dollar=word in ("*", "#") if root else self.spares_dollar)
        if word == "*":
            self.star = node
        elif word == "#":
            self.rest = node
        else:
            self._grow_literal(word, node)
        return node

    def _grow_literal(self, word: str, node: Node) -> None:
        if self.children is not None:
            self.children[word] = node
        elif self.only is None or self.only_word is None:
            self.only, self.only_word = node, intern(word)  # one that many patterns have, most likely
        else:
            self.children = {self.only_word: self.only, word: node}
            self.only = self.only_word = None

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
        else:
            self.only = self.only_word = None

    def below(self) -> list[Node]:
        """Return the next places along all patterns."""
        literal = list(self.children.values()) if self.children is not None else [self.only]
        return [node for node in (*literal, self.star, self.rest) if node is not None]


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
        children, star = node.children, node.star
        child = children.get(word) if children is not None else node.only if node.only_word == word else None
        if child is not None:
            enter(child, reached, ended)
        if star is not None:
            enter(star, reached, ended)
    return reached


class Topic:
    """The topic exchange type (AMQP 0-9-1 §3.1.3.3): a tree of patterns by words."""

    __slots__ = ("_count", "_root", "cacheable", "takes_keys")

    def __init__(self) -> None:
        self.cacheable: bool = True
        self.takes_keys: bool = True
        self._root: Node = Node(stays=False, spares_dollar=False)
        self._count: int = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Link]:
        pending = [self._root]
        while pending:
            node = pending.pop()
            yield from each(node.links)
            pending += node.below()

    def bind(self, link: Link) -> None:
        """See `ExchangeType.bind`. A pattern has at most `MAX_PATTERN_WORDS` words."""
        check_key(link.binding.key)
        pattern = words(link.binding.key)
        if len(pattern) > MAX_PATTERN_WORDS:
            raise PreconditionFailed(f"a pattern has at most {MAX_PATTERN_WORDS} words, not {len(pattern)}")
        node = self._root
        for word in pattern:
            node = node.child(word) or node.grow(word, root=node is self._root)
        node.links = with_link(node.links, link)
        self._count += 1

    def unbind(self, link: Link) -> None:
        """See `ExchangeType.unbind`. Cost: the words of the pattern."""
        node = self._root
        path: list[tuple[Node, str]] = []
        for word in words(link.binding.key):
            path.append((node, word))
            child = node.child(word)
            assert child is not None
            node = child
        node.links = without_link(node.links, link)
        self._count -= 1
        _prune(node, path)

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """See `ExchangeType.route`.

        What the broker says of itself (`OWN_KEYS`) comes to nobody who did not ask for it by name: a leading wildcard spares it,
        whosever the binding is. MQTT's leading wildcards spare every `$` (MQTT 3.1.1 §4.7.2 [MQTT-4.7.2-1]).

        Cost: the words of the key times the nodes that match so far, and the bindings that match.
        """
        first_is_dollar = key.startswith("$")
        own = key.startswith(OWN_KEYS)
        matching: list[Link] = []
        for node in self.matching(key):
            links = node.links
            if links is None:
                continue
            if first_is_dollar and node.spares_dollar:
                matching += [link for link in each(links) if not (own or link.options.mqtt)]
            elif isinstance(links, Link):
                matching.append(links)
            else:
                matching += links
        _add(matching, found)

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


def _add(links: list[Link], found: Found) -> None:
    """Add the destinations of links. What several bindings say of one is merged in the end: there may be thousands."""
    more: dict[object, list[BindingOptions]] = {}
    for link in links:
        options = link.options
        destination = link.destination
        present = found.get(destination)
        if present is None:
            found[destination] = options
        elif present is not options:
            more.setdefault(destination, []).append(options)
    for destination, others in more.items():
        found[destination] = found[destination].merged_with(others)


def _prune(node: Node, path: list[tuple[Node, str]]) -> None:
    """Cut what carries no binding any more, from the end of a pattern towards the root."""
    for parent, word in reversed(path):
        if node.links is not None or not node.is_last:
            return
        parent.drop(word)
        node = parent
