"""What is lost when workers, subscribers and the broker are killed? As docs/zeromq.md says, and no more."""

import subprocess
import sys
import time

import pytest
import zmq

from gateway.client import connect
from tests.live_broker import TIDEGATE, LiveBroker

REQUESTS = 300
CONFIGURATION = """\
[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]

[[frontend.zeromq.endpoint]]
name = "work"
socket = "DEALER"
bind = ["tcp://127.0.0.1:5571"]
queue = "work"
window = 4
reply_timeout_ms = 500

[[frontend.zeromq.endpoint]]
name = "events"
socket = "XPUB"
bind = ["tcp://127.0.0.1:5559"]

[[frontend.zeromq.endpoint]]
name = "results"
socket = "PUB"
bind = ["tcp://127.0.0.1:5560"]
queue = "results"

[[frontend.zeromq.endpoint]]
name = "services"
socket = "ROUTER"
bind = ["tcp://127.0.0.1:5570"]
"""
WORKER = """\
import time, zmq
worker = zmq.Context().socket(zmq.REP)
worker.connect({address!r})
while True:
    request = worker.recv()
    time.sleep(0.005)
    worker.send(request.upper())
"""


@pytest.fixture
def broker(tmp_path):
    with LiveBroker(tmp_path, CONFIGURATION) as broker:
        yield broker


@pytest.fixture
def start_worker(broker):
    workers = []

    def start():
        workers.append(subprocess.Popen([sys.executable, "-c", WORKER.format(address=broker.addresses["DEALER"])]))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


def waiting(broker, queue):
    with connect(broker.addresses["ROUTER"]) as client:
        return client.declare_queue(queue, durable=True)["messages"]


def wait_for(happened, seconds=60):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_no_request_is_lost_when_workers_and_the_broker_are_killed(broker, start_worker):
    with connect(broker.addresses["ROUTER"]) as client:
        client.declare_queue("replies", durable=True)
        for n in range(REQUESTS):
            client.publish("", "work", b"request %d" % n, {"reply_to": "replies", "correlation_id": str(n)})
        client.flush()
    first, _ = start_worker(), start_worker()
    wait_for(lambda: waiting(broker, "replies") > REQUESTS // 4)
    first.kill()
    wait_for(lambda: waiting(broker, "replies") > REQUESTS // 2)
    broker.kill()
    broker.start()
    start_worker()
    wait_for(lambda: waiting(broker, "work") == 0 and waiting(broker, "replies") >= REQUESTS)
    answers = set()
    with connect(broker.addresses["ROUTER"]) as client:
        while (delivery := client.get("replies", no_ack=True)) is not None:
            answers.add((delivery.properties["correlation_id"], delivery.body))
    assert answers == {(str(n), b"REQUEST %d" % n) for n in range(REQUESTS)}


def subscriber(address):
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)
    socket.setsockopt(zmq.LINGER, 0)
    socket.subscribe(b"")
    socket.connect(address)
    return socket


@pytest.mark.slow
def test_a_subscriber_gets_the_last_values_when_the_broker_is_back_and_a_queue_s_messages_wait(broker):
    def say(value):
        host, port = broker.where("mqtt")
        subprocess.run([TIDEGATE, "pub", "-r", "-q", "1", "-h", host, "-p", str(port), "door", value], check=True, timeout=60)

    say("open")
    events = subscriber(broker.addresses["XPUB"])
    try:
        assert events.recv_multipart() == [b"door", b"open"]
        with connect(broker.addresses["ROUTER"]) as client:
            client.publish("", "results", b"42", wait=True)
        broker.kill()
        broker.start()
        assert events.recv_multipart() == [b"door", b"open"], "it has subscribed again by itself"
        say("closed")
        assert events.recv_multipart() == [b"door", b"closed"]
        results = subscriber(broker.addresses["PUB"])
        try:
            assert results.recv_multipart() == [b"results", b"42"]
        finally:
            results.close()
    finally:
        events.close()
