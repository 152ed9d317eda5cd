"""Who accepts MQTT connections, and looks after those clients that are away?"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Final

import trio

from gateway.api import Connection, Gateway
from gateway_mqtt.broker import Broker
from gateway_mqtt.greeting import Greeting
from gateway_mqtt.outbound import PULSE_S
from gateway_mqtt.settings import MqttSettings
from gateway_mqtt.sys_topics import Glance, unacknowledged

SUB_PROTOCOLS: Final = ("mqtt", "mqttv3.1")
"""What is spoken over WebSocket [MQTT-6.0.0-3] [MQTT5-6.0.0-3]."""
LONGEST_NAP_S: Final = 60.0
"""The system's clock may be set meanwhile."""
PER_GLANCE = 5_000
"""So many connections are looked at before others have their turn: about two milliseconds."""
PER_TURN: Final = 200
"""So much is seen to for clients that are away before others have their turn: about 5 ms."""
SWEEPS: Final = 4
"""A packet that does not go on is noticed within a part of its patience."""


SIZES: Final = ("VmRSS", "VmHWM")


class Server:
    """The MQTT front-end while it runs."""

    def __init__(self, gateway: Gateway, settings: MqttSettings) -> None:
        self._gateway = gateway
        self._settings = settings
        self._token = trio.lowlevel.current_trio_token()
        self._nap = trio.CancelScope()
        self._beating = trio.Event()
        self._broker = Broker(gateway, settings, self)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the broker drains. Errors and cancellation as `FrontEnd.serve`."""
        self._broker.absences.restore()
        serve = partial(
            self._gateway.serve_streams,
            self._settings.listen,
            setting="frontend.mqtt.listen",
            accept=self.accept,
            websocket=SUB_PROTOCOLS,
        )
        async with trio.open_nursery() as chores:
            chores.start_soon(self._keep_appointments)
            chores.start_soon(self._sweep)
            chores.start_soon(self._beat)
            if self._settings.sys_interval_s:
                chores.start_soon(self._tell_of_itself)
            async with trio.open_nursery() as nursery:
                await nursery.start(serve)
                task_status.started()
            chores.cancel_scope.cancel()

    def accept(self, connection: Connection) -> None:
        """Greet a newcomer."""
        broker = self._broker
        broker.traffic.sockets += 1
        greeting = Greeting(broker, connection)
        broker.waiting.add(greeting)
        connection.attach(greeting, deadline_s=self._settings.connect_timeout_s)

    # -- chores -------------------------------------------------------------

    def now_s(self) -> float:
        """See `gateway_mqtt.broker.Chores`."""
        return trio.current_time()

    def memory(self) -> tuple[int, int]:
        """See `gateway_mqtt.broker.Chores`."""
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            return 0, 0
        sizes = {name: int(rest.split()[0]) * 1_024 for name, _, rest in (line.partition(":") for line in lines) if name in SIZES}
        return sizes.get("VmRSS", 0), sizes.get("VmHWM", 0)

    def sooner(self) -> None:
        """See `gateway_mqtt.broker.Chores`."""
        self._token.run_sync_soon(self._set_alarm, idempotent=True)

    def _set_alarm(self) -> None:
        self._nap.deadline = trio.current_time() + self._until_due_s()

    def _until_due_s(self) -> float:
        due_ms = self._broker.absences.next_due_ms
        if due_ms is None:
            return math.inf
        return min(max(due_ms - self._gateway.now_ms(), 0) / 1_000, LONGEST_NAP_S)

    async def _keep_appointments(self) -> None:
        """End sessions and publish wills of clients that are away, when it is time. Cancellation: safe."""
        while True:
            with trio.CancelScope(deadline=trio.current_time() + self._until_due_s()) as self._nap:
                await trio.sleep_forever()
            self._broker.absences.run(PER_TURN)
            await trio.lowlevel.checkpoint()

    def beat_soon(self) -> None:
        """See `gateway_mqtt.broker.Chores`."""
        self._token.run_sync_soon(self._set_beating, idempotent=True)

    def _set_beating(self) -> None:
        self._beating.set()

    async def _beat(self) -> None:
        """Look after what is to be looked at a moment later. Cancellation: safe."""
        while True:
            await self._beating.wait()
            self._beating = trio.Event()
            while True:
                await trio.sleep(PULSE_S)
                if not self._broker.pulse.beat():
                    break

    async def _sweep(self) -> None:
        """Close those who have begun a packet and do not go on. Cancellation: safe."""
        while True:
            await trio.sleep(self._settings.packet_timeout_s / SWEEPS)
            self._broker.halves.sweep()

    async def _tell_of_itself(self) -> None:
        """Publish the $SYS topics. Cancellation: safe."""
        sys_topics = self._broker.sys_topics
        sys_topics.look(await self._glance())
        while True:
            await trio.sleep(self._settings.sys_interval_s)
            sys_topics.look(await self._glance())
            for vhost in self._broker.absences.vhosts:
                sys_topics.publish(vhost)
                await trio.lowlevel.checkpoint()

    async def _glance(self) -> Glance:
        """Look at what takes time. Cancellation: safe."""
        broker = self._broker
        links = broker.sessions.holders()
        in_flight = 0
        for start in range(0, len(links), PER_GLANCE):
            in_flight += unacknowledged(links[start : start + PER_GLANCE])
            await trio.lowlevel.checkpoint()
        other_bytes = broker.traffic.sent.other_bytes
        return Glance(await self._gateway.stats(), other_bytes, in_flight)
