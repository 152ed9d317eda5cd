"""How does a program speak TGP/1 to a gateway? Needs pyzmq and msgspec, and nothing else of this distribution.

For programs without an event loop; `gateway.client.on_trio` has the same for programs with trio's.

with connect("tcp://127.0.0.1:5570", client="billing") as client:
    client.declare_queue("jobs")
    client.publish("", "jobs", b"work", wait=True)
    for delivery in client.consume("jobs", credit=10):
        delivery.ack()
"""

from gateway.client.client import Client, connect
from gateway.client.deliveries import Consumer, Delivery, Properties
from gateway.client.errors import (
    ClientError,
    ConsumerCancelled,
    Disconnected,
    PublishRefused,
    RequestRefused,
    TimedOut,
    Unroutable,
)
from gateway.client.replies import Confirm, Returned
from gateway.client.security import Curve, Plain

__all__ = [
    "Client",
    "ClientError",
    "Confirm",
    "Consumer",
    "ConsumerCancelled",
    "Curve",
    "Delivery",
    "Disconnected",
    "Plain",
    "Properties",
    "PublishRefused",
    "RequestRefused",
    "Returned",
    "TimedOut",
    "Unroutable",
    "connect",
]
