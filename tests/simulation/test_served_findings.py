"""What the simulation has found in what is served by ZeroMQ, each reduced to what it takes."""

from __future__ import annotations

from contextlib import asynccontextmanager

import trio

from gateway.journal.memory import MemoryJournal
from gateway_zeromq.plugin import ZeroMqFrontEnd
from gateway_zeromq.settings import ZeroMqSettings
from tests.runtime.support import Log, running
from tests.simulation.libzmq import SimContext, without_libzmq

READY, REPLY, DISCONNECT = b"\1", b"\3", b"\5"


@asynccontextmanager
async def serving(**endpoint):
    """Have a broker with one endpoint, and yield its socket."""
    context = SimContext()
    settings = ZeroMqSettings.model_validate({"endpoint": [{"bind": "tcp://127.0.0.1:1", **endpoint}]})
    async with running(MemoryJournal()) as broker, trio.open_nursery() as nursery:
        gateway = broker.gateway("zeromq", print, Log())
        front_end = ZeroMqFrontEnd(context)
        with without_libzmq():
            await nursery.start(lambda task_status: front_end.serve(gateway, settings, task_status=task_status))
        yield context.made[0]
        nursery.cancel_scope.cancel()


async def test_a_worker_that_is_back_before_its_death_was_seen_is_registered_or_told_to_begin_anew(autojump_clock):
    async with serving(socket="ROUTER", protocols=["mdp/0.1"]) as socket:
        former = socket.meet(b"worker", 1)
        former.say(b"", b"MDPW01", READY, b"echo")
        await trio.sleep(1)
        worker = socket.meet(b"worker", 2)  # and the former connection ends
        worker.say(b"", b"MDPW01", READY, b"echo")
        await trio.sleep(1)
        assert [frames[2] for frames in worker.take()] == [DISCONNECT]


async def test_a_client_that_is_back_under_its_name_is_told_what_is_answered_while_its_former_connection_is_buried(autojump_clock):
    async with serving(socket="ROUTER", protocols=["mdp/0.1"]) as socket:
        worker = socket.meet(b"worker", 1)
        worker.say(b"", b"MDPW01", READY, b"echo")
        for number in range(20):  # whether the death or the answer is heard of first is up to the scheduler
            name = b"client %d" % number
            socket.meet(name, 2 * number + 2).say(b"", b"MDPC01", b"echo", b"ping")
            await trio.sleep(0.1)
            address = worker.take()[-1][3]
            client = socket.meet(name, 2 * number + 3)  # and the former connection ends
            worker.say(b"", b"MDPW01", REPLY, address, b"", b"pong")
            await trio.sleep(0.1)
            assert client.take() == [[b"", b"MDPC01", b"echo", b"pong"]]
