"""QoS 2 with paho on both sides: a broker that is killed again and again neither loses nor doubles nor reorders a message."""

from __future__ import annotations

import random
import threading
import time

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.interop.killing import BrokerProcess

PATIENCE_S = 60

# paho makes a new pair of sockets each time its loop is started, and closes the former one by chance only.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


class Side:
    """A client whose session outlasts both the connection and the broker.

    It connects again when it is told to: paho forgets what it has released if an attempt to connect fails.
    """

    def __init__(self, port: int, client_id: str, version: MQTTProtocolVersion) -> None:
        five = version is MQTTProtocolVersion.MQTTv5
        kept = {} if five else {"clean_session": False}
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False, **kept)
        self.client.max_inflight_messages_set(20)
        self.connected = threading.Event()
        self.client.on_connect = lambda *_: self.connected.set()
        more = {}
        if five:
            lasting = Properties(PacketTypes.CONNECT)
            lasting.SessionExpiryInterval = 3_600
            more = {"clean_start": False, "properties": lasting}
        self.client.connect("127.0.0.1", port, **more)
        self.client.loop_start()
        assert self.connected.wait(PATIENCE_S)

    def lost(self) -> None:
        """The broker was killed."""
        self.client.loop_stop()
        self.connected.clear()

    def again(self) -> None:
        """The broker is back."""
        self.client.reconnect()
        self.client.loop_start()
        assert self.connected.wait(PATIENCE_S)

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def play(data_dir, version, kills, seed):
    """Return what was published and what came, while the broker was killed so often."""
    chance = random.Random(seed)
    broker = BrokerProcess(data_dir)
    broker.start()
    reader = Side(broker.port, "reader", version)
    came: list[int] = []
    reader.client.on_message = lambda _client, _data, message: came.append(int(message.payload))
    subscribed = threading.Event()
    reader.client.on_subscribe = lambda *_: subscribed.set()
    reader.client.subscribe("exactly/once", qos=2)
    assert subscribed.wait(PATIENCE_S)
    writer = Side(broker.port, "writer", version)
    count = 0
    for _ in range(kills):
        until, before = time.monotonic() + chance.uniform(0.05, 0.3), count
        while time.monotonic() < until or count - before <= 20:
            writer.client.publish("exactly/once", str(count), qos=2)
            count += 1
            time.sleep(0.001)
        broker.kill()
        for side in (writer, reader):
            side.lost()
        broker.start()
        for side in (writer, reader):
            side.again()
    deadline = time.monotonic() + PATIENCE_S
    while len(came) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # for what would come twice
    writer.leave()
    reader.leave()
    assert broker.stop() == 0
    return count, came


MANY_KILLS = {"marks": [pytest.mark.slow, pytest.mark.timeout(300)]}


@pytest.mark.parametrize(
    ("version", "kills"),
    [
        pytest.param(MQTTProtocolVersion.MQTTv5, 2, id="5.0"),
        pytest.param(MQTTProtocolVersion.MQTTv5, 25, id="5.0, many", **MANY_KILLS),
        pytest.param(MQTTProtocolVersion.MQTTv311, 25, id="3.1.1, many", **MANY_KILLS),
    ],
)
def test_every_message_of_qos_2_comes_once_and_in_order(tmp_path, version, kills):
    count, came = play(tmp_path / "data", version, kills, seed=kills)
    assert count > 20 * kills
    assert came == list(range(count))
