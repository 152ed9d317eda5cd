"""Do batches, delays, leases and schedules do what docs/tgp.md says, and does nobody notice them who doesn't ask?"""

import msgspec
import pytest
import trio

from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.runtime.clock import VirtualClock
from gateway_zeromq.tgp import codec, commands
from gateway_zeromq.tgp.protocol import State
from tests.runtime.support import HandJournal
from tests.zeromq.sinks import Conversation, Delivery
from tests.zeromq.support import ANY, Client, connected, serving, until

ROUTER = {"name": "services", "socket": "ROUTER", "bind": ANY}


def batch(seq, *parts, flags=None):
    """Header fields and body of a BATCH of ``(body, exchange, routing_key, props...)``."""
    messages = [[len(body), *rest] for body, *rest in parts]
    fields = [25, seq, messages] if flags is None else [25, seq, messages, flags]
    return fields, b"".join(body for body, *_ in parts)


@pytest.fixture
def clock(mock_clock):
    """Real time, that can be made to go by at once."""
    mock_clock.rate = 1.0
    return mock_clock


PATIENT = {"heartbeat_ms": 3_600_000}
"""Of a client that is not asked whether it lives while the time jumps."""


async def queue(client, name="jobs", **args):
    assert (await client.ask(13, 90, "queue", name, args))[:2] == [20, 90]


async def confirms_of(client, last):
    """Return what is said until everything up to `last` is decided: number -> status."""
    decided = {}
    while len(decided) < last:
        _, seq, multiple, status, *_ = await client.hear()
        for covered in range(1, seq + 1) if multiple else [seq]:
            decided.setdefault(covered, status)
    return decided


def bodies(running, name="jobs"):
    return [entry.message.body for entry in running.queue(name).ready]


# -- batches


async def test_a_batch_is_stored_message_by_message_and_confirmed_at_once(context):
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        await queue(client)
        fields, body = batch(1, (b"one", "", "jobs"), (b"", "", "jobs", {"type": "t"}), (b"three", "", "jobs", None))
        assert await client.ask(*fields, body=body) == [4, 3, True, 0]
        assert bodies(running) == [b"one", b"", b"three"]
        assert await client.ask(3, 4, "", "jobs", body=b"four") == [4, 4, True, 0]
        got = [await client.ask(12, n, "jobs") for n in range(3)]
        assert [(header[6], body) for header, body in got] == [(None, b"one"), ({"type": "t"}, b""), (None, b"three")]


async def test_a_batch_in_json_is_the_same(context):
    async with serving(ROUTER) as running:
        client = Client(context, running.address("ROUTER"))
        await client.say_json("HELLO", r=1, version_max=1)
        assert "batch" in (await client.hear())["options"]["caps"]
        await client.say_json("DECLARE", r=2, kind="queue", name="jobs")
        await client.hear()
        parts = [{"body_bytes": n, "exchange": "", "routing_key": "jobs"} for n in (1, 2)]
        parts[1]["props"] = {"headers": {"a": 1}}
        await client.say_json("BATCH", b"abb", seq=1, messages=parts)
        assert await client.hear() == {"cmd": "CONFIRM", "seq": 2, "multiple": True, "status": 0}
        assert bodies(running) == [b"a", b"bb"]


async def test_what_a_batch_has_in_it_is_refused_one_by_one(context):
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        await queue(client)
        await queue(client, "full", **{"x-max-length": 1, "x-overflow": "reject-publish"})
        names = ["jobs", "full", "full", "jobs"]
        fields, body = batch(
            1, *((b"%d" % n, "", name) for n, name in enumerate(names, 1)), (b"5", "none", "x"), (b"6", "", "jobs")
        )
        await client.say(*fields, body=body)
        assert await confirms_of(client, 6) == {1: 0, 2: 0, 3: 506, 4: 0, 5: 404, 6: 0}
        assert bodies(running) == [b"1", b"4", b"6"]


async def test_a_mandatory_batch_gives_back_what_reached_no_queue(context):
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        await queue(client)
        fields, body = batch(1, (b"a", "", "jobs"), (b"b", "", "nowhere"), flags=1)
        await client.say(*fields, body=body)
        said = [await client.hear(), await client.hear()]
        assert said[0] == ([5, 2, 312, "", "nowhere"], b"b")
        assert said[1] == [4, 2, True, 0]


async def test_of_a_batch_that_is_sent_again_only_what_is_new_is_stored(context):
    async with serving(ROUTER) as running:
        client = await connected(context, running, client="billing")
        await queue(client)
        parts = [(b"%d" % n, "", "jobs") for n in range(1, 6)]
        fields, body = batch(1, *parts[:3])
        assert await client.ask(*fields, body=body) == [4, 3, True, 0]
        client.close()
        again = await connected(context, running, client="billing")
        fields, body = batch(2, *parts[1:])
        await again.say(*fields, body=body)
        assert [await again.hear() for _ in range(3)] == [[4, 2, False, 0], [4, 3, False, 0], [4, 5, True, 0]]
        assert bodies(running) == [b"1", b"2", b"3", b"4", b"5"]


async def test_a_batch_over_the_limit_is_taken_as_far_as_it_goes_and_ends_the_connection(context):
    journal = HandJournal(automatic=True)
    async with serving({**ROUTER, "max_unconfirmed": 3}, journal=journal) as running:
        client = await connected(context, running, client="billing")
        await queue(client)
        journal.automatic = False
        fields, body = batch(1, *((b"%d" % n, "", "jobs") for n in range(6)))
        await client.say(*fields, body=body)
        assert await client.hear() == [4, 4, False, 506]
        assert (await client.hear())[:2] == [24, 506]
        await until(lambda: journal.writes)
        journal.automatic = True
        journal.finish()
        assert (await client.hello(client="billing"))["last_seq"] == 3


async def test_a_batch_whose_confirm_nobody_wants_may_have_no_numbers(context):
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        await queue(client)
        fields, body = batch(0, (b"a", "", "jobs"), (b"b", "", "jobs"), flags=2)
        await client.say(*fields, body=body)
        assert await client.ask(22) == [23, None]
        assert bodies(running) == [b"a", b"b"]
        assert await client.ask(3, 1, "", "jobs", body=b"c") == [4, 1, True, 0]


@pytest.mark.parametrize(
    ("fields", "body", "words"),
    [
        ([25, 1, [[3, "", "jobs"]]], b"four", "messages of 3 bytes in a body of 4"),
        ([25, 1, [[2**62, "", "jobs"], [2**62, "", "jobs"]]], b"x", "in a body of 1"),
        ([25, 1, [[1, "", "jobs"]]], None, "in a body of 0"),
        ([25, 1, []], b"", "length >= 1"),
        ([25, 1, [[-1, "", "jobs"]]], b"", ">= 0"),
        ([25, 1, [[0, "", "jobs", None, 0]]], b"", "length"),
        ([25, 1, [["a", "", "jobs"]]], b"", "int"),
        ([25, 1, {}], b"", "array"),
        ([25, 1, [[0, "", "jobs"]], 4], b"", "<= 3"),
    ],
)
def test_a_batch_that_does_not_add_up_is_taken_in_no_part(fields, body, words):
    talk = Conversation()
    talk.say(*fields, body=body)
    error, bye = talk.heard()
    assert error[:3] == [21, None, 501]
    assert "BATCH" in error[3]
    assert words in error[3]
    assert (bye[0], talk.peer.state, talk.sink.asked) == (24, State.CLOSED, [("greet", commands.HelloOptions())])


@pytest.mark.parametrize(
    "part",
    [
        {"body_bytes": 0, "exchange": ""},
        {"body_bytes": 0, "exchange": "", "routing_key": "k", "priority": 3},
        {"body_bytes": 0, "exchange": "", "routing_key": "k", "props": {"headers": {"n": 1e400}, "what": 1}},
        [],
    ],
)
def test_a_batch_in_json_that_is_none_is_refused(part):
    talk = Conversation(as_json=True)
    talk.say_json("BATCH", seq=1, messages=[part])
    assert [said["cmd"] for said in talk.heard()] == ["ERROR", "BYE"]


def test_a_batch_must_rise_and_fit_and_is_not_for_req_clients():
    talk = Conversation()
    talk.say(3, 5, "e", "k")
    talk.say(25, 5, [[0, "", "jobs"]])
    assert talk.heard() == [[21, None, 503, "sequence numbers rise: 5 came after 5; this message was not taken", 25]]
    talk = Conversation(max_body_bytes=10)
    talk.say(25, 1, [[6, "", "jobs"], [6, "", "jobs"]], body=bytes(12))
    assert [said[:3] for said in talk.heard()] == [
        [4, 1, False],
        [21, None, 311],
        [24, 311, "a message of 12 bytes; at most 10 are allowed"],
    ]
    talk = Conversation(enveloped=True)
    talk.say(25, 1, [[0, "", "jobs"]])
    assert talk.heard() == [[21, None, 540, "a REQ client gets one answer, and a batch may have many", 25]]


def test_what_is_nested_too_deeply_in_a_batch_is_refused():
    value = 1
    for _ in range(codec.MAX_DEPTH + 1):
        value = [value]
    talk = Conversation()
    talk.say(25, 1, [[0, "", "jobs"], [0, "", "jobs", {"headers": {"x": value}}]], body=b"")
    assert talk.heard()[0][:3] == [21, None, 501]


# -- delays and leases


async def test_what_is_given_back_with_a_delay_rests(context, clock):
    async with serving(ROUTER, clock=VirtualClock()) as running:
        client = await connected(context, running, **PATIENT)
        await queue(client)
        await client.ask(3, 1, "", "jobs", body=b"x")
        await client.say(6, 2, "jobs", "c1", 1)
        assert (await client.hear(), await client.hear())[1] == [20, 2, None]
        await client.say(10, "c1", 1, False, True, 60_000)
        assert await client.ask(22) == [23, None], "and not the message"
        clock.jump(30)
        assert await client.ask(22) == [23, None]
        clock.jump(31)
        header, body = await client.hear()
        assert (header[:4], body) == ([8, "c1", 2, True], b"x")


def test_nack_hands_its_delay_on():
    talk = Conversation()
    subscription, _ = talk.consumer()
    delivery = Delivery()
    subscription.deliver(delivery)
    talk.heard()
    talk.say(10, "c1", 1, False, True, 500)
    assert talk.asked() == [("nack", delivery, True, 500)]


def test_extend_lets_one_or_all_be_held_longer_and_settles_nothing():
    talk = Conversation()
    subscription, consumer = talk.consumer()
    deliveries = [Delivery() for _ in range(3)]
    for delivery in deliveries:
        subscription.deliver(delivery)
    talk.heard()
    talk.say(26, "c1", 2, 30_000)
    assert talk.asked() == [("extend", deliveries[1], 30_000)]
    talk.say(26, "c1", 2, 1, True)
    assert talk.asked() == [("extend", deliveries[0], 1), ("extend", deliveries[1], 1)]
    talk.say(26, "c1", 0, 1, True)
    assert len(talk.asked()) == 3
    assert (talk.heard(), consumer.granted) == ([], [])
    talk.say(26, "c1", 9, 1)
    assert talk.heard() == [[21, None, 404, "no delivery 9 is held by consumer 'c1'", 26]]
    talk.sink.taken_away = deliveries[:2]
    talk.say(26, "c1", 0, 1, True)
    assert talk.heard() == [[21, None, 404, "delivery 1 of consumer 'c1' was taken away", 26]]
    talk.say(26, "none", 1, 1)
    assert talk.heard()[0][2] == 404


async def test_a_lease_that_is_extended_holds_and_who_lost_it_is_told(context, clock):
    async with serving(ROUTER, clock=VirtualClock()) as running:
        client = await connected(context, running, **PATIENT)
        await queue(client, **{"x-consumer-timeout": 10_000})
        for seq in (1, 2):
            await client.ask(3, seq, "", "jobs", body=b"%d" % seq)
        for r in (1, 2):
            assert (await client.ask(12, r, "jobs"))[0][2] == r
        await client.say(26, None, 1, 60_000)
        assert await client.ask(22) == [23, None]
        clock.jump(11)
        await until(lambda: bodies(running) == [b"2"])
        await client.say(26, None, 1, 60_000)
        await client.say(26, None, 2, 60_000)
        said = await client.hear()
        assert said == [21, None, 404, "delivery 2 of consumer '' was taken away", 26]
        await client.say(9, None, 1)
        await until(lambda: running.queue("jobs").count == 1)


# -- later


async def test_what_is_scheduled_is_confirmed_with_a_number_and_comes_when_it_is_due(context, clock):
    async with serving(ROUTER, clock=VirtualClock()) as running:
        client = await connected(context, running, **PATIENT)
        await queue(client)
        due_ms = running.broker.clock.now_ms() + 3_600_000
        confirms = [await client.ask(3, seq, "", "jobs", None, 0, due_ms, body=b"%d" % seq) for seq in (1, 2)]
        assert [confirm[:4] for confirm in confirms] == [[4, 1, False, 0], [4, 2, False, 0]]
        assert await client.ask(3, 3, "", "jobs", body=b"now") == [4, 3, True, 0]
        assert bodies(running) == [b"now"]
        assert await client.ask(27, 5, confirms[0][4]) == [20, 5, None]
        assert (await client.ask(27, 6, confirms[0][4]))[:3] == [21, 6, 404]
        clock.jump(3601)
        await until(lambda: bodies(running) == [b"now", b"2"])


async def test_a_scheduled_message_and_its_mark_outlive_the_broker(context):
    store = MemoryStore()
    async with serving(ROUTER, journal=MemoryJournal(store)) as running:
        client = await connected(context, running, client="billing")
        await queue(client)
        due_ms = running.broker.clock.now_ms() + 3_600_000
        confirm = await client.ask(3, 1, "", "jobs", None, 0, due_ms, body=b"later")
    async with serving(ROUTER, journal=MemoryJournal(store)) as running:
        client = await connected(context, running, client="billing")
        assert await client.ask(3, 1, "", "jobs", None, 0, due_ms, body=b"later") == [4, 1, False, 0]
        assert [item.scheduled_id for item in running.channel.scheduled()] == [confirm[4]]


@pytest.mark.parametrize(("fields", "status"), [(["none", "jobs", None, 0, 2**52], 404), (["", "jobs", None, 1, 2**52], 540)])
async def test_what_can_not_be_scheduled_is_refused_and_stays_so(context, fields, status):
    async with serving(ROUTER) as running:
        client = await connected(context, running, client="billing")
        await queue(client)
        assert await client.ask(3, 1, *fields, body=b"x") == [4, 1, False, status]
        assert (await client.hello(client="billing"))["refused"] == [[1, 1, status]]
        assert await client.ask(3, 1, *fields, body=b"x") == [4, 1, False, status]
        assert running.channel.scheduled() == []


async def test_what_is_scheduled_without_a_confirm_gets_none(context):
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        await client.say(3, 0, "amq.topic", "k", None, 2, 2**52, body=b"x")
        assert await client.ask(22) == [23, None]
        await until(running.channel.scheduled)
        assert await client.hear(0.05) is None


async def test_a_client_that_knows_nothing_of_it_is_answered_as_ever(context):
    """Every answer has as many fields as it always had, unless more was asked for."""
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        await queue(client)
        assert len(await client.ask(3, 1, "", "jobs", {"delivery_mode": 1}, 0, body=b"x")) == 4
        await client.say(10, "", 1)
        assert len(await client.hear()) == 5
        with trio.fail_after(30):
            header, _ = await client.ask(12, 1, "jobs")
        assert len(header) == 7
        assert msgspec.msgpack.encode([4, 1, True, 0]) == codec.encode(commands.CONFIRM, 1, True, 0)
