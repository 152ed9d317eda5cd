"""Do the verbs about a journal read what AMQP clients have published?"""

from __future__ import annotations

import json
import sqlite3

import pika.spec
import pytest
from typer.testing import CliRunner

from gateway.cli.commands import app
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared
from gateway_amqp.translate.properties import WIRE_TAG
from tests.admin.journals import rig

QUEUE = 256


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("amqp") / "data"
    said = pika.spec.BasicProperties(
        headers={"n": 1, "raw": b"\xff"}, timestamp=(1 << 64) - 1, correlation_id="c", delivery_mode=2, type="reading"
    )
    with rig(directory) as found:
        found.record(QueueDeclared("/", QUEUE, QueueSpec("readings")))
        found.publish(b"21.5", QUEUE, wire_tag=WIRE_TAG, wire=b"".join(said.encode()))
        found.commit()
    return directory


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="tidegate")
    assert (result.exception, result.exit_code) == (None, 0)
    return result.stdout


def test_peek_shows_their_properties(data):
    (found,) = json.loads(run("peek", "readings", "--json", "--data-dir", data))
    said = found["properties"]
    assert (said["type"], said["timestamp_s"], said["headers"]) == ("reading", (1 << 64) - 1, {"n": 1, "raw": "ff"})


def test_an_export_has_their_properties_as_near_as_sqlite_has_numbers(data, tmp_path):
    run("journal", "export", tmp_path / "out.db", "--data-dir", data)
    connection = sqlite3.connect(tmp_path / "out.db")
    found = connection.execute("SELECT type, correlation_id, timestamp_s, headers FROM message").fetchall()
    connection.close()
    assert found == [("reading", "c", float((1 << 64) - 1), '{"n": 1, "raw": "ff"}')]
