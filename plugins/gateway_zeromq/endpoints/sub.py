"""How does what PUB and XPUB peers send get published?

Subscribing is all that is different from PULL. What is not asked for stays with the publishers (or, of old ones, is dropped by
libzmq here). They drop what a full connection does not take, and tell nobody: so it is worth something to read fast.
"""

from __future__ import annotations

import zmq

from gateway.api import Principal
from gateway_zeromq.endpoints.pull import PullSocket
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.settings import SubEndpoint, XsubEndpoint
from trio_zmq.pump import NOBLOCK

_SUBSCRIBE = b"\x01"


class SubSocket(PullSocket):
    """One SUB or XSUB endpoint."""

    def __init__(self, spot: Spot, settings: SubEndpoint | XsubEndpoint, principal: Principal) -> None:
        super().__init__(spot, settings, principal)
        for prefix in settings.subscriptions:
            self._subscribe(prefix.encode())

    def _subscribe(self, prefix: bytes) -> None:
        """Ask all peers for what begins so, those that come later, too."""
        if self._spot.settings.socket == "SUB":
            self._pump.socket.setsockopt(zmq.SUBSCRIBE, prefix)
        else:
            self._pump.send(_SUBSCRIBE + prefix, NOBLOCK)
