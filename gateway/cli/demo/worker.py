"""What does a simulated worker do? It takes messages through `gateway.client`, acks most, and gives some back."""

from __future__ import annotations

import json
import sys
import threading
import time
import zlib

from gateway.cli.demo.reports import PAUSE, RESUME, STOP, report, watch_parent
from gateway.client import Client, ClientError, Delivery

_CREDIT = 50
_NACK_ONE_OF = 40
_REPORT_S = 0.1


class Work:
    """What one worker did since its last report."""

    def __init__(self) -> None:
        self.worked: list[str] = []
        self.redelivered = 0
        self.nacked = 0
        self.resting = False
        self._told = time.monotonic()

    def take(self, delivery: Delivery) -> None:
        """Work on a message and ack it, or give it back: some of those that come for the first time."""
        self.redelivered += delivery.redelivered
        identifier = json.loads(delivery.body)["id"]
        if not delivery.redelivered and zlib.crc32(identifier.encode()) % _NACK_ONE_OF == 0:
            self.nacked += 1
            delivery.nack(requeue=True)
            return
        self.worked.append(identifier)
        delivery.ack()

    def tell(self, *, now: bool = False) -> None:
        """Report from time to time."""
        if now or time.monotonic() - self._told >= _REPORT_S:
            report(worked=self.worked, redelivered=self.redelivered, nacked=self.nacked, resting=self.resting)
            self.worked, self.redelivered, self.nacked = [], 0, 0
            self._told = time.monotonic()


def run_worker(address: str, queue: str) -> None:
    """Work until the parent says stop, but not while it says pause."""
    stopping, pausing = threading.Event(), threading.Event()
    watch_parent({STOP: stopping.set, PAUSE: pausing.set, RESUME: pausing.clear})
    work = Work()
    with Client(address, heartbeat_ms=1000) as client:
        consumer = client.consume(queue, credit=_CREDIT)
        while not stopping.is_set():
            work.resting = pausing.is_set()
            if work.resting:
                client.poll(_REPORT_S)
            elif (delivery := consumer.receive(_REPORT_S)) is not None:
                work.take(delivery)
            work.tell()
    work.tell(now=True)


if __name__ == "__main__":
    try:
        run_worker(sys.argv[1], sys.argv[2])
    except ClientError as error:
        sys.exit(f"worker: {error}")
