"""Which ZeroMQ endpoints has a broker in a world?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import trio

from gateway_zeromq.plugin import ZeroMqFrontEnd
from gateway_zeromq.settings import ZeroMqSettings
from tests.simulation.libzmq import SimContext, SimSocket, without_libzmq

if TYPE_CHECKING:
    from tests.simulation.world import World

_SOMEWHERE = "tcp://127.0.0.1:1"
ASKED, ANSWERS = "asked", "answers"
ASKED_KEY = "work.b"
REPLY_TIMEOUT_S = 1.0
REQ_TIMEOUT_S = 3.0
BEAT_S, LIVENESS, BUSY_S = 0.5, 3, 2.0


def _endpoints(world: World) -> Iterator[dict[str, Any]]:
    mdp = {
        "protocols": ["tgp/1", "mdp/0.1", "mdp/0.2"],
        "mdp_durable": True,
        "mdp_request_ttl_s": 0,
        "mdp_heartbeat_ms": round(BEAT_S * 1_000),
        "mdp_liveness": LIVENESS,
        "mdp_busy_s": round(BUSY_S),
    }
    yield {
        "name": "router",
        "socket": "ROUTER",
        "heartbeat_ms": 1_000,
        "max_credit": world.max_credit,
        "sndhwm": 50,
        **(mdp if world.is_served else {}),
    }
    yield {"name": "inlet", "socket": "PULL", "exchange": "amq.topic", "frames": "key,body"}
    yield {"name": "outlet", "socket": "PUSH", "queue": "pushed", "frames": "body", "prefetch": 8}
    if world.is_served:
        yield {
            "name": "workers",
            "socket": "DEALER",
            "queue": ASKED,
            "bindings": [{"exchange": "amq.topic", "key": ASKED_KEY}],
            "window": 4,
            "reply_timeout_ms": round(REPLY_TIMEOUT_S * 1_000),
        }
        yield {
            "name": "questions",
            "socket": "REP",
            "exchange": "",
            "routing_key": ASKED,
            "reply_timeout_ms": round(REQ_TIMEOUT_S * 1_000),
        }


class Sockets:
    """The ZeroMQ front-end of a life, whole but for libzmq. Sockets are attributes, by the names of their endpoints.

    Args:
        gateway: the host.
        world: whose endpoints.
    """

    router: SimSocket
    inlet: SimSocket
    outlet: SimSocket
    workers: SimSocket
    questions: SimSocket

    def __init__(self, gateway: Any, world: World) -> None:
        self._gateway = gateway
        self._endpoints = [{"bind": [_SOMEWHERE], **endpoint} for endpoint in _endpoints(world)]
        self._ended = trio.Event()
        self._names = 0

    def given_name(self) -> bytes:
        """Return a routing id for a peer that has chosen none; the next broker gives the same ones again."""
        self._names += 1
        return b"\0" + self._names.to_bytes(4, "big")

    async def start(self, nursery: trio.Nursery) -> None:
        with without_libzmq():
            await nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        context: Any = SimContext()
        settings = ZeroMqSettings.model_validate({"endpoint": self._endpoints})
        front_end = ZeroMqFrontEnd(context)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve, front_end, settings)
            for endpoint, socket in zip(self._endpoints, context.made, strict=True):
                setattr(self, endpoint["name"], socket)
            task_status.started()
        self._ended.set()

    async def _serve(self, front_end: ZeroMqFrontEnd, settings: ZeroMqSettings, *, task_status: trio.TaskStatus[None]) -> None:
        await front_end.serve(self._gateway, settings, task_status=task_status)

    async def ended(self) -> None:
        """Wait until it has come to its end."""
        await self._ended.wait()
