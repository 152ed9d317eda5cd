"""Does the client keep its half of TGP/1, on a whole connection?"""

import time

import pytest

from gateway.client import (
    Client,
    ClientError,
    Confirm,
    ConsumerCancelled,
    Disconnected,
    PublishRefused,
    RequestRefused,
    TimedOut,
    Unroutable,
    connect,
)
from gateway.client.wire import Command, batches, decode
from tests.client.fake_router import BATCH, BYE, DELIVER, EXTEND, HELLO, NACK, PING, PONG, PUBLISH, encode


def of(router, command):
    return [fields for number, *fields in router.heard if number == command]


def until(client, happened):
    """Go on until something has happened."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        client.poll(0.01)


def test_hello_is_the_first_command_and_names_the_client(router):
    with connect(router.address, client="billing", heartbeat_ms=1234):
        pass
    assert router.heard[0] == [HELLO, 1, 1, {"client": "billing", "caps": [], "heartbeat_ms": 1234}]


def test_nobody_there_is_told_after_the_timeout(router):
    router.kill()
    with pytest.raises(TimedOut, match="the gateway at"):
        Client(router.address, timeout=0.1)


def test_a_published_message_is_confirmed_and_taken_with_its_properties(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        client.bind("jobs", "amq.topic", "plant.3")
        client.publish("amq.topic", "plant.3", b"\x00body", {"content_type": "text/plain", "headers": {"a": 1}}, wait=True)
        delivery = client.get("jobs")
    assert delivery is not None
    assert (delivery.body, delivery.exchange, delivery.routing_key) == (b"\x00body", "amq.topic", "plant.3")
    assert delivery.properties == {"content_type": "text/plain", "headers": {"a": 1}}
    assert delivery.redelivered is False


def test_publish_does_not_wait_and_the_confirm_does(router):
    router.hold_confirms = True
    with connect(router.address) as client:
        client.declare_queue("jobs")
        confirms = [client.publish("", "jobs", b"%d" % n) for n in range(3)]
        with pytest.raises(TimedOut):
            confirms[0].wait(timeout=0.05)
        assert client.unconfirmed == 3
        router.do(type(router).release_confirms)
        confirms[2].wait()
        assert [confirm.done for confirm in confirms] == [True, True, True], "one cumulative CONFIRM settles all before it"
        assert client.unconfirmed == 0


def test_publish_waits_when_too_many_are_unconfirmed(router):
    router.hold_confirms = True
    with connect(router.address, max_unconfirmed=5) as client:
        client.declare_queue("jobs")
        client._timeout = 0.1
        for _ in range(5):
            client.publish("", "jobs", b"x")
        with pytest.raises(TimedOut, match="room"):
            client.publish("", "jobs", b"x")
        router.do(type(router).release_confirms)
        client.flush(timeout=60)


def test_publish_waits_when_too_many_bytes_are_unconfirmed_but_one_message_is_always_allowed(router):
    router.hold_confirms = True
    with connect(router.address, max_unconfirmed_bytes=100) as client:
        client.declare_queue("jobs")
        client._timeout = 0.1
        client.publish("", "jobs", bytes(1000))
        with pytest.raises(TimedOut, match="room"):
            client.publish("", "jobs", b"x")
        router.do(type(router).release_confirms)
        client.flush(timeout=60)
        assert client._session.unconfirmed_bytes == 0


def test_a_refused_message_raises_where_it_is_waited_for(router):
    with connect(router.address) as client:
        client.declare_queue("full")
        router.full.add("full")
        with pytest.raises(PublishRefused) as refusal:
            client.publish("", "full", b"x", wait=True)
        assert refusal.value.code == 506
        assert str(refusal.value).startswith("506: the gateway did not store message 1: a queue is full, ")
        client.flush()


def test_a_confirm_says_what_it_is_about_and_what_became_of_it(router):
    router.hold_confirms = True
    with connect(router.address) as client:
        for name in ("full", "empty"):
            client.declare_queue(name)
        router.full.add("full")
        stored, refused = (client.publish("", name, b"x") for name in ("empty", "full"))
        assert repr(stored) == "<Confirm of message 1: undecided>"
        router.do(type(router).release_confirms)
        stored.wait()
        with pytest.raises(PublishRefused):
            refused.wait()
        assert repr(stored) == "<Confirm of message 1: confirmed>"
        assert repr(refused).startswith("<Confirm of message 2: 506: the gateway did not store message 2: a queue is full")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "there is no such exchange"),
        (311, "it is larger than the gateway takes"),
        (503, "its routing key has more words than are allowed"),
        (599, "status 599"),
    ],
)
def test_a_refusal_says_what_its_status_means(status, reason):
    confirm = Confirm(None, 7, (), b"x")
    confirm.settle(status)
    assert str(confirm.error) == f"{status}: the gateway did not store message 7: {reason}"


def test_flush_tells_of_a_refusal_that_nobody_waited_for_once(router):
    with connect(router.address) as client:
        for name in ("full", "empty"):
            client.declare_queue(name)
        router.full.add("full")
        confirms = [client.publish("", name, b"x") for name in ("empty", "full", "empty")]
        with pytest.raises(PublishRefused, match="message 2"):
            client.flush()
        client.flush()
        assert [confirm.error is None for confirm in confirms] == [True, False, True]


def test_a_mandatory_message_that_reaches_no_queue_comes_back(router):
    with connect(router.address) as client:
        confirm = client.publish("amq.topic", "no.where", b"lost", mandatory=True)
        with pytest.raises(Unroutable) as refusal:
            confirm.wait()
    assert refusal.value.code == 312
    assert confirm.returned is not None
    assert (confirm.returned.routing_key, confirm.returned.body) == ("no.where", b"lost")


def test_a_message_that_is_not_mandatory_may_reach_no_queue(router):
    with connect(router.address) as client:
        client.publish("amq.topic", "no.where", b"lost", wait=True)


def test_never_more_than_the_credit_is_handed_over(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        for n in range(5):
            client.publish("", "jobs", b"%d" % n, wait=True)
        consumer = client.consume("jobs", credit=2)
        held = [consumer.receive(30), consumer.receive(30)]
        assert consumer.receive(0.05) is None
        assert held[0].ack()
        assert consumer.receive(30).body == b"2"


def test_credit_is_given_back_for_deliveries_that_need_no_ack(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        for n in range(50):
            client.publish("", "jobs", b"%d" % n, wait=True)
        consumer = client.consume("jobs", credit=4, no_ack=True)
        assert [int(consumer.receive(30).body) for _ in range(50)] == list(range(50))


def test_iteration_takes_all_in_order_and_ends_when_nothing_comes(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        for n in range(50):
            client.publish("", "jobs", b"%d" % n)
        client.flush()
        bodies = []
        with client.consume("jobs", credit=7, idle_timeout=60) as consumer:
            for delivery in consumer:
                bodies.append(int(delivery.body))
                delivery.ack()
                if len(bodies) == 50:
                    consumer.idle_timeout = 0.1
        assert bodies == list(range(50))
        assert client.get("jobs") is None


def test_a_nacked_message_comes_again_marked_and_one_not_requeued_does_not(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        client.publish("", "jobs", b"x", wait=True)
        consumer = client.consume("jobs", credit=1)
        consumer.receive(30).nack()
        again = consumer.receive(30)
        assert again.redelivered is True
        again.nack(requeue=False)
        assert consumer.receive(0.05) is None


def test_what_a_cancelled_consumer_had_not_looked_at_goes_back(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        for n in range(3):
            client.publish("", "jobs", b"%d" % n, wait=True)
        with client.consume("jobs", credit=3) as consumer:
            consumer.receive(30).ack()
        assert [client.get("jobs").body, client.get("jobs").body] == [b"1", b"2"]
        with pytest.raises(ConsumerCancelled, match="own program"):
            consumer.receive(0.1)


def test_a_consumer_whose_queue_is_deleted_says_so(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        consumer = client.consume("jobs")
        client.delete_queue("jobs")
        with pytest.raises(ConsumerCancelled, match="queue is gone"):
            consumer.receive(60)


def test_requests_are_refused_with_code_and_text(router):
    with connect(router.address) as client:
        for ask in (lambda: client.consume("none"), lambda: client.get("none"), lambda: client.bind("none", "amq.topic", "#")):
            with pytest.raises(RequestRefused, match="no queue 'none'") as refusal:
                ask()
            assert refusal.value.code == 404
        client.declare_queue("some")


def test_declarations_answer_what_the_gateway_says(router):
    with connect(router.address) as client:
        assert client.declare_queue("jobs", durable=True) == {"name": "jobs", "messages": 0, "consumers": 0}
        assert client.declare_queue()["name"].startswith("amq.gen-")
        client.declare_exchange("news", "fanout")
        client.bind("jobs", "news", "a")
        client.publish("news", "a", b"x", wait=True)
        assert client.purge("jobs") == 1
        client.unbind("jobs", "news", "a")
        client.delete_queue("jobs", if_empty=True)
        client.delete_exchange("news")


def test_a_ping_is_answered_while_the_client_waits(router):
    with connect(router.address) as client:
        router.do(lambda fake: fake.say(next(iter(fake.peers)), PING, "token"))
        until(client, lambda: of(router, PONG))
    assert of(router, PONG) == [["token"]]


class Steady:
    """Stands for `time`: while the machine stands still no time goes by."""

    def __init__(self):
        self._seen = self._now = time.monotonic()

    def monotonic(self):
        seen = time.monotonic()
        self._now += min(seen - self._seen, 0.02)
        self._seen = seen
        return self._now


def test_a_silent_gateway_is_pinged_and_lives_by_its_answers(quick_router, monkeypatch):
    monkeypatch.setattr("gateway.client.client.time", Steady())
    with connect(quick_router.address) as client:
        until(client, lambda: len(of(quick_router, PING)) >= 2)
        assert len(of(quick_router, HELLO)) == 1


def test_after_close_everything_says_so(router):
    client = connect(router.address)
    client.declare_queue("jobs")
    client.close()
    for use in (lambda: client.publish("", "jobs", b"x"), lambda: client.get("jobs"), client.flush):
        with pytest.raises(Disconnected, match="closed"):
            use()
    client.close()


def test_goodbye_is_said(router):
    connect(router.address).close()
    with connect(router.address) as other:  # it is there until that has come
        until(other, lambda: of(router, BYE))
        assert of(router, BYE) == [[200, "done"]]


def test_a_goodbye_for_good_ends_the_client_with_code_and_text(router):
    client = connect(router.address)
    router.do(lambda fake: fake.say(next(iter(fake.peers)), BYE, 501, "that was no PUBLISH"))
    with pytest.raises(Disconnected, match="that was no PUBLISH") as goodbye:
        client.poll(60)
    assert goodbye.value.code == 501
    client.close()


@pytest.mark.parametrize("header", [b"\xc1", b"\x90", encode([99]), encode([4, 1]), encode(["x"]), encode([8, "c1", 1]), b"{}"])
def test_nonsense_from_the_gateway_is_an_error_and_not_a_hang(router, header):
    client = connect(router.address)
    router.do(lambda fake: fake.socket.send_multipart([next(iter(fake.peers)), header]))
    with pytest.raises(ClientError) as error:
        client.poll(60)
    assert error.value.code == 501
    client.close()


def test_a_late_answer_to_a_get_that_was_given_up_goes_back_to_the_queue(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        client.publish("", "jobs", b"x", wait=True)
        router.deaf = True
        client._timeout = 0.1
        with pytest.raises(TimedOut):
            client.get("jobs")
        router.deaf = False
        client._session.receive(encode([19, 5, 77, False, "", "jobs", None]), b"late")
        until(client, lambda: of(router, NACK))
        assert of(router, NACK)[-1][:2] == ["", 77]


def test_exceptions_leave_the_block_without_waiting_for_confirms(router):
    router.hold_confirms = True

    def fail():
        with connect(router.address) as client:
            client.publish("", "jobs", b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


# -- capabilities


def test_many_messages_go_in_batches_where_the_gateway_takes_them(router):
    router.caps = ["batch"]
    with connect(router.address) as client:
        client.declare_queue("jobs")
        messages = [("", "jobs", b"%d" % n) if n % 2 else ("", "jobs", b"%d" % n, {"type": "even"}) for n in range(2500)]
        confirms = client.publish_many(messages, wait=True)
        assert [confirm.seq for confirm in confirms] == list(range(1, 2501))
        assert [message.body for message in router.disk.queues["jobs"]] == [b"%d" % n for n in range(2500)]
        assert [message.props for message in router.disk.queues["jobs"]][:2] == [{"type": "even"}, None]
    assert not of(router, PUBLISH)
    assert len(of(router, BATCH)) < 10


def test_many_messages_go_one_by_one_where_it_does_not(router):
    with connect(router.address, max_unconfirmed=10) as client:
        client.declare_queue("jobs")
        client.publish_many([("", "jobs", b"%d" % n) for n in range(50)], wait=True)
        assert [message.body for message in router.disk.queues["jobs"]] == [b"%d" % n for n in range(50)]
    assert len(of(router, PUBLISH)) == 50


def test_what_is_sent_again_goes_in_batches(router):
    router.caps = ["batch"]
    with connect(router.address, client="sensor") as client:
        client.declare_queue("jobs")
        router.kill()
        until(client, lambda: client._session.state.value != "ready")
        for n in range(100):
            client.publish("", "jobs", b"%d" % n)
        router.start()
        client.flush()
        assert [message.body for message in router.disk.queues["jobs"]] == [b"%d" % n for n in range(100)]
    assert len(of(router, BATCH)) == 1


def publish(seq, flags=0, *due_ms):
    return (Command.PUBLISH, seq, "e", "k" * 1000, None, flags, *due_ms)


@pytest.mark.parametrize("most_bytes", [0, 50_000, 10_000_000])
def test_batches_say_the_same_within_every_limit(most_bytes):
    """Gaps, other flags, times, large bodies, long headers: each begins another one, and nothing is lost or out of order."""
    commands = [publish(n) for n in range(1, 200)] + [publish(201), publish(202, 1), publish(203, 0, 99), publish(204)]
    pairs = [(command, b"x" * (command[1] % 5 * 20_000)) for command in commands]
    said = []
    for header, bodies in batches(pairs, most_bytes):
        assert len(header) <= 65_536
        number, *fields = decode(header)
        if number == Command.PUBLISH:
            said.append(((number, *fields), bodies))
            continue
        assert len(bodies) <= min(most_bytes or 262_144, 262_144)
        seq, parts, flags = fields
        for at, (size, *message) in enumerate(parts, seq):
            said.append(((Command.PUBLISH, at, *message, flags), bodies[:size]))
            bodies = bodies[size:]  # noqa: PLW2901
        assert bodies == b""
    assert said == pairs


def test_what_the_gateway_does_not_offer_is_refused_before_it_is_said(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        client.publish("", "jobs", b"x", wait=True)
        delivery = client.get("jobs")
        for use in (
            lambda: delivery.nack(delay_ms=5),
            lambda: delivery.extend(5),
            lambda: client.publish("", "jobs", b"x", due_ms=5),
            lambda: client.unschedule(5),
        ):
            with pytest.raises(RequestRefused, match="does not offer") as refusal:
                use()
            assert refusal.value.code == 540
        assert (client.unconfirmed, delivery.ack()) == (0, True)


def test_delays_and_leases_are_said_where_they_are_offered(router):
    router.caps = ["nack_delay", "extend"]
    with connect(router.address) as client:
        client.declare_queue("jobs")
        client.publish("", "jobs", b"x", wait=True)
        delivery = client.get("jobs")
        assert delivery.extend(30_000)
        assert delivery.nack(delay_ms=500)
        client.declare_queue("jobs")
    assert of(router, EXTEND) == [["", delivery.number, 30_000]]
    assert of(router, NACK) == [["", delivery.number, False, True, 500]]


def test_who_leaves_a_consumer_while_the_gateway_is_away_is_not_told_off(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        consumer = client.consume("jobs")
        router.kill()
        until(client, lambda: client._session.state.value != "ready")
        router.start()
        consumer.cancel()
        assert client.get("jobs") is None


def test_what_a_cancelled_consumer_needs_not_settle_is_not_settled(router):
    with connect(router.address) as client:
        client.declare_queue("jobs")
        for n in range(6):
            client.publish("", "jobs", b"%d" % n)
        consumer = client.consume("jobs", credit=4, no_ack=True)
        until(client, lambda: consumer.buffer)
        cancelled = client._session.cancel(consumer)
        client._session.receive(encode([DELIVER, consumer.tag, 99, False, "", "jobs", None]), b"late")
        client.wait_for(cancelled)
        client.declare_queue("jobs")
    assert of(router, NACK) == []
