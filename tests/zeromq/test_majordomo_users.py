"""Do Majordomo's peers act as their users, where users are known?"""

import pytest
import zmq

from gateway.api import AccessRefused, Principal
from tests.zeromq.keyring import Keyring
from tests.zeromq.majordomo import Asker, Worker, majordomo
from tests.zeromq.support import serving, until


@pytest.fixture
def keys(tmp_path):
    return Keyring(tmp_path)


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(0)


def by_rights(**forbidden):
    """Return what lets everybody in; a user may not do what is said under its name: ``(action, resource)``."""

    async def authenticate(credentials):
        if credentials.user is not None and not credentials.verified:
            raise AccessRefused("nobody")
        no = forbidden.get(credentials.user)
        may = None if no is None else lambda action, resource, _key: (action, resource) != no
        return Principal(credentials.user or "anonymous", authorize=may)

    return authenticate


async def pair(context, keys, running):
    client = Asker(context, running.address("ROUTER"), **keys.options("alice"))
    worker = Worker(context, running.address("ROUTER"), **keys.options("bob"))
    await worker.ready()
    return client, worker


async def test_a_user_s_client_is_answered_by_another_user_s_worker(keys, context):
    keys.allow("alice"), keys.allow("bob")
    async with serving(majordomo(**keys.settings()), authenticate=by_rights()) as running:
        client, worker = await pair(context, keys, running)
        for body in (b"1", b"2"):
            await client.ask(b"echo", body)
            address, asked = await worker.request()
            await worker.reply(address, *asked)
            assert await client.answer() == [b"echo", body]
        client.close(), worker.close()


async def test_a_worker_that_may_not_read_its_service_s_queue_is_sent_away(keys, context):
    keys.allow("alice"), keys.allow("bob")
    async with serving(majordomo(**keys.settings()), authenticate=by_rights(bob=("read", "mdp.echo"))) as running:
        client, worker = await pair(context, keys, running)
        assert await worker.disconnected()
        assert running.count("mdp_refused") == 1
        await worker.ready(b"other")
        await client.ask(b"other", b"x")
        assert (await worker.request())[1] == [b"x"]
        client.close(), worker.close()


async def test_requests_of_a_client_that_may_not_ask_are_refused_and_counted(keys, context):
    keys.allow("alice"), keys.allow("bob")
    async with serving(majordomo(**keys.settings()), authenticate=by_rights(alice=("write", ""))) as running:
        client, worker = await pair(context, keys, running)
        await client.ask(b"echo", b"x")
        await until(lambda: running.count("mdp_refused") == 1)
        other = Asker(context, running.address("ROUTER"), **keys.options("bob"))
        await other.ask(b"echo", b"y")
        assert (await worker.request())[1] == [b"y"]
        client.close(), worker.close(), other.close()


async def test_nobody_has_a_name_of_its_own_choice(keys, context):
    keys.allow("alice"), keys.allow("bob")
    async with serving(majordomo(**keys.settings()), authenticate=by_rights()) as running:
        worker = Worker(context, running.address("ROUTER"), ROUTING_ID=b"chosen", **keys.options("bob"))
        await worker.ready()
        assert await worker.disconnected()
        client = Asker(context, running.address("ROUTER"), ROUTING_ID=b"other", **keys.options("alice"))
        await client.ask(b"echo", b"x")
        await until(lambda: running.count("violations") == 2)
        assert not [name for name in running.broker.engine.vhosts["/"].queues if name.startswith("mdp.")]
        client.close(), worker.close()
