"""What do AMQP's bytes cost: publishes, acknowledgements and deliveries, without sockets and without a broker?

    python bench/amqp_codec.py [--messages 200000] [--only publish|mixed|ack|deliver|content|facts|tables]

CPU of the calling thread per message, the best of several rounds, without garbage collection. The publishes come 100 per read, as
from a client that doesn't wait. ``publish`` sends one size and one address, ``mixed`` changes both with every message.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

from pamqp import body, commands, frame, header

from gateway_amqp.codec import content, splitter, tables, writing

FRAME_MAX = 131_072
ROUNDS = 7
PER_READ = 100


class Sink:
    """A channel that takes what it gets."""

    def on_method(self, method: int, arguments: bytes) -> None: ...

    def on_publish(self, arguments: bytes, properties: bytes, body: bytes) -> None: ...

    def on_ack(self, delivery_tag: int, multiple: bool) -> None: ...

    def on_too_large(self, size: int) -> None: ...

    def on_stray(self, number: int, method: int, arguments: bytes) -> None: ...

    def on_heartbeat(self) -> None: ...


def properties(**values: object) -> bytes:
    return commands.Basic.Properties(**values).marshal()


def published(key: str, size: int, number: int = 1, **values: object) -> bytes:
    return b"".join((
        frame.marshal(commands.Basic.Publish(0, "amq.topic", key), number),
        frame.marshal(header.ContentHeader(0, size, commands.Basic.Properties(**values)), number),
        frame.marshal(body.ContentBody(b"x" * size), number) if size else b"",
    ))  # fmt: skip


def fed(reads: list[bytes]) -> Callable[[], None]:

    sink = Sink()

    def run() -> None:
        parts = splitter.Splitter(sink, {1: sink, 2: sink}, 1 << 24, FRAME_MAX)
        for read in reads:
            parts.feed(read)

    return run


def publish(count: int) -> Callable[[], None]:
    return fed([published("sensors.alpha", 100, delivery_mode=2) * PER_READ] * (count // PER_READ))


def mixed(count: int) -> Callable[[], None]:
    read = b"".join(published(f"sensors.{n}", 50 + n, 1 + n % 2, delivery_mode=2, message_id=str(n)) for n in range(PER_READ))
    return fed([read] * (count // PER_READ))


def ack(count: int) -> Callable[[], None]:
    return fed([frame.marshal(commands.Basic.Ack(77, False), 1) * PER_READ] * (count // PER_READ))


def deliver(count: int) -> Callable[[], None]:
    where = writing.address("amq.topic", "sensors.alpha")
    front = writing.deliver_front(1, "ctag1.0123456789abcdef", where)
    raw = properties(delivery_mode=2)
    body = b"x" * 100
    back = where + writing.END + writing.content_front(1, raw, len(body))

    def run() -> None:
        write = writing.deliver_body
        for tag in range(count):
            write(front, tag, False, back, body)

    return run


def contents(count: int) -> Callable[[], None]:
    raw = properties(content_type="text/plain", delivery_mode=2)
    body = b"x" * 100

    def run() -> None:
        write = writing.content
        for _ in range(count):
            write(1, raw, body, FRAME_MAX)

    return run


def facts(count: int) -> Callable[[], None]:
    raws = [
        properties(delivery_mode=2),
        properties(content_type="text/plain", delivery_mode=2),
        properties(content_type="a/json", headers={"a": 1, "b": "two"}, delivery_mode=2, correlation_id="1" * 36, reply_to="r"),
    ]

    def run() -> None:
        read = content.facts
        for _ in range(count // len(raws)):
            for raw in raws:
                read(raw)

    return run


def table(count: int) -> Callable[[], None]:
    data = tables.encode_table({"lang": "py", "task": "proj.tasks.add", "id": "1" * 36, "retries": 0, "timelimit": [None, None]})

    def run() -> None:
        read = tables.decode_table
        for _ in range(count):
            read(data)

    return run


RUNS = {"publish": publish, "mixed": mixed, "ack": ack, "deliver": deliver, "content": contents, "facts": facts, "tables": table}


def cost_us(run: Callable[[], None], count: int) -> float:
    """Return the CPU microseconds per message of the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        gc.collect()
        start = time.thread_time()
        run()
        best = min(best, time.thread_time() - start)
    return best / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--only", choices=RUNS)
    options = parser.parse_args()
    gc.disable()
    print("machine code" if splitter.__file__.endswith(".so") else "Python")
    for name, make in RUNS.items():
        if options.only in {None, name}:
            print(f"{name:8} {cost_us(make(options.messages), options.messages):6.3f} us")


if __name__ == "__main__":
    main()
