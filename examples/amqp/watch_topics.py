"""Print what is published under some topics: ``watch_topics.py plant.*.temp "alarm.#"``. ``*`` is one word, ``#`` any number."""

import os
import sys
from contextlib import suppress

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")


def seen(_channel, method, _properties, body):
    print(f"{method.routing_key}: {body.decode()}", flush=True)


connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
own = channel.queue_declare(queue="", exclusive=True).method.queue
for pattern in sys.argv[1:] or ["#"]:
    channel.queue_bind(exchange="amq.topic", queue=own, routing_key=pattern)
channel.basic_consume(queue=own, on_message_callback=seen, auto_ack=True)
print("watching", flush=True)
with suppress(KeyboardInterrupt):
    channel.start_consuming()
