"""What if a peer, or chance, chooses the worst moment?"""

import itertools

import pytest
import trio
import trio.lowlevel
import zmq

from gateway.api import Principal, QueueSpec
from gateway.errors import JournalError
from gateway_zeromq.endpoints import feed
from gateway_zeromq.endpoints.router import RouterSocket
from gateway_zeromq.tgp import session as session_module
from gateway_zeromq.tgp.bridge import Desk
from gateway_zeromq.tgp.commands import Publish
from gateway_zeromq.tgp.publisher import Publisher
from gateway_zeromq.tgp.session import REFUSALS_KEPT, Session, Sessions
from tests.runtime.support import HandJournal, Log, running, turns
from tests.zeromq.sinks import Consumer, Conversation, Delivery
from tests.zeromq.support import ANY, Client, Plain, connected, serving, until


@pytest.fixture
def publishers(monkeypatch):
    made = []
    begin = Publisher.__init__
    monkeypatch.setattr(Publisher, "__init__", lambda self, *given: (made.append(self), begin(self, *given))[1])
    return made


def test_whatever_was_refused_is_never_called_stored_however_much_else_was():
    made = Session("key", "token", "", "anonymous", 0)
    refused = range(1, 4 * REFUSALS_KEPT, 2)
    for seq in refused:
        made.note(seq + 1)
        made.refuse(seq, 506)
    assert all(made.refusal(seq) == 506 for seq in refused)
    assert len(made.refused) == REFUSALS_KEPT
    recent = refused[-REFUSALS_KEPT + 2 :]
    assert not any(made.refusal(seq + 1) for seq in recent)


def test_sessions_without_a_name_are_bounded_and_those_that_published_stay(monkeypatch):
    monkeypatch.setattr(session_module, "UNNAMED_KEPT", 5)
    numbers = itertools.count()
    sessions = Sessions(300_000, lambda: f"t{next(numbers)}")
    publisher, _ = sessions.open("", None, "anonymous", 0)
    publisher.note(1)
    sessions.leave(publisher, 0)
    for now_ms in range(1, 100):
        stranger, _ = sessions.open("", None, "anonymous", now_ms)
        sessions.leave(stranger, now_ms)
    assert len(sessions.expire(100)) == 95
    assert len(sessions) == 5
    assert sessions.open("", publisher.token, "anonymous", 101) == (publisher, True)
    assert sessions.open("", stranger.token, "anonymous", 101) == (stranger, True)


def test_what_a_consumer_is_handed_between_its_cancel_and_its_beginning_can_be_settled():
    talk = Conversation()
    talk.say(6, 5, "jobs", "c1", 10)
    talk.say(7, 6, "c1")
    ((_, question, subscription, _, _),) = [item for item in talk.asked() if item[0] == "consume"]
    delivery, later = Delivery(), Delivery()
    subscription.deliver(delivery)
    talk.say(9, "c1", 1)
    assert ("ack", delivery) in talk.asked()
    subscription.deliver(later)
    consumer = Consumer()
    talk.peer.deliveries.consuming(question, subscription, consumer)
    assert ("cancel", consumer) in talk.asked()
    talk.say(9, "c1", 2)
    assert ("ack", later) in talk.asked()
    talk.heard()
    talk.say(6, 7, "jobs", "c1", 10)  # the tag is free again
    assert [what for what, *_ in talk.asked()] == ["consume"]


async def test_what_is_said_to_strangers_who_do_not_read_does_not_pile_up(context, monkeypatch):
    routers = []
    opened = RouterSocket.open
    monkeypatch.setattr(RouterSocket, "open", lambda self: (routers.append(self), opened(self))[1])
    endpoint = {"name": "services", "socket": "ROUTER", "bind": ANY, "sndhwm": 10, "heartbeat_ms": 600_000}
    async with serving(endpoint) as running:
        deaf = Client(context, running.address("ROUTER"), RCVHWM=10, RCVBUF=4096)
        await deaf.hello()
        (router,) = routers
        with trio.fail_after(60):
            while not router._congested:
                for _ in range(100):
                    await deaf.say(22, "x" * 1000)
                await trio.lowlevel.checkpoint()
        await deaf.say(24)
        for _ in range(2_000):
            await deaf.send(b"nonsense")
        await until(lambda: running.count("violations") == 2_000)
        good = await connected(context, running)
        assert await good.ask(22) == [23, None]
        assert len(router._congested) <= 1
        assert len(router._names) <= 3


async def test_a_push_endpoint_whose_queue_goes_before_it_consumes_asks_again(context, monkeypatch):
    monkeypatch.setattr(feed, "RETRY_S", 0.02)
    journal = HandJournal(automatic=True)
    async with serving({"name": "out", "socket": "PUSH", "bind": ANY, "queue": "jobs"}, journal=journal) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        await running.channel.send("", "jobs", b"first")
        assert await worker.receive() == b"first"
        journal.automatic = False
        running.channel.delete_queue("jobs")
        running.channel.declare_queue(QueueSpec("jobs"))
        await until(lambda: journal.writes)
        await until(lambda: running.queue("jobs").consumers)  # nobody is told before the commit
        running.channel.delete_queue("jobs")
        running.channel.declare_queue(QueueSpec("jobs"))
        journal.automatic = True
        journal.finish()
        await running.channel.send("", "jobs", b"second")
        assert await worker.receive() == b"second"


def test_gets_that_are_not_answered_yet_count_against_the_credit():
    talk = Conversation(max_credit=2)
    for r in (1, 2, 3):
        talk.say(12, r, "jobs")
    asked = [item for item in talk.asked() if item[0] == "get"]
    assert len(asked) == 2
    assert talk.heard()[0][:3] == [21, 3, 506]
    talk.peer.deliveries.got(asked[0][1], None, no_ack=False)
    talk.peer.deliveries.got(asked[1][1], Delivery(), no_ack=False)
    talk.say(12, 4, "jobs")
    talk.say(12, 5, "jobs")
    assert [item[2].r for item in talk.asked() if item[0] == "get"] == [4]


async def test_a_get_that_failed_gives_its_credit_back(context):
    async with serving({"name": "s", "socket": "ROUTER", "bind": ANY, "max_credit": 1}) as running:
        client = await connected(context, running)
        for r in range(1, 4):
            assert (await client.ask(12, r, "missing"))[:3] == [21, r, 404]


async def test_what_was_refused_amid_what_is_undecided_is_never_covered_on_the_next_connection(context, publishers):
    journal = HandJournal(automatic=True)
    async with serving({"name": "s", "socket": "ROUTER", "bind": ANY}, journal=journal) as running:
        first = Client(context, running.address("ROUTER"))
        token = (await first.hello())["session"]
        await first.ask(13, 90, "queue", "jobs")
        journal.automatic = False
        (publisher,) = publishers
        await first.say(3, 1, "", "jobs", body=b"1")
        await until(lambda: journal.writes)
        publisher.publish(Publish(2, "", "jobs"), b"2", refusing=True)
        assert await first.hear() == [4, 2, False, 506]
        await first.say(3, 3, "", "jobs", body=b"3")
        await until(lambda: len(publisher.session.pending) == 2)
        second = Client(context, running.address("ROUTER"))
        ready = await second.hello(session=token)
        assert (ready["last_seq"], ready.get("refused")) == (0, None)
        journal.automatic = True
        journal.finish()
        assert [await second.hear(), await second.hear()] == [[4, 1, False, 0], [4, 3, False, 0]]
        assert await second.ask(3, 2, "", "jobs", body=b"2") == [4, 2, False, 506]
        assert await second.ask(3, 4, "", "jobs", body=b"4") == [4, 4, True, 0]


async def test_what_was_refused_is_said_again_while_earlier_messages_are_undecided(context, publishers):
    journal = HandJournal(automatic=True)
    async with serving({"name": "s", "socket": "ROUTER", "bind": ANY}, journal=journal) as running:
        client = await connected(context, running)
        await client.ask(13, 90, "queue", "jobs")
        journal.automatic = False
        (publisher,) = publishers
        await client.say(3, 1, "", "jobs", body=b"1")
        await until(lambda: journal.writes)
        for _ in range(2):
            publisher.publish(Publish(2, "", "jobs"), b"2", refusing=True)
            assert await client.hear() == [4, 2, False, 506]


async def test_draining_does_not_stumble_over_a_journal_that_fails(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        gateway = broker.gateway("zeromq", lambda _: None, Log())
        desk = Desk(gateway, Principal("u"), 1_000, lambda: "token")
        gateway.open_channel(Principal("u")).declare_queue(QueueSpec("q"))
        await turns()
        journal.finish(JournalError("disk full"))
        await turns()
        assert broker.committer.failing
        with trio.fail_after(30):
            await desk.decided()
