"""Ack, Nack, Reject, Recover: what does a client settle, and where is what it did not settle?"""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from gateway.runtime.clock import VirtualClock
from gateway_amqp.codec.names import SoftError
from gateway_amqp.unsettled import Unsettled
from tests.amqp.rooms import answered, bodies, bound, consuming, declared, delivered, exchange, limited, publish, ready
from tests.amqp.wire import amqp_broker

Basic, Channel, Queue, Tx = commands.Basic, commands.Channel, commands.Queue, commands.Tx


def recover_async(*, requeue):
    """Return the frame, on channel 1: pamqp makes none without a warning."""
    return b"\1\0\1\0\0\0\5\0\x3c\0\x64" + bytes((requeue, 0xCE))


async def with_deliveries(bench, count, **fields):
    """Return a client that was delivered so many, and one that looks on."""
    client, other = await bench.client(), await bench.client()
    await declared(client)
    await consuming(client, **fields)
    publish(client, *(b"%d" % number for number in range(1, count + 1)))
    await delivered(client, count)
    return client, other


def held(bench, queue="q"):
    """Return how many messages a queue has, waiting or unsettled."""
    return bench.queue(queue).count


async def test_an_ack_settles_one():
    async with amqp_broker() as bench:
        client, _ = await with_deliveries(bench, 3)
        client.say(1, Basic.Ack(2))
        assert held(bench) == 2
        client.vanish()
        assert await client.hear() is None
        other = await bench.client()
        await consuming(other)
        assert await bodies(other, 2) == [b"1", b"3"]


@pytest.mark.parametrize(("tag", "left"), [(1, 4), (3, 2), (5, 0), (0, 0)])
async def test_multiple_settles_all_up_to_a_tag_and_0_means_all(tag, left):
    async with amqp_broker() as bench:
        client, _ = await with_deliveries(bench, 5)
        client.say(1, Basic.Ack(tag, multiple=True))
        assert held(bench) == left
        publish(client, b"6")
        (one,) = await delivered(client)
        assert one.method.delivery_tag == 6
        client.say(1, Basic.Ack(6, multiple=True))
        assert held(bench) == 0


async def test_all_of_nothing_is_nothing():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, Basic.Ack(0, multiple=True), Basic.Nack(0, multiple=True))
        assert await client.silent()


@pytest.mark.parametrize(
    ("method", "tag"),
    [
        (Basic.Ack(9), 9),
        (Basic.Ack(0), 0),
        (Basic.Ack(9, multiple=True), 9),
        (Basic.Ack(1), 1),
        (Basic.Ack(1, multiple=True), 1),
        (Basic.Nack(1), 1),
        (Basic.Nack(7, multiple=True), 7),
        (Basic.Reject(1), 1),
        (b"\1\0\1\0\0\0\x0d\0\x3c\0\x50" + b"\xff" * 8 + b"\1\xce", 2**64 - 1),
    ],
)
async def test_an_unknown_tag_closes_the_channel_and_all_that_was_unsettled_is_back(method, tag):
    async with amqp_broker() as bench:
        client, other = await with_deliveries(bench, 3)
        client.say(1, Basic.Ack(1))
        client.say(1, method)
        assert await client.refused(1) == (406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        assert await ready(other) == 2
        await consuming(other)
        assert [(one.body, one.method.redelivered) for one in await delivered(other, 2)] == [(b"2", True), (b"3", True)]


async def test_an_ack_of_what_was_delivered_without_acknowledgement_closes_the_channel():
    async with amqp_broker() as bench:
        client, other = await with_deliveries(bench, 1, no_ack=True)
        assert held(bench) == 0
        client.say(1, Basic.Ack(1))
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - unknown delivery tag 1")
        assert await ready(other) == 0


async def test_a_tag_of_another_channel_is_unknown():
    async with amqp_broker() as bench:
        client, _ = await with_deliveries(bench, 1)
        await client.open(2)
        client.say(2, Basic.Ack(1))
        assert (await client.refused(2))[0] == 406
        client.say(1, Basic.Ack(1))
        assert held(bench) == 0


async def test_late_acks_on_a_channel_that_was_closed_for_an_error_are_dropped():
    async with amqp_broker() as bench:
        client, _ = await with_deliveries(bench, 3)
        client.say(1, Basic.Ack(9), Basic.Ack(1), Basic.Nack(2), Basic.Ack(3, multiple=True))
        assert (await client.refused(1))[0] == 406
        assert await client.silent()
        assert held(bench) == 3
        await client.open(1)


@pytest.mark.parametrize("method", [Basic.Nack(1, requeue=True), Basic.Reject(1, requeue=True)])
async def test_what_is_given_back_comes_again_marked_as_redelivered(method):
    async with amqp_broker() as bench:
        client, _ = await with_deliveries(bench, 1)
        client.say(1, method)
        (again,) = await delivered(client)
        assert (again.body, again.method.redelivered, again.method.delivery_tag) == (b"1", True, 2)


@pytest.mark.parametrize("tag", [0, 5])
async def test_several_that_are_given_back_come_again_in_order(tag):
    async with amqp_broker() as bench:
        client, other = await with_deliveries(bench, 5)
        await consuming(other, tag="other")
        client.say(1, Basic.Nack(tag, multiple=True, requeue=True))
        mine, theirs = await delivered(client, 3), await delivered(other, 2)
        both = [one.body for one in mine], [one.body for one in theirs]
        assert sorted([*both[0], *both[1]]) == [b"1", b"2", b"3", b"4", b"5"]
        assert sorted(both[0]) == both[0]
        assert sorted(both[1]) == both[1]


@pytest.mark.parametrize("method", [Basic.Nack(2, multiple=True, requeue=False), Basic.Reject(2, requeue=False)])
async def test_what_is_rejected_goes_to_the_dead_letter_exchange(method):
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "dlx", "fanout")
        await declared(client, "dead")
        await bound(client, "dead", "dlx")
        await declared(client, "q", arguments={"x-dead-letter-exchange": "dlx"})
        await consuming(client)
        publish(client, b"1", b"2")
        await delivered(client, 2)
        client.say(1, method)
        count = 2 if isinstance(method, Basic.Nack) else 1
        assert await ready(client, "dead") == count
        await consuming(client, "dead", "d")
        (one, *_) = await delivered(client, count)
        assert one.properties.headers["x-death"][0]["reason"] == "rejected"
        assert held(bench) == 2 - count


async def test_what_a_closed_channel_held_is_back_at_once_in_order():
    async with amqp_broker() as bench:
        client, other = await with_deliveries(bench, 4)
        client.say(1, Basic.Ack(2))
        await answered(client, Channel.Close(200, "", 0, 0), Channel.CloseOk)
        assert await ready(other) == 3
        await consuming(other)
        assert [(one.body, one.method.redelivered) for one in await delivered(other, 3)] == [
            (b"1", True),
            (b"3", True),
            (b"4", True),
        ]


async def test_what_a_lost_connection_held_is_back():
    async with amqp_broker() as bench:
        client, other = await with_deliveries(bench, 2)
        client.vanish()
        assert await client.hear() is None
        assert await ready(other) == 2
        assert not bench.queue("q").consumers


async def test_recover_brings_all_again_behind_its_answer():
    async with amqp_broker() as bench:
        client, _ = await with_deliveries(bench, 3)
        client.say(1, Basic.Ack(2))
        await answered(client, Basic.Recover(requeue=True), Basic.RecoverOk)
        again = await delivered(client, 2)
        assert [(one.body, one.method.delivery_tag, one.method.redelivered) for one in again] == [(b"1", 4, True), (b"3", 5, True)]
        client.say(1, recover_async(requeue=True))
        assert await bodies(client, 2) == [b"1", b"3"]
        client.say(1, Basic.Ack(7, multiple=True))
        assert held(bench) == 0


@pytest.mark.parametrize("again", [recover_async(requeue=True), Basic.Nack(0, multiple=True, requeue=True)])
async def test_who_gives_all_back_again_and_again_is_sent_a_part_of_it_in_one_turn(again):
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client)
        publish(other, *(bytes(1_000) for _ in range(1_000)))
        await consuming(client)
        await delivered(client, 1_000)
        unsettled = client.protocol.channels[1].consuming.unsettled
        client.say(1, *[again] * 100)
        assert 1_000 < unsettled.last_tag < 1_300
        await delivered(client, 1_000)


@pytest.mark.parametrize("method", [Basic.Recover(requeue=False), recover_async(requeue=False)])
async def test_recover_without_requeue_is_not_implemented(method):
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, method)
        assert await client.thrown_out() == (540, "NOT_IMPLEMENTED - requeue=false")


async def test_what_was_held_of_a_queue_that_is_gone_may_be_settled():
    async with amqp_broker() as bench:
        client, other = await with_deliveries(bench, 5)
        await answered(other, Queue.Delete(queue="q"), Queue.DeleteOk)
        assert isinstance(await client.hear(1), Basic.Cancel)
        client.say(1, Basic.Ack(1), Basic.Nack(2), Basic.Reject(3), Basic.Ack(5, multiple=True))
        assert await client.silent()


LATE = [Basic.Ack(1), Basic.Ack(1, multiple=True), Basic.Nack(1), Basic.Reject(1, requeue=True)]


@pytest.mark.parametrize("method", LATE)
async def test_what_is_settled_after_its_lease_has_ended_closes_the_channel(method, autojump_clock):
    async with amqp_broker(clock=VirtualClock()) as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client, arguments={"x-consumer-timeout": 1_000})
        await limited(client, 1)
        await consuming(client)
        publish(client, b"1")
        await delivered(client)
        await consuming(other)
        await trio.sleep(1.5)
        assert await bodies(other, 1) == [b"1"]
        client.say(1, method)
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out")


async def test_recover_gives_back_what_is_held_still(autojump_clock):
    async with amqp_broker(clock=VirtualClock()) as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client, arguments={"x-consumer-timeout": 1_000})
        await consuming(client, no_ack=False)
        publish(client, b"1")
        await delivered(client)
        await consuming(other)
        await trio.sleep(0.9)
        publish(client, b"2")
        await delivered(client)
        await trio.sleep(0.6)
        assert await bodies(other, 1) == [b"1"]
        client.say(1, Basic.Recover(requeue=True))
        assert isinstance(await client.hear(1), Basic.RecoverOk)
        assert await bodies(other, 1) == [b"2"]
        assert await client.silent()


async def test_settling_in_a_transaction_happens_with_the_commit():
    async with amqp_broker() as bench:
        client, other = await with_deliveries(bench, 4)
        await answered(client, Tx.Select(), Tx.SelectOk)
        client.say(1, Basic.Ack(2, multiple=True), Basic.Reject(3, requeue=False), Basic.Nack(4, requeue=True))
        assert await client.silent()
        assert held(bench) == 4
        client.say(1, Tx.Commit())
        found = [await client.hear(1), await client.hear(1)]
        assert {type(one).__name__ for one in found} == {"Content", "CommitOk"}
        assert held(bench) == 1
        assert await ready(other) == 0


async def test_a_rollback_makes_what_was_settled_unsettled_again():
    async with amqp_broker() as bench:
        client, _ = await with_deliveries(bench, 3)
        await answered(client, Tx.Select(), Tx.SelectOk)
        client.say(1, Basic.Ack(3), Basic.Ack(1))
        await answered(client, Tx.Rollback(), Tx.RollbackOk)
        client.say(1, Basic.Ack(2, multiple=True))
        await answered(client, Tx.Commit(), Tx.CommitOk)
        assert held(bench) == 1
        client.say(1, Basic.Ack(1))
        assert (await client.refused(1))[0] == 406


async def test_a_tag_that_is_settled_in_a_transaction_is_unknown_from_then_on():
    async with amqp_broker() as bench:
        client, _ = await with_deliveries(bench, 1)
        await answered(client, Tx.Select(), Tx.SelectOk)
        client.say(1, Basic.Ack(1), Basic.Ack(1))
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - unknown delivery tag 1")
        assert held(bench) == 1


# -- which deliveries a tag means -------------------------------------------


class Model:
    """What `Unsettled` should do, in the simplest way."""

    def __init__(self):
        self.last, self.there = 0, {}

    def take(self, tag, multiple):
        if not multiple:
            return [(tag, self.there.pop(tag))]
        if tag and tag not in self.there:
            raise KeyError(tag)
        tags = [known for known in sorted(self.there) if not tag or known <= tag]
        return [(known, self.there.pop(known)) for known in tags]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("sent"), st.integers(1, 90), st.booleans()),
        st.tuples(st.just("take"), st.integers(0, 200), st.booleans()),
        st.tuples(st.just("restore"), st.just(0), st.booleans()),
    ),
    max_size=25,
)


@given(STEPS)
def test_what_a_tag_means_is_what_it_would_be_in_the_simplest_way(steps):
    unsettled, model, taken = Unsettled(), Model(), []
    for step, number, flag in steps:
        if step == "sent":
            for _ in range(number):
                unsettled.last_tag = model.last = model.last + 1
                if flag:  # the others need no acknowledgement
                    unsettled.deliveries[model.last] = model.there[model.last] = None
        elif step == "restore":
            unsettled.restore(taken)
            model.there.update(taken)
            taken = []
        else:
            try:
                wanted = model.take(number, flag)
            except KeyError:
                with pytest.raises(SoftError, match=f"unknown delivery tag {number}"):
                    unsettled.take_through(number) if flag else unsettled.take(number)
                continue
            found = unsettled.take_through(number) if flag else [(number, unsettled.take(number))]
            assert found == wanted
            taken += found
        assert len(unsettled) == len(model.there)
    assert unsettled.take_all() == sorted(model.there.items())
