"""What does a publish of QoS 0 cost, from the read to the bytes that its subscribers are sent? `python bench/feed.py`

Without sockets. One client publishes 800 messages of 64 bytes per read, all on one topic, or on others in turn.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

from time import process_time

import trio

from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import Publish
from gateway_mqtt.translate.properties import WIRE_TAG, read_wire
from tests.mqtt.receiver import Receiver, receiving, settle
from tests.mqtt.sender import Sender
from tests.runtime.support import HandJournal

MESSAGES = 800
READS = 20
BODY = b"x" * 64
LENGTHS = (64, 60, 61, 150, 62)


def reads() -> dict[str, list[tuple[str, bytes]]]:
    """Return what is published, as topics and bodies."""

    return {
        "one topic": [("bench/one", BODY)] * MESSAGES,
        "one topic, lengths vary": [("bench/one", b"x" * LENGTHS[n % 5]) for n in range(MESSAGES)],
        "five in a row on each topic": [(f"bench/{n // 5 % 7}", BODY) for n in range(MESSAGES)],
        "another topic each time": [(f"bench/{n % 20:02}", BODY) for n in range(MESSAGES)],
    }


def measure(receivers: list[Receiver], sender: Sender, data: bytes) -> float:
    """Return nanoseconds per message, the best of several reads."""
    best = 1e9
    for _ in range(READS):
        began = process_time()
        sender.send(data)
        best = min(best, process_time() - began)
        for receiver in receivers:
            receiver.connection.out.clear()
    return best / MESSAGES * 1e9


async def main() -> None:
    """Measure one subscriber, and fifty."""
    for level, elsewhere in ((4, 4), (4, 5)):
        for subscribers in (1, 50):
            async with receiving(HandJournal(automatic=True)) as bench:
                bench.gateway.register_wire(WIRE_TAG, read_wire)
                receivers = [Receiver(bench, f"s{number}", lasts=False, level=elsewhere) for number in range(subscribers)]
                for receiver in receivers:
                    receiver.bind("bench/#", 0)
                sender = Sender(bench, "p", level, lasts=False)
                await settle()
                for name, messages in reads().items():
                    data = b"".join(encode(Publish(topic, body), level) for topic, body in messages)
                    took = measure(receivers, sender, data)
                    print(f"level {level} to {subscribers:2} of {elsewhere}, {name:28} {took:6.0f} ns per message")


if __name__ == "__main__":
    trio.run(main)
