"""Print what is told to all. The queue is this program's own: the broker names it, and deletes it when the program goes."""

import os
from contextlib import suppress

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")


def heard(_channel, _method, _properties, body):
    print(f"news: {body.decode()}", flush=True)


connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.exchange_declare(exchange="news", exchange_type="fanout")
own = channel.queue_declare(queue="", exclusive=True).method.queue
channel.queue_bind(exchange="news", queue=own)
channel.basic_consume(queue=own, on_message_callback=heard, auto_ack=True)
print("listening", flush=True)
with suppress(KeyboardInterrupt):
    channel.start_consuming()
