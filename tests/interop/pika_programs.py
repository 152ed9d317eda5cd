"""What do programs with pika do again and again?"""

import time

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.interop.amqp_programs import PATIENCE_S

DURABLE = pika.BasicProperties(delivery_mode=2)


def parameters(port, **options):
    return pika.ConnectionParameters("127.0.0.1", port, **options)


def refused(call, *arguments, **options):
    """Return code and text of the Channel.Close that a call ends in."""
    with pytest.raises(ChannelClosedByBroker) as closed:
        call(*arguments, **options)
    return closed.value.reply_code, closed.value.reply_text


def ready(channel, queue):
    """Return how many messages wait in a queue."""
    return channel.queue_declare(queue, passive=True).method.message_count


def get(channel, queue, **options):
    """Return body, delivery tag and whether it was redelivered of the next message, which is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        method, properties, body = channel.basic_get(queue, **options)
        if method is not None:
            method.properties = properties
            method.body = body
            return method
        time.sleep(0.01)
    raise AssertionError(f"nothing came in {queue}")
