"""Which bindings are there? All of them match."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.routing.exchange import Found, HeaderSource, Link, add_all, check_key


class Fanout:
    """The fanout exchange type (AMQP 0-9-1 §3.1.3.2): the key tells bindings apart and selects nothing."""

    __slots__ = ("_links", "cacheable", "takes_keys")

    def __init__(self) -> None:
        self.cacheable: bool = True
        self.takes_keys: bool = False
        self._links: dict[Link, None] = {}

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links)

    def bind(self, link: Link) -> None:
        """See `ExchangeType.bind`."""
        check_key(link.binding.key)
        self._links[link] = None

    def unbind(self, link: Link) -> None:
        """See `ExchangeType.unbind`."""
        del self._links[link]

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """See `ExchangeType.route`. Cost: the number of bindings."""
        add_all(self._links, found)
