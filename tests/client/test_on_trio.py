"""Does the client for trio keep its half of TGP/1, and what do its tasks see of connections that break?"""

import pytest
import trio
import trio.testing

from gateway.client import (
    ClientError,
    ConsumerCancelled,
    Disconnected,
    PublishRefused,
    RequestRefused,
    TimedOut,
    Unroutable,
)
from gateway.client.on_trio import connect
from gateway.client.trio_link import TrioLink
from tests.client.fake_router import ACK, BATCH, BYE, CONSUME, HELLO, NACK, PING, PONG, PUBLISH, encode


def of(router, command):
    return [fields for number, *fields in router.heard if number == command]


def bodies(router, queue="jobs"):
    return [message.body for message in router.disk.queues[queue]]


async def until(happened, seconds=60):
    with trio.fail_after(seconds):
        while not happened():  # noqa: ASYNC110 - what is waited for happens in another thread
            await trio.sleep(0.002)


async def put(router, count):
    async with connect(router.address) as client:
        await client.declare_queue("jobs")
        await client.publish_many([("", "jobs", b"%d" % n) for n in range(count)])


async def test_a_message_is_published_confirmed_taken_and_settled(router):
    async with connect(router.address, client="billing", heartbeat_ms=1234) as client:
        assert router.heard[0] == [HELLO, 1, 1, {"client": "billing", "caps": [], "heartbeat_ms": 1234}]
        assert (await client.declare_queue("jobs"))["name"] == "jobs"
        await client.bind("jobs", "amq.topic", "plant.3")
        confirm = await client.publish("amq.topic", "plant.3", b"\x00body", {"content_type": "text/plain"})
        await confirm
        await confirm
        assert (confirm.done, client.unconfirmed) == (True, 0)
        delivery = await client.get("jobs")
        assert (delivery.body, delivery.properties, delivery.redelivered) == (b"\x00body", {"content_type": "text/plain"}, False)
        assert delivery.ack()
        assert await client.get("jobs") is None
    await until(lambda: of(router, BYE))
    assert of(router, BYE) == [[200, "done"]]


async def test_nobody_there_is_told_after_the_timeout(router):
    router.kill()
    with pytest.raises(TimedOut, match="the gateway at"):
        async with connect(router.address, timeout=0.1):
            pytest.fail("nobody is there")


async def test_many_tasks_wait_for_confirms_and_one_confirm_wakes_them_all(router):
    router.hold_confirms = True
    async with connect(router.address) as client:
        await client.declare_queue("jobs")
        confirms = [await client.publish("", "jobs", b"%d" % n) for n in range(30)]
        with pytest.raises(TimedOut):
            await confirms[0].wait(timeout=0.05)
        async with trio.open_nursery() as nursery:
            for confirm in confirms:
                nursery.start_soon(confirm.wait)
                nursery.start_soon(confirm.wait)
            await trio.testing.wait_all_tasks_blocked()
            assert client.unconfirmed == 30
            router.do(type(router).release_confirms)
        assert [confirm.done for confirm in confirms] == [True] * 30


async def test_publish_waits_for_room_and_a_cancelled_one_is_sent_all_the_same(router):
    router.hold_confirms = True
    async with connect(router.address, client="sensor", max_unconfirmed=5) as client:
        await client.declare_queue("jobs")
        for _ in range(5):
            await client.publish("", "jobs", b"x")
        with trio.move_on_after(0.05) as scope:
            await client.publish("", "jobs", b"x")
        assert scope.cancelled_caught
        client._timeout = 0.05
        with pytest.raises(TimedOut, match="room"):
            await client.publish("", "jobs", b"x")
        client._timeout = 60
        router.do(type(router).release_confirms)
    assert bodies(router) == [b"x"] * 7


async def test_refusals_are_raised_where_they_are_waited_for_and_once_by_flush(router):
    router.full.add("full")
    async with connect(router.address) as client:
        for name in ("full", "empty"):
            await client.declare_queue(name)
        with pytest.raises(PublishRefused, match="message 1"):
            await client.publish("", "full", b"x", wait=True)
        await client.flush()
        await client.publish_many([("", name, b"x") for name in ("empty", "full", "empty")])
        with pytest.raises(PublishRefused, match="message 3"):
            await client.flush()
        await client.flush()
        confirm = await client.publish("amq.topic", "no.where", b"lost", mandatory=True)
        with pytest.raises(Unroutable):
            await confirm
        assert confirm.returned.body == b"lost"
        with pytest.raises(RequestRefused, match="no queue 'none'"):
            await client.get("none")
        with pytest.raises(RequestRefused, match="no queue 'none'"):
            async with client.consume("none"):
                pytest.fail("there is no such queue")


async def test_what_was_refused_and_nobody_waited_for_is_raised_at_the_end_as_it_is(router):
    router.full.add("full")

    async def program():
        async with connect(router.address) as client:
            await client.declare_queue("full")
            await client.publish("", "full", b"x")

    with pytest.raises(PublishRefused, match="message 1"):
        await program()


async def test_an_exception_of_the_block_comes_out_as_it_is_and_waits_for_nothing(router):
    router.hold_confirms = True

    async def program():
        async with connect(router.address) as client:
            await client.publish("", "jobs", b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await program()
    with trio.CancelScope() as scope:
        async with connect(router.address):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    await until(lambda: len(of(router, BYE)) > 1)
    assert of(router, BYE) == [[200, "done"]] * 2


async def test_never_more_than_the_credit_and_workers_share_a_consumer(router):
    await put(router, 30)
    taken = []
    async with connect(router.address) as client, client.consume("jobs", credit=4, idle_timeout=0.3) as consumer:

        async def work():
            async for delivery in consumer:
                assert len(consumer.buffer) < 4
                await trio.lowlevel.checkpoint()
                taken.append(int(delivery.body))
                delivery.ack()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(work)
    assert sorted(taken) == list(range(30))
    assert not bodies(router)


async def test_without_acks_credit_is_given_back_too(router):
    await put(router, 50)
    async with connect(router.address) as client, client.consume("jobs", credit=4, no_ack=True) as consumer:
        assert [int((await consumer.receive(60)).body) for _ in range(50)] == list(range(50))
        assert await consumer.receive(0.01) is None


async def test_a_nacked_message_comes_again_marked_and_what_nobody_looked_at_goes_back(router):
    await put(router, 3)
    async with connect(router.address) as client:
        async with client.consume("jobs", credit=3) as consumer:
            (await consumer.receive(60)).nack()
            again = [await consumer.receive(60) for _ in range(2)]
            assert all(delivery.redelivered == (delivery.body == b"0") for delivery in again)
            for delivery in again:
                delivery.nack()
        with pytest.raises(ConsumerCancelled, match="own program"):
            await consumer.receive(1)
        assert [(await client.get("jobs")).body for _ in range(3)] == [b"0", b"1", b"2"]


async def test_a_consumer_whose_queue_is_deleted_says_so_to_all_who_wait(router):
    async with connect(router.address) as client:
        await client.declare_queue("jobs")
        async with client.consume("jobs") as consumer, trio.open_nursery() as nursery:

            async def wait():
                with pytest.raises(ConsumerCancelled, match="queue is gone"):
                    await consumer.receive()

            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await client.delete_queue("jobs")


async def test_the_gateway_lives_by_its_answers_and_is_answered_while_the_program_sleeps(quick_router):
    async with connect(quick_router.address):
        quick_router.do(lambda fake: fake.say(next(iter(fake.peers)), PING, "token"))
        await until(lambda: of(quick_router, PONG) == [["token"]] and len(of(quick_router, PING)) >= 2)


async def test_a_goodbye_for_good_ends_everything_that_waits(router):
    async def program():
        async with connect(router.address) as client:
            await client.declare_queue("jobs")
            async with client.consume("jobs") as consumer:
                router.do(lambda fake: fake.say(next(iter(fake.peers)), BYE, 501, "that was no PUBLISH"))
                await consumer.receive()

    with pytest.raises(Disconnected, match="that was no PUBLISH") as goodbye:
        await program()
    assert goodbye.value.code == 501


async def test_after_the_block_everything_says_that_it_is_closed(router):
    async with connect(router.address) as client:
        await client.declare_queue("jobs")
    for use in (lambda: client.publish("", "jobs", b"x"), lambda: client.get("jobs"), client.flush):
        with pytest.raises(Disconnected, match="closed"):
            await use()


@pytest.mark.parametrize("header", [b"\xc1", b"\x90", encode([99]), encode([4, 1]), b"{}"])
async def test_nonsense_from_the_gateway_is_an_error_and_not_a_hang(router, header):
    async def program():
        async with connect(router.address) as client:
            router.do(lambda fake: fake.socket.send_multipart([next(iter(fake.peers)), header]))
            await until(lambda: client._session.failure is not None)

    with pytest.raises(ClientError) as error:
        await program()
    assert error.value.code == 501


# -- breaks


async def test_unconfirmed_messages_are_sent_again_and_stored_once(router):
    router.hold_confirms = True
    async with connect(router.address, client="sensor") as client:
        await client.declare_queue("jobs")
        confirms = [await client.publish("", "jobs", b"%d" % n) for n in range(20)]
        await until(lambda: len(of(router, PUBLISH)) == 20)
        router.kill()
        router.hold_confirms = False
        confirms += [await client.publish("", "jobs", b"%d" % n) for n in range(20, 25)]
        router.start()
        await client.flush()
        assert all(confirm.error is None and confirm.done for confirm in confirms)
    assert bodies(router) == [b"%d" % n for n in range(25)]


async def test_many_kills_lose_nothing_and_double_nothing(router):
    router.caps = ["batch"]
    async with connect(router.address, client="sensor", max_unconfirmed=50) as client:
        await client.declare_queue("jobs")
        for start in range(0, 600, 20):
            await client.publish_many([("", "jobs", b"%d" % n) for n in range(start, start + 20)])
            if start % 100 == 40:
                router.kill()
                router.start()
    assert bodies(router) == [b"%d" % n for n in range(600)]


async def test_a_consumer_goes_on_and_what_was_not_acked_comes_again_marked(router):
    await put(router, 4)
    async with connect(router.address) as client, client.consume("jobs", credit=2) as consumer:
        (await consumer.receive(60)).ack()
        stale = await consumer.receive(60)
        await until(lambda: len(of(router, ACK)) == 1)
        router.kill()
        router.start()
        await client.declare_queue("jobs")
        again = await consumer.receive(60)
        assert (again.body, again.redelivered) == (b"1", True)
        assert (stale.ack(), again.ack()) == (False, True)
        assert [(await consumer.receive(60)).body for _ in range(2)] == [b"2", b"3"]
    assert len({fields[2] for fields in of(router, CONSUME)}) == 1


async def test_a_request_that_the_break_cut_off_is_asked_again(router):
    async with connect(router.address) as client, trio.open_nursery() as nursery:
        router.deaf = True
        nursery.start_soon(client.declare_queue, "jobs")
        await until(lambda: len(router.heard) > 1)
        router.kill()
        router.deaf = False
        router.start()
    assert "jobs" in router.disk.queues


async def test_who_leaves_a_consumer_while_the_gateway_is_away_is_not_told_off(router):
    await put(router, 1)
    async with connect(router.address) as client:
        async with client.consume("jobs") as consumer:
            await consumer.receive(60)
            router.kill()
            await until(lambda: client._session.state.value != "ready")
            router.start()
        assert (await client.get("jobs")).redelivered


async def test_hello_first_and_a_passing_goodbye_make_the_client_say_hello_again(router):
    async with connect(router.address, client="sensor") as client:
        await client.declare_queue("jobs")
        router.do(lambda fake: fake.peers.clear())  # as if libzmq had reconnected under a new routing id
        await client.publish("", "jobs", b"x", wait=True)
        router.do(lambda fake: fake.say(next(iter(fake.peers)), BYE, 320, "closed by force"))
        await until(lambda: len(of(router, HELLO)) == 3)
        await client.publish("", "jobs", b"y", wait=True)
    assert bodies(router) == [b"x", b"y"]
    assert of(router, HELLO)[2][2]["session"]


async def test_a_silent_gateway_is_dead_after_three_heartbeats(quick_router):
    async with connect(quick_router.address, client="sensor") as client:
        await client.declare_queue("jobs")
        quick_router.deaf = True
        await client.publish("", "jobs", b"x")
        await until(lambda: len(of(quick_router, HELLO)) >= 2)
        quick_router.deaf = False
    assert bodies(quick_router) == [b"x"]


async def test_a_delivery_that_comes_between_two_looks_is_not_overlooked(router):
    """Sends of other tasks look at the socket as well; who sleeps on it is told what they see."""
    await put(router, 0)
    async with connect(router.address, max_unconfirmed=10_000) as client, client.consume("jobs", credit=50) as consumer:

        async def publish():
            for n in range(500):
                await client.publish("", "jobs", b"%d" % n)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            for n in range(500):
                delivery = await consumer.receive(60)
                assert int(delivery.body) == n
                delivery.ack()
    assert not of(router, NACK)
    assert not of(router, BATCH)


async def test_who_leaves_just_when_a_connection_is_begun_leaves_in_peace(router, monkeypatch):
    begun = trio.Event()
    watch = TrioLink.watch

    async def watch_late(link):
        begun.set()
        for _ in range(20):  # the block ends before this task has its turn
            await trio.lowlevel.cancel_shielded_checkpoint()
        await watch(link)

    async with connect(router.address):
        monkeypatch.setattr(TrioLink, "watch", watch_late)
        router.kill()
        router.start()
        await begun.wait()


async def test_a_client_that_is_closed_by_its_own_program_ends_at_once(router):
    async def program():
        async with connect(router.address) as client:
            client.close()
            await trio.testing.wait_all_tasks_blocked()

    with trio.fail_after(30), pytest.raises(Disconnected, match="closed"):
        await program()
