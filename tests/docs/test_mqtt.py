"""Is docs/mqtt.md true?"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.client import connect
from gateway.model.properties import Properties as Common
from tests.live_broker import LiveBroker

PAGE = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text()
RESPONDER = re.findall(r"^<!-- responder -->\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("broker")) as live:
        yield live


@pytest.fixture
def client(live):
    """A client of MQTT 5 that puts what it gets into ``got``."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.got = queue.Queue()
    client.subscribed = queue.Queue()
    client.on_message = lambda _client, _data, message: client.got.put(message)
    client.on_subscribe = lambda *_: client.subscribed.put(True)
    client.connect(*live.where("mqtt"))
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


def said(**values):
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def subscribe(client, topic):
    client.subscribe(topic, 1)
    client.subscribed.get(timeout=60)


def test_every_field_of_the_common_form_is_in_the_table():
    rows = PAGE[: PAGE.index("QoS and the RETAIN flag")]
    left = set(Common.__struct_fields__) - {name for name in Common.__struct_fields__ if f"`{name}`" in rows}
    assert left == {"expiration_ms"}  # the message's own expiry


def test_a_program_without_mqtt_answers_requests_of_an_mqtt_5_client(live, client):
    subscribe(client, "answers/1")
    program = RESPONDER.replace("tcp://127.0.0.1:5570", live.addresses["ROUTER"])
    responder = subprocess.Popen([sys.executable, "-c", program])
    try:
        with connect(live.addresses["ROUTER"]) as early:  # so that the question waits, whenever the program comes
            early.declare_queue("questions")
            early.bind("questions", "amq.topic", "ask.#")
        user = [("a", "1"), ("b", "x"), ("a", "2")]
        asked = said(ResponseTopic="answers/1", CorrelationData=b"\0\xff7", UserProperty=user, MessageExpiryInterval=60)
        client.publish("ask/everything", b"?", 1, properties=asked)
        answer = client.got.get(timeout=60)
        assert (answer.topic, answer.payload) == ("answers/1", b"42")
        assert answer.properties.CorrelationData == b"\0\xff7"
        assert answer.properties.UserProperty == [("a", "1"), ("a", "2"), ("b", "x")]
    finally:
        responder.kill()
        responder.wait()


def test_a_zeromq_program_hears_mqtt_5_properties_and_an_mqtt_5_client_hears_those_of_the_program(live, client):
    subscribe(client, "readings/#")
    with connect(live.addresses["ROUTER"]) as program:
        program.declare_queue("copies")
        program.bind("copies", "amq.topic", "readings.#")
        text = said(ContentType="text/plain", PayloadFormatIndicator=1, UserProperty=[("unit", "°C")])
        client.publish("readings/1", b"20,5", 2, properties=text)
        copy = next(iter(program.consume("copies")))
        assert copy.properties == {"content_type": "text/plain", "content_encoding": "utf-8", "headers": {"unit": "°C"}}
        copy.ack()
        assert client.got.get(timeout=60).properties.UserProperty == [("unit", "°C")]
        program.publish("amq.topic", "readings.2", b"21", {"headers": {"unit": "K", "n": 3}, "expiration_ms": 600_000}, wait=True)
    heard = client.got.get(timeout=60)
    assert (heard.topic, heard.payload, heard.qos) == ("readings/2", b"21", 1)
    assert heard.properties.UserProperty == [("unit", "K"), ("n", "3")]
    assert 500 <= heard.properties.MessageExpiryInterval <= 600
