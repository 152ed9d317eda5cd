"""Work on tasks, one at a time; start several of these. A worker that dies has not acknowledged: another gets its task."""

import os
import time
from contextlib import suppress

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")


def work(channel, method, _properties, body):
    time.sleep(0.1 * body.count(b"."))
    print(f"done: {body.decode()}", flush=True)
    channel.basic_ack(delivery_tag=method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.queue_declare(queue="tasks", durable=True)
channel.basic_qos(prefetch_count=1)  # no second task before the first is acknowledged: a free colleague takes it
channel.basic_consume(queue="tasks", on_message_callback=work)
print("ready for work", flush=True)
with suppress(KeyboardInterrupt):
    channel.start_consuming()
