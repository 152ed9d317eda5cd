"""Which class is the socket of which endpoint, and what do all of them have?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from gateway.api import Principal
from gateway_zeromq.endpoints.dealer import DealerSocket
from gateway_zeromq.endpoints.pong.endpoint import PongSocket
from gateway_zeromq.endpoints.pub import PubSocket
from gateway_zeromq.endpoints.pull import PullSocket
from gateway_zeromq.endpoints.push import PushSocket
from gateway_zeromq.endpoints.rep import RepSocket
from gateway_zeromq.endpoints.router import RouterSocket
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.endpoints.sub import SubSocket
from gateway_zeromq.settings import (
    DealerEndpoint,
    Endpoint,
    PubEndpoint,
    PullEndpoint,
    PushEndpoint,
    RepEndpoint,
    RouterEndpoint,
    SubEndpoint,
    XpubEndpoint,
    XsubEndpoint,
)
from gateway_zeromq.tgp.bridge import Desk


class Socket(Protocol):
    """One endpoint while the broker runs. The methods are called in this order."""

    async def start(self) -> None:
        """Do what must be done before anybody can connect. Raises: ConfigError. Cancellation: safe."""

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""

    async def run(self) -> None:
        """Serve until cancelled or closed. Cancellation: what was received is dealt with."""

    async def drain(self) -> None:
        """Come to an end: what is under way is finished, for as long as that may take. Cancellation: safe."""

    def close(self) -> None:
        """Close sockets and channels."""


Maker: TypeAlias = Callable[[Spot, Any, Principal, Desk], Socket]
"""Endpoint, its settings, as whom its peers act, and what all ROUTER endpoints share -> its socket."""

KINDS: Mapping[type[Endpoint], Maker] = {
    PullEndpoint: lambda spot, settings, principal, _: PullSocket(spot, settings, principal),
    PushEndpoint: lambda spot, settings, principal, _: (PongSocket if settings.ack == "pong" else PushSocket)(
        spot, settings, principal
    ),
    PubEndpoint: lambda spot, settings, principal, _: PubSocket(spot, settings, principal),
    XpubEndpoint: lambda spot, settings, principal, _: PubSocket(spot, settings, principal),
    SubEndpoint: lambda spot, settings, principal, _: SubSocket(spot, settings, principal),
    XsubEndpoint: lambda spot, settings, principal, _: SubSocket(spot, settings, principal),
    DealerEndpoint: lambda spot, settings, principal, _: DealerSocket(spot, settings, principal),
    RepEndpoint: lambda spot, settings, principal, _: RepSocket(spot, settings, principal),
    RouterEndpoint: RouterSocket,
}
