"""Who accepts AMQP connections, and sees to heartbeats and alarms?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import trio

from gateway.api import Connection, Gateway
from gateway_amqp.beats import Beating
from gateway_amqp.broker import Broker
from gateway_amqp.protocol import Protocol
from gateway_amqp.settings import AmqpSettings

Peer = TypeVar("Peer")

PER_TURN: Final = 1_000
"""So many connections are seen to before others have their turn: about a millisecond."""


class Server:
    """The AMQP front-end while it runs. ``broker``: what its connections share."""

    def __init__(self, gateway: Gateway, settings: AmqpSettings) -> None:
        self._gateway = gateway
        self._settings = settings
        self._nap = trio.CancelScope()
        self._token = trio.lowlevel.current_trio_token()
        self.broker = Broker(gateway, settings, self)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the broker drains. Errors and cancellation as `FrontEnd.serve`."""
        serve = partial(self._gateway.serve_streams, self._settings.listen, setting="frontend.amqp.listen", accept=self.accept)
        async with trio.open_nursery() as chores:
            chores.start_soon(self._beat)
            chores.start_soon(self._watch_alarms)
            async with trio.open_nursery() as nursery:
                await nursery.start(serve)
                task_status.started()
            chores.cancel_scope.cancel()

    def accept(self, connection: Connection) -> None:
        """Wait for a newcomer's protocol header."""
        newcomer = Protocol(self.broker, connection)
        connection.attach(newcomer, deadline_s=self._settings.connect_timeout_s)
        self.broker.came(newcomer)

    # -- chores -------------------------------------------------------------

    def now_s(self) -> float:
        """See `gateway_amqp.broker.Chores`."""
        return trio.current_time()

    def sooner(self) -> None:
        """See `gateway_amqp.broker.Chores`."""
        self._token.run_sync_soon(self._set_alarm, idempotent=True)

    def _set_alarm(self) -> None:
        self._nap.deadline = self.broker.beats.due_at

    async def _beat(self) -> None:
        """Send heartbeats. Cancellation: safe."""
        beats = self.broker.beats
        while True:
            with trio.CancelScope(deadline=beats.due_at) as self._nap:
                await trio.sleep_forever()
            await self._each(beats.due(trio.current_time()), _beat)

    async def _watch_alarms(self) -> None:
        """Tell publishers whether they are held back. Cancellation: safe."""
        broker = self.broker
        while True:
            while broker.alarm():  # it may change back before all have been told
                await self._each(list(broker.connections), Protocol.block)
            await self._gateway.until_alarms_change()

    async def _each(self, connections: Sequence[Peer], tell: Callable[[Peer], None]) -> None:
        """Tell many connections something, some at a time. Cancellation: safe."""
        for start in range(0, len(connections), PER_TURN):
            for connection in connections[start : start + PER_TURN]:
                tell(connection)
            await trio.lowlevel.checkpoint()


def _beat(connection: Beating) -> None:
    connection.beat()
