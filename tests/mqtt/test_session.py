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


def kept(client_id):
    return True


def ended(client_id):
    return False


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
    sessions = Sessions()
    first = Session("/", "p", clean=False)
    sessions.enter(first, "one", present=False)
    sent = {position: first.identify(Sent(position)) for position in range(1, len(acknowledged) + 1)}
    for position, done in enumerate(acknowledged, 1):
        if done:
            del first.inflight[sent[position]]
    sessions.leave(first, "one", kept)
    second = Session("/", "p", clean=False)
    sessions.enter(second, "two", present=True)
    fresh = second.identify(Sent(1_000))
    assert fresh not in [sent[p] for p, done in enumerate(acknowledged, 1) if not done]
    for position, done in enumerate(acknowledged, 1):
        if not done:
            assert second.identify_again(Sent(position)) == sent[position]


def test_a_redelivery_that_nobody_remembers_gets_a_new_identifier():
    session = Session("/", "p", clean=False)
    assert session.identify_again(Sent(7)) == 1


def test_what_a_connection_had_no_time_to_send_again_is_still_remembered():
    sessions = Sessions()
    session = Session("/", "p", clean=False)
    sessions.enter(session, "one", present=False)
    packet_ids = {position: session.identify(Sent(position)) for position in (1, 2)}
    sessions.leave(session, "one", kept)
    brief = Session("/", "p", clean=False)
    sessions.enter(brief, "two", present=True)
    brief.identify_again(Sent(1))
    sessions.leave(brief, "two", kept)
    third = Session("/", "p", clean=False)
    sessions.enter(third, "three", present=True)
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
    sessions = Sessions()
    session = Session("/", "p", clean=False)
    sessions.enter(session, "one", present=False)
    session.identify(None)
    sessions.leave(session, "one", kept)
    again = Session("/", "p", clean=False)
    sessions.enter(again, "two", present=True)
    assert not again.inflight


def test_a_session_that_begins_anew_remembers_nothing():
    sessions = Sessions()
    session = Session("/", "p", clean=False)
    sessions.enter(session, "one", present=False)
    session.identify(Sent(1))
    sessions.leave(session, "one", kept)
    anew = Session("/", "p", clean=False)
    sessions.enter(anew, "two", present=False)
    assert not anew.resend
    assert anew.identify_again(Sent(1)) == 1


def test_who_was_taken_over_does_not_disturb_who_took_over():
    sessions = Sessions()
    first, second = Session("/", "c", clean=True), Session("/", "c", clean=True)
    sessions.enter(first, "one", present=False)
    sessions.leave(first, "one", kept)
    sessions.enter(second, "two", present=False)
    sessions.leave(first, "one", kept)
    assert sessions.holder(("/", "c")) == "two"
    assert len(sessions) == 1


def remembered(sessions, client_id, vhost="/"):
    """Connect, and say whether the broker knows what it has sent before."""
    again = Session(vhost, client_id, clean=False)
    sessions.enter(again, "again", present=True)
    return bool(again.resend)


def send_and_leave(sessions, client_id, is_there, vhost="/"):
    session = Session(vhost, client_id, clean=False)
    sessions.enter(session, client_id, present=False)
    session.identify(Sent(1))
    sessions.leave(session, client_id, is_there)


def test_nothing_is_remembered_of_a_session_that_ended_with_its_connection():
    sessions = Sessions()
    send_and_leave(sessions, "p", ended)
    assert not remembered(sessions, "p")


def test_sessions_that_ended_while_their_clients_were_away_are_forgotten_when_many_are_away():
    sessions = Sessions()
    for n in range(10):
        send_and_leave(sessions, f"elsewhere-{n}", kept, "other")
    for n in range(session_module.FEW):
        send_and_leave(sessions, f"c{n}", lambda client_id: int(client_id[1:]) % 2 == 0)
    there = [f"c{n}" for n in range(session_module.FEW) if n % 2 == 0]

    def few_are_there(client_id):
        return client_id not in there[:5] and not client_id.startswith("elsewhere")

    for n in range(session_module.FEW):
        send_and_leave(sessions, f"more{n}", few_are_there)
    assert not any(remembered(sessions, client_id) for client_id in there[:5])
    assert all(remembered(sessions, client_id) for client_id in there[5:])
    assert all(remembered(sessions, f"elsewhere-{n}", "other") for n in range(10))
