"""What does the client do when the gateway goes and comes back?"""

import time

import pytest

from gateway.client import ConsumerCancelled, Disconnected, PublishRefused, RequestRefused, TimedOut, connect
from tests.client.fake_router import ACK, BYE, CONSUME, ERROR, HELLO, PUBLISH


def of(router, command):
    return [fields for number, *fields in router.heard if number == command]


def bodies(router, queue):
    return [message.body for message in router.disk.queues[queue]]


def until_heard(router, client, command, count):
    """Go on until the router has heard a command so often."""
    deadline = time.monotonic() + 60
    while len(of(router, command)) < count:
        assert time.monotonic() < deadline
        client.poll(0.01)


def put(router, count):
    """Publish as a client without a name, one at a time."""
    with connect(router.address) as client:
        client.declare_queue("jobs")
        for n in range(count):
            client.publish("", "jobs", b"%d" % n)


def test_unconfirmed_messages_are_sent_again_and_stored_once(router):
    router.hold_confirms = True
    with connect(router.address, client="sensor") as client:
        client.declare_queue("jobs")
        confirms = [client.publish("", "jobs", b"%d" % n) for n in range(20)]
        until_heard(router, client, PUBLISH, 20)
        with pytest.raises(TimedOut):
            client.flush(timeout=0.1)
        router.kill()
        router.hold_confirms = False
        router.start()
        client.flush()
        assert all(confirm.error is None for confirm in confirms)
    assert bodies(router, "jobs") == [b"%d" % n for n in range(20)]


def test_only_what_is_above_the_mark_is_sent_again(router):
    with connect(router.address, client="sensor") as client:
        client.declare_queue("jobs")
        client.publish("", "jobs", b"0", wait=True)
        router.hold_confirms = True
        for n in range(1, 10):
            client.publish("", "jobs", b"%d" % n)
        until_heard(router, client, PUBLISH, 10)
        with pytest.raises(TimedOut):
            client.flush(timeout=0.1)
        router.kill()
        router.heard.clear()
        router.disk.marks["sensor"] = 4  # the last commit held the messages 1 to 4
        router.disk.queues["jobs"].clear()
        router.hold_confirms = False
        router.start()
        client.flush()
    assert [fields[0] for fields in of(router, PUBLISH)] == [5, 6, 7, 8, 9, 10]
    assert bodies(router, "jobs") == [b"4", b"5", b"6", b"7", b"8", b"9"]


def test_a_refusal_that_was_not_heard_is_told_by_the_next_ready(router):
    with connect(router.address, client="sensor") as client:
        client.declare_queue("jobs")
        router.hold_confirms = True
        confirms = [client.publish("", "jobs", b"%d" % n) for n in range(3)]
        until_heard(router, client, PUBLISH, 3)
        with pytest.raises(TimedOut):
            client.flush(timeout=0.1)
        router.kill()
        router.refused["sensor"] = [(2, 2, 506)]
        router.start()
        with pytest.raises(PublishRefused, match="message 2"):
            client.flush()
        assert [confirm.error is None for confirm in confirms] == [True, False, True]


def test_without_a_name_what_was_stored_but_not_confirmed_may_come_twice_and_is_never_lost(router):
    router.hold_confirms = True
    with connect(router.address) as client:
        client.declare_queue("jobs")
        client.publish("", "jobs", b"x")
        until_heard(router, client, PUBLISH, 1)
        with pytest.raises(TimedOut):
            client.flush(timeout=0.1)
        router.kill()
        router.hold_confirms = False
        router.start()
        client.flush()
    assert bodies(router, "jobs") == [b"x", b"x"]


def test_a_new_process_of_the_same_name_goes_on_counting_where_the_last_one_ended(router):
    for n in range(3):
        with connect(router.address, client="sensor") as client:
            client.declare_queue("jobs")
            client.publish("", "jobs", b"%d" % n)
    assert [fields[0] for fields in of(router, PUBLISH)] == [1, 2, 3]
    assert bodies(router, "jobs") == [b"0", b"1", b"2"]


def test_the_session_token_is_shown_on_the_next_connection(router):
    with connect(router.address) as client:
        token = client._session.ready["session"]
        router.do(lambda fake: fake.say(next(iter(fake.peers)), BYE, 320, "closed by force"))
        client.poll(0.05)
        client.declare_queue("jobs")
        assert [fields[2].get("session") for fields in of(router, HELLO)] == [None, token]
        assert client._session.ready["resumed"] is True


def test_a_consumer_goes_on_and_what_was_not_acked_comes_again_marked(router):
    put(router, 4)
    with connect(router.address) as client:
        consumer = client.consume("jobs", credit=2)
        consumer.receive(60).ack()
        stale = consumer.receive(60)
        assert stale.body == b"1"
        until_heard(router, client, ACK, 1)
        router.kill()
        router.start()
        client.declare_queue("jobs")
        again = consumer.receive(60)
        assert (again.body, again.redelivered) == (b"1", True)
        assert stale.ack() is False, "it came on a connection that is gone"
        assert again.ack() is True
        assert [consumer.receive(60).body for _ in range(2)] == [b"2", b"3"]
    assert len({fields[2] for fields in of(router, CONSUME)}) == 1


def test_a_consumer_whose_queue_did_not_come_back_says_so(router):
    put(router, 0)
    with connect(router.address) as client:
        consumer = client.consume("jobs")
        router.kill()
        router.disk.queues.clear()
        router.start()
        with pytest.raises(ConsumerCancelled, match="no queue 'jobs'"):
            consumer.receive(60)


def test_a_request_that_the_break_cut_off_is_asked_again(router):
    with connect(router.address) as client:
        router.deaf = True
        reply = client._session.request(13, "queue", "jobs", {})
        with pytest.raises(TimedOut):
            client.wait_for(reply, 0.1)
        router.kill()
        router.deaf = False
        router.start()
        assert client.wait_for(reply, 60)["name"] == "jobs"


def test_publishing_goes_on_while_the_gateway_is_away(router):
    with connect(router.address, client="sensor") as client:
        client.declare_queue("jobs")
        router.kill()
        for n in range(100):
            client.publish("", "jobs", b"%d" % n)
        client.poll(0.05)
        assert client.unconfirmed == 100
        router.start()
        client.flush()
    assert bodies(router, "jobs") == [b"%d" % n for n in range(100)]


def test_many_kills_lose_nothing_and_double_nothing(router):
    with connect(router.address, client="sensor", max_unconfirmed=50) as client:
        client.declare_queue("jobs")
        for n in range(600):
            client.publish("", "jobs", b"%d" % n)
            if n % 100 == 50:
                router.kill()
                router.start()
    assert bodies(router, "jobs") == [b"%d" % n for n in range(600)]


def test_hello_first_makes_the_client_say_hello_again(router):
    with connect(router.address, client="sensor") as client:
        client.declare_queue("jobs")
        router.do(lambda fake: fake.peers.clear())  # as if libzmq had reconnected under a new routing id
        client.publish("", "jobs", b"x", wait=True)
    assert bodies(router, "jobs") == [b"x"]
    assert len(of(router, HELLO)) == 2


def test_a_silent_gateway_is_dead_after_three_heartbeats(quick_router):
    with connect(quick_router.address, client="sensor") as client:
        client.declare_queue("jobs")
        quick_router.deaf = True
        client.publish("", "jobs", b"x")
        until_heard(quick_router, client, HELLO, 2)  # it tries a new connection
        quick_router.deaf = False
        client.flush()
    assert bodies(quick_router, "jobs") == [b"x"]


def test_a_refused_greeting_ends_the_client(router):
    router.kill()
    real = type(router)._hello
    router._hello = lambda identity, r, *_: router.say(identity, ERROR, r, 403, "not you", HELLO)
    router.start()
    with pytest.raises(Disconnected, match="not you") as refusal:
        connect(router.address)
    assert refusal.value.code == 403
    router._hello = lambda *fields: real(router, *fields)
    with connect(router.address) as client, pytest.raises(RequestRefused):
        client.purge("none")
