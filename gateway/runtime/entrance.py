"""Is there such a virtual host, and as which principal is a user in it?"""

from __future__ import annotations

from collections.abc import Callable

from gateway.api.frontend import Authorize, Principal
from gateway.errors import NotFound


class Entrance:
    """The virtual hosts in which users are: one principal for each user and virtual host.

    Args:
        exists: says whether there is a virtual host of a name.
    """

    def __init__(self, exists: Callable[[str], bool]) -> None:
        self._exists = exists
        self._known: dict[tuple[str, Authorize | None, str], Principal] = {}

    def enter(self, principal: Principal, vhost: str) -> Principal:
        """See `gateway.api.Gateway.enter`."""
        if principal.vhost == vhost:
            return principal
        if not self._exists(vhost):
            raise NotFound(f"no vhost '{vhost}'")
        user, authorize = principal.user, principal.authorize
        self._known.setdefault((user, authorize, principal.vhost), principal)
        return self._known.setdefault((user, authorize, vhost), Principal(user, vhost, authorize))
