"""What is an exchange type, and what do all of them share?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from gateway.errors import PreconditionFailed
from gateway.model.declare import Binding, BindingOptions, arguments_text
from gateway.model.names import MAX_KEY_BYTES

HeaderSource: TypeAlias = Callable[[], Mapping[str, Any]]
"""Gives a message's headers, decoded when asked; it may be asked more than once."""

Found: TypeAlias = dict[object, BindingOptions]
"""Destinations that a message reaches, in the order they were found, with what their bindings say together."""

Target: TypeAlias = tuple[object, str, str]
"""One binding as an exchange type knows it: destination, key, arguments as canonical text."""

Targets: TypeAlias = dict[Target, BindingOptions]


class ExchangeType(Protocol):
    """Keeps the bindings of one exchange and finds those that a key (or the headers) match.

    A destination is an opaque hashable object: nothing here looks inside it.
    """

    @property
    def cacheable(self) -> bool:
        """What is found depends on the key alone, until a binding comes or goes."""

    def __len__(self) -> int:
        """Return the number of bindings."""

    def bind(self, key: str, destination: object, binding: Binding) -> None:
        """Add a binding; one of the same key, destination and arguments gets the new options.

        Raises:
            PreconditionFailed: the key or the arguments can't be; nothing has changed.
        """

    def unbind(self, key: str, destination: object, binding: Binding) -> bool:
        """Remove a binding; False: it was not there."""

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """Add the destinations of all matching bindings to `found`; one that is there already gets merged options."""


def target(key: str, destination: object, binding: Binding) -> Target:
    """Return what tells bindings to one exchange apart."""
    return (destination, key, arguments_text(binding.arguments) if binding.arguments else "")


def add(destination: object, options: BindingOptions, found: Found) -> None:
    """Add one destination to what was found."""
    present = found.get(destination)
    found[destination] = options if present is None else present.merged(options)


def add_all(targets: Targets, found: Found) -> None:
    """Add the destinations of all `targets` to what was found."""
    for (destination, _, _), options in targets.items():
        present = found.get(destination)
        found[destination] = options if present is None else present.merged(options)


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
