"""Is the walk of docs/moving-from-rabbitmq.md true?

The definitions are RabbitMQ 3.10.8's own (tests/docs/rabbitmq_definitions.json). Messages are moved from RabbitMQ if
TIDEGATE_TEST_AMQP names the port of one, else from another Tidegate.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pika
import pytest
from pika import BasicProperties

from tests.docs.pages import read
from tests.interop.amqp_programs import oracle_port, until
from tests.live_broker import TIDEGATE, LiveBroker

PAGE, block = read("docs/moving-from-rabbitmq.md")
DEFINITIONS = Path(__file__).with_name("rabbitmq_definitions.json")
PATIENCE_S = 60
BROKER = """\
[frontend.amqp]
listen = ["tcp://127.0.0.1:5672"]
[frontend.mqtt]
enabled = false
[frontend.zeromq]
enabled = false
"""


def sh(live, name):
    """Run the commands of a block beside the definitions, and return what they print."""
    said = ""
    for line in block(name).splitlines():
        program, *arguments = line.split()
        assert program == "tidegate"
        command = [TIDEGATE, *arguments, "--data-dir", str(live.directory / "data")]
        done = subprocess.run(command, cwd=live.directory, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        said += done.stdout
    return said


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("new"), BROKER) as broker:
        shutil.copy(DEFINITIONS, broker.directory / "definitions.json")
        yield broker


@pytest.fixture(scope="module")
def new(live):
    """The address of a broker with RabbitMQ's definitions."""
    assert sh(live, "try") == block("said")
    taken = [TIDEGATE, *block("try").split()[1:-1], "--data-dir", str(live.directory / "data")]
    done = subprocess.run(taken, cwd=live.directory, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == block("said").replace("would be taken", "taken")
    return "amqp://guest:guest@{}:{}/%2F".format(*live.where("amqp"))


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The address of the broker from which messages are moved."""
    port = oracle_port()
    if port is not None:
        yield f"amqp://guest:guest@127.0.0.1:{port}/%2F"
        return
    with LiveBroker(tmp_path_factory.mktemp("old"), BROKER) as broker:
        yield "amqp://guest:guest@{}:{}/%2F".format(*broker.where("amqp"))


def connected(url):
    return pika.BlockingConnection(pika.URLParameters(url))


def test_the_definitions_of_a_rabbitmq_are_taken_and_seen(live, new):
    seen = sh(live, "look")
    assert all(name in seen for name in ("orders.north", "orders.dead", "jobs", "late", "everywhere"))
    with connected(new.replace("%2F", "reports")) as connection:
        assert connection.channel().is_open
    with connected(new) as connection:
        channel = connection.channel()
        arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": "dead", "x-delivery-limit": 5}
        channel.queue_declare("orders.north", durable=True, arguments=arguments)  # as a program of RabbitMQ's would


def fill(url, queue, count):
    with connected(url) as connection:
        channel = connection.channel()
        channel.queue_delete(queue)
        channel.queue_declare(queue, durable=True)
        channel.exchange_declare("orders", "topic", durable=True)
        channel.queue_bind(queue, "orders", "order.#")
        channel.tx_select()
        for number in range(count):
            properties = BasicProperties(delivery_mode=2, content_type="text/plain", headers={"number": number}, user_id="guest")
            channel.basic_publish("orders", f"order.{number}", b"%d" % number, properties)
        channel.tx_commit()


def test_messages_are_moved_with_their_properties_and_keys_in_order(new, old, tmp_path):
    fill(old, "orders.north", 503)
    program = tmp_path / "move.py"
    program.write_text(block("move"))
    command = [sys.executable, program, old, new, "orders.north"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == "orders.north: 503 moved\n"
    with connected(old) as connection:
        until(lambda: connection.channel().queue_declare("orders.north", passive=True).method.message_count == 0)
    with connected(new) as connection:
        channel = connection.channel()
        for number in range(503):
            method, properties, body = channel.basic_get("orders.north", auto_ack=True)
            assert (method.routing_key, properties.content_type, body) == (f"order.{number}", "text/plain", b"%d" % number)
            assert (properties.delivery_mode, properties.headers, properties.user_id) == (2, {"number": number}, None)
        assert channel.basic_get("orders.north") == (None, None, None)


def test_a_full_queue_refuses_and_the_old_broker_keeps_all(new, old, tmp_path):
    fill(old, "jobs", 10)
    with connected(new) as connection:
        channel = connection.channel()
        channel.queue_delete("jobs")
        channel.queue_declare("jobs", durable=True, arguments={"x-max-length": 5, "x-overflow": "reject-publish"})
        command = [sys.executable, "-c", block("move"), old, new, "jobs"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert "queue 'jobs' is full" in done.stderr
        assert channel.queue_declare("jobs", passive=True).method.message_count == 0
    with connected(old) as connection:
        channel = connection.channel()
        until(lambda: channel.queue_declare("jobs", passive=True).method.message_count == 10)


@pytest.mark.slow
def test_with_stay_it_moves_what_still_comes(new, old, running):
    fill(old, "orders.dead", 1)
    program = f"import sys; sys.argv = ['move.py', {old!r}, {new!r}, 'orders.dead', '--stay']\n" + block("move")
    running(program)
    with connected(old) as old_connection, connected(new) as new_connection:
        channel = new_connection.channel()
        until(lambda: channel.basic_get("orders.dead", auto_ack=True)[2] == b"0")
        old_connection.channel().basic_publish("", "orders.dead", b"late")
        until(lambda: channel.basic_get("orders.dead", auto_ack=True)[2] == b"late")
