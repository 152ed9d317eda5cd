"""Do Majordomo's clients and workers find each other, whatever becomes of the others?"""

import pytest
import trio
import zmq

from tests.zeromq.majordomo import Asker, Worker, serving_mdp
from tests.zeromq.support import until


async def pair(context, running, client_version=1, worker_version=1, kind=zmq.DEALER):
    address = running.address("ROUTER")
    worker = Worker(context, address, worker_version)
    await worker.ready()
    return Asker(context, address, client_version, kind), worker


async def test_a_req_client_is_answered_by_a_worker(context):
    async with serving_mdp() as running:
        client, worker = await pair(context, running, kind=zmq.REQ)
        await client.ask(b"echo", b"hello")
        address, body = await worker.request()
        assert body == [b"hello"]
        await worker.reply(address, *body)
        assert await client.answer() == [b"echo", b"hello"]
        assert running.queue("mdp.echo").count == 0


@pytest.mark.parametrize(("client_version", "worker_version"), [(1, 1), (1, 2), (2, 1), (2, 2)])
async def test_clients_and_workers_of_either_version_understand_each_other(context, client_version, worker_version):
    async with serving_mdp() as running:
        client, worker = await pair(context, running, client_version, worker_version)
        for body in ([b"a"], [b"", b"b", b""], [b""]):
            await client.ask(b"echo", *body)
            address, asked = await worker.request()
            assert asked == body
            await worker.reply(address, *body)
            assert await client.answer() == [*([b"\3"] if client_version == 2 else []), b"echo", *body]


async def test_a_request_waits_for_its_first_worker(context):
    async with serving_mdp() as running:
        client = Asker(context, running.address("ROUTER"))
        await client.ask(b"later", b"x")
        await until(lambda: "mdp.later" in running.broker.engine.vhosts["/"].queues)
        worker = Worker(context, running.address("ROUTER"))
        await worker.ready(b"later")
        address, body = await worker.request()
        await worker.reply(address, b"y")
        assert (body, await client.answer()) == ([b"x"], [b"later", b"y"])
