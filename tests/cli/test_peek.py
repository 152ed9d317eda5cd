"""What does `tidegate peek` show, and in which order?"""

from __future__ import annotations

import json
from subprocess import run

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import app
from gateway.client import connect
from gateway.host import Host, Service
from gateway.model.declare import QueueSpec
from gateway.model.message import Address
from gateway.model.properties import Properties
from gateway.model.records import QueueDeclared
from tests.admin.journals import EMPTY, fill, properties, rig
from tests.live_broker import TIDEGATE, LiveBroker


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("peek") / "data"
    with rig(directory) as found:
        fill(found)
        found.record(QueueDeclared("other", 20, QueueSpec("orders")))
        found.publish(b"strange", EMPTY, address=Address("/", "e", "k"), wire_tag="gone", wire=b"\x01\x02")
        found.publish(
            b"\x1b[2Jclear", EMPTY, address=Address("/", "e", "k\n"), **properties(correlation_id=b"\xff", headers={"n": 5})
        )
        found.commit()
    return directory


@pytest.fixture
def peek(data):
    def _peek(*arguments):
        result = CliRunner().invoke(app, ["peek", *map(str, arguments), "--data-dir", str(data)], prog_name="tidegate")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stdout, result.stderr

    return _peek


def ids(output):
    return [json.loads(row["body"])["id"] for row in json.loads(output) if row["body"].startswith("{")]


WANTED = [number for number in range(20) if number % 3]


def test_messages_come_in_the_queues_order(peek):
    assert ids(peek("orders", "--vhost", "/", "--limit", "99", "--json")[1]) == WANTED


def test_limit_and_offset_choose_a_part(peek):
    assert ids(peek("orders", "--vhost", "/", "--limit", "3", "--offset", "4", "--json")[1]) == WANTED[4:7]


def test_a_higher_priority_comes_first(peek):
    rows = json.loads(peek("urgent", "--json")[1])
    assert [(row["priority"], row.get("body", row.get("body_hex"))) for row in rows] == [
        (3, "high"),
        (3, "high too"),
        (1, "00ff01"),
        (0, "low"),
    ]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (["--header", "region=south"], [n for n in WANTED if n % 4 == 0]),
        (["--header", "region=nowhere"], []),
        (["--header", "other=south"], []),
        (["--json-path", "customer.name=ada"], [n for n in WANTED if n % 2]),
        (["--json-path", "id=4"], [4]),
        (["--json-path", 'id="4"'], []),
        (["--json-path", "id.deeper=4"], []),
        (["--json-path", "customer.name=ada", "--header", "region=north", "--json-path", "id=7"], [7]),
    ],
)
def test_filters_keep_what_matches_all_of_them(peek, filters, kept):
    assert ids(peek("orders", "--vhost", "/", "--limit", "99", *filters, "--json")[1]) == kept


def test_the_plain_form_says_position_age_size_properties_and_body(peek):
    code, output, _ = peek("orders", "--vhost", "/", "--limit", "1")
    first = output.splitlines()
    assert code == 0
    assert first[0].startswith("-- position 2, ")
    assert " old, 38 bytes, delivered 2 times" in first[0]
    assert first[1:5] == [
        "   to shop, key order.new",
        "   content_type: application/json",
        '   headers: {"region": "north"}',
        '   | {"id": 1, "customer": {"name": "ada"}}',
    ]
    assert "1 shown of 14 on disk; messages that are not persistent are in the broker's memory only" in output


def test_raw_gives_the_bodies_alone(peek):
    assert peek("orders", "--vhost", "/", "--limit", "2", "--raw")[1].splitlines() == [
        '{"id": 1, "customer": {"name": "ada"}}',
        '{"id": 2, "customer": {"name": "bob"}}',
    ]


def test_properties_that_nobody_here_can_read_are_shown_as_they_are(peek):
    output = peek("empty")[1]
    assert "properties (gone): 0102" in output


def test_nothing_in_a_message_reaches_the_terminal_as_a_command(peek):
    output = peek("empty")[1]
    assert "\x1b" not in output
    assert "key k\\n" in output
    assert "1b 5b 32 4a" in output


def test_a_queue_of_several_virtual_hosts_must_be_named_with_one(peek):
    code, _, errors = peek("orders")
    assert code == 74
    assert "say which by --vhost" in errors
    assert peek("orders", "--vhost", "other")[0] == 0


def test_a_queue_that_is_not_there_is_said_so(peek):
    code, _, errors = peek("nosuch")
    assert (code, errors) == (74, "tidegate: there is no durable queue 'nosuch' in the journal\n")


class Strange:
    """A front-end that writes properties in a form of its own."""

    name = "strange"
    wire_decoders = {"gone": lambda wire: Properties(message_id=wire.hex(), headers={"colour": "blue"})}  # noqa: RUF012


def test_what_a_front_end_wrote_in_its_own_form_is_read_by_what_it_offers(peek, monkeypatch):
    monkeypatch.setattr(Host, "discover", lambda self: self.services.update(strange=Service("strange", "s 1", Strange())))
    (strange,) = [row for row in json.loads(peek("empty", "--json")[1]) if row.get("body") == "strange"]
    assert strange["properties"] == {"message_id": "0102", "headers": {"colour": "blue"}}
    assert [row["body"] for row in json.loads(peek("empty", "--header", "colour=blue", "--json")[1])] == ["strange"]


def test_properties_that_say_nothing_are_not_shown_as_bytes(peek, monkeypatch):
    monkeypatch.setattr(Strange, "wire_decoders", {"gone": lambda _wire: Properties()})
    monkeypatch.setattr(Host, "discover", lambda self: self.services.update(strange=Service("strange", "s 1", Strange())))
    (strange,) = [row for row in json.loads(peek("empty", "--json")[1]) if row.get("body") == "strange"]
    assert strange["properties"] == {}


def test_messages_of_mqtt_and_tgp_clients_are_shown_with_what_they_said(tmp_path):
    said = {"content_type": "application/json", "headers": {"region": "north", "n": 5}, "message_id": "m"}
    with LiveBroker(tmp_path) as broker:
        with connect(broker.addresses["ROUTER"], timeout=30) as client:
            client.declare_queue("both")
            client.bind("both", "amq.topic", "plant.#")
            client.publish("amq.topic", "plant.tgp", b"{}", said, wait=True)
        host, port = broker.where("mqtt")
        run([TIDEGATE, "pub", "-h", host, "-p", str(port), "-q", "1", "plant/mqtt", "21.5"], check=True, timeout=60)
        result = CliRunner().invoke(app, ["peek", "both", "--json", "--data-dir", str(tmp_path / "data")])
    tgp, mqtt = json.loads(result.stdout)
    assert (tgp["routing_key"], tgp["properties"]) == ("plant.tgp", said)
    assert (mqtt["routing_key"], mqtt["properties"], mqtt["body"]) == ("plant.mqtt", {}, "21.5")
