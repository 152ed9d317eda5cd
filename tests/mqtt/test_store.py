"""What of a session is in the journal, and what comes back of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway_mqtt.store import (
    INCOMING,
    NEVER_EXPIRES,
    OUTGOING,
    SESSIONS,
    Sent,
    SessionRecord,
    StoredWill,
    Stores,
    pairs_of,
    parse_key,
    runs_of,
    session_prefix,
)
from tests.runtime.support import Log

P = ("/", "p")


class Journal:
    """The state of a channel; what is in it outlives the stores."""

    def __init__(self):
        self.values = {}
        self.puts = 0

    def put_state(self, namespace, key, value):
        self.puts += 1
        values = self.values.setdefault(namespace, {})
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value

    def get_state(self, namespace, key):
        return self.values.get(namespace, {}).get(key)

    def scan_state(self, namespace):
        return iter(list(self.values.get(namespace, {}).items()))

    @property
    def empty(self):
        return not any(self.values.values())


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(names, names.filter(bool), st.integers(1, 65_535))
def test_keys_tell_every_session_from_every_other_whatever_its_name(client_id, vhost, packet_id):
    key = (vhost, client_id)
    assert parse_key(f"{session_prefix(key)}{packet_id}") == (key, str(packet_id))
    assert parse_key(session_prefix(key)) == (key, "")


@given(st.dictionaries(st.integers(1, 200), st.integers(1, 65_535), max_size=60))
def test_runs_are_what_they_were_made_of(positions):
    assert list(pairs_of(runs_of(positions.items()))) == sorted(positions.items())


def test_a_window_of_messages_is_one_run():
    assert runs_of((position, position - 99) for position in range(100, 1_100)) == ((100, 1, 1_000),)


def test_runs_that_no_session_can_have_are_cut():
    assert list(pairs_of([(1, 65_534, 1 << 40), (5, 0, 3), (6, -4, 2)])) == [(1, 65_534), (2, 65_535)]


def test_identifiers_that_came_in_are_known_after_a_restart_until_they_are_released():
    journal = Journal()
    store = Stores().open(journal, P, lasts=True)
    store.received(5)
    store.received(6)
    assert store.unreceived(6)
    assert not store.unreceived(6)
    again = Stores().open(journal, P, lasts=True)
    assert again.was_received(5)
    assert not again.was_received(6)
    assert len(again.kept.incoming) == 1
    assert again.unreceived(5)
    assert journal.empty


def test_what_does_not_last_is_known_to_its_connection_only_and_writes_nothing():
    journal, stores = Journal(), Stores()
    store = stores.open(journal, P, lasts=False)
    store.received(5)
    store.sending(1, 1)
    store.released(1, 1)
    store.in_flight([(2, 2)])
    store.put_record(SessionRecord())
    assert store.was_received(5)
    store.drop()
    assert not journal.puts
    assert not stores.open(journal, P, lasts=False).was_received(5)


def test_a_connection_knows_what_the_one_before_knew():
    stores, journal = Stores(), Journal()
    stores.open(journal, P, lasts=True).received(5)
    assert stores.open(journal, P, lasts=True).was_received(5)
    assert not stores.open(journal, ("other", "p"), lasts=True).was_received(5)


def test_what_was_sent_comes_back_in_order_releases_in_the_order_of_their_pubrecs_mqtt_4_6_0_4():
    journal = Journal()
    store = Stores().open(journal, P, lasts=True)
    for packet_id, position in ((9, 1), (3, 2), (7, 3), (4, 4)):
        store.sending(packet_id, position)
    store.released(7, 3)
    store.released(9, 1)
    store.completed(4)
    journal.values[OUTGOING] = dict(sorted(journal.values[OUTGOING].items()))
    kept = Stores().open(journal, P, lasts=True).kept.outgoing
    assert list(kept.items()) == [(3, Sent(2)), (7, Sent(3, 1)), (9, Sent(1, 2))] == list(store.kept.outgoing.items())


def test_releases_of_a_later_connection_come_behind_those_of_earlier_ones():
    journal = Journal()
    first = Stores().open(journal, P, lasts=True)
    first.sending(1, 1)
    first.sending(2, 2)
    first.released(2, 2)
    second = Stores().open(journal, P, lasts=True)
    second.released(1, 1)
    assert list(Stores().open(journal, P, lasts=True).kept.outgoing) == [2, 1]


def test_what_is_in_flight_is_written_when_it_has_changed():
    journal = Journal()
    store = Stores().open(journal, P, lasts=True)
    store.in_flight([])
    assert not journal.puts
    store.in_flight([(1, 1), (2, 2)])
    store.in_flight([(2, 2), (1, 1)])
    assert journal.puts == 1
    assert list(pairs_of(Stores().open(journal, P, lasts=True).kept.runs)) == [(1, 1), (2, 2)]
    store.in_flight([])
    assert journal.empty


def test_records_come_back_whole():
    journal, will = Journal(), StoredWill("t/w", b"\0gone", 2, True, 30, b"\x03abc")
    records = {
        ("/", "a"): SessionRecord(),
        ("/", "b/c"): SessionRecord(60, 1_700_000_000_000, 5, will, 1_700_000_030_000, "ann", ("$share/g/t",)),
        ("plant 1/x", "a"): SessionRecord(NEVER_EXPIRES - 1),
    }
    stores = Stores()
    for key, record in records.items():
        stores.open(journal, key, lasts=True).put_record(record)
    assert dict(Stores().scan_records(journal)) == records
    assert Stores().record(journal, ("/", "b/c")) == records["/", "b/c"]
    assert Stores().record(journal, ("/", "c")) is None


def test_a_session_that_is_dropped_leaves_nothing_and_others_stay():
    journal, stores = Journal(), Stores()
    for key in (P, ("/", "q")):
        store = stores.open(journal, key, lasts=True)
        store.put_record(SessionRecord())
        store.received(1)
        store.sending(2, 2)
        store.in_flight([(1, 1)])
    stores.drop(journal, P)
    assert not stores.open(journal, P, lasts=True).was_received(1)
    assert {key for values in journal.values.values() for key in values} == {"q//", "q//1", "q//2"}
    Stores().drop(journal, ("/", "q"))
    assert journal.empty


def test_values_that_can_not_be_read_are_dropped_counted_and_logged_and_the_others_are_there():
    journal, log, counted = Journal(), Log(), []
    store = Stores().open(journal, P, lasts=True)
    store.put_record(SessionRecord(5, ended_at_ms=1))
    store.received(1)
    store.sending(2, 2)
    good = {namespace: dict(values) for namespace, values in journal.values.items()}
    for namespace in (SESSIONS, INCOMING, OUTGOING):
        journal.put_state(namespace, "damaged//" + "" * (namespace == SESSIONS), b"\x01\xc1")
        journal.put_state(namespace, "new//3", b"\x02\xc0")
        journal.put_state(namespace, "empty//4", b"")
        journal.put_state(namespace, "no key", b"\x01\xc0")
        journal.put_state(namespace, "p//x", b"\x01\xc0")
        journal.put_state(namespace, "p//65536", b"\x01\xc0")
    stores = Stores(log, lambda name, amount=1, *, reason="": counted.append(name))
    assert [key for key, _ in stores.scan_records(journal)] == [P]
    again = stores.open(journal, P, lasts=True)
    assert again.was_received(1)
    assert again.kept.outgoing == {2: Sent(2)}
    assert journal.values == good
    assert len(counted) == len(log.lines) == 18


def test_sessions_of_which_nothing_is_left_take_no_memory():
    journal, stores = Journal(), Stores()
    for n in range(10):
        store = stores.open(journal, ("/", f"c{n}"), lasts=True)
        store.received(1)
        if n:
            store.unreceived(1)
        stores.forget(("/", f"c{n}"))
    assert len(stores._kept) == 1
