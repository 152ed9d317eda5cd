"""Do endpoints open, refuse to open with a reason, and end so that nothing hangs?"""

import os
import socket
import stat
import sys
import threading

import pytest
import trio
import zmq

from gateway.api import AccessRefused, ConfigError, ExchangeSpec, ListenError, QueueSpec
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway_zeromq.server import Server
from gateway_zeromq.settings import ZeroMqSettings
from tests.zeromq.support import ANY, Plain, connected, serving, until
from trio_zmq.priority import NICE

PULL = {"name": "in", "socket": "PULL", "bind": ANY, "frames": "body"}
PUSH = {"name": "out", "socket": "PUSH", "bind": ANY, "queue": "jobs"}
ROUTER = {"name": "services", "socket": "ROUTER", "bind": ANY}


def leaf(error):
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


async def start_and_end(*endpoints, **options):
    async with serving(*endpoints, **options):
        pass


async def refusal(*endpoints, **options):
    with pytest.raises(BaseExceptionGroup) as group:
        await start_and_end(*endpoints, **options)
    return leaf(group.value)


async def test_every_listener_is_announced_with_its_real_port():
    async with serving(PULL, PUSH, {**ROUTER, "bind": [ANY, ANY]}) as running:
        kinds = [line.partition(" ")[0] for line in running.announced]
        ports = {int(line.rpartition(":")[2]) for line in running.announced}
        assert kinds == ["PULL", "PUSH", "ROUTER", "ROUTER"]
        assert len(ports) == 4
        assert 0 not in ports


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_its_own_context_gives_way_to_the_loop():
    def niceness():
        return {int(task): os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")}

    before = niceness()
    server = Server(None, ZeroMqSettings())
    try:
        new = {nice for thread, nice in niceness().items() if thread not in before}
        assert new == {min(before[threading.get_native_id()] + NICE, 19)}
    finally:
        server._context.destroy(linger=0)


async def test_a_taken_port_is_named_with_the_setting_and_the_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        error = await refusal(PULL, {**PUSH, "bind": [address]})
    assert isinstance(error, ListenError)
    assert error.text == (
        f"ZeroMQ endpoint 'out' can't listen on {address}: address already in use. Choose another address "
        "(frontend.zeromq.endpoint), or switch the ZeroMQ front-end off (frontend.zeromq.enabled = false)"
    )


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:0", "ipc:///nowhere/at/all"])
async def test_an_address_that_is_not_here_can_not_be_listened_on(address):
    error = await refusal({**PULL, "bind": address})
    assert isinstance(error, ListenError)
    assert f"can't listen on {address}" in error.text


async def test_an_address_that_is_none_is_a_mistake_in_the_settings():
    error = await refusal({**PULL, "bind": "tcp://no such host:5"})
    assert isinstance(error, (ConfigError, ListenError))
    assert "frontend.zeromq.endpoint" in error.text


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (PUSH, ("'out'", "queue 'jobs'", "durable")),
        ({**PUSH, "queue": "other", "queue_arguments": {"x-max-length": 5}}, ("queue 'other'", "x-max-length")),
        ({**PULL, "exchange": "news", "exchange_type": "direct"}, ("'in'", "exchange 'news'", "fanout")),
        (
            {**PUSH, "queue": "third", "bindings": [{"exchange": "amq.headers", "arguments": {"x-match": "some"}}]},
            ("can't have its binding of queue 'third'",),
        ),
    ],
)
async def test_what_exists_and_differs_is_a_start_error_that_names_both(endpoint, words):
    store = MemoryStore()
    async with serving(PULL, journal=MemoryJournal(store)) as running:
        await running.call(running.channel.declare_queue(QueueSpec("other")))
        await running.call(running.channel.declare_queue(QueueSpec("jobs", auto_delete=True, durable=True)))
        await running.call(running.channel.declare_exchange(ExchangeSpec("news", "fanout")))
    error = await refusal(endpoint, journal=MemoryJournal(store))
    assert isinstance(error, ConfigError)
    assert "frontend.zeromq.endpoint" in error.text
    for word in words:
        assert word.replace("durable", "auto_delete") in error.text


async def test_what_exists_and_is_the_same_is_taken_as_it_is():
    store = MemoryStore()
    bindings = [{"exchange": "news", "key": "a.#"}]
    for _ in range(2):
        await start_and_end({**PULL, "exchange": "news"}, {**PUSH, "bindings": bindings}, journal=MemoryJournal(store))


async def test_a_queue_that_somebody_consumes_exclusively_is_a_start_error(context):
    async def refused(running):
        from gateway_zeromq.plugin import ZeroMqFrontEnd
        from gateway_zeromq.settings import ZeroMqSettings

        gateway = running.broker.gateway("zeromq", lambda _line: None, running.log)
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: ZeroMqFrontEnd().serve(gateway, ZeroMqSettings(endpoint=[PUSH]), task_status=task_status)
            )

    async with serving(ROUTER) as running:
        client = await connected(context, running)
        await client.ask(13, 1, "queue", "jobs")
        assert await client.ask(6, 2, "jobs", "c", 1, {"exclusive": True}) == [20, 2, None]
        with pytest.raises(BaseExceptionGroup) as group:
            await refused(running)
        assert isinstance(leaf(group.value), ConfigError)
        assert "can't consume 'jobs'" in leaf(group.value).text


async def test_where_nobody_is_let_in_an_endpoint_says_so():
    async def refuse(_credentials):
        raise AccessRefused("there are no users")

    error = await refusal(ROUTER, authenticate=refuse)
    assert isinstance(error, ConfigError)
    assert "'services' can let nobody in: there are no users" in error.text
    assert "security.anonymous = true" in error.text


async def test_the_host_learns_whether_an_endpoint_is_for_this_machine_only():
    from gateway.api import Principal

    asked = []

    async def let_in(credentials):
        asked.append((credentials.peer, credentials.loopback))
        return Principal("anonymous")

    await start_and_end(PULL, {**ROUTER, "bind": "tcp://0.0.0.0:0"}, authenticate=let_in)
    assert asked == [("in", True), ("services", False)]


async def test_a_live_ipc_path_is_not_taken_from_its_owner_and_a_dead_one_is_used_again(context, tmp_path):
    path = tmp_path / "in"
    endpoint = {**PULL, "bind": f"ipc://{path}"}
    async with serving(endpoint) as running:
        assert running.announced == [f"PULL ipc://{path}"]
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0
        error = await refusal(endpoint)
        assert isinstance(error, ListenError)
        assert "another program listens there" in error.text
        await running.call(running.channel.declare_queue(QueueSpec("q")))
        await Plain(context, zmq.PUSH, f"ipc://{path}").send(b"x")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await start_and_end(endpoint)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv6(context):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 loopback here")
    async with serving({**ROUTER, "bind": "tcp://[::1]:0"}) as running:
        assert running.address("ROUTER").startswith("tcp://[::1]:")
        peer = Plain(context, zmq.DEALER, running.address("ROUTER"), IPV6=1)
        await peer.send(b"nonsense")
        assert await peer.receive() is not None


async def test_without_endpoints_there_is_nothing_to_do_and_it_ends_when_asked():
    async with serving() as running:
        await running.stop()


async def test_a_clean_stop_takes_no_longer_than_what_is_to_be_sent(context, monkeypatch):
    for module in ("endpoints.spot", "endpoints.push", "endpoints.router", "server"):
        monkeypatch.setattr(f"gateway_zeromq.{module}.LINGER_MS", 60_000)
    async with serving(PULL, PUSH, ROUTER) as running:
        await connected(context, running)
        Plain(context, zmq.PULL, running.address("PUSH"))
        Plain(context, zmq.PUSH, running.address("PULL"))
        started = trio.current_time()
        await running.stop()
        assert trio.current_time() - started < 20


async def test_it_ends_in_time_though_a_peer_takes_nothing(context):
    async with serving({**PUSH, "sndhwm": 1000}) as running:
        stalled = Plain(context, zmq.PULL, running.address("PUSH"), RCVHWM=1, RCVBUF=4096)
        for _ in range(300):
            await running.channel.send("", "jobs", b"x" * 50_000, persistent=False)
        await until(lambda: running.queue("jobs").count < 300)
        started = trio.current_time()
        await running.stop()
        assert trio.current_time() - started < 20, "the linger is limited"
        assert stalled.socket.closed is False


async def test_cancelled_it_closes_everything_and_leaves_no_thread():
    before = threading.active_count()
    async with serving(PULL, PUSH, ROUTER) as running:
        address = running.address("ROUTER")
    with socket.socket() as again:
        again.bind(("127.0.0.1", int(address.rpartition(":")[2])))
    await until(lambda: threading.active_count() <= before + 1)


async def test_one_endpoints_bad_peers_do_not_touch_another_endpoint(context):
    async with serving({**PULL, "frames": "key,body"}, ROUTER) as running:
        bad = Plain(context, zmq.PUSH, running.address("PULL"))
        Plain(context, zmq.DEALER, running.address("PULL"))
        client = await connected(context, running)
        await bad.send(b"x")
        raw = await trio.open_tcp_stream("127.0.0.1", int(running.address("ROUTER").rpartition(":")[2]))
        await raw.send_all(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(1000))
        await until(lambda: running.count("dropped.frames") == 1)
        assert await client.ask(22) == [23, None]
        await raw.aclose()
