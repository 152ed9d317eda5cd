"""Do real TGP clients get what they were promised, whatever becomes of them and of others?"""

import msgspec
import pytest
import trio
import trio.lowlevel
import zmq

from gateway.errors import JournalError
from gateway.journal.memory import MemoryJournal, MemoryStore
from tests.runtime.support import HandJournal
from tests.zeromq.support import ANY, Cable, Client, Plain, connected, let_libzmq_work, serving, until
from trio_zmq.pump import Pump

ROUTER = {"name": "services", "socket": "ROUTER", "bind": ANY}


def router(**settings):
    return {**ROUTER, **settings}


async def queue(client, name="jobs"):
    ok = await client.ask(13, 90, "queue", name)
    assert ok[:2] == [20, 90], ok


async def drain(client):
    """Return what is said to a client up to the answer to a question that comes behind it."""
    await client.say(22, "last")
    heard = [await client.hear()]
    while heard[-1] != [23, "last"]:
        heard.append(await client.hear())
    return heard[:-1]


async def test_a_message_is_published_confirmed_delivered_and_gone_after_its_ack(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        assert await client.ask(15, 2, "jobs", "amq.topic", "plant.#") == [20, 2, None]
        assert await client.ask(3, 1, "amq.topic", "plant.3", {"type": "t"}, body=b"21.5") == [4, 1, True, 0]
        await client.say(6, 3, "jobs", "c1", 10)
        delivered, ok = await client.hear(), await client.hear()
        assert delivered == ([8, "c1", 1, False, "amq.topic", "plant.3", {"type": "t"}], b"21.5")
        assert ok == [20, 3, None]
        await client.say(9, "c1", 1)
        assert await client.ask(13, 4, "queue", "jobs") == [20, 4, {"name": "jobs", "messages": 0, "consumers": 1}]
        assert running.queue("jobs").count == 0


async def test_everything_works_in_json_too(context):
    async with serving(router()) as running:
        client = Client(context, running.address("ROUTER"))

        async def ask(cmd, body=None, **fields):
            await client.say_json(cmd, body, **fields)
            return await client.hear()

        ready = await ask("HELLO", r=1, version_max=1)
        assert (ready["cmd"], ready["r"], ready["options"]["user"]) == ("READY", 1, "anonymous")
        ok = await ask("DECLARE", r=2, kind="queue", name="jobs", args={"x-max-length": 5})
        assert ok == {"cmd": "OK", "r": 2, "result": {"name": "jobs", "messages": 0, "consumers": 0}}
        confirm = await ask("PUBLISH", b"\xff", seq=1, exchange="", routing_key="jobs", props={"headers": {"a": 1}}, flags=0)
        assert confirm == {"cmd": "CONFIRM", "seq": 1, "multiple": True, "status": 0}
        got, body = await ask("GET", r=3, queue="jobs")
        assert (got["cmd"], got["delivery"], got["props"], body) == ("GOT", 1, {"headers": {"a": 1}}, b"\xff")
        await client.say_json("NACK", tag="", delivery=1, requeue=False)
        assert await ask("GET", r=4, queue="jobs") == {"cmd": "EMPTY", "r": 4}
        assert (await ask("GET", r=5, queue="none"))["code"] == 404


async def test_a_json_client_is_told_even_what_json_can_not_say(context):
    async with serving(router()) as running:
        sender, reader = await connected(context, running), Client(context, running.address("ROUTER"))
        await queue(sender)
        headers = {
            "time": msgspec.msgpack.Ext(-1, b"\0\0\0\1"),
            "ext": msgspec.msgpack.Ext(5, b"x"),
            "odd": {(1, 2): 3},
            "n": 2**64 - 1,
        }
        assert await sender.ask(3, 1, "", "jobs", {"headers": headers}, body=b"x") == [4, 1, True, 0]
        await reader.say_json("HELLO", r=1, version_max=1)
        await reader.hear()
        await reader.say_json("CONSUME", r=2, queue="jobs", tag="c", credit=1)
        (deliver, body), ok = await reader.hear(), await reader.hear()
        assert (deliver["cmd"], body, ok["cmd"]) == ("DELIVER", b"x", "OK")
        assert set(deliver["props"]["headers"]) == set(headers)


async def test_a_req_socket_can_declare_publish_and_get(context):
    async with serving(router()) as running:
        client = Client(context, running.address("ROUTER"), kind=zmq.REQ)
        await client.hello()
        await queue(client)
        assert await client.ask(3, 1, "", "jobs", body=b"x") == [4, 1, True, 0]
        assert await client.ask(3, 2, "", "nowhere", None, 1, body=b"x") == [4, 2, False, 312]
        (got, body) = await client.ask(12, 5, "jobs")
        assert (got[:3], body) == ([19, 5, 1], b"x")
        assert await client.ask(9, "", 1) == [20, None, None]
        assert await client.ask(9, "", 1) == [21, None, 404, "no delivery 1 is held by consumer ''", 9]
        assert (await client.ask(6, 6, "jobs", "c", 1))[:3] == [21, 6, 540]


async def test_who_has_not_said_hello_is_told_so_once_a_second(context, mock_clock):
    async with serving(router()) as running:
        client = Client(context, running.address("ROUTER"))
        for _ in range(2):
            for _ in range(20):
                await client.say(3, 1, "e", "k")
            assert await client.hear() == [21, None, 401, "HELLO first", 3]
            await client.hello()  # nothing else was said in this second
            await client.say(24)
            mock_clock.jump(1)
        await client.hello()
        assert (await client.ask(12, 1, "none"))[2] == 404


# -- publishing


async def test_confirm_comes_after_the_commit_and_for_all_of_it_at_once(context):
    journal = HandJournal(automatic=True)
    async with serving(router(), journal=journal) as running:
        client = await connected(context, running)
        await queue(client)
        journal.automatic = False
        for seq in range(1, 4):
            await client.say(3, seq, "", "jobs", body=b"%d" % seq)
        await until(lambda: journal.writes)
        for seq in range(4, 7):
            await client.say(3, seq, "", "jobs", body=b"%d" % seq)
        assert await client.ask(22, "all of it is there") == [23, "all of it is there"], "and nothing is confirmed"
        confirms = []
        while not confirms or confirms[-1][1] < 6:
            journal.finish()
            confirms.append(await client.hear())
            await until(lambda: journal.writes or confirms[-1][1] == 6)
        assert all(confirm[0] == 4 and confirm[2:] == [True, 0] for confirm in confirms)
        assert len(confirms) == 2, "what the commit under way had, and the rest"
        assert journal.stored == [b"%d" % seq for seq in range(1, 7)]


async def test_a_refused_message_is_named_before_a_later_confirm_covers_it(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        await client.ask(13, 1, "queue", "full", {"x-max-length": 1, "x-overflow": "reject-publish"})
        for seq, name in enumerate(["jobs", "full", "full", "jobs", "nowhere"], 1):
            await client.say(3, seq, "" if name != "nowhere" else "no-exchange", name, body=b"x")
        decided = {}
        while len(decided) < 5:
            _, seq, multiple, status = await client.hear()
            for covered in range(1, seq + 1) if multiple else [seq]:
                decided.setdefault(covered, status)
        assert decided == {1: 0, 2: 0, 3: 506, 4: 0, 5: 404}


async def test_a_mandatory_message_that_reaches_no_queue_comes_back_before_its_confirm(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        assert await client.ask(3, 1, "amq.topic", "nowhere", None, 1, body=b"x") == ([5, 1, 312, "amq.topic", "nowhere"], b"x")
        assert await client.hear() == [4, 1, True, 0]
        assert await client.ask(3, 2, "amq.topic", "nowhere", body=b"x") == [4, 2, True, 0]


async def test_no_confirm_means_none_but_a_mandatory_message_still_comes_back(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        await client.say(3, 0, "", "jobs", None, 2, body=b"a")
        await client.say(3, 1, "", "jobs", None, 2, body=b"b")
        await client.say(3, 2, "", "nowhere", None, 3, body=b"c")
        assert (await client.hear())[0][:3] == [5, 2, 312]
        assert await client.hear(0.05) is None
        assert running.queue("jobs").count == 2


async def test_a_transient_message_stays_out_of_the_journal(context):
    journal = HandJournal(automatic=True)
    async with serving(router(), journal=journal) as running:
        client = await connected(context, running)
        await queue(client)
        assert await client.ask(3, 1, "", "jobs", {"delivery_mode": 1}, body=b"t") == [4, 1, True, 0]
        assert await client.ask(3, 2, "", "jobs", {"expiration_ms": 60_000, "priority": 3}, body=b"p") == [4, 2, True, 0]
        assert journal.stored == [b"p"]
        (got, _) = await client.ask(12, 1, "jobs")
        assert got[6] is None
        message = running.queue("jobs").ready[0].message
        assert message.priority == 3
        assert message.expires_at_ms > 60_000


async def test_more_unconfirmed_messages_than_allowed_are_refused_and_end_the_connection(context):
    journal = HandJournal(automatic=True)
    async with serving(router(max_unconfirmed=3), journal=journal) as running:
        client, other = await connected(context, running), await connected(context, running)
        await queue(client)
        journal.automatic = False
        for seq in range(1, 6):
            await client.say(3, seq, "", "jobs", body=b"x")
        assert await client.hear() == [4, 4, False, 506]
        assert (await client.hear())[:2] == [24, 506]
        await until(lambda: journal.writes)
        journal.automatic = True
        journal.finish()
        assert await other.ask(22) == [23, None]


async def test_while_the_journal_is_behind_publishes_are_refused_and_everything_else_goes_on(context):
    journal = HandJournal(automatic=True)
    async with serving(router(heartbeat_ms=100), journal=journal, open_batch_bytes=65_536) as running:
        client = await connected(context, running, heartbeat_ms=60_000)
        await queue(client)
        journal.automatic = False
        heard, seq = [], 0
        with trio.fail_after(30):
            while not any(said[3] == 506 for said in heard):
                seq += 1
                await client.say(3, seq, "", "jobs", body=b"x" * 30_000)
                said = await client.hear(0.01)
                heard += [said] if said is not None else []
        assert running.broker.flow.holding
        await client.say(22, "alive?")
        while heard[-1] != [23, "alive?"]:
            heard.append(await client.hear())
        journal.automatic = True
        journal.finish()
        await until(lambda: not running.broker.flow.holding)
        decided = {}
        for _, last, multiple, status in [said for said in [*heard, *await drain(client)] if said[0] == 4]:
            for covered in range(1, last + 1) if multiple else [last]:
                decided.setdefault(covered, status)
        assert sorted(decided) == list(range(1, seq + 1)), "everybody is told"
        assert set(decided.values()) == {0, 506}
        assert running.queue("jobs").count == list(decided.values()).count(0)
        assert await client.ask(3, seq + 1, "", "jobs", body=b"y") == [4, seq + 1, True, 0]


# -- duplicates and resumption


async def test_what_a_client_sends_again_after_a_break_is_stored_once(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        token = (await client.ask(1, 1, 1))[3]["session"]
        for seq in (1, 2, 3):
            await client.ask(3, seq, "", "jobs", body=b"%d" % seq)
        client.close()
        again = Client(context, running.address("ROUTER"))
        ready = await again.hello(session=token)
        assert (ready["resumed"], ready["last_seq"], ready["session"]) == (True, 3, token)
        assert await again.ask(3, 2, "", "jobs", body=b"2") == [4, 2, False, 0]
        assert await again.ask(3, 3, "", "jobs", body=b"3") == [4, 3, False, 0]
        assert await again.ask(3, 4, "", "jobs", body=b"4") == [4, 4, True, 0]
        assert running.queue("jobs").count == 4
        assert running.count("duplicates") == 2


async def test_what_was_not_decided_when_the_connection_broke_is_decided_on_the_next(context):
    journal = HandJournal(automatic=True)
    async with serving(router(), journal=journal) as running:
        client = Client(context, running.address("ROUTER"))
        token = (await client.hello(client="billing"))["session"]
        await queue(client)
        await client.ask(3, 1, "", "jobs", body=b"1")
        journal.automatic = False
        await client.say(3, 2, "", "jobs", body=b"2")
        await until(lambda: journal.writes)
        client.close()
        again = Client(context, running.address("ROUTER"))
        assert (await again.hello(client="billing", session=token))["last_seq"] == 1, "2 is not on disk yet"
        await again.say(3, 2, "", "jobs", body=b"2")
        assert await again.hear(0.05) is None
        journal.automatic = True
        journal.finish()
        assert await again.hear() == [4, 2, True, 0]
        assert running.queue("jobs").count == 2


async def test_a_named_client_is_known_over_a_restart_and_so_is_what_it_was_refused(context):
    store = MemoryStore()
    async with serving(router(), journal=MemoryJournal(store)) as running:
        client = await connected(context, running, client="billing")
        anonymous = await connected(context, running)
        token = (await anonymous.ask(1, 1, 1))[3]["session"]
        await queue(client)
        await client.ask(13, 1, "queue", "full", {"x-max-length": 1, "x-overflow": "reject-publish"})
        for seq, name in enumerate(["jobs", "full", "full", "full", "jobs"], 1):
            await client.say(3, seq, "", name, body=b"%d" % seq)
        await until(lambda: running.queue("jobs").count == 2)
        await anonymous.ask(3, 7, "", "jobs", body=b"a")
    async with serving(router(), journal=MemoryJournal(store)) as running:
        client = Client(context, running.address("ROUTER"))
        ready = await client.hello(client="billing")
        assert (ready["resumed"], ready["last_seq"], ready["refused"]) == (True, 5, [[3, 4, 506]])
        assert await client.ask(3, 4, "", "full", body=b"4") == [4, 4, False, 506]
        assert await client.ask(3, 5, "", "jobs", body=b"5") == [4, 5, False, 0]
        other = Client(context, running.address("ROUTER"))
        ready = await other.hello(session=token)
        assert (ready["resumed"], ready["last_seq"]) == (True, 7)
        assert running.queue("jobs").count == 3


async def test_the_mark_is_in_the_commit_that_holds_the_message_and_never_claims_a_refused_one(context):
    """Killed right after a commit, whatever it held: what the mark covers is stored, or named as refused."""
    journal = HandJournal(automatic=True)
    async with serving(router(), journal=journal) as running:
        client = await connected(context, running, client="billing")
        await queue(client)
        await client.ask(13, 1, "queue", "full", {"x-max-length": 1, "x-overflow": "reject-publish"})
        journal.automatic = False
        for seq, name in enumerate(["full", "full", "jobs"], 1):
            await client.say(3, seq, "", name, body=b"%d" % seq)
        seen = []
        with trio.move_on_after(30) as patience:
            while True:
                await until(lambda: journal.writes)
                patience.deadline = trio.current_time() + 0.2  # for more of them
                (bodies, records, _), _ = journal.writes[0]
                seen.append((bodies, [record.value for record in records if getattr(record, "namespace", "") == "tgp.mark"]))
                journal.finish()
    stored, refused = set(), set()
    assert seen
    for bodies, marks in seen:
        stored.update(int(body) for body in bodies)
        for mark, _, _, _, runs in map(_record, marks):
            refused.update(seq for first, last, _ in runs for seq in range(first, last + 1))
            assert set(range(1, mark + 1)) <= stored | refused


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_mark_that_is_written_late_names_what_the_failing_journal_refused_whoever_is_there(context, is_there):
    """Killed right behind the commit that failed at first: it has left out the messages, so its mark must not claim them."""
    journal = HandJournal(automatic=True)
    async with serving(router(), journal=journal, refuse_after_ms=0) as running:
        client = await connected(context, running, client="billing")
        await queue(client)
        journal.automatic = False
        await client.say(3, 1, "", "jobs", body=b"1")
        await until(lambda: journal.writes)
        await client.say(3, 2, "", "jobs", body=b"2")  # waits for the next commit
        await until(lambda: running.queue("jobs").count == 2)
        if not is_there:
            await client.hello()  # from now on it is somebody else
        journal.finish(JournalError("disk full"))
        await until(lambda: journal.writes)
        assert running.queue("jobs").count == 0
        (_, records, _), _ = journal.writes[0]
        marks = [_record(record.value) for record in records if getattr(record, "key", "") == "client:9:anonymous:billing"]
        assert [(mark, runs) for mark, _, _, _, runs in marks][-1] == (2, [[1, 2, 506]])


def _record(value):
    return msgspec.msgpack.decode(value)


async def test_another_connection_may_go_on_with_a_session_and_the_first_is_told(context):
    async with serving(router()) as running:
        first = await connected(context, running, client="billing")
        await queue(first)
        await first.say(6, 3, "jobs", "c1", 10)
        assert await first.hear() == [20, 3, None]
        second = await connected(context, running, client="billing")
        assert await first.hear() == [24, 405, "another connection goes on with this session"]
        assert running.queue("jobs").consumers == []
        assert await second.ask(3, 1, "", "jobs", body=b"x") == [4, 1, True, 0]
        await first.say(22)
        assert (await first.hear())[2] == 401


async def test_a_session_without_a_name_is_forgotten_and_so_is_its_mark(context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.router._TICK_S", 0.02)
    async with serving(router(session_ttl_s=0)) as running:
        client = await connected(context, running)
        token = (await client.ask(1, 1, 1))[3]["session"]
        await client.ask(3, 1, "", "nowhere", {"delivery_mode": 2}, body=b"x")
        assert len(list(running.channel.scan_state("tgp.mark"))) == 1
        await client.say(24, 200, "done")
        await until(lambda: not list(running.channel.scan_state("tgp.mark")))
        again = Client(context, running.address("ROUTER"))
        assert (await again.hello(session=token))["resumed"] is False


# -- consuming


async def test_never_more_than_the_credit_is_delivered_and_ack_brings_the_next(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        for seq in range(1, 8):
            await client.ask(3, seq, "", "jobs", body=b"%d" % seq)
        await client.say(6, 3, "jobs", "c1", 2)
        assert [body for _, body in [await client.hear(), await client.hear()]] == [b"1", b"2"]
        assert await client.hear() == [20, 3, None]
        assert await client.hear(0.05) is None
        await client.say(9, "c1", 2, True)
        assert [(await client.hear())[1] for _ in range(2)] == [b"3", b"4"]
        await client.say(10, "c1", 3, False, True)
        (header, body) = await client.hear()
        assert (header[3], body) == (True, b"3"), "back in its place, and redelivered"
        await client.say(11, "c1", 1)
        assert (await client.hear())[1] == b"5"
        await client.say(7, 4, "c1")
        assert await client.hear() == [20, 4, None]
        await client.say(9, "c1", 0, True)
        await until(lambda: running.queue("jobs").count == 2)


async def test_no_credit_no_delivery(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        await client.ask(3, 1, "", "jobs", body=b"x")
        assert await client.ask(6, 3, "jobs", "c1", 0) == [20, 3, None]
        assert await client.hear(0.05) is None
        await client.say(11, "c1", 1)
        assert (await client.hear())[1] == b"x"


async def test_a_consumer_of_a_deleted_queue_is_cancelled(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        await client.ask(3, 1, "", "jobs", body=b"x")
        await client.say(6, 3, "jobs", "c1", 5)
        assert [await client.hear(), await client.hear()][1] == [20, 3, None]
        said = [await client.ask(14, 4, "queue", "jobs"), await client.hear()]
        assert sorted(said) == [[7, 0, "c1"], [20, 4, {"messages": 0}]]
        assert (await client.ask(9, "c1", 1))[:3] == [21, None, 404]
        assert await client.ask(22) == [23, None], "settling what was deleted does no harm"


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ((13, 5, "queue", "jobs", {"durable": False}), 406, "durable"),
        ((13, 5, "queue", "new", {"durable": "yes"}), 406, "'durable' must be true or false"),
        ((13, 5, "queue", "new", {"durabel": True}), 406, "no argument 'durabel'; known are: durable"),
        ((13, 5, "queue", "new", {"arguments": {"x-max-hops": 3}}), 540, "x-max-hops"),
        ((13, 5, "queue", "new", {"passive": True}), 404, "new"),
        ((13, 5, "exchange", "new", {"type": "magic"}), 406, "magic"),
        ((13, 5, "exchange", "amq.topic", {"type": "fanout"}), 406, "amq.topic"),
        ((14, 5, "queue", "none"), 404, "none"),
        ((14, 5, "queue", "jobs", {"if_full": True}), 406, "if_full"),
        ((14, 5, "exchange", "none", {"if_unused": True}), 404, "none"),
        ((15, 5, "none", "amq.topic", "#"), 404, "none"),
        ((16, 5, "jobs", "none", "#"), 404, "none"),
        ((17, 5, "none"), 404, "none"),
        ((6, 5, "none", "c9", 1), 404, "none"),
        ((12, 5, "none"), 404, "none"),
    ],
)
async def test_what_can_not_be_is_refused_with_a_code_and_the_connection_lives(context, fields, code, words):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        error = await client.ask(*fields)
        assert error[:3] == [21, 5, code]
        assert words in error[3]
        assert error[4] == fields[0]
        assert await client.ask(22, 1) == [23, 1]


async def test_declarations_and_their_undoing(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        assert (await client.ask(13, 1, "queue", ""))[2]["name"].startswith("amq.gen-")
        await queue(client)
        assert await client.ask(13, 2, "exchange", "news", {"type": "fanout"}) == [20, 2, {"name": "news"}]
        assert await client.ask(15, 3, "jobs", "news", "") == [20, 3, None]
        await client.ask(3, 1, "news", "any", body=b"x")
        assert await client.ask(17, 4, "jobs") == [20, 4, {"messages": 1}]
        assert await client.ask(16, 5, "jobs", "news", "") == [20, 5, None]
        assert (await client.ask(3, 2, "news", "any", None, 1, body=b"x"))[0][:3] == [5, 2, 312]
        await client.hear()
        assert await client.ask(14, 6, "exchange", "news") == [20, 6, None]
        assert await client.ask(14, 7, "queue", "jobs", {"if_empty": True}) == [20, 7, {"messages": 0}]


# -- death


async def test_the_death_of_a_peer_is_noticed_at_once_and_its_messages_go_to_others(context):
    async with serving(router(heartbeat_ms=600_000)) as running:
        victim, other = await connected(context, running), await connected(context, running)
        await queue(other)
        await victim.ask(6, 3, "jobs", "c1", 5)
        await other.ask(6, 3, "jobs", "c1", 0)
        for seq in (1, 2):
            await other.ask(3, seq, "", "jobs", body=b"%d" % seq)
        assert [(await victim.hear())[1] for _ in range(2)] == [b"1", b"2"]
        await other.say(11, "c1", 5)
        assert await other.hear(0.02) is None
        victim.close()
        (header, body) = await other.hear()  # the monitor tells, not the heartbeat
        assert (header[3], body) == (True, b"1")
        assert (await other.hear())[1] == b"2"


async def test_what_a_peer_said_before_it_went_counts(context):
    async with serving(router(heartbeat_ms=600_000)) as running:
        for round_ in range(20):
            worker = await connected(context, running)
            await queue(worker)
            assert await worker.ask(3, 1, "", "jobs", body=b"%d" % round_) == [4, 1, True, 0]
            (_, body) = await worker.ask(12, 5, "jobs")
            assert body == b"%d" % round_
            await worker.say(9, "", 1)
            worker.pump.close(1000)
        await until(lambda: running.queue("jobs").count == 0)


async def test_what_a_peer_said_before_it_went_counts_however_little_is_read_at_a_time(context, monkeypatch):
    receive = Pump.receive

    async def receive_one(self, limit=1):
        return await receive(self, 1)

    monkeypatch.setattr(Pump, "receive", receive_one)
    async with serving(router(heartbeat_ms=600_000)) as running:
        goer, stayer = await connected(context, running), await connected(context, running)
        await queue(stayer)
        assert await goer.ask(6, 3, "jobs", "c1", 0) == [20, 3, None]
        for seq in range(1, 51):
            await goer.say(3, seq, "", "jobs", body=b"%d" % seq)
        goer.pump.close(1000)
        let_libzmq_work(0.2)  # it gets all of it, and its end, before the broker looks
        await until(lambda: running.queue("jobs").count == 50)
        await until(lambda: not running.queue("jobs").consumers)
        assert running.count("violations") == 0


async def test_a_client_that_reconnects_under_its_own_name_without_hello_holds_nothing_any_more(context):
    async with serving(router(heartbeat_ms=600_000)) as running, trio.open_nursery() as nursery:
        cable = Cable(running.address("ROUTER"))
        await nursery.start(cable.run)
        client = Client(context, cable.address, ROUTING_ID=b"fixed", RECONNECT_IVL=1)
        await client.hello()
        await queue(client)
        await client.ask(3, 1, "", "jobs", body=b"x")
        await client.say(6, 3, "jobs", "c1", 5)
        assert [await client.hear(), await client.hear()][1] == [20, 3, None]
        await cable.cut()
        await until(lambda: not running.queue("jobs").consumers)
        await client.say(9, "c1", 1)
        assert (await client.hear())[:3] == [21, None, 401]
        assert running.queue("jobs").ready_count == 1
        await client.hello()
        (got, _) = await client.ask(12, 1, "jobs")
        assert got[3] is True
        nursery.cancel_scope.cancel()


async def test_descriptors_that_are_used_again_are_no_news_of_the_living(context):
    """Peers come and go, so that the system gives the same descriptors to others; those who live are not taken for dead."""
    async with serving(router(heartbeat_ms=600_000)) as running:
        stayers = []
        for _ in range(30):
            goer = await connected(context, running)
            goer.close()
            stayers.append(await connected(context, running))
        for stayer in stayers:
            assert await stayer.ask(22, 7) == [23, 7]


async def test_a_silent_peer_is_asked_and_then_dead_and_one_that_answers_lives(context, autojump_clock):
    autojump_clock.autojump_threshold = 0.05  # what is under way arrives before time goes on
    async with serving(router(heartbeat_ms=100)) as running:
        silent, lively = await connected(context, running), await connected(context, running)
        await queue(silent)
        await silent.ask(6, 3, "jobs", "c1", 5)
        with trio.fail_after(30):
            while running.queue("jobs").consumers:
                said = await lively.hear(0.02)
                if said == [22, None]:
                    await lively.say(23)
        assert await silent.hear() == [22, None]
        assert running.count("silent_peers") == 1
        assert await lively.ask(22, 1) in ([23, 1], [22, None])


# -- bad input


@pytest.mark.parametrize(
    "frames",
    [
        [b"\xc1"],
        [b"GET / HTTP/1.1"],
        [b"\x93\x03\x01"],
        [b"\x91\x16", b"body"],
        [b"a", b"b", b"c"],
        [b"x" * 70_000],
        [b"", b"\xc1"],
    ],
)
async def test_malformed_input_ends_that_peer_with_a_reason_and_the_others_notice_nothing(context, frames):
    async with serving(router()) as running:
        bad, good = await connected(context, running), await connected(context, running)
        await queue(good)
        await bad.ask(6, 3, "jobs", "c1", 5)
        await bad.send(*frames)
        assert (await bad.hear())[:3] == [21, None, 501]
        assert (await bad.hear())[:2] == [24, 501]
        assert running.queue("jobs").consumers == []
        assert await good.ask(3, 1, "", "jobs", body=b"x") == [4, 1, True, 0]
        assert running.count("violations") == 1
        assert len(running.log.of("protocol violation")) == 1


async def test_a_stranger_that_talks_nonsense_is_logged_once_and_answered_rarely(context):
    async with serving(router()) as running:
        bad, good = Client(context, running.address("ROUTER")), await connected(context, running)
        for _ in range(50):
            await bad.send(b"nonsense")
        await until(lambda: running.count("violations") == 50)
        assert len(running.log.of("protocol violation")) <= 50
        assert await good.ask(22) == [23, None]


async def test_a_body_over_the_limit_is_refused_and_one_far_over_it_never_gets_in(context):
    async with serving(router(max_message_bytes=1000)) as running:
        client, good = await connected(context, running), await connected(context, running)
        assert await client.ask(3, 1, "", "x", body=b"x" * 1001) == [4, 1, False, 311]
        assert [(await client.hear())[0], (await client.hear())[:2]] == [21, [24, 311]]
        far = await connected(context, running)
        await far.say(3, 1, "", "x", body=b"x" * 1_000_000)
        assert await far.hear(0.05) is None
        assert await good.ask(22) == [23, None]


async def test_no_more_peers_than_allowed_are_let_in(context):
    async with serving(router(max_peers=2)) as running:
        first = await connected(context, running)
        await connected(context, running)
        third = Client(context, running.address("ROUTER"))
        assert (await third.ask(1, 1, 1))[:3] == [21, 1, 506]
        await first.say(24)
        answer = None
        with trio.fail_after(60):
            while answer is None or answer[0] != 2:  # who comes before there is room is told so once a second only
                await third.say(1, 1, 1)
                answer = await third.hear(0.3)


# -- slow peers


async def test_a_peer_that_does_not_read_gets_no_more_and_later_everything_in_order(context):
    async with serving(router(sndhwm=10, max_credit=5000)) as running:
        slow = Client(context, running.address("ROUTER"), RCVHWM=10, RCVBUF=4096)
        await slow.hello()
        other = await connected(context, running)
        await queue(other)
        await slow.ask(6, 3, "jobs", "c1", 5000)
        for seq in range(1, 1001):
            await other.say(3, seq, "", "jobs", body=b"%4d" % seq + b"x" * 2000)
        while (await other.hear())[1] < 1000:
            pass
        (consumer,) = running.queue("jobs").consumers
        await until(lambda: consumer.paused)
        assert await other.ask(22) == [23, None], "others go on"
        bodies = []
        while len(bodies) < 1000:
            (_, body) = await slow.hear()
            bodies.append(int(body[:4]))
        assert bodies == list(range(1, 1001))
        await until(lambda: not consumer.paused)


async def test_a_peer_that_asks_and_never_reads_is_dropped(context):
    async with serving(router(sndhwm=10, max_waiting_bytes=65_536)) as running:
        deaf = Client(context, running.address("ROUTER"), RCVHWM=10, RCVBUF=4096)
        await deaf.hello()
        with trio.fail_after(60):
            while not running.count("slow_peers"):
                for _ in range(100):
                    await deaf.say(22, "x" * 1000)
                await trio.lowlevel.checkpoint()
        assert len(running.log.of("peer does not read")) == 1


# -- the end


async def test_at_the_end_everything_is_decided_and_peers_are_told(context):
    journal = HandJournal(automatic=True)
    async with serving(router(), journal=journal) as running:
        client = await connected(context, running)
        await queue(client)
        journal.automatic = False
        await client.say(3, 1, "", "jobs", body=b"x")
        await until(lambda: journal.writes)
        running.broker.start_draining()
        assert await client.hear(0.05) is None
        journal.automatic = True
        journal.finish()
        assert await client.hear() == [4, 1, True, 0]
        assert await client.hear() == [24, 320, "the broker stops"]
        await running.stop()


async def test_what_one_worker_gives_back_at_the_end_is_not_sent_to_the_next(context):
    async with serving(router()) as running:
        first, second = await connected(context, running), await connected(context, running)
        await queue(first)
        assert await first.ask(3, 1, "", "jobs", body=b"x") == [4, 1, True, 0]
        delivered = []
        for worker in (first, second):
            await worker.say(6, 2, "jobs", "c", 1)
            heard = [await worker.hear()]
            while heard[-1] != [20, 2, None]:
                heard.append(await worker.hear())
            delivered += heard[:-1]
        running.broker.start_draining()
        for worker in (first, second):
            while (said := await worker.hear()) != [24, 320, "the broker stops"]:
                delivered.append(said)
        assert [said[0][:3] for said in delivered] == [[8, "c", 1]]
        await running.stop()


async def test_a_plain_peer_that_only_listens_is_nobody(context):
    async with serving(router()) as running:
        Plain(context, zmq.DEALER, running.address("ROUTER"))
        await running.stop()


async def test_a_consumer_of_a_higher_priority_gets_messages_first(context):
    async with serving(router()) as running:
        client = await connected(context, running)
        await queue(client)
        await client.ask(6, 1, "jobs", "low", 10)
        await client.ask(6, 2, "jobs", "high", 1, {"priority": 5})
        publisher = await connected(context, running)
        for seq in (1, 2):
            await publisher.ask(3, seq, "", "jobs", body=b"%d" % seq)
        assert {consumer.priority: consumer.credit_left for consumer in running.queue("jobs").consumers} == {0: 9, 5: 0}


async def test_who_publishes_without_numbers_what_is_refused_leaves_nothing_behind(context):
    async with serving(ROUTER) as running:
        client = Client(context, running.address("ROUTER"))
        for n in range(20):
            await client.hello(client=f"name {n}")
            await client.say(3, 0, "amq.topic", "a." * 300, None, 2, body=b"x")
            assert await client.ask(22) == [23, None]
            await client.say(24)
        await client.hello()
        assert (await client.ask(3, 1, "amq.topic", "a." * 300, body=b"x"))[:2] == [4, 1]
        await until(lambda: list(running.channel.scan_state("tgp.mark")))
        assert len(list(running.channel.scan_state("tgp.mark"))) == 1, "a number that was refused is kept, and nothing else"
