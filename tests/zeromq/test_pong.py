"""Does `ack = "pong"` settle what unmodified PULL peers have taken, and nothing else?"""

import signal
import socket
import subprocess
import sys
from typing import ClassVar

import pydantic
import pytest
import trio
import zmq

from gateway.api import Message, QueueSpec
from gateway_zeromq.endpoints.pong.outbox import Outbox
from gateway_zeromq.endpoints.pong.terms import Rules, State
from gateway_zeromq.endpoints.pong.traffic import Traffic
from gateway_zeromq.endpoints.pong.vigil import MOST_UNASKED, Vigil
from gateway_zeromq.endpoints.pong.wires import write_bodies
from gateway_zeromq.endpoints.pong.worker import Worker
from gateway_zeromq.settings import PushEndpoint
from gateway_zeromq.zmtp import commands
from gateway_zeromq.zmtp.conversation import Conversation
from gateway_zeromq.zmtp.frames import Limits, Violation, frame
from gateway_zeromq.zmtp.mechanisms import Null
from tests.ports import free_port
from tests.zeromq.hashes import hash_of
from tests.zeromq.support import ANY, Plain, connected, serving, until

PONG = {"name": "out", "socket": "PUSH", "bind": ANY, "queue": "jobs", "ack": "pong", "window": 256, "ping_every": 16}
GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
ALICE = hash_of("wonderland")
READY = commands.command(b"READY", commands.metadata({"Socket-Type": b"PULL"}))


def push(**settings):
    return {**PONG, **settings}


def post(running, count, *, size=0, first=0):
    route = running.channel.route("", "jobs")
    for n in range(first, first + count):
        running.channel.post(route, Message(route.address, b"%d" % n + b"." * size, True))


def number(body):
    return int(body.partition(b".")[0])


def empty(running):
    return running.queue("jobs").count == 0


class Raw:
    """A peer that says what it is told to, byte by byte."""

    made: ClassVar = []

    def __init__(self, stream):
        self.stream = stream
        self.said = b""
        self.made.append(stream.socket)

    @classmethod
    async def met(cls, running, greeting=GREETING, ready=READY, *, probe=True):
        """Return a peer that has shaken hands, and has answered the first PING."""
        host, port = running.address("PUSH").removeprefix("tcp://").split(":")
        peer = cls(await trio.open_tcp_stream(host, int(port)))
        await peer.stream.send_all(greeting + ready)
        if probe:
            await peer.hear(b"\x04PING\0\0" + bytes(8))
            await peer.stream.send_all(commands.pong(bytes(8)))
            peer.said = b""
        return peer

    async def hear(self, what=None):
        """Read until something was said; None: to the end."""
        with trio.fail_after(30):
            while what is None or what not in self.said:
                data = await self.stream.receive_some()
                if not data:
                    assert what is None, self.said
                    return self.said
                self.said += data
        return self.said


@pytest.fixture(autouse=True)
async def _close_raw():
    yield
    while Raw.made:
        Raw.made.pop().close()


async def test_a_worker_gets_messages_and_they_are_settled_when_it_has_ponged_them(context):
    async with serving(push()) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        post(running, 500)
        assert [number(await worker.receive()) for _ in range(500)] == list(range(500))
        await until(lambda: empty(running))
        assert running.count("violations") == 0


async def test_nothing_is_sent_to_who_has_not_answered_a_ping_and_nothing_settled_that_is_not_ponged():
    async with serving(push()) as running:
        peer = await Raw.met(running, probe=False)
        post(running, 40)
        await peer.hear(b"\x04PING\0\0" + bytes(8))
        await trio.sleep(0.05)
        assert peer.said.endswith(b"\x04PING\0\0" + bytes(8))
        assert running.queue("jobs").ready_count == 40
        peer.said = b""
        await peer.stream.send_all(commands.pong(bytes(8)))
        await peer.hear(frame(0, b"39"))
        at = [peer.said.index(commands.ping(n.to_bytes(8, "big"))) for n in (16, 32)]
        assert at == [peer.said.index(frame(0, b"16")) - 17, peer.said.index(frame(0, b"32")) - 17]
        assert peer.said.count(b"PING") == 2, "the last ones are asked for when these are answered"
        assert running.queue("jobs").count == 40
        await peer.stream.send_all(commands.pong((16).to_bytes(8, "big")))
        await until(lambda: running.queue("jobs").count == 24)
        await peer.stream.send_all(commands.pong((32).to_bytes(8, "big")))
        await peer.hear(commands.ping((40).to_bytes(8, "big")))
        await until(lambda: running.queue("jobs").count == 8)
        await peer.stream.send_all(commands.pong((40).to_bytes(8, "big")))
        await until(lambda: empty(running))


async def test_what_is_not_ponged_goes_to_the_next_worker_in_order(context):
    async with serving(push()) as running:
        peer = await Raw.met(running)
        post(running, 40)
        await peer.hear(frame(0, b"39"))
        await peer.stream.send_all(commands.pong((16).to_bytes(8, "big")))
        await until(lambda: running.queue("jobs").count == 24)
        await peer.stream.aclose()
        await until(lambda: running.queue("jobs").ready_count == 24)
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        assert [number(await worker.receive()) for _ in range(24)] == list(range(16, 40))
        await until(lambda: empty(running))
        assert running.count("requeued.peer gone") == 24


async def test_a_peer_has_no_more_than_its_window_and_the_rest_is_there_for_others(context):
    async with serving(push(window=20, ping_every=5), {"socket": "ROUTER", "bind": ANY}) as running:
        peer = await Raw.met(running)
        post(running, 50)
        await peer.hear(frame(0, b"19"))
        await trio.sleep(0.05)
        assert frame(0, b"20") not in peer.said
        assert running.queue("jobs").ready_count == 30
        other = await connected(context, running)
        got, body = await other.ask(12, 1, "jobs", True)
        assert (body, got[3]) == (b"20", False)
        await peer.stream.send_all(commands.pong((5).to_bytes(8, "big")))
        await peer.hear(frame(0, b"25"))
        assert frame(0, b"26") not in peer.said


async def test_workers_take_turns(context):
    async with serving(push()) as running:
        peers = [Plain(context, zmq.PULL, running.address("PUSH")) for _ in range(3)]
        await until(lambda: len(served(running)) == 3)
        post(running, 300)
        got = [[number(await worker.receive()) for _ in range(100)] for worker in peers]
        assert sorted(n for numbers in got for n in numbers) == list(range(300))
        assert all(numbers == sorted(numbers) for numbers in got)
        post(running, 1, first=300)
        post(running, 1, first=301)
        await until(lambda: empty(running))


def shares(running):
    """Return who deals out messages."""
    return [consumer.sink._flushable._shares for consumer in running.queue("jobs").consumers]


def served(running):
    """Return those who are there and can be sent messages."""
    return [taker for each in shares(running) for taker in each._takers]


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        ({"frames": "key,body"}, [b"a.b", b"b"]),
        ({"frames": "key,body", "key_syntax": "mqtt"}, [b"a/b", b"b"]),
        ({"frames": "key,headers,body"}, [b"a.b", b"\x80", b"b"]),
        ({"frames": "raw"}, b"b"),
    ],
)
async def test_a_worker_gets_the_frames_that_the_endpoint_says(context, settings, frames):
    binding = "a/+" if settings.get("key_syntax") else "a.*"
    async with serving(push(**settings, bindings=[{"exchange": "amq.topic", "key": binding}])) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        await running.channel.send("amq.topic", "a.b", b"b")
        assert await worker.receive() == frames


@pytest.mark.parametrize("size", [0, 250, 300, 100_000])
async def test_messages_of_any_size_come_whole(context, size):
    async with serving(push(window_bytes=1_000_000)) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"), RCVHWM=10)
        post(running, 100, size=size)
        bodies = [await worker.receive() for _ in range(100)]
        assert bodies == [b"%d" % n + b"." * size for n in range(100)]
        await until(lambda: empty(running))


@pytest.mark.parametrize("scheme", ["ipc", "ipv6", "abstract"])
async def test_other_ways(context, scheme, tmp_path):
    bind = {"ipc": f"ipc://{tmp_path}/s", "ipv6": "tcp://[::1]:0", "abstract": f"ipc://@{tmp_path}"}[scheme]
    async with serving(push(bind=bind)) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"), **({"IPV6": 1} if scheme == "ipv6" else {}))
        post(running, 1)
        assert await worker.receive() == b"0"
        await until(lambda: empty(running))
        if scheme == "ipc":
            assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    assert scheme != "ipc" or not (tmp_path / "s").exists()


async def test_an_address_that_is_taken_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ExceptionGroup) as caught:
            async with serving(push(bind=address)):
                pass
    (error,) = caught.value.exceptions
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert f"'out' can't listen on {address}: address already in use" in str(error)


@pytest.mark.parametrize("ipc", [False, True])
async def test_an_endpoint_that_connects_waits_for_its_peer_and_comes_back_to_it(context, monkeypatch, tmp_path, ipc):
    monkeypatch.setattr("gateway_zeromq.endpoints.pong.links.LONGEST_WAIT_S", 0.2)
    address = f"ipc://{tmp_path}/far" if ipc else f"tcp://127.0.0.1:{free_port()}"
    async with serving(push(bind=[], connect=[address])) as running:
        post(running, 3)
        await until(lambda: running.log.of("can't connect yet"))
        assert running.queue("jobs").ready_count == 3
        for first in (0, 3):
            far = zmq.Context()
            worker = far.socket(zmq.PULL)
            worker.bind(address)
            worker.setsockopt(zmq.RCVTIMEO, 30_000)
            got = [number(await trio.to_thread.run_sync(worker.recv)) for _ in range(3)]
            assert got == [first, first + 1, first + 2]
            await until(lambda: empty(running))
            worker.close(0)
            await trio.to_thread.run_sync(far.term)
            await until(lambda: not served(running))
            post(running, 3, first=3)
        assert running.queue("jobs").count == 3


async def test_at_the_end_what_is_not_ponged_is_back_in_the_queue_and_what_is_ponged_late_is_not(monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.pong.endpoint.DRAIN_S", 0.3)
    async with serving(push()) as running:
        peer = await Raw.met(running)
        post(running, 40)
        await peer.hear(frame(0, b"39"))
        running.broker.start_draining()
        await trio.sleep(0.05)
        await peer.stream.send_all(commands.pong((32).to_bytes(8, "big")))
        with trio.fail_after(30):
            await running.stopped.wait()
        assert running.queue("jobs").ready_count == 8
        assert running.queue("jobs").consumers == []


async def test_when_its_queue_is_deleted_it_waits_for_a_new_one(context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.feed.RETRY_S", 0.01)
    async with serving(push()) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        post(running, 1)
        assert await worker.receive() == b"0"
        await until(lambda: empty(running))
        await running.call(running.channel.delete_queue("jobs"))
        await running.call(running.channel.declare_queue(QueueSpec("jobs")))
        post(running, 2)
        assert [await worker.receive(), await worker.receive()] == [b"0", b"1"]
        await until(lambda: empty(running))
        assert len(running.log.of("consumer ended")) == 1


# -- peers that do something wrong, and those that can't pong


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (commands.pong(b""), "a PONG without a PING"),
        (commands.pong((5).to_bytes(8, "big")), "a PONG without a PING"),
        (commands.pong(bytes(17)), "a PONG that can't be read"),
        (commands.ping(bytes(17)), "a PING that can't be read"),
        (frame(0, b"hello"), "a message from a PULL peer"),
        (commands.command(b"SUBSCRIBE"), "SUBSCRIBE is out of place"),
        (READY, "READY is out of place"),
        (b"\xff\xff\xff\xff", "flags 0xff: reserved bits are set"),
        (b"\x06" + b"\x7f" * 8, "a command of"),
    ],
)
async def test_a_peer_that_breaks_the_protocol_ends_alone(context, data, why):
    async with serving(push()) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        await until(lambda: served(running))
        peer = await Raw.met(running)
        await peer.stream.send_all(data)
        await peer.hear()
        assert running.count("violations") == 1
        assert running.log.of("protocol violation")[0]["reason"].startswith(why)
        post(running, 20)
        assert [number(await worker.receive()) for _ in range(20)] == list(range(20))
        await until(lambda: empty(running))


async def test_a_pong_to_a_ping_that_was_not_sent_settles_nothing():
    async with serving(push()) as running:
        peer = await Raw.met(running)
        post(running, 20)
        await peer.hear(frame(0, b"19"))
        await peer.stream.send_all(commands.pong((20).to_bytes(8, "big")))
        await peer.hear()
        assert running.queue("jobs").ready_count == 20
        assert running.log.of("protocol violation")[0]["reason"] == "a PONG to a PING that was not sent"


async def test_a_wrong_socket_type_is_told_so(context):
    async with serving(push()) as running:
        pair = commands.command(b"READY", commands.metadata({"Socket-Type": b"PAIR"}))
        peer = await Raw.met(running, ready=pair, probe=False)
        assert (await peer.hear()).endswith(commands.error("socket type PAIR; PUSH goes with PULL"))
        Plain(context, zmq.SUB, running.address("PUSH"))
        await until(lambda: running.count("violations") >= 2)


class Alone:
    """The endpoint of one peer, as that sees it."""

    writer = staticmethod(write_bodies)

    def __init__(self):
        self.heard = []

    def met(self, worker):
        self.heard.append("met")

    def freed(self):
        self.heard.append("freed")

    def handed(self, items):
        self.heard.append("handed")

    def gone(self, worker, items):
        self.heard.append(worker.reason)


@pytest.mark.parametrize("version", [b"\x03\x01", b"\x03\x00"])
async def test_a_peer_that_goes_before_it_is_answered_has_gone_once(version):
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        crew = Alone()
        mechanism = Null({"Socket-Type": b"PUSH"}, first=False)
        worker = Worker(near, "somebody", Conversation(mechanism, "PUSH", frozenset({"PULL"}), Limits()), crew, Rules())
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.run)
                await trio.lowlevel.wait_readable(far)
                far.recv(len(GREETING))
                far.send(GREETING.replace(b"\x7f\x03\x01", b"\x7f" + version) + READY)
                far.close()
        assert [each for each in crew.heard if each != "met"] == ["connection lost: Broken pipe"]
        assert worker.state is State.GONE
        assert near.fileno() == -1


async def test_heartbeats_that_came_while_nobody_listened_are_no_flood(autojump_clock):
    traffic = Traffic(Outbox(None, None, None), Rules(), write_bodies, None)
    vigil = Vigil(Rules())
    await trio.sleep(10)
    for _ in range(10_000):
        vigil.note_unasked()
    vigil.look(trio.current_time(), traffic)
    for _ in range(MOST_UNASKED):
        vigil.note_unasked()
    with pytest.raises(Violation):
        vigil.note_unasked()


async def test_a_peer_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.pong.vigil.HANDSHAKE_S", 0.1)
    async with serving(push(heartbeat_ms=100)) as running:
        silent = await Raw.met(running, b"", b"", probe=False)
        await silent.hear()
        deaf = await Raw.met(running, probe=False)
        await deaf.hear()
        assert running.log.of("protocol violation")[0]["reason"] == "it does not answer PING"


OLD = GREETING[:11] + b"\0" + GREETING[12:]


@pytest.mark.parametrize("greeting", [(OLD, READY), (GREETING[:10] + b"\x01\x07\0\0", b"")], ids=["3.0", "2"])
async def test_a_peer_that_can_not_pong_is_handed_messages_and_it_is_said_so(greeting):
    async with serving(push()) as running:
        peer = await Raw.met(running, *greeting, probe=False)
        post(running, 300)
        await peer.hear(frame(0, b"299"))
        assert b"PING" not in peer.said
        await until(lambda: empty(running))
        (said,) = running.log.of("a peer can't acknowledge: what the kernel takes for it counts as delivered")
        assert said["zmtp"] in ("3.0", "2.0")
        assert running.count("peers_without_pong") == 1


async def test_what_the_kernel_has_not_taken_for_such_a_peer_is_not_settled():
    async with serving(push(window=1_000)) as running:
        peer = await Raw.met(running, OLD, READY, probe=False)
        post(running, 400, size=50_000)
        await until(lambda: any(worker.blocked for worker in served(running)))
        await trio.sleep(0.1)
        left = running.queue("jobs").count
        assert left > 100
        await trio.aclose_forcefully(peer.stream)
        await until(lambda: running.queue("jobs").ready_count == left)


async def test_such_peers_can_be_refused_or_asked_all_the_same():
    async with serving(push(older_peers="refuse")) as running:
        peer = await Raw.met(running, OLD, READY, probe=False)
        await peer.hear()
        assert "3.0" in running.log.of("protocol violation")[0]["reason"]
    async with serving(push(older_peers="ping", ping_every=4)) as running:
        peer = await Raw.met(running, OLD, READY, probe=False)
        await peer.hear(b"PING")
        await peer.stream.send_all(commands.pong(b""))  # libzmq 4.2
        peer.said = b""
        post(running, 10)
        await peer.hear(frame(0, b"9"))
        assert peer.said.count(b"PING") == 1, "one at a time: its PONGs can't be told apart"
        await peer.stream.send_all(commands.pong(b""))
        await until(lambda: running.queue("jobs").count == 6)
        await peer.hear(commands.ping((10).to_bytes(8, "big")))
        await peer.stream.send_all(commands.pong(b""))
        await until(lambda: empty(running))


async def test_an_old_peer_that_asks_can_answer_too():
    async with serving(push()) as running:
        peer = await Raw.met(running, OLD, READY, probe=False)
        await peer.stream.send_all(commands.ping(b"abc"))
        await peer.hear(b"\x04PONGabc")
        await peer.hear(b"\x04PING\0\0" + bytes(8))
        await peer.stream.send_all(commands.pong(bytes(8)))
        post(running, 1)
        await peer.hear(frame(0, b"0"))
        assert running.queue("jobs").count == 1


# -- life and death


async def test_a_peer_with_nothing_to_do_is_asked_whether_it_lives():
    async with serving(push(heartbeat_ms=50)) as running:
        peer = await Raw.met(running)
        await peer.hear(b"PING")
        await peer.stream.send_all(commands.pong(bytes(8)))
        peer.said = b""
        await peer.hear(b"PING")
        await peer.hear()
        assert not served(running)


async def test_a_peer_that_pongs_nothing_for_too_long_is_dead_and_others_get_its_messages(context):
    async with serving(push(pong_timeout_ms=200)) as running:
        peer = await Raw.met(running)
        post(running, 30)
        await peer.hear(frame(0, b"29"))
        await peer.hear()
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        assert [number(await worker.receive()) for _ in range(30)] == list(range(30))


async def test_a_peer_is_believed_when_it_says_how_long_it_may_be_silent():
    async with serving(push(heartbeat_ms=60_000, pong_timeout_ms=100)) as running:
        peer = await Raw.met(running)
        await peer.stream.send_all(commands.ping(b"", ttl_ds=1))
        await peer.hear()
        assert not served(running)


async def test_a_worker_with_heartbeats_of_its_own_stays(context):
    async with serving(push()) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"), HEARTBEAT_IVL=50, HEARTBEAT_TIMEOUT=150, HEARTBEAT_TTL=300)
        await until(lambda: served(running))
        first = served(running)
        await trio.sleep(0.6)
        post(running, 1)
        assert await worker.receive() == b"0"
        assert served(running) == first


async def test_a_stalled_worker_pongs_no_more_than_it_has_taken_and_the_rest_is_not_lost(context):
    async with serving(push()) as running:
        stalled = Plain(context, zmq.PULL, running.address("PUSH"), RCVHWM=5)
        await until(lambda: served(running))
        post(running, 200)
        await until(lambda: running.queue("jobs").ready_count == 0)
        await trio.sleep(0.2)
        assert running.queue("jobs").count >= 195
        stalled.close()
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        left = running.queue("jobs").count
        assert [number(await worker.receive()) for _ in range(left)] == list(range(200 - left, 200))
        await until(lambda: empty(running))


WORKER = """
import sys, time, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.setsockopt(zmq.RCVHWM, int(sys.argv[2]))
socket.connect(sys.argv[1])
for _ in range(int(sys.argv[3])):
    sys.stdout.write(socket.recv().decode() + "\\n")
    sys.stdout.flush()
    time.sleep(float(sys.argv[4]))
time.sleep(60)
"""


class Victim:
    """An unmodified worker in a process of its own, which writes down each message that it got."""

    def __init__(self, address, rcvhwm, path, *, most=1_000_000, rest_s=0.0):
        self.path = path
        command = [sys.executable, "-c", WORKER, address, str(rcvhwm), str(most), str(rest_s)]
        with path.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file)

    def got(self):
        return [int(line) for line in self.path.read_text().split("\n")[:-1]]

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.mark.parametrize(
    ("rcvhwm", "count", "most", "rest_s"),
    [(1, 600, 50, 0.0), (10, 600, 50, 0.0), (1_000, 3_000, 50, 0.0), (1, 600, 600, 0.001), (100, 3_000, 3_000, 0.0005)],
    ids=["1, stalled", "10, stalled", "1000, stalled", "1, at work", "100, at work"],
)
async def test_of_a_worker_that_is_killed_at_most_its_rcvhwm_is_lost(tmp_path, rcvhwm, count, most, rest_s):
    async with serving(push()) as running:
        address = running.address("PUSH")
        first = Victim(address, rcvhwm, tmp_path / "first", most=most, rest_s=rest_s)
        second = None
        try:
            await until(lambda: served(running))
            post(running, count)
            await until(lambda: len(first.got()) >= 50)
            await trio.sleep(0.1 if most == 50 else 0)
            first.kill()
            await until(lambda: not served(running))
            left = running.queue("jobs").ready_count
            assert left > 300, "it was killed long before the end"
            second = Victim(address, rcvhwm, tmp_path / "second")
            await until(lambda: empty(running) and len(second.got()) == left)
        finally:
            first.kill()
            if second is not None:
                second.kill()
        assert second.got() == list(range(count - left, count)), "in order, and no gap"
        lost = set(range(count)) - set(first.got()) - set(second.got())
        assert len(lost) <= rcvhwm + 1, "its pipe, and the one in its hands"


@pytest.mark.parametrize("rcvhwm", [1, 10, 100])
async def test_a_worker_whose_rcvhwm_is_known_loses_nothing_when_it_is_killed_at_work(tmp_path, rcvhwm):
    async with serving(push(worker_rcvhwm=rcvhwm)) as running:
        address = running.address("PUSH")
        killed, got = [Victim(address, rcvhwm, tmp_path / "0", rest_s=0.001)], set()
        try:
            await until(lambda: served(running))
            post(running, 1_000)
            while len(killed) < 4:
                await until(lambda: len(killed[-1].got()) >= 60)
                killed[-1].kill()
                await until(lambda: not served(running))
                killed.append(Victim(address, rcvhwm, tmp_path / str(len(killed)), rest_s=0.001 if len(killed) < 3 else 0))
            await until(lambda: 999 in killed[-1].got())
            await until(lambda: running.queue("jobs").count == rcvhwm + 1)
        finally:
            for victim in killed:
                victim.kill()
        for victim in killed:
            got.update(victim.got())
        assert got == set(range(1_000))
        await until(lambda: running.queue("jobs").ready_count == rcvhwm + 1)


# -- settings


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"sndhwm": 5}, 'has sndhwm, which says nothing for ack = "pong"'),
        ({"prefetch": 5}, 'has prefetch, which says nothing for ack = "pong"'),
        ({"ack": "handover"}, 'has window, ping_every, which says nothing for ack = "handover"'),
        ({"worker_rcvhwm": 128}, "has window = 256, which is too little for worker_rcvhwm = 128: at least 258"),
        (
            {"security": "curve", "secret_key_file": "x", "client_keys": "y"},
            'has ack = "pong" with security = "curve": it speaks a ZMTP of its own, which can null, and with bind plain',
        ),
        (
            {"security": "plain", "bind": [], "connect": ANY, "user": "me", "password_file": "x"},
            'has ack = "pong" with security = "plain": it speaks a ZMTP of its own, which can plain with bind, null with connect',
        ),
    ],
)
async def test_settings_that_say_nothing_are_refused(settings, why):
    with pytest.raises(pydantic.ValidationError) as caught:
        PushEndpoint(**push(**settings))
    assert why in str(caught.value)


# -- who is let in


async def test_with_plain_only_users_get_messages(context):
    async with serving(push(security="plain", users={"alice": ALICE})) as running:
        address = running.address("PUSH")
        stranger = Plain(context, zmq.PULL, address)
        liar = Plain(context, zmq.PULL, address, PLAIN_USERNAME=b"alice", PLAIN_PASSWORD=b"no")
        await until(lambda: running.log.of("a peer is not let in") and running.log.of("protocol violation"))
        post(running, 20)
        alice = Plain(context, zmq.PULL, address, PLAIN_USERNAME=b"alice", PLAIN_PASSWORD=b"wonderland")
        assert [number(await alice.receive()) for _ in range(20)] == list(range(20))
        await until(lambda: empty(running))
        assert running.count("refused_handshakes.not let in") >= 1
        assert (stranger.got, liar.got) == ([], [])


async def test_no_line_to_paste_is_offered_where_a_password_is_asked_for():
    async with serving(push()) as running:
        assert running.front_end.hints(running.announced)
    async with serving(push(security="plain", users={"alice": ALICE})) as running:
        assert running.front_end.hints(running.announced) == []


# -- many at a time


async def test_when_many_come_each_worker_gets_several_at_a_time_and_none_is_left_out(context):
    async with serving(push()) as running:
        peers = [Plain(context, zmq.PULL, running.address("PUSH")) for _ in range(4)]
        await until(lambda: len(served(running)) == 4)
        (dealer,) = shares(running)
        dealer._portion = 10
        post(running, 20)
        await until(lambda: empty(running))
        first = [await left(worker) for worker in peers]
        assert sorted(first) == [0, 0, 10, 10]
        dealer._portion = 10
        post(running, 20)
        await until(lambda: empty(running))
        second = [await left(worker) for worker in peers]
        assert [one + other for one, other in zip(first, second, strict=True)] == [10, 10, 10, 10]


async def left(worker):
    """Count what a worker can be given now."""
    count = 0
    while await worker.receive(0.1) is not None:
        count += 1
    return count


async def test_a_flood_of_pings_by_a_peer_that_reads_nothing_ends_it():
    async with serving(push()) as running:
        peer = await Raw.met(running)
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await flood(peer)
        assert served(running) == []


async def flood(peer):
    with trio.fail_after(30):
        while True:
            await peer.stream.send_all(commands.ping(bytes(16)) * 5_000)
