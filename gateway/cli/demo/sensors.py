"""What do the simulated sensors do? They publish with QoS 1 through amqtt's client, and count a message when its PUBACK came.

A process of its own: amqtt needs asyncio.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - amqtt's client needs it
import contextlib
import json
import logging
import sys
from collections.abc import Coroutine
from typing import Any

from amqtt.client import MQTTClient  # type: ignore[import-untyped,import-not-found,unused-ignore]

from gateway.cli.demo.reports import STOP, report, watch_parent

_PAUSE_S = 0.005
_PUBACK_S = 5.0
_AGAIN_S = 0.1
_REPORT_S = 0.1
_FINISH_S = 10.0
_SETTINGS = {"auto_reconnect": False, "keep_alive": 60, "connection_timeout": 2}


class Sensor:
    """One MQTT client that publishes one message after the other, each until it is confirmed.

    Args:
        name: part of every message's identifier and topic.
        confirmed: where identifiers go when their PUBACK came.
    """

    def __init__(self, name: str, uri: str, confirmed: list[str]) -> None:
        self.name = name
        self._uri = uri
        self._confirmed = confirmed
        self._client: MQTTClient | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until `stopping`; the last message is confirmed before it returns. Cancellation: safe."""
        number = 0
        while not stopping.is_set():
            number += 1
            identifier = f"{self.name}-{number}"
            await self._publish(identifier)
            self._confirmed.append(identifier)
            await asyncio.sleep(_PAUSE_S)
        await self._leave()

    async def _publish(self, identifier: str) -> None:
        while True:
            if await self._published(identifier):
                return
            await asyncio.sleep(_AGAIN_S)

    async def _published(self, identifier: str) -> bool:
        """Say whether the PUBACK came. If it did not, the same message is sent again on a new connection."""
        if self._client is None:
            client = MQTTClient(client_id=self.name, config=dict(_SETTINGS))
            if not await _worked(client.connect(self._uri, cleansession=True), _PUBACK_S):
                return False
            self._client = client
        body = json.dumps({"id": identifier, "celsius": 20 + len(identifier) % 10}).encode()
        if await _worked(self._client.publish(f"sensors/{self.name}/temperature", body, qos=1), _PUBACK_S):
            return True
        await self._leave()
        return False

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _worked(client.disconnect(), 1.0)


async def _worked(step: Coroutine[Any, Any, Any], seconds: float) -> bool:
    """Run a step of amqtt's, which may cancel what it is waiting for when a connection goes: so in a task of its own."""
    task = asyncio.ensure_future(step)
    await asyncio.wait([task], timeout=seconds)
    if not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
        return False
    return not task.cancelled() and task.exception() is None


async def _report_regularly(confirmed: list[str]) -> None:
    while True:
        await asyncio.sleep(_REPORT_S)
        if confirmed:
            report(confirmed=confirmed)
            confirmed.clear()


async def run_sensors(uri: str, count: int) -> None:
    """Run `count` sensors until the parent says stop. Cancellation: ends them."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.call_soon_threadsafe(stopping.set)

    watch_parent({STOP: stop})
    confirmed: list[str] = []
    reporter = asyncio.ensure_future(_report_regularly(confirmed))
    sensors = [asyncio.ensure_future(Sensor(f"s{n}", uri, confirmed).run(stopping)) for n in range(count)]
    await stopping.wait()
    await asyncio.wait(sensors, timeout=_FINISH_S)
    for task in [*sensors, reporter]:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reporter
    report(confirmed=confirmed)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # amqtt logs every lost connection, and connections are lost on purpose here
    asyncio.run(run_sensors(sys.argv[1], int(sys.argv[2])))
