"""Log a line with its severity: ``log.py error disk full``."""

import os
import sys

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")

severity, line = (sys.argv[1], " ".join(sys.argv[2:])) if len(sys.argv) > 2 else ("info", "all is well")
with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare(exchange="logs", exchange_type="direct")
    channel.basic_publish(exchange="logs", routing_key=severity, body=line)
    print(f"logged: {severity} {line}")
