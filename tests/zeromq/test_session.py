"""What does a session know of its client, and for how long?"""

import itertools

from gateway_zeromq.tgp.session import NAMED_KEPT, REFUSALS_KEPT, Admission, Session, Sessions, named_key


def session(**values):
    made = Session("key", "token", "", "anonymous", 0)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def sessions(ttl_ms=1000):
    numbers = itertools.count(1)
    return Sessions(ttl_ms, lambda: f"t{next(numbers)}")


def publish(made, number, seq, body_bytes=1, **options):
    made.submitted(number, seq, body_bytes, **options)
    made.note(seq)


def test_numbers_are_new_undecided_or_decided():
    made = session()
    for number, seq in ((1, 1), (2, 2), (3, 5)):
        assert made.admission(seq) is Admission.NEW
        publish(made, number, seq)
    assert made.admission(2) is Admission.UNDECIDED
    assert [pending.seq for pending in made.decide(2)] == [1, 2]
    assert made.admission(2) is Admission.DECIDED
    assert made.admission(5) is Admission.UNDECIDED
    assert made.admission(6) is Admission.NEW
    assert made.admission(0) is Admission.NEW


def test_last_seq_is_below_everything_that_is_undecided():
    made = session()
    assert made.last_seq == 0
    for number, seq in ((1, 1), (2, 2), (3, 5)):
        publish(made, number, seq)
    assert made.last_seq == 0
    list(made.decide(2))
    assert made.last_seq == 4
    list(made.decide(3))
    assert made.last_seq == 5


def test_what_is_undecided_and_has_no_number_says_nothing_of_those_that_have_one():
    made = session()
    publish(made, 1, 1)
    list(made.decide(1))
    publish(made, 2, 0)
    assert (made.last_seq, made.admission(1)) == (1, Admission.DECIDED)
    publish(made, 3, 4)
    assert (made.last_seq, made.admission(1), made.admission(4)) == (3, Admission.DECIDED, Admission.UNDECIDED)


def test_what_is_pending_is_weighed():
    made = session()
    for number in (1, 2):
        publish(made, number, number, 10)
    list(made.decide(1))
    assert (made.pending_bytes, len(made.pending)) == (10, 1)


def test_the_mark_is_dirty_when_it_rises_and_is_to_be_kept():
    made = session()
    made.note(1, keep=False)
    assert (made.mark, made.dirty) == (1, False)
    made.note(2)
    assert made.dirty
    made.record(0)
    assert not made.dirty
    made.note(2)
    assert not made.dirty


def test_refusals_are_kept_in_runs_and_found():
    made = session()
    for seq in (3, 4, 5, 7):
        made.refuse(seq, 506)
    made.refuse(8, 404)
    made.refuse(5, 506)
    made.refuse(0, 506)
    assert list(made.refused) == [(3, 5, 506), (7, 7, 506), (8, 8, 404)]
    assert [made.refusal(seq) for seq in range(1, 10)] == [0, 0, 506, 506, 506, 0, 506, 404, 0]
    assert made.mark == 8
    assert made.dirty


def test_refusals_do_not_grow_for_ever():
    made = session()
    for seq in range(1, 3 * REFUSALS_KEPT, 2):
        made.refuse(seq, 506)
    assert len(made.refused) == REFUSALS_KEPT


def test_a_token_finds_its_session_and_a_wrong_one_makes_a_fresh_one():
    all_sessions = sessions()
    made, resumed = all_sessions.open("", None, "anonymous", 0)
    assert (made.token, made.key, resumed) == ("t1", "t1", False)
    assert all_sessions.open("", "t1", "anonymous", 0) == (made, True)
    other, resumed = all_sessions.open("", "guess", "anonymous", 0)
    assert (other.token, resumed) == ("t2", False)


def test_a_name_finds_its_session_whatever_the_token_says():
    all_sessions = sessions()
    made, _ = all_sessions.open("billing", None, "anonymous", 0)
    anonymous, _ = all_sessions.open("", None, "anonymous", 0)
    assert all_sessions.open("billing", anonymous.token, "anonymous", 0) == (made, True)
    assert made.key == named_key("anonymous", "billing")


def test_the_session_of_another_user_is_never_found():
    all_sessions = sessions()
    mine, _ = all_sessions.open("billing", None, "alice", 0)
    theirs, resumed = all_sessions.open("billing", mine.token, "bob", 0)
    assert (theirs is mine, resumed) == (False, False)
    anonymous, _ = all_sessions.open("", None, "alice", 0)
    assert all_sessions.open("", anonymous.token, "bob", 0)[1] is False
    assert named_key("a", "b:c") != named_key("a:b", "c")


def test_sessions_without_a_name_expire_and_those_with_one_do_not():
    all_sessions = sessions(ttl_ms=1000)
    named, _ = all_sessions.open("billing", None, "u", 0)
    away, _ = all_sessions.open("", None, "u", 0)
    busy, _ = all_sessions.open("", None, "u", 0)
    undecided, _ = all_sessions.open("", None, "u", 0)
    busy.owner = type("Owner", (), {"peer": object()})()
    publish(undecided, 1, 1)
    for made in (named, away, undecided):
        all_sessions.leave(made, 500)
    assert all_sessions.expire(1499) == []
    assert all_sessions.expire(1500) == [away]
    assert all_sessions.open("", away.token, "u", 0)[1] is False
    assert len(all_sessions) == 4


def test_of_too_many_names_those_used_longest_ago_are_forgotten():
    all_sessions = sessions()
    for n in range(NAMED_KEPT + 2):
        all_sessions.open(f"c{n}", None, "u", n)
    assert sorted(made.client for made in all_sessions.expire(0)) == ["c0", "c1"]


def test_what_is_kept_comes_back():
    before = sessions()
    named, _ = before.open("billing", None, "u", 5)
    anonymous, _ = before.open("", None, "u", 5)
    publish(named, 1, 17)
    named.refuse(18, 506)
    publish(anonymous, 1, 4)
    after = sessions()
    records = [(made.key, made.record(99)) for made in (named, anonymous)]
    assert after.load([*records, ("bad", b"\xc1"), ("worse", b"")], 100) == ["bad", "worse"]
    back, resumed = after.open("billing", None, "u", 100)
    assert (resumed, back.mark, back.last_seq, list(back.refused), back.used_ms) == (True, 18, 18, [(18, 18, 506)], 99)
    back, resumed = after.open("", anonymous.token, "u", 100)
    assert (resumed, back.mark, back.left_ms) == (True, 4, 100)
