from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engine.queues.dead_letter import DEATHS, Reason, dead_letter, forms_cycle, further_keys, readable
from gateway.model.message import Address, Decoders, Message
from gateway.model.names import MAX_KEY_WORDS, MAX_KEYS
from gateway.model.properties import NO_PROPERTIES, Properties, encode_properties

NOW_MS = 1_700_000_000_123
decode = Decoders().properties

HISTORIES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Reason)), min_size=1, max_size=12)


def message(properties: Properties = NO_PROPERTIES, body: bytes = b"body", *, key: str = "k", **more: object) -> Message:
    wire = encode_properties(properties) if properties != NO_PROPERTIES else b""
    return Message(Address("/", "ex", key), body, True, "common" if wire else "", wire, **more)


def die(letter: Message, queue: str = "q", reason: Reason = Reason.EXPIRED, **more: object) -> Message:
    told = {"now_ms": NOW_MS, "count": 0, "exchange": "dlx", "routing_key": None, **more}
    return dead_letter(letter, decode(letter), queue, reason, **told)


def headers(letter: Message) -> dict[str, object]:
    return decode(letter).headers or {}


def history(events: list[tuple[str, Reason]], start: Message | None = None) -> Message:
    letter = start or message()
    for queue, reason in events:
        letter = die(letter, queue, reason)
    return letter


def test_a_dead_letter_tells_where_why_and_when():
    letter = die(message(), "orders", Reason.REJECTED)

    death = {"count": 1, "reason": "rejected", "queue": "orders", "time": 1_700_000_000, "exchange": "ex", "routing-keys": ["k"]}
    assert headers(letter) == {
        "x-death": [death],
        "x-first-death-reason": "rejected",
        "x-first-death-queue": "orders",
        "x-first-death-exchange": "ex",
        "x-last-death-reason": "rejected",
        "x-last-death-queue": "orders",
        "x-last-death-exchange": "ex",
    }


def test_it_goes_to_the_dead_letter_exchange_with_its_own_key_or_the_queues():
    own, other = die(message()), die(message(), routing_key="gone")

    assert (own.address.vhost, own.exchange, own.routing_key) == ("/", "dlx", "k")
    assert (other.exchange, other.routing_key) == ("dlx", "gone")
    assert headers(other)[DEATHS][0]["routing-keys"] == ["k"]


def test_body_priority_persistence_and_all_other_properties_are_kept():
    properties = Properties(
        content_type="text/plain", correlation_id=b"\xff", message_id="m", priority=7, timestamp_s=5, headers={"z": 1, "a": [1, 2]}
    )
    transient = Message(Address("/", "ex", "k"), b"x", False, "common", encode_properties(properties), 7, 0)
    letter = die(transient)

    told = decode(letter)
    assert list(told.headers or {})[:2] == ["z", "a"]
    assert msgspec.structs.replace(told, headers=properties.headers) == properties
    assert (letter.body, letter.priority, letter.persistent) == (b"x", 7, False)
    assert die(message(properties, priority=7)).persistent


def test_the_expiration_is_taken_away_and_told_in_the_history():
    letter = die(message(Properties(expiration_ms=250), expires_at_ms=NOW_MS))

    assert letter.expires_at_ms == 0
    assert decode(letter).expiration_ms is None
    assert headers(letter)[DEATHS][0]["original-expiration"] == "250"
    assert "original-expiration" not in headers(die(message()))[DEATHS][0]


def test_how_often_it_was_delivered_is_told_of_the_newest_death():
    letter = die(die(message(), count=3), count=5)

    assert headers(letter)[DEATHS][0]["delivery-count"] == 5
    assert "delivery-count" not in headers(die(letter, count=0))[DEATHS][0]


def test_the_first_death_stays_the_first_and_the_last_is_the_newest():
    told = headers(history([("a", Reason.EXPIRED), ("b", Reason.REJECTED)]))

    assert (told["x-first-death-queue"], told["x-first-death-reason"]) == ("a", "expired")
    assert (told["x-last-death-queue"], told["x-last-death-reason"], told["x-last-death-exchange"]) == ("b", "rejected", "dlx")


def test_an_entry_that_counts_on_keeps_what_it_said_of_its_first_time():
    first = die(message(Properties(expiration_ms=9)))
    again = dead_letter(first, decode(first), "q", Reason.EXPIRED, now_ms=NOW_MS * 2, count=0, exchange="dlx", routing_key="other")

    (death,) = headers(again)[DEATHS]
    assert (death["count"], death["time"], death["exchange"], death["original-expiration"]) == (2, NOW_MS // 1000, "ex", "9")


@given(HISTORIES)
def test_there_is_one_entry_for_each_queue_and_reason_newest_first(events: list[tuple[str, Reason]]):
    naive: dict[tuple[str, str], int] = {}
    for queue, reason in events:
        naive = {(queue, reason.value): naive.pop((queue, reason.value), 0) + 1, **naive}

    told = headers(history(events))
    assert [((death["queue"], death["reason"]), death["count"]) for death in told[DEATHS]] == list(naive.items())
    assert (told["x-first-death-queue"], told["x-first-death-reason"]) == (events[0][0], events[0][1].value)
    assert (told["x-last-death-queue"], told["x-last-death-reason"]) == (events[-1][0], events[-1][1].value)


@given(HISTORIES, st.sampled_from("abcd"))
def test_a_cycle_is_a_return_with_no_rejection_since(events: list[tuple[str, Reason]], target: str):
    queues = [queue for queue, _ in events]
    latest = len(queues) - 1 - queues[::-1].index(target) if target in queues else None
    expected = latest is not None and all(reason is not Reason.REJECTED for _, reason in events[latest:])

    assert forms_cycle(decode(history(events)), target) is expected


def test_a_message_that_never_died_is_in_no_cycle():
    assert not forms_cycle(NO_PROPERTIES, "q")
    assert not forms_cycle(Properties(headers={"x-death": "text"}), "q")


def test_a_history_that_a_client_made_up_is_no_cycle():
    assert not forms_cycle(Properties(headers={"x-death": [5, {"queue": "q", "reason": "expired"}]}), "q")


@pytest.mark.parametrize("forged", ["text", 5, None, {"queue": "q"}])
def test_a_history_that_is_no_list_begins_anew(forged: object):
    told = headers(die(message(Properties(headers={"x-death": forged, "x-first-death-queue": "forged"}))))

    assert [death["count"] for death in told[DEATHS]] == [1]
    assert told["x-first-death-queue"] == "q"


@pytest.mark.parametrize(("count", "then"), [(None, 2), ("3", 2), (True, 2), (-4, 2), (7, 8), (2**63 - 1, 2**63 - 1)])
def test_a_count_that_is_none_counts_as_one(count: object, then: int):
    forged = {"x-death": [{"queue": "q", "reason": "expired", "count": count, "mine": 1}, "odd"]}
    told = headers(die(message(Properties(headers=forged))))

    assert told[DEATHS][0]["count"] == then
    assert told[DEATHS][0]["mine"] == 1
    assert told[DEATHS][1:] == ["odd"]


def test_entries_that_are_there_twice_become_one():
    entry = {"queue": "q", "reason": "expired"}
    told = headers(die(message(Properties(headers={"x-death": [entry, {**entry, "count": 4}]}))))

    assert [death["count"] for death in told[DEATHS]] == [6]


def test_further_keys_of_a_sender_are_told_and_go_with_a_new_key():
    sent = message(Properties(headers={"CC": ["c1", 5, "c2"], "BCC": ["b"], "keep": 1}))
    same, other = headers(die(sent)), headers(die(sent, routing_key="gone"))

    assert same[DEATHS][0]["routing-keys"] == ["k", "c1", "c2"]
    assert same["CC"] == ["c1", 5, "c2"]
    assert "CC" not in other
    assert "BCC" not in same
    assert other["keep"] == 1
    assert headers(die(message(Properties(headers={"CC": "text"})), routing_key="gone"))["CC"] == "text"


def test_properties_that_can_not_be_decoded_do_not_lose_the_message():
    broken = Message(Address("/", "ex", "k"), b"body", True, "common", b"\xc1", 3)
    letter = dead_letter(
        broken, readable(broken, decode), "q", Reason.MAXLEN, now_ms=NOW_MS, count=0, exchange="dlx", routing_key=None
    )

    assert (letter.body, letter.priority) == (b"body", 3)
    assert headers(letter)[DEATHS][0]["reason"] == "maxlen"


@pytest.mark.parametrize("value", [2**70, object(), "\ud800", {"deep": 2**70}])
def test_headers_that_can_not_be_encoded_are_told_as_text(value: object):
    odd = Properties(headers={"odd": value, "\udfff": 1, "good": 2}, content_type="kept")
    letter = dead_letter(message(), odd, "q", Reason.EXPIRED, now_ms=NOW_MS, count=0, exchange="dlx", routing_key=None)

    told = decode(letter)
    assert told.content_type == "kept"
    assert told.headers is not None
    assert told.headers["odd"] == ascii(value)
    assert (told.headers["good"], told.headers[ascii("\udfff")]) == (2, 1)
    assert told.headers[DEATHS][0]["count"] == 1


def test_another_property_that_can_not_be_encoded_is_left_out():
    odd = Properties(content_type="\ud800", headers={"good": 2})
    letter = dead_letter(message(), odd, "q", Reason.EXPIRED, now_ms=NOW_MS, count=0, exchange="dlx", routing_key=None)

    assert decode(letter).content_type is None
    assert headers(letter)["good"] == 2


def test_the_old_message_and_its_properties_are_left_alone():
    properties = Properties(headers={"a": 1, "x-death": [{"queue": "q", "reason": "expired", "count": 1}]})
    before = encode_properties(properties)
    old = message(properties)
    die(old)

    assert encode_properties(properties) == before == old.wire


def test_the_history_can_be_said_in_json():
    told = headers(history([("a", Reason.EXPIRED), ("b", Reason.DELIVERY_LIMIT)]))

    assert msgspec.json.decode(msgspec.json.encode(told)) == told


def test_further_keys_are_not_more_and_not_longer_than_a_publisher_may_have():
    long = ".".join("a" * MAX_KEY_WORDS)
    keys = [long, long + ".a", *map(str, range(2 * MAX_KEYS))]
    found = further_keys(Properties(headers={"CC": keys}))
    assert found[:2] == (long, "0")
    assert len(found) <= MAX_KEYS
