"""Do the client and the real broker understand each other?"""

import pytest
import trio

from gateway.client import ConsumerCancelled, PublishRefused, RequestRefused, Unroutable, connect, on_trio
from tests.live_broker import LiveBroker


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("broker")) as live:
        yield live


@pytest.fixture
def client(broker, request):
    with connect(broker.addresses["ROUTER"], client=request.node.name, timeout=30) as connected:
        yield connected


@pytest.fixture
def queue(client, request):
    name = request.node.name
    client.declare_queue(name)
    yield name
    if client.declare_queue(name)["name"]:
        client.delete_queue(name)


def test_what_is_published_is_confirmed_taken_and_gone_after_the_ack(client, queue):
    client.bind(queue, "amq.topic", "plant.*.temp")
    client.publish("amq.topic", "plant.3.temp", b"\x00\xff", {"content_type": "a/b", "headers": {"n": 1}}, wait=True)
    client.publish("amq.topic", "plant.3.pressure", b"not for this queue", wait=True)
    delivery = client.get(queue)
    assert (delivery.body, delivery.exchange, delivery.routing_key) == (b"\x00\xff", "amq.topic", "plant.3.temp")
    assert delivery.properties == {"content_type": "a/b", "headers": {"n": 1}}
    assert delivery.redelivered is False
    assert client.get(queue) is None, "it is held"
    delivery.ack()
    assert client.get(queue) is None
    assert client.declare_queue(queue)["messages"] == 0


def test_a_thousand_messages_come_in_order_and_never_more_than_the_credit_at_once(client, queue):
    for n in range(1000):
        client.publish("", queue, b"%d" % n)
    client.flush()
    assert client.declare_queue(queue)["messages"] == 1000
    bodies = []
    with client.consume(queue, credit=20, idle_timeout=30) as consumer:
        for delivery in consumer:
            assert len(consumer.buffer) < 20
            bodies.append(int(delivery.body))
            delivery.ack()
            if len(bodies) == 1000:
                break
    assert bodies == list(range(1000))


def test_without_settling_there_is_no_more_than_the_credit(client, queue):
    for n in range(5):
        client.publish("", queue, b"%d" % n)
    client.flush()
    consumer = client.consume(queue, credit=2)
    held = [consumer.receive(60), consumer.receive(60)]
    assert consumer.receive(0.1) is None
    held[1].ack(multiple=True)
    assert [consumer.receive(60).body, consumer.receive(60).body] == [b"2", b"3"]
    consumer.cancel()


def test_nack_gives_back_to_the_old_place_or_rejects(client, queue):
    for n in range(2):
        client.publish("", queue, b"%d" % n, wait=True)
    first = client.get(queue)
    first.nack()
    again = client.get(queue)
    assert (again.body, again.redelivered) == (b"0", True)
    again.nack(requeue=False)
    assert client.get(queue).body == b"1"


def test_what_a_cancelled_consumer_held_unseen_goes_back(client, queue):
    for n in range(3):
        client.publish("", queue, b"%d" % n, wait=True)
    with client.consume(queue, credit=3) as consumer:
        consumer.receive(60).ack()
    bodies = []
    while len(bodies) < 2:
        delivery = client.get(queue)
        if delivery is not None:
            bodies.append(delivery.body)
            delivery.ack()
    assert bodies == [b"1", b"2"]


def test_no_ack_deliveries_go_on_without_settling(client, queue):
    for n in range(50):
        client.publish("", queue, b"%d" % n)
    client.flush()
    consumer = client.consume(queue, credit=10, no_ack=True)
    assert [int(consumer.receive(60).body) for _ in range(50)] == list(range(50))
    consumer.cancel()
    assert client.declare_queue(queue)["messages"] == 0


def test_what_a_client_held_goes_to_another_when_it_says_goodbye(broker, client, queue):
    client.publish("", queue, b"x", wait=True)
    with connect(broker.addresses["ROUTER"]) as other:
        assert other.get(queue).body == b"x"
    delivery = client.consume(queue, credit=1).receive(60)
    assert (delivery.body, delivery.redelivered) == (b"x", True)
    delivery.ack()


def test_a_mandatory_message_without_a_queue_comes_back(client):
    confirm = client.publish("amq.topic", "no.where", b"x", mandatory=True)
    with pytest.raises(Unroutable) as refusal:
        confirm.wait()
    assert refusal.value.code == 312
    assert (confirm.returned.exchange, confirm.returned.routing_key, confirm.returned.body) == ("amq.topic", "no.where", b"x")
    client.publish("amq.topic", "no.where", b"x", wait=True)


def test_a_full_queue_refuses_and_the_next_messages_are_judged_on_their_own(client, queue):
    full = queue + "-full"
    client.declare_queue(full, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    confirms = [client.publish("", name, b"x") for name in (full, full, queue)]
    with pytest.raises(PublishRefused) as refusal:
        client.flush()
    assert refusal.value.code == 506
    assert [confirm.error is None for confirm in confirms] == [True, False, True]
    client.delete_queue(full)


def test_publishing_to_an_exchange_that_does_not_exist_is_refused(client):
    with pytest.raises(PublishRefused) as refusal:
        client.publish("nowhere", "key", b"x", wait=True)
    assert refusal.value.code == 404


def test_declaring_asks_for_equality(client, queue):
    assert client.declare_queue(queue, passive=True)["name"] == queue
    for refused, code in (
        (lambda: client.declare_queue(queue, durable=False), 406),
        (lambda: client.declare_queue("never made", passive=True), 404),
        (lambda: client.declare_queue("x", arguments={"x-what": 1}), 540),
        (lambda: client.declare_exchange("x", "no-such-type"), 406),
        (lambda: client.declare_exchange("amq.topic", "fanout"), 406),
        (lambda: client.bind("never made", "amq.topic", "#"), 404),
        (lambda: client.consume("never made"), 404),
        (lambda: client.purge("never made"), 404),
    ):
        with pytest.raises(RequestRefused) as refusal:
            refused()
        assert refusal.value.code == code, refusal.value


def test_exchanges_bindings_and_purge(client, queue):
    client.declare_exchange("news", "fanout")
    client.bind(queue, "news", "")
    client.publish("news", "anything", b"x", wait=True)
    client.unbind(queue, "news", "")
    client.publish("news", "anything", b"y", wait=True)
    assert client.purge(queue) == 1
    client.delete_exchange("news")
    client.declare_exchange("match", "headers")
    client.bind(queue, "match", "", **{"x-match": "all", "format": "pdf"})
    client.publish("match", "", b"yes", {"headers": {"format": "pdf"}}, wait=True)
    client.publish("match", "", b"no", {"headers": {"format": "zip"}}, wait=True)
    assert client.get(queue).body == b"yes"
    assert client.get(queue) is None
    client.delete_exchange("match")


def test_the_broker_chooses_a_name_and_exclusive_is_exclusive(broker, client):
    name = client.declare_queue(exclusive=True, durable=False)["name"]
    assert name.startswith("amq.gen")
    with connect(broker.addresses["ROUTER"]) as other:
        with pytest.raises(RequestRefused) as refusal:
            other.consume(name)
        assert refusal.value.code == 405


def test_a_consumer_hears_that_its_queue_is_deleted(client):
    client.declare_queue("short-lived")
    consumer = client.consume("short-lived")
    client.delete_queue("short-lived")
    with pytest.raises(ConsumerCancelled):
        consumer.receive(60)


def test_a_body_of_a_megabyte_comes_through_whole(client, queue):
    body = bytes(range(256)) * 4000
    client.publish("", queue, body, wait=True)
    assert client.get(queue).body == body


def test_many_messages_are_published_in_batches(client, queue):
    confirms = client.publish_many([("", queue, b"%d" % n, {"type": str(n)}) for n in range(3000)], wait=True)
    assert [confirm.seq for confirm in confirms] == list(range(confirms[0].seq, confirms[0].seq + 3000))
    with client.consume(queue, credit=1000, idle_timeout=30) as consumer:
        taken = []
        for delivery in consumer:
            taken.append((delivery.body, delivery.properties["type"]))
            delivery.ack()
            if len(taken) == 3000:
                break
    assert taken == [(b"%d" % n, str(n)) for n in range(3000)]


def test_what_is_scheduled_can_be_taken_back(client, queue):
    confirm = client.publish("", queue, b"x", due_ms=4_000_000_000_000, wait=True)
    client.publish("", queue, b"past", due_ms=1, wait=True)
    client.unschedule(confirm.scheduled_id)
    with pytest.raises(RequestRefused) as refusal:
        client.unschedule(confirm.scheduled_id)
    assert refusal.value.code == 404
    assert client.get(queue).body == b"past"


def test_what_is_given_back_with_a_delay_rests(client, queue):
    client.publish("", queue, b"x", wait=True)
    delivery = client.get(queue)
    assert delivery.extend(60_000)
    delivery.nack(delay_ms=86_400_000)
    assert client.get(queue) is None
    assert client.declare_queue(queue)["messages"] == 1


def test_bodies_are_held_back_by_their_bytes_as_well(broker, client, queue):
    client.publish_many([("", queue, bytes(1000)) for _ in range(5)], wait=True)
    with connect(broker.addresses["ROUTER"], credit_bytes=2500) as other, other.consume(queue, credit=100) as consumer:
        held = [consumer.receive(60), consumer.receive(60)]
        assert consumer.receive(0.1) is None
        held[0].ack()
        assert consumer.receive(60) is not None


async def test_the_client_for_trio_does_the_same(broker, queue):
    async with on_trio.connect(broker.addresses["ROUTER"], client="on-trio") as client, client.consume(queue) as consumer:
        confirms = await client.publish_many([("", queue, b"%d" % n) for n in range(500)])
        for n in range(500):
            delivery = await consumer.receive(60)
            assert int(delivery.body) == n
            delivery.ack()
        await confirms[-1]
        assert all(confirm.done for confirm in confirms)


@pytest.mark.slow
async def test_the_client_for_trio_loses_nothing_when_the_broker_is_killed(tmp_path):
    bodies = []
    with LiveBroker(tmp_path) as broker:
        async with on_trio.connect(broker.addresses["ROUTER"], client="sensor", heartbeat_ms=500, timeout=90) as client:
            await client.declare_queue("jobs")

            async def work():
                async with client.consume("jobs", credit=5) as consumer:
                    while len(set(bodies)) < 300:
                        delivery = await consumer.receive(90)
                        bodies.append(int(delivery.body))
                        delivery.ack()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                for first in range(0, 300, 10):
                    await client.publish_many([("", "jobs", b"%d" % n) for n in range(first, first + 10)])
                    if first in (100, 200):
                        await trio.to_thread.run_sync(broker.kill)
                        await trio.to_thread.run_sync(broker.start)
            await client.flush()
            assert (await client.declare_queue("jobs"))["messages"] == 0, "nothing was stored twice"
    assert set(bodies) == set(range(300))


@pytest.mark.slow
def test_a_killed_broker_comes_back_with_all_that_it_confirmed(tmp_path):
    with LiveBroker(tmp_path) as broker, connect(broker.addresses["ROUTER"], client="sensor", heartbeat_ms=500) as client:
        client.declare_queue("jobs")
        worker = client.consume("jobs", credit=5)
        client.publish("", "jobs", b"seen", wait=True)
        worker.receive(60).ack()
        for n in range(300):
            client.publish("", "jobs", b"%d" % n)
            if n in (100, 200):
                broker.kill()
                broker.start()
        client.flush()
        bodies = []
        while len(set(bodies)) < 300:
            delivery = worker.receive(60)
            assert delivery is not None, f"only {sorted(set(bodies))} came"
            bodies.append(int(delivery.body)) if delivery.body != b"seen" else None
            delivery.ack()
        client.poll(0.2)
        assert client.declare_queue("jobs")["messages"] == 0, "nothing was stored twice"


def test_a_process_that_is_started_again_at_once_is_not_taken_for_its_predecessor(broker, client, queue):
    for attempt in range(5):
        name = f"{queue}-{attempt}"
        first = connect(broker.addresses["ROUTER"], client=name, max_unconfirmed=5000)
        for _ in range(2000):
            first.publish("", queue, b"first")
        with connect(broker.addresses["ROUTER"], client=name) as second:
            for _ in range(10):
                second.publish("", queue, b"second")
        first._link.close(0)
        with client.consume(queue, credit=1000, idle_timeout=0.5) as consumer:
            bodies = []
            while not bodies or client.declare_queue(queue)["messages"]:  # what comes late is waited for
                bodies += [delivery.body for delivery in consumer if delivery.ack()]
        assert bodies.count(b"second") == 10, "they were confirmed"
