"""Ask for the squares of some numbers: ``ask_squares.py 3 12``. The answers come into a queue of this program's own."""

import os
import sys
import uuid

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")

with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    own = channel.queue_declare(queue="", exclusive=True).method.queue
    waiting = {}
    for number in sys.argv[1:] or ["7"]:
        question = pika.BasicProperties(reply_to=own, correlation_id=str(uuid.uuid4()))
        waiting[question.correlation_id] = number
        channel.basic_publish(exchange="", routing_key="squares", body=number, properties=question)
    for _method, properties, body in channel.consume(own, auto_ack=True, inactivity_timeout=30):
        if body is None:
            sys.exit("nobody answers")
        number = waiting.pop(properties.correlation_id)
        print(f"{number} squared is {body.decode()}", flush=True)
        if not waiting:
            break
    channel.cancel()
