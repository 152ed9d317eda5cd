"""What do devices, workers and programs do, each with its own protocol, that meet in one broker?"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import contextmanager

import paho.mqtt.client as paho
import pika
import zmq
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as MqttProperties

from tests.interop.amqp_programs import PATIENCE_S


class Device:
    """A client of paho, with MQTT 5."""

    def __init__(self, port, filters):
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False)
        self._messages = queue.SimpleQueue()
        ready = queue.SimpleQueue()
        self.client.on_message = lambda _c, _u, message: self._messages.put(message)
        self.client.on_connect = lambda *_: ready.put("connected")
        self.client.on_subscribe = lambda *_: ready.put("subscribed")
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        ready.get(timeout=PATIENCE_S)
        if filters:
            self.client.subscribe([(one, paho.SubscribeOptions(1)) for one in filters])
            ready.get(timeout=PATIENCE_S)

    def publish(self, topic, payload, *, qos=1, retain=False, **properties):
        said = MqttProperties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(said, name, value)
        self.client.publish(topic, payload, qos, retain, said).wait_for_publish(PATIENCE_S)

    def next(self):
        return self._messages.get(timeout=PATIENCE_S)

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()
        self.client.on_message = self.client.on_connect = self.client.on_subscribe = None  # else it keeps its sockets for long


def bound(channel, key, **arguments):
    """Return a queue of one's own for a key of amq.topic."""
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(name, "amq.topic", key, arguments or None)
    return name


def received(channel, name):
    """Return the next message of a queue: method, properties, body."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := channel.basic_get(name, auto_ack=True))[0] is None:
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.005)
    return found


class Puller(threading.Thread):
    """A plain PULL socket: ``got``: what it was given."""

    def __init__(self, address):
        super().__init__()
        self.got: list[bytes] = []
        self._address = address
        self._over = threading.Event()

    def run(self):
        with zmq.Context() as context, context.socket(zmq.PULL) as pull:
            pull.setsockopt(zmq.RCVHWM, 10)
            pull.setsockopt(zmq.LINGER, 0)
            pull.connect(self._address)
            while not self._over.is_set():
                if pull.poll(20):
                    self.got.append(pull.recv())

    def end(self):
        self._over.set()
        self.join()


class Colleague(threading.Thread):
    """A program with pika that acknowledges one by one. ``got``: what it was given."""

    def __init__(self, port):
        super().__init__()
        self.got: list[bytes] = []
        self.ready = threading.Event()
        self._port = port
        self._over = threading.Event()

    def run(self):
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self._port))
        mine = connection.channel()
        mine.basic_qos(prefetch_count=10)
        for method, _, body in mine.consume("work", inactivity_timeout=0.02):
            self.ready.set()
            if self._over.is_set():
                break
            if method is not None:
                self.got.append(body)
                mine.basic_ack(method.delivery_tag)
        connection.close()

    def end(self):
        self._over.set()
        self.join()


@contextmanager
def working(*workers):
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.end()


def answering(port, name, key, ready):
    """Answer one request, as RabbitMQ's tutorials do."""
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    mine = connection.channel()
    mine.queue_declare(name, durable=True)
    mine.queue_bind(name, "amq.topic", key)
    ready.set()
    for method, properties, body in mine.consume(name):
        answer = pika.BasicProperties(correlation_id=properties.correlation_id)
        mine.basic_publish("", properties.reply_to, body[::-1], answer)
        mine.basic_ack(method.delivery_tag)
        break
    connection.close()
