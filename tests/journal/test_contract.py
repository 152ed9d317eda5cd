"""Do both journals keep what the port promises?"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from gateway.model.declare import Binding, BindingOptions, ExchangeSpec, Overflow, QueueSpec, Retry
from gateway.model.message import Address, Message
from gateway.model.records import (
    Batch,
    Bound,
    DeliveryCounted,
    ExchangeDeclared,
    ExchangeDeleted,
    QueueDeclared,
    QueueDeleted,
    QueueDepth,
    QueuePurged,
    Retained,
    StatePut,
    Unbound,
)


def depths(rig) -> dict[int, tuple[int, int, int]]:
    return {r.queue_id: (r.live, r.live_bytes, r.next_position) for r in rig.loaded if isinstance(r, QueueDepth)}


def declare(rig, *queues: int) -> None:
    rig.record(*(QueueDeclared("/", queue, QueueSpec(f"q{queue}")) for queue in queues))
    rig.commit()


# -- messages -----------------------------------------------------------


def test_a_message_comes_back_with_everything_that_lasts(rig):
    declare(rig, 1)
    options = BindingOptions(qos=1, no_local=True, subscription_ids=(7, 9))
    address = Address("plant ☃", "amq.topic", "a.b\0c")
    rig.publish(b"body", 1, options=options, address=address, wire_tag="mqtt", wire=b"\1\2", priority=9, expires_at_ms=1 << 40)
    rig.commit()
    rig.restart()
    (reference,) = rig.drain(1)
    message = reference.message
    assert (message.address.vhost, message.exchange, message.routing_key) == ("plant ☃", "amq.topic", "a.b\0c")
    assert (message.body, message.persistent, message.wire_tag, message.wire) == (b"body", True, "mqtt", b"\1\2")
    assert (message.priority, message.expires_at_ms) == (9, 1 << 40)
    assert (reference.position, reference.options, reference.count) == (1, options, 0)


def test_messages_that_differ_in_everything_keep_it_apart(rig):
    declare(rig, 1, 2)
    for number in range(300):
        rig.publish(
            b"x" * number,
            *((1, 2) if number % 3 else (2,)),
            options=BindingOptions(qos=number % 2) if number % 5 else None,
            address=Address("/", "amq.topic" if number % 2 else "own", f"k.{number % 7}"),
            wire_tag="mqtt" if number % 4 else "",
            wire=bytes([number % 256]) * (number % 4),
            priority=number % 10,
            expires_at_ms=number * 1000 if number % 6 == 0 else 0,
        )
    rig.commit()
    rig.restart()
    references = rig.drain(2)
    assert [r.position for r in references] == list(range(1, 301))
    for number, reference in enumerate(references):
        message = reference.message
        assert message.body == b"x" * number
        assert reference.options == (BindingOptions(qos=number % 2) if number % 5 else None)
        assert (message.exchange, message.routing_key) == ("amq.topic" if number % 2 else "own", f"k.{number % 7}")
        assert (message.wire_tag, message.wire) == ("mqtt" if number % 4 else "", bytes([number % 256]) * (number % 4))
        assert (message.priority, message.expires_at_ms) == (number % 10, number * 1000 if number % 6 == 0 else 0)
    assert rig.bodies(1) == [b"x" * number for number in range(300) if number % 3]


def test_a_page_ends_at_its_budget_and_the_next_goes_on(rig):
    declare(rig, 1)
    for number in range(20):
        rig.publish(b"%d" % number * 500, 1)
        rig.commit()
    first = rig.page(1, max_bytes=2000)
    assert 1 <= len(first.references) < 20
    assert [r.position for r in rig.drain(1, max_bytes=2000)] == list(range(1, 21))
    assert [r.position for r in rig.drain(1, max_bytes=1)] == list(range(1, 21))


def test_a_page_begins_after_the_position_asked_for(rig):
    declare(rig, 1)
    for number in range(10):
        rig.publish(b"%d" % number, 1)
    rig.commit()
    assert rig.bodies(1, after=7) == [b"7", b"8", b"9"]
    assert rig.page(1, after=10).references == []


def test_a_queue_that_is_not_known_has_an_empty_page(rig):
    assert rig.page(99).references == []


def test_an_empty_body_is_a_message(rig):
    declare(rig, 1)
    rig.publish(b"", 1)
    rig.commit()
    rig.restart()
    assert rig.bodies(1) == [b""]
    assert depths(rig) == {1: (1, 0, 2)}


def test_positions_out_of_order_come_back_in_order(rig):
    declare(rig, 1)
    for positions in ((5, 9), (2, 7), (1, 3)):
        for position in positions:
            message = Message(Address("/", "", "k"), b"%d" % position, True)
            rig.batch.messages.append(message)
            rig.enqueue(message, 1, position=position)
        rig.commit()
    assert [r.position for r in rig.drain(1, max_bytes=1)] == [1, 2, 3, 5, 7, 9]


def test_depths_are_told_at_start(rig):
    declare(rig, 1, 2)
    references = [rig.publish(b"x" * 10, 1, 2) for _ in range(5)]
    rig.commit()
    rig.settle(references[0][0], references[2][1])
    rig.commit()
    rig.restart()
    assert depths(rig) == {1: (4, 40, 6), 2: (4, 40, 6)}


# -- settling -----------------------------------------------------------


def test_what_was_settled_is_not_read_again(rig):
    declare(rig, 1)
    references = [rig.publish(b"%d" % number, 1)[0] for number in range(6)]
    rig.commit()
    rig.settle(references[1], references[4])
    rig.commit()
    assert rig.bodies(1) == [b"0", b"2", b"3", b"5"]
    rig.restart()
    assert rig.bodies(1) == [b"0", b"2", b"3", b"5"]


def test_a_paged_reference_can_be_settled(rig):
    declare(rig, 1, 2)
    for number in range(6):
        rig.publish(b"%d" % number, 1, 2)
    rig.commit()
    rig.restart()
    rig.settle(*(rig.entry(1, paged) for paged in rig.drain(1)[:4]))
    rig.commit()
    rig.restart()
    assert rig.bodies(1) == [b"4", b"5"]
    assert len(rig.bodies(2)) == 6
    rig.settle(*(rig.entry(1, paged) for paged in rig.drain(1)))
    rig.commit()
    rig.restart()
    assert rig.bodies(1) == []
    assert len(rig.bodies(2)) == 6
    assert depths(rig) == {2: (6, 6, 7)}


def test_settling_is_in_force_before_it_is_on_disk(rig):
    declare(rig, 1)
    references = [rig.publish(b"%d" % number, 1)[0] for number in range(4)]
    rig.commit()
    rig.settle(*references[:2])
    commit = rig.prepare()
    assert rig.bodies(1) == [b"2", b"3"]
    assert rig.write(commit) is None


def test_what_is_settled_but_not_written_is_there_after_a_crash(rig):
    declare(rig, 1)
    references = [rig.publish(b"%d" % number, 1)[0] for number in range(4)]
    rig.commit()
    rig.settle(*references)
    assert rig.prepare() is not None
    rig.restart()
    assert len(rig.bodies(1)) == 4


def test_settling_twice_counts_once(rig):
    declare(rig, 1)
    references = [rig.publish(b"xx", 1)[0] for _ in range(2)]
    rig.commit()
    rig.settle(references[0], references[0])
    rig.commit()
    rig.settle(references[0])
    rig.commit()
    rig.restart()
    assert depths(rig) == {1: (1, 2, 3)}


def test_delivery_counts_come_back(rig):
    declare(rig, 1)
    references = [rig.publish(b"%d" % number, 1)[0] for number in range(3)]
    rig.commit()
    rig.record(DeliveryCounted(references[1], 1), DeliveryCounted(references[1], 2))
    rig.commit()
    assert [r.count for r in rig.drain(1)] == [0, 2, 0]
    rig.restart()
    paged = rig.drain(1)
    assert [r.count for r in paged] == [0, 2, 0]
    rig.record(DeliveryCounted(rig.entry(1, paged[1]), 3))
    rig.commit()
    rig.restart()
    assert [r.count for r in rig.drain(1)] == [0, 3, 0]


# -- elision ------------------------------------------------------------


def test_what_is_wholly_settled_in_its_batch_is_never_written(rig):
    declare(rig, 1, 2)
    kept, elided, half = rig.publish(b"kept", 1), rig.publish(b"elided", 1, 2), rig.publish(b"half", 1, 2)
    rig.settle(*elided, half[0])
    rig.commit()
    assert [r.segment is None for r in (*kept, *elided, *half)] == [False, True, True, True, False]
    rig.restart()
    assert (rig.bodies(1), rig.bodies(2)) == ([b"kept"], [b"half"])


def test_a_batch_that_is_wholly_elided_needs_no_commit(rig):
    declare(rig, 1)
    references = rig.publish(b"x", 1)
    rig.settle(*references)
    assert rig.prepare() is None


def test_an_empty_batch_needs_no_commit(rig):
    assert rig.journal.prepare(Batch()) is None


def test_references_are_released_from_their_messages(rig):
    declare(rig, 1, 2)
    written, elided = rig.publish(b"w", 1, 2), rig.publish(b"e", 1, 2)
    rig.settle(*elided)
    rig.commit()
    assert all(r.message.first is None and r.message.more is None for r in (*written, *elided))


def test_what_was_settled_automatically_is_written_and_settled_with_the_next_batch(rig):
    declare(rig, 1)
    sent, kept = rig.publish(b"sent", 1)[0], rig.publish(b"kept", 1)[0]
    rig.settle_automatically(sent)
    rig.commit()
    assert sent.segment is not None
    rig.restart()
    assert rig.bodies(1) == [b"sent", b"kept"]  # a crash before the next batch: it may come twice
    sent, kept = (rig.entry(1, paged) for paged in rig.drain(1))
    rig.settle_automatically(sent)
    rig.commit()
    rig.restart()
    assert rig.bodies(1) == [b"kept"]
    assert kept.segment is not None


def test_the_next_batch_settles_what_was_deferred(rig):
    declare(rig, 1)
    sent = rig.publish(b"sent", 1)[0]
    rig.settle_automatically(sent)
    rig.commit()
    rig.publish(b"next", 1)
    rig.commit()
    rig.restart()
    assert rig.bodies(1) == [b"next"]


def test_a_clean_end_settles_what_was_deferred(rig):
    declare(rig, 1)
    rig.settle_automatically(rig.publish(b"sent", 1)[0])
    rig.commit()
    rig.restart(clean=True)
    assert rig.bodies(1) == []


# -- purge and delete ---------------------------------------------------


@pytest.mark.parametrize("crash", [False, True], ids=["resident", "paged"])
def test_a_purge_takes_one_queue_and_leaves_the_others_of_its_segments(rig, crash):
    declare(rig, 1, 2)
    references = [rig.publish(b"%d" % number, 1, 2) for number in range(5)]
    references += [rig.publish(b"alone", 1)]
    rig.commit()
    if crash:
        rig.restart()
    rig.record(QueuePurged(1))
    rig.publish(b"new", 1)
    rig.commit()
    assert rig.bodies(1) == [b"new"]
    assert len(rig.bodies(2)) == 5
    rig.restart()
    assert depths(rig) == {1: (1, 3, 8), 2: (5, 5, 6)}
    rig.settle(*(rig.entry(2, paged) for paged in rig.drain(2)))
    rig.commit()
    rig.restart()
    assert depths(rig) == {1: (1, 3, 8)}


def test_a_purge_keeps_what_the_same_batch_puts_again(rig):
    declare(rig, 1)
    references = [rig.publish(b"%d" % number, 1)[0] for number in range(4)]
    rig.commit()
    survivor = references[2]
    again = Message(survivor.message.address, survivor.message.body, True)
    survivor.message, survivor.segment, survivor.slot = again, None, -1
    again.first, again.live = survivor, 1
    rig.batch.messages.append(again)
    rig.record(QueuePurged(1))
    rig.publish(b"new", 1)
    rig.commit()
    rig.restart()
    assert [(r.position, r.message.body) for r in rig.drain(1)] == [(3, b"2"), (5, b"new")]


def test_a_purge_is_in_force_before_it_is_on_disk(rig):
    declare(rig, 1)
    for number in range(4):
        rig.publish(b"%d" % number, 1)
    rig.commit()
    rig.record(QueuePurged(1))
    commit = rig.prepare()
    assert rig.bodies(1) == []
    assert rig.write(commit) is None
    assert rig.bodies(1) == []


def test_settling_what_was_purged_does_no_harm(rig):
    declare(rig, 1, 2)
    references = [rig.publish(b"%d" % number, 1, 2) for number in range(4)]
    rig.commit()
    rig.record(QueuePurged(1))
    rig.commit()
    for pair in references[:3]:
        rig.settle(pair[0])
        rig.commit()
    assert (rig.bodies(1), len(rig.bodies(2))) == ([], 4)
    rig.restart()
    assert depths(rig) == {2: (4, 4, 5)}


@pytest.mark.parametrize("crash", [False, True], ids=["resident", "paged"])
def test_a_deleted_queue_is_gone_with_its_messages_of_this_and_earlier_batches(rig, crash):
    declare(rig, 1, 2)
    rig.publish(b"old", 1, 2)
    rig.commit()
    if crash:
        rig.restart()
    rig.publish(b"both", 1, 2)
    rig.publish(b"only", 1)
    rig.record(QueueDeleted("/", 1, "q1"))
    rig.commit()
    assert rig.bodies(1) == []
    assert rig.bodies(2) == [b"old", b"both"]
    rig.restart()
    assert rig.bodies(1) == []
    assert [r.queue_id for r in rig.loaded if isinstance(r, QueueDeclared)] == [2]
    assert list(depths(rig)) == [2]


def test_a_queue_may_be_declared_again_in_the_batch_that_deletes_it(rig):
    declare(rig, 1)
    rig.publish(b"old", 1)
    rig.commit()
    rig.record(QueueDeleted("/", 1, "q1"), QueueDeclared("/", 2, QueueSpec("q1")))
    rig.publish(b"new", 2)
    rig.commit()
    rig.restart()
    assert [(r.queue_id, r.spec.name) for r in rig.loaded if isinstance(r, QueueDeclared)] == [(2, "q1")]
    assert (rig.bodies(1), rig.bodies(2)) == ([], [b"new"])


# -- everything else ----------------------------------------------------


def test_definitions_come_back_as_they_were(rig):
    exchange = ExchangeSpec(
        "plant ☃", "topic", auto_delete=True, internal=True, alternate="lost", arguments={"x": [1, {"y": None}], "b": b"\xff\0"}
    )
    queue = QueueSpec("q", exclusive=True, auto_delete=True, max_length=5, overflow=Overflow.REJECT_PUBLISH, keep_transient=False)
    timed = QueueSpec("t", max_length_bytes=9, arguments={"since": datetime(2024, 5, 6, tzinfo=UTC), "x-max-length-bytes": 9})
    options = BindingOptions(qos=1, retain_as_published=True, subscription_ids=(3,), mqtt=True)
    bindings = [
        Binding("plant ☃", "q", "a.*.#", options=options),
        Binding("plant ☃", "q", "a.*.#", arguments={"x-match": "any", "k": b"\1"}),
        Binding("plant ☃", "other", "", to_exchange=True),
    ]
    rig.record(ExchangeDeclared("v", exchange), QueueDeclared("v", 4, queue), QueueDeclared("/", 5, timed))
    rig.record(*(Bound("v", binding) for binding in bindings))
    rig.commit()
    rig.restart()
    exchanges = [r for r in rig.loaded if isinstance(r, ExchangeDeclared)]
    queues = [r for r in rig.loaded if isinstance(r, QueueDeclared)]
    bound = [r for r in rig.loaded if isinstance(r, Bound)]
    assert exchanges == [ExchangeDeclared("v", exchange)]
    assert queues == [QueueDeclared("v", 4, queue), QueueDeclared("/", 5, timed)]
    assert {(b.vhost, b.binding.identity()): b.binding.options for b in bound} == {("v", b.identity()): b.options for b in bindings}
    kinds = [type(r) for r in rig.loaded if not isinstance(r, QueueDepth)]
    assert kinds == [ExchangeDeclared] + [QueueDeclared] * 2 + [Bound] * 3  # each after what it needs


def test_binding_again_replaces_the_options_and_unbinding_removes(rig):
    binding = Binding("amq.topic", "q", "a.#")
    rig.record(Bound("/", binding), Bound("/", Binding("amq.topic", "q", "b")), Bound("/", Binding("amq.topic", "q", "c")))
    rig.commit()
    rig.record(
        Bound("/", Binding("amq.topic", "q", "a.#", options=BindingOptions(qos=0))), Unbound("/", Binding("amq.topic", "q", "b"))
    )
    rig.record(Unbound("/", Binding("amq.topic", "q", "c")), Bound("/", Binding("amq.topic", "q", "c")))
    rig.commit()
    rig.restart()
    bound = {r.binding.key: r.binding.options.qos for r in rig.loaded if isinstance(r, Bound)}
    assert bound == {"a.#": 0, "c": 2}


def test_a_deleted_exchange_is_gone(rig):
    rig.record(ExchangeDeclared("/", ExchangeSpec("a")), ExchangeDeclared("/", ExchangeSpec("b")))
    rig.commit()
    rig.record(ExchangeDeleted("/", "a"), ExchangeDeleted("/", "b"), ExchangeDeclared("/", ExchangeSpec("b", "fanout")))
    rig.commit()
    rig.restart()
    assert [(r.spec.name, r.spec.type) for r in rig.loaded if isinstance(r, ExchangeDeclared)] == [("b", "fanout")]


def test_the_last_retained_value_of_a_key_holds(rig):
    def retained(key: str, body: bytes, **how) -> Retained:
        return Retained("/", "amq.topic", key, Message(Address("/", "amq.topic", key), body, **how) if body else None)

    rig.record(retained("a", b"1"), retained("a", b"2"), retained("b", b"3"), retained("c", b"4"))
    rig.commit()
    rig.record(retained("b", b""), retained("c", b""), retained("c", b"5", persistent=True, wire_tag="mqtt", wire=b"w", priority=3))
    rig.commit()
    rig.restart()
    values = {r.key: r.message for r in rig.loaded if isinstance(r, Retained)}
    assert {key: (m.body, m.persistent, m.wire_tag, m.wire, m.priority) for key, m in values.items()} == {
        "a": (b"2", False, "", b"", 0),
        "c": (b"5", True, "mqtt", b"w", 3),
    }
    assert values["a"].address.routing_key == "a"


def test_the_last_state_of_a_key_holds(rig):
    rig.record(
        StatePut("mqtt", "a", b"1"), StatePut("mqtt", "a", b"2"), StatePut("mqtt", "b\0", b""), StatePut("tgp", "a", b"\0\xff")
    )
    rig.commit()
    rig.record(StatePut("mqtt", "a", None), StatePut("mqtt", "c", b"3"), StatePut("mqtt", "c", None))
    rig.commit()
    rig.restart()
    assert {(r.namespace, r.key): r.value for r in rig.loaded if isinstance(r, StatePut)} == {
        ("mqtt", "b\0"): b"",
        ("tgp", "a"): b"\0\xff",
    }


def test_everything_of_one_batch_is_one_commit(rig):
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")), StatePut("mqtt", "mark", b"7"))
    rig.publish(b"x", 1)
    assert rig.prepare() is not None  # prepared, never written
    rig.restart()
    assert rig.loaded == []
    assert rig.bodies(1) == []


def test_a_commit_may_be_written_again(rig):
    declare(rig, 1)
    references = [rig.publish(b"%d" % number, 1)[0] for number in range(3)]
    commit = rig.prepare()
    assert rig.write(commit) is None
    assert rig.write(commit) is None
    assert rig.bodies(1) == [b"0", b"1", b"2"]
    rig.settle(references[0])
    commit = rig.prepare()
    assert rig.write(commit) is None
    assert rig.write(commit) is None
    rig.restart()
    assert rig.bodies(1) == [b"1", b"2"]


def test_a_clean_end_loses_nothing(rig):
    declare(rig, 1)
    rig.publish(b"x", 1)
    rig.commit()
    rig.restart(clean=True)
    rig.restart(clean=True)
    assert rig.bodies(1) == [b"x"]
    rig.publish(b"y", 1)
    rig.commit()
    assert rig.bodies(1) == [b"x", b"y"]


def test_both_count_what_they_write_and_what_they_need_not_write(rig):
    declare(rig, 1, 2)
    references = [rig.publish(b"12345", 1, 2) for _ in range(4)]
    rig.settle(*references[0])
    rig.commit()
    counters = rig.journal.counters
    assert (counters.commits, counters.messages_written, counters.messages_elided) == (2, 3, 1)
    assert (counters.references_written, counters.body_bytes) == (6, 15)


def test_durability_says_what_is_survived(rig):
    assert "survive" in rig.journal.durability


# -- ids and lanes ------------------------------------------------------


def test_ids_of_queues_are_never_given_again(rig):
    assert rig.journal.next_queue_id == 1
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")), QueueDeclared("/", 2, QueueSpec("q2", max_priority=9)))
    rig.commit()
    rig.restart()
    assert rig.journal.next_queue_id == 12
    rig.record(QueueDeleted("/", 2, "q2", lanes=10), QueueDeleted("/", 1, "q1"))
    rig.commit()
    rig.restart(clean=True)
    assert [r for r in rig.loaded if isinstance(r, QueueDeclared)] == []
    assert rig.journal.next_queue_id == 12


def test_a_queue_declared_again_has_the_new_specification_and_keeps_its_messages(rig):
    declare(rig, 3)
    rig.publish(b"x", 3)
    rig.record(QueueDeclared("/", 3, QueueSpec("q3", max_length=5)))
    rig.commit()
    rig.restart()
    assert [r for r in rig.loaded if isinstance(r, QueueDeclared)] == [QueueDeclared("/", 3, QueueSpec("q3", max_length=5))]
    assert rig.bodies(3) == [b"x"]


@pytest.mark.parametrize("crash", [False, True], ids=["resident", "paged"])
def test_a_queue_with_lanes_goes_with_all_of_them_and_nothing_else(rig, crash):
    rig.record(QueueDeclared("/", 1, QueueSpec("before")), QueueDeclared("/", 2, QueueSpec("lanes", max_priority=3)))
    rig.record(QueueDeclared("/", 6, QueueSpec("after")))
    for lane in range(1, 7):
        rig.publish(b"%d" % lane, lane)
    rig.publish(b"all", *range(1, 7))
    rig.commit()
    assert [rig.bodies(lane) for lane in (2, 5)] == [[b"2", b"all"], [b"5", b"all"]]
    if crash:
        rig.restart()
        assert set(depths(rig)) == set(range(1, 7))
    rig.publish(b"late", 1, 4, 6)
    rig.record(QueueDeleted("/", 2, "lanes", lanes=4))
    rig.commit()
    assert [rig.bodies(lane) for lane in range(2, 6)] == [[]] * 4
    rig.restart()
    assert set(depths(rig)) == {1, 6}
    assert (rig.bodies(1), rig.bodies(6)) == ([b"1", b"all", b"late"], [b"6", b"all", b"late"])


def test_a_lane_is_purged_alone(rig):
    rig.record(QueueDeclared("/", 1, QueueSpec("lanes", max_priority=2)))
    rig.publish(b"x", 1, 2, 3)
    rig.commit()
    rig.record(QueuePurged(2))
    rig.commit()
    rig.restart()
    assert set(depths(rig)) == {1, 3}


def test_every_setting_of_a_queue_comes_back(rig):
    spec = QueueSpec(
        "q",
        overflow=Overflow.END_QUEUE,
        message_ttl_ms=0,
        expires_ms=5,
        max_priority=255,
        priority_burst=3,
        dead_letter_exchange="",
        dead_letter_routing_key="lost",
        delivery_limit=0,
        single_active_consumer=True,
        consumer_timeout_ms=9,
        retry=Retry(5, 1.5, 100, 7),
    )
    rig.record(QueueDeclared("/", 1, spec), QueueDeclared("/", 257, QueueSpec("r", retry=Retry(7))))
    rig.commit()
    rig.restart()
    assert [r.spec for r in rig.loaded if isinstance(r, QueueDeclared)] == [spec, QueueSpec("r", retry=Retry(7))]


# -- times --------------------------------------------------------------


def test_the_time_of_the_next_delivery_comes_back(rig):
    declare(rig, 1)
    references = [rig.publish(b"%d" % number, 1)[0] for number in range(3)]
    rig.commit()
    rig.record(DeliveryCounted(references[0], 1, 5000), DeliveryCounted(references[2], 2, 1 << 41))
    rig.record(DeliveryCounted(references[0], 2))
    rig.commit()
    for _ in range(2):
        assert [(r.count, r.due_ms) for r in rig.drain(1)] == [(2, 0), (0, 0), (2, 1 << 41)]
        rig.restart()


def test_the_time_of_the_first_commit_comes_back(rig):
    declare(rig, 1)
    before = time.time_ns() // 1_000_000
    rig.publish(b"x", 1)
    rig.commit()
    after = time.time_ns() // 1_000_000
    rig.restart()
    (reference,) = rig.drain(1)
    assert before <= reference.stored_ms <= after


def test_a_reference_is_written_once_its_commit_is_on_disk(rig):
    declare(rig, 1)
    (reference,) = rig.publish(b"x", 1)
    assert not rig.journal.is_written(reference)
    commit = rig.prepare()
    assert not rig.journal.is_written(reference)
    assert rig.write(commit) is None
    assert rig.journal.is_written(reference)
    (later,) = rig.publish(b"y", 1)
    commit = rig.prepare()
    assert [rig.journal.is_written(r) for r in (reference, later)] == [True, False]
    assert rig.write(commit) is None
    rig.restart()
    assert all(rig.journal.is_written(rig.entry(1, paged)) for paged in rig.drain(1))


def test_there_is_room_and_nothing_to_do(rig):
    rig.journal.look()
    assert (rig.journal.alarm, rig.journal.upkeep, rig.journal.state) == (None, False, "writable")
