"""If the broker itself stands still (stopped, asleep with its machine), does it take its peers for dead when it goes on?"""

import msgspec
import pytest
import trio
import zmq

from gateway.api import Message, QueueSpec
from gateway_zeromq.endpoints import router
from gateway_zeromq.mdp import protocol as mdp
from gateway_zeromq.mdp.codec import Version
from gateway_zeromq.standing import Rounds, State
from tests.zeromq.majordomo import Worker, majordomo
from tests.zeromq.sinks import Conversation
from tests.zeromq.support import ANY, Plain, connected, serving, until
from trio_zmq.pump import Pump

LONG_S = 3_600.0
PING, PONG = [22, None], [23]
PONG_BYTES = msgspec.msgpack.encode(PONG)


async def time_goes_by(clock, seconds, step_s=0.2):
    """Let time pass as it passes for a broker that is awake."""
    for _ in range(round(seconds / step_s)):
        clock.jump(step_s)
        await trio.testing.wait_all_tasks_blocked(0.001)


# -- who was away


@pytest.mark.parametrize(
    ("rounds", "late"),
    [
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]),
        ([1.5, 3.0, 5.0], [0.0, 0.0, 0.0]),
        ([1.0, 4.5, 5.5], [0.0, 2.5, 0.0]),
        ([101.0, 202.0], [100.0, 100.0]),
    ],
)
def test_a_round_that_comes_much_later_than_it_should_says_by_how_much(rounds, late):
    watch = Rounds(0.0)
    assert [watch.late_s(now, 1.0) for now in rounds] == late


# -- the protocols, on clocks of their own


def test_a_tgp_client_that_was_not_asked_is_asked_however_long_it_was_silent():
    talk = Conversation(heartbeat_ms=1000)
    assert talk.peer.tick(LONG_S)
    assert talk.heard() == [PING]
    assert talk.peer.tick(LONG_S + 1.9)
    assert not talk.peer.tick(LONG_S + 2.0)
    assert talk.peer.state is State.CLOSED


def test_a_tgp_client_that_was_asked_before_has_its_two_heartbeats_to_answer():
    talk = Conversation(heartbeat_ms=1000)
    assert talk.peer.tick(1.0)
    assert talk.heard() == [PING]
    talk.peer.excuse(LONG_S, LONG_S + 1.5)
    assert talk.peer.tick(LONG_S + 2.9)
    assert talk.heard() == [], "it is asked once"
    talk.now = LONG_S + 2.9
    talk.say(*PONG)
    assert talk.peer.tick(LONG_S + 3.8)
    assert talk.heard() == []


def test_a_req_client_is_not_forgotten_for_the_brokers_silence():
    talk = Conversation(enveloped=True, quiet_s=10.0)
    assert talk.peer.tick(9.0)
    talk.peer.excuse(LONG_S, LONG_S + 9.5)
    assert talk.peer.tick(LONG_S + 9.5)
    assert not talk.peer.tick(LONG_S + 10.0)


def test_what_was_heard_since_is_no_more_than_just_now():
    talk = Conversation(enveloped=True, quiet_s=10.0)
    talk.now = LONG_S
    talk.say(*PONG)
    talk.peer.excuse(LONG_S, LONG_S + 0.1)
    assert not talk.peer.tick(LONG_S + 10.1)


class Nothing:
    def __getattr__(self, name):
        return lambda *_arguments, **_keywords: True


@pytest.mark.parametrize("kind", [mdp.Worker, mdp.Client])
def test_a_majordomo_peer_has_its_time_from_before_and_after(kind):
    rules = mdp.Rules(heartbeat_s=1.0, liveness=3, quiet_s=3.0)
    peer = kind(Nothing(), Version.V02, rules, enveloped=False)
    assert peer.tick(2.0)
    peer.excuse(LONG_S, LONG_S + 2.5)
    assert peer.tick(LONG_S + 2.5)
    assert not peer.tick(LONG_S + 3.0)


# -- the endpoints


async def test_tgp_clients_are_asked_when_the_broker_goes_on_and_those_who_answer_keep_what_they_have(context, clock):
    async with serving({"socket": "ROUTER", "bind": ANY, "heartbeat_ms": 1_000}) as running:
        lively, silent = await connected(context, running), await connected(context, running)
        await lively.ask(13, 1, "queue", "jobs")
        for client in (lively, silent):
            assert await client.ask(6, 2, "jobs", "c1", 5) == [20, 2, None]
        clock.jump(LONG_S)
        assert [await lively.hear(), await silent.hear()] == [PING, PING]
        for _ in range(6):
            await lively.say(*PONG)
            await time_goes_by(clock, 0.6)
        await until(lambda: running.count("silent_peers") == 1)
        assert len(running.queue("jobs").consumers) == 1
        await lively.say(3, 1, "", "jobs", body=b"x")
        while (said := await lively.hear()) in (PING, [4, 1, True, 0]):
            pass
        assert said == ([8, "c1", 1, False, "", "jobs", None], b"x")


async def test_majordomo_workers_stay_registered(context, clock):
    async with serving(majordomo(mdp_heartbeat_ms=1_000)) as running:
        worker = Worker(context, running.address("ROUTER"))
        await worker.ready()
        await until(lambda: running.queue("mdp.echo").consumers if "mdp.echo" in queues(running) else False)
        clock.jump(LONG_S)
        await worker.beat()
        await time_goes_by(clock, 1.0)
        assert running.count("silent_peers") == 0
        assert running.queue("mdp.echo").consumers


def queues(running):
    return running.broker.engine.vhosts["/"].queues


class NeverDone(Pump):
    """A pump of a socket on which there is always more."""

    def events(self):
        return super().events() | zmq.POLLIN


async def test_a_silent_client_is_found_dead_though_others_never_stop_to_speak(context, clock, monkeypatch):
    monkeypatch.setattr(router, "Pump", NeverDone)
    async with serving({"socket": "ROUTER", "bind": ANY, "heartbeat_ms": 1_000}) as running:
        lively, silent = await connected(context, running), await connected(context, running)
        assert await silent.ask(13, 1, "queue", "jobs")
        for _ in range(60):
            for _ in range(80):
                lively.pump.send(PONG_BYTES, zmq.NOBLOCK)
            await time_goes_by(clock, 0.2)
        await until(lambda: running.count("silent_peers") == 1, 5)
        assert await silent.hear() == PING


async def test_nobody_is_found_dead_while_what_they_said_waits_to_be_read(context, clock, monkeypatch):
    monkeypatch.setattr(router, "Pump", NeverDone)
    async with serving({"socket": "ROUTER", "bind": ANY, "heartbeat_ms": 1_000}) as running:
        silent = await connected(context, running)
        await time_goes_by(clock, 10.0)
        assert running.count("silent_peers") == 0
        assert await silent.receive(0.05) is None


@pytest.mark.parametrize(
    "settings", [{"heartbeat_ms": 60_000, "pong_timeout_ms": 60_000}, {"heartbeat_ms": 60_000, "pong_timeout_ms": 0}]
)
async def test_workers_of_a_push_endpoint_with_pong_stay(context, clock, settings):
    push = {"socket": "PUSH", "bind": ANY, "queue": "jobs", "ack": "pong", "ping_every": 16, **settings}
    async with serving(push) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"), HEARTBEAT_IVL=200, HEARTBEAT_TTL=1_000, HEARTBEAT_TIMEOUT=30_000)
        await put(running, "jobs", b"1")
        assert await worker.receive() == b"1"
        await until(lambda: running.queue("jobs").count == 0)
        for n in range(3):
            clock.jump(LONG_S)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await put(running, "jobs", b"%d" % n)
            assert await worker.receive() == b"%d" % n
        assert running.log.of("a peer has gone") == []
        assert running.count("requeued.peer gone") == 0


async def test_a_dealers_request_that_was_replied_to_meanwhile_is_not_asked_again(context, clock):
    async with serving({"socket": "DEALER", "bind": ANY, "queue": "work", "reply_timeout_ms": 60_000}) as running:
        await running.call(running.channel.declare_queue(QueueSpec("replies")))
        worker = Plain(context, zmq.REP, running.address("DEALER"))
        await put(running, "work", b"question")
        assert await worker.receive() == b"question"
        clock.jump(LONG_S)
        await time_goes_by(clock, 1.0)
        await worker.send(b"answer")
        await until(lambda: running.queue("work").count == 0)
        assert running.count("timeouts") == 0


async def put(running, queue, body):
    route = running.channel.route("", queue)
    await running.call(running.channel.publish(route, Message(route.address, body, True)))
