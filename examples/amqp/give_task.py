"""Give a task to whichever worker is free: ``give_task.py wash the dishes..``; each dot is a tenth of a second of work.

The queue is durable and the message persistent: both outlive the broker. The program ends when the broker has confirmed that
the task is on its disk.
"""

import os
import sys

import pika

URL = os.environ.get("TIDEGATE_AMQP", "amqp://guest:guest@localhost:5672/%2F")

task = " ".join(sys.argv[1:]) or "something to do."
with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue="tasks", durable=True)
    persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    channel.basic_publish(exchange="", routing_key="tasks", body=task, properties=persistent)
    print(f"given: {task}")
