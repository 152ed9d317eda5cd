"""Print the lines of some severities: ``watch_log.py warning error``."""

import os
import sys
from contextlib import suppress

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")


def seen(_channel, method, _properties, body):
    print(f"{method.routing_key}: {body.decode()}", flush=True)


connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.exchange_declare(exchange="logs", exchange_type="direct")
own = channel.queue_declare(queue="", exclusive=True).method.queue
for severity in sys.argv[1:] or ["error"]:
    channel.queue_bind(exchange="logs", queue=own, routing_key=severity)
channel.basic_consume(queue=own, on_message_callback=seen, auto_ack=True)
print("watching", flush=True)
with suppress(KeyboardInterrupt):
    channel.start_consuming()
