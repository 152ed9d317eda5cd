"""Answer numbers with their squares: a service behind the queue ``squares``; start as many as are needed."""

import os
from contextlib import suppress

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")


def asked(channel, method, properties, body):
    answer = pika.BasicProperties(correlation_id=properties.correlation_id)
    channel.basic_publish(exchange="", routing_key=properties.reply_to, body=str(int(body) ** 2), properties=answer)
    channel.basic_ack(delivery_tag=method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.queue_declare(queue="squares")
channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue="squares", on_message_callback=asked)
print("ready for questions", flush=True)
with suppress(KeyboardInterrupt):
    channel.start_consuming()
