"""Which bindings ask for headers that this message has?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import PreconditionFailed
from gateway.routing.exchange import Found, HeaderSource, Link, add, check_key, headers_of

_MATCHES = ("all", "any", "all-with-x", "any-with-x")


class Condition:
    """What one binding asks of a message's headers.

    Args:
        arguments: the headers to find; None as a value asks for presence alone. ``x-match`` says whether ``all`` (if it
            is not given) or ``any`` must be there; other names that begin with ``x-`` count for ``all-with-x`` and
            ``any-with-x`` only. With nothing to find, all is true and any is false.

    Raises:
        PreconditionFailed: ``x-match`` has another value.
    """

    __slots__ = ("_every", "_wanted")

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        match = arguments.get("x-match", "all")
        if match not in _MATCHES:
            raise PreconditionFailed(f"invalid x-match field value {match!r}; expected one of {', '.join(_MATCHES)}")
        with_x = match.endswith("-with-x")
        self._every: bool = match.startswith("all")
        self._wanted: list[tuple[str, Any]] = [
            (name, value) for name, value in arguments.items() if name != "x-match" and (with_x or not name.startswith("x-"))
        ]

    def holds(self, headers: Mapping[str, Any]) -> bool:
        """Say whether a message with these headers meets it."""
        for name, value in self._wanted:
            if (name in headers and _equal(value, headers[name])) is not self._every:
                return not self._every
        return self._every


def _equal(wanted: object, given: object) -> bool:
    return wanted is None or (type(wanted) is type(given) and wanted == given)  # 1, 1.0 and true are three values


class Headers:
    """The headers exchange type (AMQP 0-9-1 §3.1.3.4)."""

    __slots__ = ("_conditions", "cacheable", "takes_keys")

    def __init__(self) -> None:
        self.cacheable: bool = False
        self.takes_keys: bool = False
        self._conditions: dict[Link, Condition] = {}

    def __len__(self) -> int:
        return len(self._conditions)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._conditions)

    def bind(self, link: Link) -> None:
        """See `ExchangeType.bind`."""
        check_key(link.binding.key)
        self._conditions[link] = Condition(link.binding.arguments)

    def unbind(self, link: Link) -> None:
        """See `ExchangeType.unbind`."""
        del self._conditions[link]

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """See `ExchangeType.route`. Cost: the number of bindings. The headers are asked for if there is a binding."""
        if not self._conditions:
            return
        values = headers_of(headers)
        for link, condition in self._conditions.items():
            if condition.holds(values):
                add(link.destination, link.options, found)
