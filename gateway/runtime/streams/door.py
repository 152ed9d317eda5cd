"""Who comes in at one address?"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.api.stream import Connection
from gateway.runtime.alarms import CONNECTION
from gateway.runtime.streams.connection import StreamConnection

if TYPE_CHECKING:
    from gateway.runtime.streams.entrance import Entrance
    from gateway.runtime.streams.listener import Listeners

Handler = Callable[[Connection], Awaitable[None]]
Accept = Callable[[Connection], None]
PER_TURN = 64
"""Connections accepted before others get their turn."""
TURN_S = 0.002
"""After so long others get it in any case: who has sent something already is read from at once."""


class Serving(NamedTuple):
    """Who serves a connection: a task of its own, or what is called once and attaches a receiver.

    Args:
        websocket: the sub-protocols that are spoken over WebSocket.
    """

    handler: Handler | None = None
    accept: Accept | None = None
    websocket: Sequence[str] = ()


class Door:
    """Accepts the connections of one address, and hands them over.

    Args:
        sock: listens.
        entrance: gives them their layers.
    """

    def __init__(self, sock: socket.socket, entrance: Entrance, serving: Serving, listeners: Listeners) -> None:
        # What `socket.accept` makes of a descriptor costs more than to get it, and is not needed.
        self._next: Callable[[], tuple[int, Any]] = sock._accept  # type: ignore[attr-defined]  # noqa: SLF001
        self._entrance = entrance
        self._serving = serving
        self._listeners = listeners

    def let_in(self) -> int:
        """Accept some of those that wait, and read from them; return how many came.

        Raises:
            OSError: no more can be accepted now.
        """
        until = time.perf_counter() + TURN_S
        now = self._listeners.heard_now()
        for came in range(PER_TURN):
            try:
                number, address = self._next()
            except BlockingIOError:
                return came
            self._start(number, address, now)
            if time.perf_counter() > until:
                return came + 1
        return PER_TURN

    def _start(self, number: int, address: Any, now: float) -> None:
        listeners = self._listeners
        if len(listeners.connections) >= listeners.limits.max_connections:
            listeners.counters["refused_connections"] += 1
            os.close(number)
            return
        try:
            os.set_blocking(number, False)
        except OSError:  # macOS says so of a peer that is gone already
            os.close(number)
            return
        if isinstance(address, tuple):
            host = address[0]
            peer = f"{host}:{address[1]}"
            connection = StreamConnection(number, peer, "tcp", is_loopback=_is_loopback(host), listeners=listeners)
        else:
            host = ""
            connection = StreamConnection(number, self._entrance.name, "unix", is_loopback=True, listeners=listeners)
        if self._entrance.prepare(connection, host):
            listeners.settle(connection)
        listeners.connections.add(connection)
        listeners.counters["connections"] += 1
        serving = self._serving
        if serving.accept is not None:
            self._hand_over(connection, serving.accept, now)
        elif serving.handler is not None:
            connection.handled = True
            listeners.spawn(_serve, connection, serving.handler)

    def _hand_over(self, connection: StreamConnection, accept: Accept, now: float) -> None:
        listeners = self._listeners
        listeners.arriving = connection
        try:
            accept(connection)
        except Exception as error:  # an edge: one connection
            connection.fail(error)
        listeners.arriving = None
        connection.let_go()
        if connection.reason is None and not listeners.flow.holding and not listeners.alarms.level:
            connection.readable(now)  # most have sent something by now: that spares them a turn
        if connection.reason is None and not connection.resting:
            listeners.way.read(connection)


async def _serve(connection: StreamConnection, handler: Handler) -> None:
    CONNECTION.set(connection)
    try:
        await handler(connection)
    except Exception as error:  # an edge: one connection
        connection.fail(error)
    finally:
        connection.let_go()


@lru_cache(1_024)
def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
