"""Which bindings have exactly this key?"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.routing.exchange import Found, HeaderSource, Link, Links, add_all, check_key, each, with_link, without_link


class Direct:
    """The direct exchange type (AMQP 0-9-1 §3.1.3.1)."""

    __slots__ = ("_count", "_keys", "cacheable", "takes_keys")

    def __init__(self) -> None:
        self.cacheable: bool = True
        self.takes_keys: bool = True
        self._keys: dict[str, Links] = {}
        self._count: int = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Link]:
        for links in self._keys.values():
            yield from each(links)

    def bind(self, link: Link) -> None:
        """See `ExchangeType.bind`."""
        key = link.binding.key
        check_key(key)
        self._keys[key] = with_link(self._keys.get(key), link)
        self._count += 1

    def unbind(self, link: Link) -> None:
        """See `ExchangeType.unbind`."""
        key = link.binding.key
        left = without_link(self._keys[key], link)
        if left is None:
            del self._keys[key]
        else:
            self._keys[key] = left
        self._count -= 1

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """See `ExchangeType.route`. Cost: the bindings that match."""
        links = self._keys.get(key)
        if links is not None:
            add_all(links, found)
