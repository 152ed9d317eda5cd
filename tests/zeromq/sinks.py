"""A sink that notes what a peer asks for, and does nothing; and messages as an engine would hand them over."""

import json

import msgspec

from gateway.api import AccessRefused, Address, Message, Properties, encode_properties
from gateway_zeromq.tgp import codec
from gateway_zeromq.tgp.protocol import Peer, State
from gateway_zeromq.tgp.replies import Greeting, Rules
from gateway_zeromq.tgp.translate import properties_of

pack = msgspec.msgpack.encode


class Delivery:
    def __init__(self, body=b"x", redelivered=False, key="plant.3", props=None):
        wire = encode_properties(Properties(**props)) if props else b""
        self.message = Message(Address("/", "amq.topic", key), body, True, "common" if wire else "", wire)
        self.redelivered = redelivered
        self.count = 1
        self.position = 1
        self.options = None


class Consumer:
    """An engine's consumer as far as a peer can see it."""

    def __init__(self):
        self.granted = []

    def credit(self, delta):
        self.granted.append(delta)


class Sink:
    def __init__(self):
        self.asked = []
        self.violations = []
        self.touched = self.endings = 0
        self.greeting = Greeting("token", False, 0, (), "anonymous")
        self.refuse_greeting = False
        self.taken_away = []

    def touch(self):
        self.touched += 1

    def violated(self, reason):
        self.violations.append(reason)

    def greet(self, options):
        if self.refuse_greeting:
            raise AccessRefused("not you")
        self.asked.append(("greet", options))
        return self.greeting

    def ended(self):
        self.endings += 1

    def publish(self, command, body):
        self.asked.append(("publish", command, body))

    def consume(self, question, subscription, command, credit):
        self.asked.append(("consume", question, subscription, command, credit))

    def cancel(self, consumer):
        self.asked.append(("cancel", consumer))

    def get(self, question, command):
        self.asked.append(("get", question, command))

    def define(self, question, command):
        self.asked.append(("define", question, command))

    def ack(self, deliveries):
        self.asked += [("ack", delivery) for delivery in deliveries]

    def nack(self, delivery, *, requeue, delay_ms=0):
        self.asked.append(("nack", delivery, requeue, delay_ms) if delay_ms else ("nack", delivery, requeue))

    def extend(self, delivery, lease_ms):
        self.asked.append(("extend", delivery, lease_ms))
        return delivery not in self.taken_away

    def properties(self, message, *, as_json):
        return properties_of(
            message, lambda m: codec.msgspec.msgpack.decode(m.wire or b"\x80", type=Properties), lambda: 0, as_json=as_json
        )


class Conversation:
    """A peer, its sink, and what it was told."""

    def __init__(self, *, enveloped=False, greet=True, as_json=False, **rules):
        self.sink = Sink()
        self.peer = Peer(self.sink, Rules(**rules), enveloped=enveloped)
        self.now = 0.0
        self.as_json = as_json
        if greet:
            self.hello()

    def hello(self, **options):
        self.say(1, 1, 1, options) if not self.as_json else self.say_json("HELLO", r=1, version_max=1, options=options)
        assert self.peer.state is State.READY
        self.ready = self.heard()[-1]

    def say(self, *fields, body=None):
        self.peer.receive(pack(fields), body, self.now)

    def say_json(self, cmd, body=None, **fields):
        self.peer.receive(json.dumps({"cmd": cmd, **fields}).encode(), body, self.now)

    def heard(self):
        """Take what it was told: headers as lists (or dictionaries), with the body as the last element if there is one."""
        out = []
        for header, body in self.peer.out:
            said = json.loads(header) if header[:1] == b"{" else msgspec.msgpack.decode(header)
            out.append(said if body is None else (said, body))
        self.peer.out.clear()
        self.peer.out_bytes = 0
        return out

    def asked(self):
        asked, self.sink.asked = self.sink.asked, []
        return asked

    def consumer(self, tag="c1", credit=10, **options):
        """Begin a consumer and have it answered; return its subscription and the engine's side of it."""
        self.say(6, 5, "jobs", tag, credit, options or None)
        ((_, question, subscription, _, _),) = [item for item in self.asked() if item[0] == "consume"]
        consumer = Consumer()
        self.peer.deliveries.consuming(question, subscription, consumer)
        assert self.heard() == [[20, 5, None]]
        return subscription, consumer
