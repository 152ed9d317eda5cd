"""Do the programs of docs/amqp-tutorials.md print what it says, and are its errors those that come?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.docs.pages import ROOT, read
from tests.live_broker import TIDEGATE, LiveBroker

PAGE, block = read("docs/amqp-tutorials.md")
PATIENCE_S = 30
BROKER = """\
[frontend.amqp]
listen = ["tcp://127.0.0.1:5672"]
[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]
[frontend.zeromq]
enabled = false
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("tutorials"), BROKER) as broker:
        yield broker


@pytest.fixture
def channel(live):
    with pika.BlockingConnection(pika.ConnectionParameters(*live.where("amqp"))) as connection:
        yield connection.channel()


def program(live, name):
    """Return a program of the page, for the port that the broker has here."""
    host, port = live.where("amqp")
    text = block(name)
    assert 'ConnectionParameters("localhost")' in text
    return text.replace('ConnectionParameters("localhost")', f'ConnectionParameters("{host}", {port})')


def run(live, name):
    done = subprocess.run(
        [sys.executable, "-c", program(live, name)], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    return done.stdout


def tidegate(live, verb, *arguments):
    command = [TIDEGATE, verb, "--data-dir", str(live.directory / "data"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout


def test_a_message_waits_to_be_seen_and_is_received(live, running):
    run(live, "send")
    assert re.search(r"^hello +1 ", tidegate(live, "queues", "--no-rates"), re.MULTILINE)
    assert running(program(live, "receive")).stdout.readline() == block("received")


def test_a_device_reaches_the_queue_of_a_program(live, channel, running):
    reader = running(program(live, "queue"))
    bound = False
    while not bound:  # the program is on its way
        tidegate_pub(live)
        bound = "readings" in tidegate(live, "queues", "--no-rates")
    tidegate_pub(live)
    assert reader.stdout.readline() == block("printed")


def tidegate_pub(live):
    (said,) = re.findall(r"`tidegate pub ([^`]+)`", PAGE)
    host, port = live.where("mqtt")
    subprocess.run([TIDEGATE, "pub", "-h", host, "-p", str(port), *said.split()], check=True, timeout=PATIENCE_S)


def test_a_look_into_a_queue_takes_nothing(live, channel):
    channel.queue_declare("tasks", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "tasks", b"wash the dishes", pika.BasicProperties(delivery_mode=2))
    (line,) = block_of("tidegate peek")
    assert "wash the dishes" in tidegate(live, *line.split()[1:])
    assert channel.queue_declare("tasks", passive=True).method.message_count == 1


def block_of(beginning):
    return re.findall(rf"^{beginning} .*$", PAGE, re.MULTILINE)


def test_retries_go_as_the_page_says(live):
    assert run(live, "retries") == block("tried")


def test_its_errors_are_those_that_come(live, channel):
    said = re.findall(r"^\| .* \| `(\d{3}) ([^`]+)` \|$", PAGE.partition("<!-- errors -->")[2], re.MULTILINE)
    connection = channel.connection
    connection.channel().queue_delete("hello")

    def acknowledged_twice(channel):
        channel.basic_ack(1)
        channel.queue_declare("hello")

    def publish(channel):
        channel.basic_publish("logz", "", b"")
        channel.queue_declare("hello")

    channel.queue_declare("hello")
    for wrong, (code, text) in zip(
        (
            lambda channel: channel.queue_declare("hello", durable=True),
            acknowledged_twice,
            lambda channel: channel.basic_consume("hallo", print),
            publish,
        ),
        said,
        strict=False,
    ):
        with pytest.raises(ChannelClosedByBroker) as error:
            wrong(connection.channel())
        assert (str(error.value.reply_code), error.value.reply_text) == (code, text)
    assert said[4][0] == "403"  # tests/docs/test_amqp.py provokes it
    assert len(said) == 5


def test_every_program_that_the_page_names_is_there():
    table = PAGE.partition("## The six steps")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+\.py)`", table))
    assert named == {path.name for path in (ROOT / "examples" / "amqp").glob("*.py")}
    assert Path(ROOT / "examples" / "amqp").is_dir()
