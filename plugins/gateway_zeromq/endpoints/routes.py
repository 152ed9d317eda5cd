"""Which route does the key mean that a peer of an endpoint wrote?"""

from __future__ import annotations

from typing import Final

from gateway.api import Channel, Route
from gateway_zeromq.endpoints.frames import WrongKey
from gateway_zeromq.keys import complaint_of, remember
from gateway_zeromq.settings.taking import TakingEndpoint

LONGEST_BYTES: Final = 65_535


class Routes:
    """The routes of one channel to the exchange of an endpoint.

    ``known``: by key as it stands in frames, for loops that ask there first. ``fixed``: for messages that bring no key.

    Raises:
        WrongKey: the endpoint's own key can't be. AccessRefused: the user may not publish with it.
    """

    __slots__ = ("_channel", "_settings", "fixed", "known")

    def __init__(self, channel: Channel, settings: TakingEndpoint) -> None:
        self._channel = channel
        self._settings = settings
        self.known: dict[bytes, Route] = {}
        self.fixed = self._named(settings.routing_key or "")

    def of(self, key: bytes | None) -> Route:
        """Return the route for a key; None: the message brings none.

        Raises:
            WrongKey: it can't be. UnicodeDecodeError: it is not UTF-8. AccessRefused: the user may not publish there.
        """
        return self.fixed if key is None else self.known.get(key) or self._found(key)

    def _found(self, key: bytes) -> Route:
        if len(key) > LONGEST_BYTES:
            raise WrongKey(f"a routing key of {len(key)} bytes; at most {LONGEST_BYTES} are allowed")
        route = self._named(key.decode())
        remember(self.known, key, route)
        return route

    def _named(self, key: str) -> Route:
        inner = self._settings.spelled(key)
        complaint = complaint_of(inner)
        if complaint is not None:
            raise WrongKey(complaint)
        return self._channel.route(self._settings.exchange, inner)
