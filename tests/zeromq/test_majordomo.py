"""Do Majordomo's clients and workers find each other, whatever becomes of the others?"""

import pytest
import zmq

from tests.zeromq.majordomo import Asker, Worker, serving_mdp
from tests.zeromq.support import Plain, until


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


# -- parts of a reply


async def test_parts_of_a_reply_reach_a_client_of_02_one_by_one(context):
    async with serving_mdp() as running:
        client, worker = await pair(context, running, 2, 2)
        await client.ask(b"echo", b"x")
        address, _ = await worker.request()
        await worker.partial(address, b"1")
        await worker.partial(address, b"2", b"2")
        await worker.reply(address, b"3")
        assert [await client.answer() for _ in range(3)] == [
            [b"\2", b"echo", b"1"],
            [b"\2", b"echo", b"2", b"2"],
            [b"\3", b"echo", b"3"],
        ]


async def test_a_client_of_01_gets_all_parts_in_one_reply(context):
    async with serving_mdp() as running:
        client, worker = await pair(context, running, 1, 2)
        await client.ask(b"echo", b"x")
        address, _ = await worker.request()
        await worker.partial(address, b"1")
        await worker.reply(address, b"2")
        assert await client.answer() == [b"echo", b"1", b"2"]
        await client.ask(b"echo", b"y")
        address, _ = await worker.request()
        await worker.reply(address, b"3")
        assert await client.answer() == [b"echo", b"3"]


async def test_parts_that_are_too_much_for_a_client_of_01_are_dropped_and_counted(context):
    async with serving_mdp(max_message_bytes=1000) as running:
        client, worker = await pair(context, running, 1, 2)
        await client.ask(b"echo", b"x")
        address, _ = await worker.request()
        await worker.partial(address, b"1" * 600)
        await worker.partial(address, b"2" * 600)
        await worker.reply(address, b"")
        assert await client.answer() == [b"echo", b"1" * 600]
        assert running.count("dropped.too large a reply in parts, for a client of mdp/0.1") == 2


# -- MMI


@pytest.mark.parametrize("version", [1, 2])
async def test_the_broker_says_whether_a_service_has_a_worker(context, version):
    final = [b"\3"] if version == 2 else []
    async with serving_mdp() as running:
        client = Asker(context, running.address("ROUTER"), version)
        assert await client.call(b"mmi.service", b"echo") == [*final, b"mmi.service", b"404"]
        worker = Worker(context, running.address("ROUTER"), version)
        await worker.ready()
        await until(lambda: "mdp.echo" in running.broker.engine.vhosts["/"].queues)
        assert await client.call(b"mmi.service", b"echo") == [*final, b"mmi.service", b"200"]
        worker.close()
        await until(lambda: not running.queue("mdp.echo").consumers)
        assert await client.call(b"mmi.service", b"echo") == [*final, b"mmi.service", b"404"]


@pytest.mark.parametrize(
    ("service", "body", "answer"),
    [
        (b"mmi.service", b"mmi.service", b"200"),
        (b"mmi.service", b"mmi.nothing", b"404"),
        (b"mmi.service", b"", b"404"),
        (b"mmi.service", b"\xff\0", b"404"),
        (b"mmi.nothing", b"", b"501"),
        (b"mmi.", b"", b"501"),
    ],
)
async def test_what_the_broker_answers_for_itself(context, service, body, answer):
    async with serving_mdp() as running:
        client = Asker(context, running.address("ROUTER"))
        assert await client.call(service, body) == [service, answer]
        assert running.count("violations") == 0
        assert not [name for name in running.broker.engine.vhosts["/"].queues if name.startswith("mdp.")]


# -- workers that go


async def test_the_request_of_a_worker_that_dies_goes_to_another_one_at_once(context):
    async with serving_mdp() as running:
        client, worker = await pair(context, running)
        await client.ask(b"echo", b"hello")
        await worker.request()
        other = Worker(context, running.address("ROUTER"))
        await other.ready()
        worker.close()
        address, body = await other.request()
        await other.reply(address, *body)
        assert await client.answer() == [b"echo", b"hello"]
        assert running.count("violations") == 0


@pytest.mark.parametrize("version", [1, 2])
async def test_the_request_of_a_worker_that_disconnects_goes_to_another_one(context, version):
    async with serving_mdp() as running:
        client, worker = await pair(context, running, worker_version=version)
        await client.ask(b"echo", b"hello")
        await worker.request()
        await worker.say(b"\5" if version == 1 else b"\6")
        other = Worker(context, running.address("ROUTER"))
        await other.ready()
        address, body = await other.request()
        assert body == [b"hello"]
        await other.reply(address, *body)
        assert await client.answer() == [b"echo", b"hello"]
        assert await worker.receive(0.05) is None


async def test_a_silent_worker_is_dead_and_what_it_says_later_has_it_begin_anew(context):
    async with serving_mdp(mdp_heartbeat_ms=20, mdp_busy_s=0) as running:
        client, worker = await pair(context, running)
        await client.ask(b"echo", b"hello")
        late, _ = await worker.request()
        await until(lambda: running.count("silent_peers") == 1)
        await worker.reply(late, b"too late")
        assert await worker.disconnected()
        other = Worker(context, running.address("ROUTER"))
        await other.ready()
        address, body = await other.request()
        await other.reply(address, *body)
        assert await client.answer() == [b"echo", b"hello"]


async def test_a_worker_that_has_a_request_may_be_silent_for_longer(context):
    async with serving_mdp(mdp_heartbeat_ms=20, mdp_busy_s=60) as running:
        client, worker = await pair(context, running)
        idle = Worker(context, running.address("ROUTER"))
        await client.ask(b"echo", b"hello")
        address, _ = await worker.request()
        await idle.ready(b"other")
        await until(lambda: running.count("silent_peers") == 1)
        await worker.reply(address, b"done")
        assert await client.answer() == [b"echo", b"done"]


@pytest.mark.parametrize("version", [1, 2])
async def test_workers_hear_heartbeats_and_live_by_theirs(context, version):
    async with serving_mdp(mdp_heartbeat_ms=50) as running:
        worker = Worker(context, running.address("ROUTER"), version)
        await worker.ready()
        for count in range(1, 7):
            assert await worker.receive() == [*worker.head(), b"\4" if version == 1 else b"\5"], count
            await worker.beat()
        assert running.count("silent_peers") == 0


async def test_a_heartbeat_of_nobody_is_told_to_begin_anew(context):
    async with serving_mdp() as running:
        worker = Worker(context, running.address("ROUTER"))
        await worker.beat()
        assert await worker.disconnected()
        assert running.count("violations") == 0


async def test_a_broker_that_stops_sends_its_workers_away(context):
    async with serving_mdp() as running:
        client, worker = await pair(context, running)
        await client.ask(b"echo", b"hello")
        await worker.request()
        await running.stop()
        assert await worker.disconnected()


async def test_a_worker_whose_queue_is_deleted_registers_again(context):
    async with serving_mdp() as running:
        client, worker = await pair(context, running)
        await client.ask(b"echo", b"hello")
        address, _ = await worker.request()
        await running.call(running.channel.delete_queue("mdp.echo"))
        assert await worker.disconnected()
        await worker.reply(address, b"late")
        assert await worker.disconnected()
        await worker.ready()
        await client.ask(b"echo", b"again")
        address, body = await worker.request()
        assert body == [b"again"]


# -- bad input


BAD = {
    "ready twice": [b"\1", b"echo"],
    "a reply without a request": [b"\3", b"x", b"", b"y"],
    "an unknown command": [b"\x09"],
    "a command of many bytes": [b"\1\1", b"echo"],
    "an empty command": [b""],
    "no command": [],
    "a request": [b"\2", b"x", b"", b"y"],
    "a heartbeat with a body": [b"\4", b"x"],
    "a reply without a body": [b"\3", b"x", b""],
    "a reply without an address": [b"\3", b"", b"", b"x"],
    "a reply without an empty frame": [b"\3", b"x", b"x", b"x"],
    "1,000 frames": [b"\3", b"x", b"", *[b"y"] * 1000],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_worker_that_breaks_the_protocol_is_disconnected_and_others_notice_nothing(context, bad):
    async with serving_mdp() as running:
        client, worker = await pair(context, running)
        await client.ask(b"echo", b"hello")
        address, _ = await worker.request()
        clumsy = Worker(context, running.address("ROUTER"))
        await clumsy.ready()
        await clumsy.say(*bad)
        assert await clumsy.disconnected()
        assert running.count("violations") == 1
        await worker.reply(address, b"world")
        assert await client.answer() == [b"echo", b"world"]
        await clumsy.ready()
        await until(lambda: len(running.queue("mdp.echo").consumers) == 2)


SERVICES = [b"", b"x" * 252, b"\xff", b"a\0b", b"a\nb", "\u202e".encode(), b"mmi.service", b"mmi.x"]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("version", [1, 2])
async def test_no_worker_can_have_such_a_service(context, service, version):
    async with serving_mdp() as running:
        worker = Worker(context, running.address("ROUTER"), version)
        await worker.ready(service)
        assert await worker.disconnected()
        assert running.count("violations") == 1


@pytest.mark.parametrize("service", ["a b", "äöü", "x" * 251, "*.#", "a/b", "reply.x"])
async def test_any_printable_name_is_a_service(context, service):
    async with serving_mdp() as running:
        client, worker = Asker(context, running.address("ROUTER")), Worker(context, running.address("ROUTER"))
        await worker.ready(service.encode())
        await client.ask(service.encode(), b"x")
        address, _ = await worker.request()
        await worker.reply(address, b"y")
        assert await client.answer() == [service.encode(), b"y"]


NONSENSE = {
    "no service": [],
    "no body": [b"echo"],
    "an empty service": [b"", b"x"],
    "a long service": [b"x" * 252, b"x"],
    "no text": [b"\xff", b"x"],
    "1,000 frames": [b"echo", *[b"x"] * 1000],
}


@pytest.mark.parametrize("bad", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("version", [1, 2])
async def test_what_is_no_request_is_dropped_and_counted(context, bad, version):
    async with serving_mdp() as running:
        client, worker = await pair(context, running, version)
        await client.send(*([b"", b"MDPC01"] if version == 1 else [b"MDPC02", b"\1"]), *bad)
        await client.ask(b"echo", b"good")
        address, body = await worker.request()
        assert body == [b"good"]
        await worker.reply(address, b"fine")
        assert (await client.answer())[-1] == b"fine"
        assert running.count("violations") == 1


async def test_a_header_without_the_empty_frame_of_01_is_refused(context):
    async with serving_mdp() as running:
        worker = Worker(context, running.address("ROUTER"))
        await worker.send(b"MDPW01", b"\1", b"echo")
        assert await worker.receive() == [b"MDPW01", b"\5"]
        await worker.send(b"MDPC01", b"echo", b"x")
        await until(lambda: running.count("violations") == 2)


async def test_a_peer_that_changes_its_role_is_refused(context):
    async with serving_mdp() as running:
        client, worker = await pair(context, running)
        await until(lambda: "mdp.echo" in running.broker.engine.vhosts["/"].queues)
        await worker.send(b"", b"MDPC01", b"echo", b"x")
        assert await worker.disconnected()
        assert await client.call(b"mmi.service", b"echo") == [b"mmi.service", b"404"]
        await client.send(b"", b"MDPW01", b"\1", b"echo")
        assert await client.call(b"mmi.service", b"echo") == [b"mmi.service", b"404"]
        assert running.count("violations") == 2


@pytest.mark.parametrize(
    ("protocols", "begin"), [(["tgp/1"], b"MDPW01"), (["mdp/0.1"], b"MDPC02"), (["tgp/1", "mdp/0.2"], b"MDPC01")]
)
async def test_a_peer_of_a_version_that_is_not_spoken_here_is_named_in_the_log_with_what_is(context, protocols, begin):
    async with serving_mdp(protocols=protocols) as running:
        stranger = Plain(context, zmq.DEALER, running.address("ROUTER"))
        for _ in range(3):
            await stranger.send(b"", begin, b"\1", b"echo")
        await until(lambda: running.count("violations") == 3)
        (said,) = running.log.of("no protocol begins so")
        assert (said["frame"], said["protocols"]) == (begin.decode(), ", ".join(protocols))
        assert await stranger.receive(0.1) is None, "it could not read an answer in another protocol"
        stranger.close()
