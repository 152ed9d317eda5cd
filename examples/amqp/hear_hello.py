"""Print what comes into the queue ``hello``, until interrupted. Nothing is acknowledged: what was sent counts as received."""

import os
from contextlib import suppress

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")


def heard(_channel, _method, _properties, body):
    print(f"heard: {body.decode()}", flush=True)


connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.queue_declare(queue="hello")
channel.basic_consume(queue="hello", on_message_callback=heard, auto_ack=True)
print("listening", flush=True)
with suppress(KeyboardInterrupt):
    channel.start_consuming()
