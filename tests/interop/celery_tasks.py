"""A Celery application: what the tests of test_amqp_celery.py have done by real workers."""

import os
import time
from pathlib import Path

from celery import Celery

app = Celery("tasks", broker=os.environ.get("TEST_CELERY_BROKER", "amqp://"), backend="rpc://")
app.conf.update(
    task_default_queue=os.environ.get("TEST_CELERY_QUEUE", "celery"),
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    result_expires=300,
    worker_hijack_root_logger=False,
)


def note(directory, line):
    """Write a line to who watches from outside."""
    with (Path(directory) / "notes").open("a") as file:
        file.write(f"{line}\n")


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(bind=True, max_retries=3, name="succeeds_at_last")
def succeeds_at_last(self, attempts):
    if self.request.retries < attempts:
        raise self.retry(countdown=0.1, exc=OSError("not yet"))
    return self.request.retries


@app.task(bind=True, name="when")
def when(self):
    return time.time(), self.request.delivery_info["redelivered"]


@app.task(bind=True, acks_late=True, name="takes_long")
def takes_long(self, directory, number, seconds):
    note(directory, f"began {number} {self.request.delivery_info['redelivered']}")
    time.sleep(seconds)
    note(directory, f"ended {number}")
    return number


@app.task(bind=True, acks_late=True, name="waits")
def waits(self, directory, number):
    """Work until there is a file of the name go."""
    note(directory, f"began {number} {self.request.delivery_info['redelivered']}")
    while not (Path(directory) / "go").exists():
        time.sleep(0.05)
    return number
