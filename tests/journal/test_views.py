"""Can anybody read the journal with plain SQL while the broker writes it?"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from gateway.engine.definitions.policy import NAMESPACE, Policy
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec, QueueSpec
from gateway.model.message import Address, Message
from gateway.model.records import Bound, ExchangeDeclared, MessageScheduled, QueueDeclared, Retained, StatePut
from tests.programs import missing

VIEWS = ("v_queue", "v_message_age", "v_retained", "v_session", "v_dead", "v_scheduled", "v_policy", "depth")

READ = """
import json, sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
connection.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in connection.execute(sys.argv[2])], default=repr))
"""


def rows(rig, query: str) -> list[dict]:
    """Ask in another process, read-only, while the journal is open."""
    run = subprocess.run([sys.executable, "-c", READ, rig.journal._path, query], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def row(rig, query: str) -> dict:
    (found,) = rows(rig, query)
    return found


@pytest.fixture
def rig(sqlite_rig):
    sqlite_rig.record(QueueDeclared("/", 1, QueueSpec("plain")), QueueDeclared("v", 2, QueueSpec("lanes", max_priority=2)))
    sqlite_rig.record(QueueDeclared("/", 5, QueueSpec("empty")))
    sqlite_rig.commit()
    return sqlite_rig


def test_v_queue_sums_the_lanes_of_a_queue(rig):
    for lane in (1, 2, 3, 3, 4):
        rig.publish(b"12345", lane)
    rig.commit()
    rig.publish(b"1", 1, 4)
    rig.commit()
    found = rows(rig, "SELECT vhost, name, messages, body_bytes, segments, lanes, id FROM v_queue ORDER BY id")
    assert [tuple(r.values()) for r in found] == [
        ("/", "plain", 2, 6, 2, 1, 1),
        ("v", "lanes", 5, 21, 2, 3, 2),
        ("/", "empty", 0, 0, 0, 1, 5),
    ]
    assert [tuple(r.values()) for r in rows(rig, "SELECT * FROM depth ORDER BY name")] == [
        ("/", "empty", 0, 0), ("v", "lanes", 5, 21), ("/", "plain", 2, 6),
    ]  # fmt: skip


def test_v_message_age_tells_the_oldest_of_all_lanes(rig):
    before = time.time_ns() // 1_000_000
    rig.publish(b"x", 3)
    rig.commit()
    time.sleep(0.02)
    rig.publish(b"y", 2)
    rig.commit()
    found = row(rig, "SELECT oldest_ms, age_ms FROM v_message_age WHERE name = 'lanes'")
    assert before <= found["oldest_ms"] <= before + 10_000
    assert 20 <= found["age_ms"] < 60_000
    assert row(rig, "SELECT oldest_ms, age_ms FROM v_message_age WHERE name = 'empty'") == {"oldest_ms": None, "age_ms": None}


def test_v_retained_shows_last_values(rig):
    rig.record(Retained("/", "amq.topic", "a.b", Message(Address("/", "amq.topic", "a.b"), b"value", True)))
    rig.commit()
    query = "SELECT vhost, exchange, key, body_bytes, persistent, CAST(body AS TEXT) AS body FROM v_retained"
    assert list(row(rig, query).values()) == ["/", "amq.topic", "a.b", 5, 1, "value"]


def test_v_session_shows_what_mqtt_sessions_keep(rig):
    pytest.importorskip("gateway_mqtt")
    from gateway_mqtt.translate.sessions import session_queue_name  # noqa: PLC0415, RUF100

    name = session_queue_name("meter ☃/7")
    rig.record(QueueDeclared("/", 8, QueueSpec(name)), QueueDeclared("/", 9, QueueSpec(session_queue_name("idle"))))
    rig.record(Bound("/", Binding("amq.topic", name, "a.*", options=BindingOptions(qos=1))))
    rig.record(Bound("/", Binding("amq.topic", name, "b.#")))
    rig.publish(b"x", 8)
    rig.commit()
    found = row(rig, "SELECT * FROM v_session WHERE messages > 0")
    subscribed = sorted(json.loads(found.pop("subscribed")), key=str)
    assert found == {
        "vhost": "/", "client_id": "meter ☃/7", "queue": name, "messages": 1, "body_bytes": 1, "subscriptions": 2,
    }  # fmt: skip
    assert subscribed == [{"key": "a.*", "qos": 1}, {"key": "b.#", "qos": 2}]
    assert row(rig, "SELECT client_id, subscriptions FROM v_session WHERE messages = 0") == {
        "client_id": "idle",
        "subscriptions": 0,
    }


def test_v_dead_follows_the_ways_of_dead_letters(rig):
    def feeding(number: int, name: str, exchange: str, key: str | None = None) -> QueueDeclared:
        return QueueDeclared("/", number, QueueSpec(name, dead_letter_exchange=exchange, dead_letter_routing_key=key))

    rig.record(ExchangeDeclared("/", ExchangeSpec("dlx", "fanout")), ExchangeDeclared("/", ExchangeSpec("picky", "direct")))
    rig.record(*(QueueDeclared("/", number, QueueSpec(f"dead{number}")) for number in (10, 11, 12, 13)))
    rig.record(feeding(20, "to-queue", "", "dead10"), feeding(21, "to-all", "dlx"), feeding(22, "to-one", "picky", "k"))
    rig.record(feeding(23, "nowhere", "gone"), feeding(24, "own key", ""))
    rig.record(Bound("/", Binding("dlx", "dead11", "")), Bound("/", Binding("dlx", "picky", "", to_exchange=True)))
    rig.record(Bound("/", Binding("picky", "dead12", "k")), Bound("/", Binding("picky", "dead13", "other")))
    rig.publish(b"dead", 12)
    rig.commit()
    found = {r["queue"]: (r["messages"], sorted(json.loads(r["fed_by"]))) for r in rows(rig, "SELECT * FROM v_dead")}
    assert found == {
        "dead10": (0, ["to-queue"]),
        "dead11": (0, ["to-all"]),
        "dead12": (1, ["to-all", "to-one"]),
        "dead13": (0, ["to-all"]),
    }


def test_v_scheduled_shows_when_what_is_published(rig):
    address = Address("/", "alarms", "a.b")
    rig.record(MessageScheduled(1, 1_700_000_000_000, Message(address, b"12", True)))
    rig.record(MessageScheduled(2, 1_600_000_000_000, Message(address, b"123", True, "", b"", 4)))
    rig.commit()
    found = rows(rig, "SELECT id, due, exchange, key, body_bytes, priority FROM v_scheduled")
    assert [tuple(r.values()) for r in found] == [
        (2, "2020-09-13T12:26:40Z", "alarms", "a.b", 3, 4),
        (1, "2023-11-14T22:13:20Z", "alarms", "a.b", 2, 0),
    ]


def test_v_policy_shows_policies(rig):
    short, cap = Policy("short ☃", "^q", {"max-length": 5}, "queues", 7), Policy("cap", ".*", {"max-length": 9}, operator=True)
    rig.record(StatePut(NAMESPACE, "/\0policy\0short ☃", short.text().encode()))
    rig.record(StatePut(NAMESPACE, "other\0operator\0cap", cap.text().encode()), StatePut("mqtt", "a\0b\0c", b"no"))
    rig.commit()
    assert [tuple(r.values()) for r in rows(rig, "SELECT * FROM v_policy ORDER BY vhost")] == [
        ("/", "policy", "short ☃", "^q", "queues", 7, '{"max-length":5}'),
        ("other", "operator", "cap", ".*", "all", 0, '{"max-length":9}'),
    ]


def test_every_view_can_be_read_while_commits_go_on(rig):
    with closing(sqlite3.connect(f"file:{rig.journal._path}?mode=ro", uri=True)) as connection:
        for number in range(30):
            rig.publish(b"%d" % number, 1)
            rig.commit()
            for view in VIEWS:
                connection.execute(f"SELECT * FROM {view}").fetchall()
            (messages,) = connection.execute("SELECT messages FROM v_queue WHERE name = 'plain'").fetchone()
            assert messages == number + 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM seg")


def test_the_command_of_sqlite_reads_it_too(rig):
    rig.publish(b"x", 1)
    rig.commit()
    program = shutil.which("sqlite3") or missing("there is no sqlite3 command")
    query = "SELECT name, messages FROM v_queue ORDER BY id"
    run = subprocess.run([program, "-readonly", rig.journal._path, query], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["plain|1", "lanes|0", "empty|0"]
