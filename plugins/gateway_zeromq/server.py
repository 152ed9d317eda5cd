"""Who opens the ZeroMQ endpoints, sees them through, and ends them so that nothing hangs?"""

from __future__ import annotations

import secrets

import trio
import zmq

from gateway.api import Gateway, Principal
from gateway_zeromq.endpoints.declarations import Declarations
from gateway_zeromq.endpoints.guard import Guards
from gateway_zeromq.endpoints.kinds import KINDS, Socket
from gateway_zeromq.endpoints.spot import LINGER_MS, Spot
from gateway_zeromq.settings import RouterEndpoint, ZeroMqSettings
from gateway_zeromq.tgp.bridge import Desk
from trio_zmq.priority import calm_threads

MAX_SOCKETS = 65_536
_TOKEN_BYTES = 18
_END_S = LINGER_MS / 1000 + 1.0


class Server:
    """The ZeroMQ front-end while it runs.

    Args:
        gateway: the host.
        settings: which endpoints.
        context: whose sockets; None: one of its own, that ends with it.
    """

    def __init__(self, gateway: Gateway, settings: ZeroMqSettings, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self._gateway = gateway
        self._settings = settings
        self._own_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        if context is None:
            self._context.set(zmq.MAX_SOCKETS, min(MAX_SOCKETS, int(self._context.get(zmq.SOCKET_LIMIT))))
            with calm_threads():
                self._context.socket(zmq.PAIR).close(0)
        self._spots: list[Spot] = []
        self._sockets: list[Socket] = []
        self._guards: Guards | None = None

    def is_guarded(self, line: str) -> bool:
        """Say whether a line that was announced is of an endpoint with security."""
        return any(line in spot.announced for spot in self._spots if spot.settings.security != "null")

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the broker drains. Errors and cancellation as `FrontEnd.serve`."""
        try:
            await self._open()
            async with trio.open_nursery() as nursery:
                if self._guards is not None:
                    nursery.start_soon(self._guards.run)
                for spot in self._spots:
                    nursery.start_soon(spot.watch)
                for socket in self._sockets:
                    nursery.start_soon(socket.run)
                task_status.started()
                await self._gateway.draining()
                nursery.cancel_scope.cancel()
            for socket in self._sockets:
                await socket.drain()
        finally:
            with trio.CancelScope(shield=True):
                await self._close()

    async def _open(self) -> None:
        guards = self._guards = Guards(self._gateway, self._context, self._settings.named())
        spots = self._spots = [
            Spot(name, settings, self._gateway, self._context, guards.of(name)) for name, settings in self._settings.named()
        ]
        if not spots:
            return
        principals = [await spot.principal() for spot in spots]
        await self._declare(principals[0])
        desk = self._desk(principals[0])
        for spot, principal in zip(spots, principals, strict=True):
            self._sockets.append(KINDS[type(spot.settings)](spot, spot.settings, principal, desk))
        guards.open()
        for socket in self._sockets:
            await socket.start()
        for socket in self._sockets:
            socket.open()

    async def _declare(self, principal: Principal) -> None:
        channel = self._gateway.open_channel(principal)
        try:
            declared = [Declarations(name, settings, channel) for name, settings in self._settings.named()]
            for each in declared:
                await each.exchanges()
            for each in declared:
                await each.queues()
        finally:
            channel.close()

    def _desk(self, principal: Principal) -> Desk:
        ttls = [endpoint.session_ttl_s for endpoint in self._settings.endpoint if isinstance(endpoint, RouterEndpoint)]
        return Desk(self._gateway, principal, max(ttls, default=0) * 1000, lambda: secrets.token_urlsafe(_TOKEN_BYTES))

    async def _close(self) -> None:
        """Close everything; what libzmq has taken has its time to go out, and no more."""
        for spot in self._spots:
            spot.unwatch()
        for socket in self._sockets:
            socket.close()
        for spot in self._spots:
            spot.close()
        if self._guards is not None:
            self._guards.close()
        if not self._own_context:
            return
        with trio.move_on_after(_END_S):
            await trio.to_thread.run_sync(self._context.destroy, LINGER_MS, abandon_on_cancel=True)
