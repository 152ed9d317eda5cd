"""What does a stream of AMQP consist of, as tests write it by hand, and what did the splitter make of it?"""

from __future__ import annotations

import struct

from gateway_amqp.codec.names import BASIC_ACK, BASIC_PUBLISH
from gateway_amqp.codec.splitter import Splitter

MOST_BYTES = 10_000
PERSISTENT = b"\x10\x00\x02"


class Recorder:
    """A channel, and what gets the strays, that notes what it gets."""

    def __init__(self, number, events):
        self.number = number
        self.events = events
        self.then = None  # called after each event that comes here

    def _note(self, *event):
        self.events.append(event)
        if self.then is not None:
            self.then()

    def on_method(self, method, arguments):
        self._note("method", self.number, method, arguments)

    def on_publish(self, arguments, properties, body):
        assert type(arguments) is type(properties) is type(body) is bytes
        self._note("publish", self.number, arguments, properties, body)

    def on_ack(self, delivery_tag, multiple):
        assert type(multiple) is bool
        self._note("ack", self.number, delivery_tag, multiple)

    def on_too_large(self, size):
        self._note("too large", self.number, size)

    def on_stray(self, number, method, arguments):
        self._note("stray", number, method, arguments)

    def on_heartbeat(self):
        self._note("heartbeat")


def splitter(numbers=(1, 2, 3), most_bytes=MOST_BYTES, frame_max=4096):
    """Return a splitter for channels of these numbers, and the list of what it calls."""
    events = []
    channels = {number: Recorder(number, events) for number in numbers}
    return Splitter(Recorder(0, events), channels, most_bytes, frame_max), events


def frame(kind, number, payload, end=0xCE):
    return struct.pack(">BHI", kind, number, len(payload)) + payload + bytes((end,))


def method(number, id_, arguments=b""):
    return frame(1, number, struct.pack(">I", id_) + arguments)


def address(key=b"k", exchange=b""):
    return b"\0\0" + bytes((len(exchange),)) + exchange + bytes((len(key),)) + key + b"\0"


def header(number, size, properties=PERSISTENT, class_=60, weight=0):
    return frame(2, number, struct.pack(">HHQ", class_, weight, size) + properties)


def body(number, data):
    return frame(3, number, data)


def publish(number, data=b"x", key=b"k", properties=PERSISTENT, step=4096):
    """Return the frames of a publish, a list."""
    parts = [body(number, data[at : at + step]) for at in range(0, len(data), step)]
    return [method(number, BASIC_PUBLISH, address(key)), header(number, len(data), properties), *parts]


def ack(number, tag, multiple=False):
    return method(number, BASIC_ACK, struct.pack(">QB", tag, multiple))


def published(number, data=b"x", key=b"k", properties=PERSISTENT):
    """Return what the splitter makes of `publish`."""
    return "publish", number, address(key), properties, data
