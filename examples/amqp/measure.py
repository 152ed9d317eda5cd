"""Publish a reading under a topic: ``measure.py plant.3.temp 21.5``.

The exchange is ``amq.topic``, MQTT's own: subscribers of ``plant/+/temp`` get the reading, too.
"""

import os
import sys

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")

topic, reading = sys.argv[1:3] if len(sys.argv) > 2 else ("plant.1.temp", "20.0")
with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.basic_publish(exchange="amq.topic", routing_key=topic, body=reading)
    print(f"measured: {topic} {reading}")
