"""Tell everybody who listens now: ``tell_all.py it rains``. Who listens later has missed it."""

import os
import sys

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")

news = " ".join(sys.argv[1:]) or "nothing new"
with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare(exchange="news", exchange_type="fanout")
    channel.basic_publish(exchange="news", routing_key="", body=news)
    print(f"told: {news}")
