"""What becomes of messages to plain PULL peers when brokers end, on either side?"""

import pytest
import zmq

from gateway.client import connect
from tests.live_broker import LiveBroker

COUNT = 600
HOME = """\
[frontend.mqtt]
enabled = false

[[frontend.zeromq.endpoint]]
socket = "PUSH"
queue = "jobs"
ack = "pong"
window = 64
worker_rcvhwm = 1
{way}

[[frontend.zeromq.endpoint]]
socket = "ROUTER"
bind = ["tcp://127.0.0.1:5570"]
"""
FAR = """\
[frontend.mqtt]
enabled = false

[[frontend.zeromq.endpoint]]
socket = "PULL"
bind = ["tcp://127.0.0.1:5557"]
exchange = ""
routing_key = "done"
rcvhwm = 1

[[frontend.zeromq.endpoint]]
socket = "ROUTER"
bind = ["tcp://127.0.0.1:5570"]
"""


def publish(broker, numbers):
    with connect(broker.addresses["ROUTER"]) as client:
        for n in numbers:
            client.publish("", "jobs", b"%d" % n)
        client.flush()


@pytest.mark.slow
def test_a_worker_gets_everything_though_the_broker_is_killed_and_stopped(tmp_path):
    context = zmq.Context()
    worker = context.socket(zmq.PULL)
    worker.setsockopt(zmq.RCVHWM, 1)
    worker.setsockopt(zmq.RCVTIMEO, 60_000)
    try:
        with LiveBroker(tmp_path, HOME.format(way='bind = ["tcp://127.0.0.1:5558"]')) as broker:
            publish(broker, range(COUNT))
            worker.connect(broker.addresses["PUSH"])
            got = [int(worker.recv()) for _ in range(COUNT // 3)]
            broker.kill()
            broker.start()
            while len(set(got)) < 2 * COUNT // 3:
                got.append(int(worker.recv()))
            broker.stop()
            broker.start()
            while len(set(got)) < COUNT:
                got.append(int(worker.recv()))
        assert set(got) == set(range(COUNT))
    finally:
        worker.close(0)
        context.term()


@pytest.mark.slow
def test_from_broker_to_broker_nothing_is_lost_when_one_is_killed_and_the_other_stopped(tmp_path):
    for name in ("far", "home"):
        (tmp_path / name).mkdir()
    with LiveBroker(tmp_path / "far", FAR) as far:
        with connect(far.addresses["ROUTER"]) as client:
            client.declare_queue("done", durable=True)
        there = far.addresses["PULL"].replace("127.0.0.1", "localhost")
        with LiveBroker(tmp_path / "home", HOME.format(way=f'connect = ["{there}"]')) as home:
            publish(home, range(COUNT))
            done = taken(far, COUNT // 4)
            far.stop()
            far.start()
            done |= taken(far, COUNT // 4)
            home.kill()
            home.start()
            while len(done) < COUNT:
                done |= taken(far, 1)
            assert done == set(range(COUNT))


def taken(broker, count):
    """Take so many messages from the queue at the far end."""
    got = []
    with connect(broker.addresses["ROUTER"]) as client:
        consumer = client.consume("done", credit=50)
        for delivery in consumer:
            got.append(int(delivery.body))
            delivery.ack()
            if len(got) >= count:
                break
    return set(got)
