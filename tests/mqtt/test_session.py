"""Packet identifiers, and what is remembered between two connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway_mqtt import session as session_module
from gateway_mqtt.session import Session, Sessions
from gateway_mqtt.store import Kept, runs_of


class Sent:
    def __init__(self, position):
        self.position = position


def gone_on_with(session):
    """Return the session of the next connection: what the store kept of the last one is taken over."""
    kept = Kept()
    kept.runs = runs_of(session.in_flight())
    again = Session("/", session.client_id, clean=False)
    again.resume(kept, exact=True)
    return again


def test_identifiers_go_round_from_1_to_65535_and_spare_those_in_flight_mqtt_2_3_1_2():
    session = Session("/", "c", clean=True)
    held = session.identify(Sent(1))
    used = []
    for position in range(2, 65_600):
        packet_id = session.identify(Sent(position))
        used.append(packet_id)
        del session.inflight[packet_id]
    assert held == 1
    assert 1 not in used
    assert min(used) == 2
    assert max(used) == 65_535
    assert used[65_533:65_536] == [65_535, 2, 3] or used[65_534:65_537] == [2, 3, 4]


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_what_is_unacknowledged_has_its_identifier_again_mqtt_4_4_0_1(acknowledged):
    first = Session("/", "p", clean=False)
    sent = {position: first.identify(Sent(position)) for position in range(1, len(acknowledged) + 1)}
    for position, done in enumerate(acknowledged, 1):
        if done:
            del first.inflight[sent[position]]
    second = gone_on_with(first)
    fresh = second.identify(Sent(1_000))
    assert fresh not in [sent[p] for p, done in enumerate(acknowledged, 1) if not done]
    for position, done in enumerate(acknowledged, 1):
        if not done:
            assert second.identify_again(Sent(position)) == sent[position]


def test_a_redelivery_that_nobody_remembers_gets_a_new_identifier():
    session = Session("/", "p", clean=False)
    assert session.identify_again(Sent(7)) == 1


def test_what_a_connection_had_no_time_to_send_again_is_still_remembered():
    session = Session("/", "p", clean=False)
    packet_ids = {position: session.identify(Sent(position)) for position in (1, 2)}
    brief = gone_on_with(session)
    brief.identify_again(Sent(1))
    third = gone_on_with(brief)
    assert [third.identify_again(Sent(position)) for position in (1, 2)] == [packet_ids[1], packet_ids[2]]


def test_there_is_always_an_identifier_left_however_much_was_sent_before_and_has_gone():
    kept = Kept()
    for connection in range(5):
        session = Session("/", "p", clean=False)
        session.resume(kept, exact=True)
        for n in range(30_000):
            session.identify(Sent(connection * 30_000 + n + 1))
        kept.runs = runs_of(session.in_flight())
    assert session.reserved == session_module.MOST_RESERVED
    assert session.outstanding == 30_000


def test_retained_messages_in_flight_are_not_remembered():
    session = Session("/", "p", clean=False)
    session.identify(None)
    assert not gone_on_with(session).inflight


def test_who_was_taken_over_does_not_disturb_who_took_over():
    sessions = Sessions()
    key = ("/", "c")
    sessions.enter(key, "one")
    sessions.leave(key, "one")
    sessions.enter(key, "two")
    sessions.leave(key, "one")
    assert sessions.holder(key) == "two"
    assert len(sessions) == 1
    sessions.leave(key, "two")
    assert sessions.holder(key) is None
