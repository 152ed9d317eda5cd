"""Do programs that speak Majordomo get all their answers, though workers and the broker are killed?"""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.client import RequestRefused, connect
from tests.interop import majordomo_peers
from tests.interop.majordomo_peers import Client, ManyRequests
from tests.live_broker import LiveBroker

CONFIGURATION = """\
[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]

[[frontend.zeromq.endpoint]]
name = "services"
socket = "ROUTER"
bind = ["tcp://127.0.0.1:5570"]
protocols = ["tgp/1", "mdp/0.1", "mdp/0.2"]
mdp_durable = true
mdp_services.temp = { exchange = "amq.topic", routing_key = "plant.3.get" }
"""


class Workers:
    """Worker programs that can be killed."""

    def __init__(self, address: str, service: str = "echo") -> None:
        self.address = address
        self.service = service
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, count: int = 1, *, hold_after: int | None = None) -> list[subprocess.Popen[str]]:
        command = [sys.executable, majordomo_peers.__file__, self.address, self.service]
        command += [] if hold_after is None else [str(hold_after)]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        self.processes += started
        return started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()


def with_majordomo(directory: Path) -> LiveBroker:
    return LiveBroker(directory, CONFIGURATION)


@pytest.mark.slow
def test_10_000_requests_have_10_000_replies_though_workers_are_killed_half_way(tmp_path):
    count, window = 10_000, 500
    with with_majordomo(tmp_path) as broker, Workers(broker.addresses["ROUTER"]) as workers:
        first = workers.start(3)
        with closing(ManyRequests(broker.addresses["ROUTER"])) as client:
            asked = 0
            replies: list[int] = []
            while len(replies) < count:
                while asked < count and asked - len(replies) < window:
                    client.ask(b"echo", b"%d" % asked)
                    asked += 1
                (reply,) = client.answer()
                replies.append(int(reply))
                if len(replies) == count // 2:
                    for process in first[:2]:
                        process.kill()
                    workers.start(2)
            assert sorted(replies) == list(range(count))


def wait_until_stored(address: str, queue: str, count: int) -> None:
    """Wait until so many requests are in a queue, and on disk: a confirm covers what came before."""

    def messages() -> int:
        try:
            return int(client.declare_queue(queue, passive=True)["messages"])
        except RequestRefused:  # the first request makes it
            return 0

    with connect(address) as client:
        while messages() != count:
            pass
        client.publish("amq.topic", "nothing", b"", wait=True)


def test_requests_survive_kill_9_of_worker_and_broker(tmp_path):
    count, before = 200, 50
    with (
        with_majordomo(tmp_path) as broker,
        Workers(broker.addresses["ROUTER"]) as workers,
        closing(ManyRequests(broker.addresses["ROUTER"], b"asker")) as client,
    ):
        for number in range(count):
            client.ask(b"echo", b"%d" % number)
        wait_until_stored(broker.addresses["ROUTER"], "mdp.echo", count)
        (worker,) = workers.start(hold_after=before)
        replies = [int(client.answer()[0]) for _ in range(before)]
        assert worker.stdout.readline() == f"holding {before}\n"
        worker.kill()
        broker.kill()
        broker.start()
        client.ask(b"mmi.service", b"echo")
        assert client.answer() == [b"404"]  # it is back before its replies come
        workers.start(2)
        while len(set(replies)) < count:
            replies.append(int(client.answer()[0]))
        assert set(replies) == set(range(count))


@pytest.mark.slow
def test_a_client_that_asks_again_gets_its_answer_from_the_next_broker(tmp_path):
    with (
        with_majordomo(tmp_path) as broker,
        Workers(broker.addresses["ROUTER"]) as workers,
        closing(Client(broker.addresses["ROUTER"], patience_s=1, retries=60)) as client,
    ):
        workers.start()
        assert client.call(b"echo", b"1") == [b"1"]
        broker.kill()
        answers: list[list[bytes] | None] = []
        asking = threading.Thread(target=lambda: answers.append(client.call(b"echo", b"2")))
        asking.start()
        broker.start()
        asking.join(90)
        assert answers == [[b"2"]]


class Mqtt5:
    """A paho client of version 5, connected."""

    def __init__(self, broker: LiveBroker) -> None:
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="", protocol=paho.MQTTv5)
        ready = threading.Event()
        self.paho.on_connect = lambda *_: ready.set()
        self.paho.on_subscribe = lambda *_: self.subscribed.set()
        self.subscribed = threading.Event()
        self.paho.connect(*broker.where("mqtt"))
        self.paho.loop_start()
        assert ready.wait(60)

    def subscribe(self, topic: str) -> None:
        self.paho.subscribe(topic, 1)
        assert self.subscribed.wait(60)

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


def test_an_mqtt_5_device_is_a_service_for_majordomo_clients(tmp_path):
    with (
        with_majordomo(tmp_path) as broker,
        closing(Mqtt5(broker)) as device,
    ):

        def answer(client, _data, message):
            reply = Properties(PacketTypes.PUBLISH)
            reply.CorrelationData = message.properties.CorrelationData
            client.publish(message.properties.ResponseTopic, message.payload + b" 21.5", 1, properties=reply)

        device.paho.on_message = answer
        device.subscribe("plant/+/get")
        with closing(Client(broker.addresses["ROUTER"])) as client:
            assert client.call(b"mmi.service", b"temp") == [b"200"]
            assert client.call(b"temp", b"now") == [b"now 21.5"]


def test_a_majordomo_worker_answers_an_mqtt_5_client(tmp_path):
    with with_majordomo(tmp_path) as broker, Workers(broker.addresses["ROUTER"], "temp") as workers:
        workers.start()
        with closing(Client(broker.addresses["ROUTER"])) as client:
            while client.call(b"mmi.service", b"temp") != [b"200"]:
                pass
            with closing(Mqtt5(broker)) as asking:
                got: list[tuple[bytes, bytes]] = []
                answered = threading.Event()

                def on_message(_client, _data, message):
                    got.append((message.payload, message.properties.CorrelationData))
                    answered.set()

                asking.paho.on_message = on_message
                asking.subscribe("answers/1")
                question = Properties(PacketTypes.PUBLISH)
                question.ResponseTopic = "answers/1"
                question.CorrelationData = b"\1\2"
                asking.paho.publish("plant/3/get", b"21", 1, properties=question)
                assert answered.wait(60)
                assert got == [(b"21", b"\1\2")]
