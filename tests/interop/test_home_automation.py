"""What Home Assistant and Zigbee2MQTT do with a broker: discovery, availability, birth, many retained states, a restart."""

from __future__ import annotations

import json
import queue
import socket

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.live_broker import LiveBroker

CONFIGURATION = """\
[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]
[frontend.zeromq]
enabled = false
"""
DEVICES = 120
ENTITIES = (("sensor", "temperature"), ("sensor", "battery"), ("binary_sensor", "contact"), ("switch", "switch"))
PATIENCE_S = 60


class Program:
    """A client that connects again by itself, as these programs do."""

    def __init__(self, where, version, client_id, will):
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version)
        self.client.reconnect_delay_set(0.05, 0.2)
        self.client.will_set(will[0], will[1], qos=1, retain=True)
        self.client.on_connect = self._connected
        self.client.on_message = lambda client, data, message: self.inbox.put(message)
        self.inbox = queue.Queue()
        self.connects = queue.Queue()
        self.subscribed = queue.Queue()
        self.client.on_subscribe = lambda client, data, packet_id, codes, properties: self.subscribed.put(packet_id)
        self.filters = {}
        self.client.connect(where[0], where[1], keepalive=15)
        self.client.loop_start()
        self.connects.get(timeout=PATIENCE_S)

    def _connected(self, client, data, flags, reason, properties):
        assert not reason.is_failure
        if self.filters:
            client.subscribe(list(self.filters.items()))
        self.connects.put(flags.session_present)

    def subscribe(self, *filters, qos=1):
        """Subscribe, and wait until it is so."""
        self.filters.update(dict.fromkeys(filters, qos))
        _, packet_id = self.client.subscribe([(pattern, qos) for pattern in filters])
        while self.subscribed.get(timeout=PATIENCE_S) != packet_id:
            pass

    def publish(self, topic, payload, *, qos=1, retain=False):
        body = payload if isinstance(payload, str | bytes) else json.dumps(payload)
        return self.client.publish(topic, body, qos=qos, retain=retain)

    def take(self, count):
        return [self.inbox.get(timeout=PATIENCE_S) for _ in range(count)]

    def until(self, topic, payload):
        """Take messages until this one has come; return all of them."""
        taken = []
        while not taken or (taken[-1].topic, taken[-1].payload) != (topic, payload):
            taken.append(self.inbox.get(timeout=PATIENCE_S))
        return taken

    def die(self):
        """The connection breaks without a goodbye."""
        self.client.loop_stop()
        self.client.socket().shutdown(socket.SHUT_RDWR)

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


class Zigbee(Program):
    """Zigbee2MQTT: bridge state, device list, discovery, availability and states, all retained; commands come in."""

    def __init__(self, where, version):
        super().__init__(where, version, "zigbee2mqtt", ("zigbee2mqtt/bridge/state", '{"state":"offline"}'))
        self.subscribe("zigbee2mqtt/+/set", "zigbee2mqtt/bridge/request/#", "homeassistant/status")
        self.announce()

    def announce(self):
        self.publish("zigbee2mqtt/bridge/state", '{"state":"online"}', retain=True)
        self.publish("zigbee2mqtt/bridge/devices", [{"friendly_name": name(n)} for n in range(DEVICES)], retain=True)
        for number in range(DEVICES):
            for component, entity in ENTITIES:
                self.publish(f"homeassistant/{component}/0x{number:016x}/{entity}/config", discovery(number, entity), retain=True)
            self.publish(f"zigbee2mqtt/{name(number)}/availability", '{"state":"online"}', retain=True)
            last = self.publish(f"zigbee2mqtt/{name(number)}", {"temperature": number, "battery": 90}, retain=True)
        last.wait_for_publish(PATIENCE_S)


class Home(Program):
    """Home Assistant: discovers by wildcards, says when it was born, follows every entity that it found."""

    def __init__(self, where, version):
        super().__init__(where, version, "homeassistant", ("homeassistant/status", "offline"))
        self.subscribe("homeassistant/+/+/config", "homeassistant/+/+/+/config", qos=0)
        self.publish("homeassistant/status", "online", retain=True)

    def discover(self, count):
        found = [json.loads(message.payload) for message in self.take(count)]
        topics = sorted({entity["state_topic"] for entity in found} | {entity["availability_topic"] for entity in found})
        self.subscribe("zigbee2mqtt/bridge/state", *topics)
        return found


def name(number):
    return f"sensor {number}"


def discovery(number, entity):
    return {
        "unique_id": f"0x{number:016x}_{entity}",
        "state_topic": f"zigbee2mqtt/{name(number)}",
        "availability_topic": f"zigbee2mqtt/{name(number)}/availability",
        "value_template": "{{ value_json." + entity + " }}",
    }


@pytest.fixture
def broker(tmp_path):
    with LiveBroker(tmp_path, CONFIGURATION) as running:
        yield running


@pytest.mark.parametrize(
    "version", [pytest.param(MQTTProtocolVersion.MQTTv311, marks=pytest.mark.slow), MQTTProtocolVersion.MQTTv5]
)
def test_a_home_goes_on_through_discovery_loss_and_a_broker_that_is_killed(broker, version):
    where = broker.where("mqtt")
    zigbee = Zigbee(where, version)
    home = Home(where, version)

    # Everything was retained before it came: it finds all entities, then all their states, availabilities and the bridge's state.
    found = home.discover(DEVICES * len(ENTITIES))
    assert len({entity["unique_id"] for entity in found}) == DEVICES * len(ENTITIES)
    states = home.take(2 * DEVICES + 1)
    assert all(message.retain for message in states)
    assert {message.topic for message in states} >= {f"zigbee2mqtt/{name(n)}" for n in range(DEVICES)}

    # The bridge sees the birth; a command goes one way, the new state the other, not retained as it comes live.
    assert zigbee.take(1)[0].payload == b"online"
    home.publish("zigbee2mqtt/sensor 7/set", {"state": "ON"})
    assert zigbee.take(1)[0].topic == "zigbee2mqtt/sensor 7/set"
    zigbee.publish("zigbee2mqtt/sensor 7", {"switch": "ON"}, retain=True)
    live = home.take(1)[0]
    assert (live.topic, json.loads(live.payload), live.retain) == ("zigbee2mqtt/sensor 7", {"switch": "ON"}, False)

    # An entity that goes is cleared by an empty retained message, and not discovered any more.
    cleared = zigbee.publish(f"homeassistant/switch/0x{7:016x}/switch/config", b"", retain=True)
    cleared.wait_for_publish(PATIENCE_S)  # else it would be sent again after the restart
    assert home.take(1)[0].payload == b""

    # The broker is killed: both come back by themselves, and everything that was retained is there.
    broker.kill()
    broker.start()
    for program in (zigbee, home):
        program.connects.get(timeout=PATIENCE_S)
    again = home.take(DEVICES * len(ENTITIES) - 1 + 2 * DEVICES + 1)
    last = {message.topic: message.payload for message in again}
    assert json.loads(last["zigbee2mqtt/sensor 7"]) == {"switch": "ON"}
    assert f"homeassistant/switch/0x{7:016x}/switch/config" not in last
    assert len([topic for topic in last if topic.endswith("/config")]) == DEVICES * len(ENTITIES) - 1

    # The bridge is lost without a goodbye: its will says so, to those who are there and to those who come later.
    zigbee.die()
    assert home.until("zigbee2mqtt/bridge/state", b'{"state":"offline"}')[-1].retain is False
    late = Program(where, version, "late", ("late", "x"))
    late.subscribe("zigbee2mqtt/bridge/state")
    assert (late.take(1)[0].payload, late.inbox.qsize()) == (b'{"state":"offline"}', 0)
    late.leave()
    home.leave()


def test_states_that_come_fast_arrive_in_order_and_the_last_one_is_kept(broker):
    where = broker.where("mqtt")
    zigbee = Program(where, MQTTProtocolVersion.MQTTv5, "bridge", ("z/state", "offline"))
    home = Program(where, MQTTProtocolVersion.MQTTv5, "home", ("h/status", "offline"))
    home.subscribe("z/+/power", qos=0)
    for number in range(2_000):
        zigbee.publish(f"z/{number % 10}/power", str(number), qos=0, retain=True)
    seen = {}
    for message in home.take(2_000):
        assert int(message.payload) > seen.get(message.topic, -1)
        seen[message.topic] = int(message.payload)
    late = Program(where, MQTTProtocolVersion.MQTTv5, "late", ("l/status", "offline"))
    late.subscribe("z/+/power")
    assert {message.topic: int(message.payload) for message in late.take(10)} == seen
    for program in (zigbee, home, late):
        program.leave()
