"""What is an exchange type, and what do all of them share?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeAlias

from gateway.errors import PreconditionFailed
from gateway.model.declare import Binding, BindingOptions
from gateway.model.names import MAX_KEY_BYTES
from gateway.model.properties import Properties

HeaderSource: TypeAlias = Callable[[], Properties | Mapping[str, Any]]
"""Gives a message's properties, decoded when asked, or its headers alone; it may be asked more than once."""

Found: TypeAlias = dict[object, BindingOptions]
"""Destinations that a message reaches, in the order they were found, with what their bindings say together."""


_SHARED: Final[dict[BindingOptions, BindingOptions]] = {}
MOST_SHARED: Final = 64


def shared(options: BindingOptions) -> BindingOptions:
    """Return the one object for all options that say the same: thousands of bindings that match one key are compared by it.

    Those with identifiers stay as they are: there may be any number of them.
    """
    if options.subscription_ids or len(_SHARED) >= MOST_SHARED:
        return options
    return _SHARED.setdefault(options, options)


class Link:
    """A binding in use. Two links of one exchange differ in destination, key or arguments.

    Args:
        destination: an opaque hashable object, the queue or exchange: nothing here looks inside it.
        binding: as asked for.

    ``options``: the binding's, `shared`.
    """

    __slots__ = ("binding", "destination", "options")

    def __init__(self, destination: object, binding: Binding) -> None:
        self.destination: object = destination
        self.binding: Binding = binding
        self.options: BindingOptions = shared(binding.options)

    def renew(self, binding: Binding) -> None:
        """Take the options of a binding of the same identity."""
        self.binding = binding
        self.options = shared(binding.options)


Links: TypeAlias = Link | dict[Link, None]
"""Links of one place. Most places have one, and there are many places: a dict costs four times what a link does."""


class ExchangeType(Protocol):
    """Keeps the links of one exchange and finds those that a key (or the headers) match."""

    @property
    def cacheable(self) -> bool:
        """What is found depends on the key alone, until a binding comes or goes."""

    @property
    def takes_keys(self) -> bool:
        """Further keys of a message may find more; otherwise only its first one is asked for."""

    def __len__(self) -> int:
        """Return the number of links."""

    def __iter__(self) -> Iterator[Link]:
        """Yield the links, in any order."""

    def bind(self, link: Link) -> None:
        """Add a link that is not there.

        Raises:
            PreconditionFailed: the key or the arguments can't be; nothing has changed.
        """

    def unbind(self, link: Link) -> None:
        """Remove a link that is there."""

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """Add the destinations of all matching links to `found`; one that is there already gets merged options."""


def with_link(links: Links | None, link: Link) -> Links:
    """Return a place's links with one more."""
    if links is None:
        return link
    if isinstance(links, Link):
        return {links: None, link: None}
    links[link] = None
    return links


def without_link(links: Links | None, link: Link) -> Links | None:
    """Return a place's links without one that is there; None: nothing is left."""
    if links is link or links is None or isinstance(links, Link):
        return None
    del links[link]
    return links or None


def each(links: Links | None) -> Iterable[Link]:
    """Return the links of a place, to be walked through."""
    if links is None:
        return ()
    return (links,) if isinstance(links, Link) else links


def headers_of(source: HeaderSource) -> Mapping[str, Any]:
    """Return a message's headers."""
    given = source()
    return (given.headers or {}) if isinstance(given, Properties) else given


def add(destination: object, options: BindingOptions, found: Found) -> None:
    """Add one destination to what was found."""
    present = found.get(destination)
    found[destination] = options if present is None else present.merged(options)


def add_all(links: Links, found: Found) -> None:
    """Add the destinations of all `links` to what was found."""
    for link in (links,) if isinstance(links, Link) else links:
        destination = link.destination
        present = found.get(destination)
        found[destination] = link.options if present is None else present.merged(link.options)


def check_key(key: str) -> None:
    """Refuse what no protocol can carry as a key.

    Raises:
        PreconditionFailed: longer than 65,535 bytes, or not text.
    """
    if encoded_length(key) > MAX_KEY_BYTES:
        raise PreconditionFailed(f"a key has at most {MAX_KEY_BYTES} bytes")


def encoded_length(text: str) -> int:
    """Return the length in bytes of UTF-8.

    Raises:
        PreconditionFailed: a lone surrogate, which UTF-8 can't encode.
    """
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise PreconditionFailed(f"{text[:40]!r} can't be encoded as UTF-8") from None
