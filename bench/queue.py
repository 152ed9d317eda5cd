"""What does the engine cost, alone and with the journal beneath: messages, many queues, many bindings, long backlogs?

    python bench/queue.py [--messages 1000000] [--queues 100000] [--bindings 1000000] [--only engine|queues|bindings|backlog]

No sockets: the engine and the journal in one process. CPU of the calling thread, the best of several rounds, without garbage
collection.
The backlog is filled, closed and opened again in processes of their own, so that memory is counted from a clean start.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import gc
import multiprocessing
import resource
import shutil
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.api.consumer import ConsumeOptions
from gateway.engine.engine import Engine
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import Binding, QueueSpec
from gateway.model.message import Decoders, Message

BODY = b"x" * 100
BATCH = 2_000


class Events:
    """The runtime's part: pages are fetched, the rest is nobody's business here."""

    def __init__(self) -> None:
        self.wanted: list[tuple[int, int, int]] = []

    def page_wanted(self, queue_id: int, after_position: int, max_bytes: int) -> None:
        self.wanted.append((queue_id, after_position, max_bytes))

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Acker:
    """A consumer's end that keeps what it gets until `settle`."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.deliver = self.got.append

    def deliver_transient(self, message: Message, options: object) -> None: ...

    def cancelled(self, reason: Exception) -> None: ...


class Bench:
    def __init__(self, journal: SqliteJournal | None = None) -> None:
        self.events = Events()
        self.engine = Engine(self.events, Decoders().properties)  # type: ignore[arg-type]
        self.engine.now_ms = time.time_ns() // 1_000_000
        self.journal = journal
        self.held: set[Any] = set()

    def consumer(self, queue: str, prefetch: int = 0) -> Acker:
        sink = Acker()
        self.engine.consume("/", queue, sink, ConsumeOptions(prefetch=prefetch), self.held, None)
        return sink

    def ack_all(self, sink: Acker) -> int:
        got, sink.got = sink.got[:], sink.got
        sink.got.clear()
        ack = self.engine.ack
        for entry in got:
            ack(entry)
        return len(got)

    def commit(self) -> None:
        assert self.journal is not None
        commit = self.journal.prepare(self.engine.take_batch())
        self.engine.batch_prepared()
        if commit is not None:
            done = threading.Event()
            self.journal.write(commit, lambda _: done.set())
            done.wait()
        self.engine.committed()

    def read_pages(self) -> None:
        assert self.journal is not None
        wanted, self.events.wanted = self.events.wanted, []
        for queue_id, after_position, max_bytes in wanted:
            box: list[Any] = []
            done = threading.Event()
            self.journal.read_page(queue_id, after_position, max_bytes, lambda page: (box.append(page), done.set()))  # noqa: B023
            done.wait()
            self.engine.page_loaded(box[0](), after_position)


def best_us(call: Callable[[], int], rounds: int = 9) -> float:
    """Return CPU us per message of the best round; `call` returns how many there were."""
    gc.disable()
    best = 1e9
    for _ in range(rounds):
        started = time.thread_time_ns()
        count = call()
        best = min(best, (time.thread_time_ns() - started) / count / 1000)
        gc.collect()
    gc.enable()
    return best


def engine_alone() -> None:
    for fan_out in (1, 50):
        bench = Bench()
        engine = bench.engine
        for number in range(fan_out):
            engine.definitions.declare_queue("/", QueueSpec(f"q{number}"), None)
            engine.definitions.bind("/", Binding("amq.fanout", f"q{number}"), None)
        sinks = [bench.consumer(f"q{number}") for number in range(fan_out)]
        route = engine.vhost("/").route("amq.fanout", "")
        engine.take_batch()
        for persistent in (True, False):

            def once(persistent: bool = persistent) -> int:
                address, publish = route.address, engine.publish  # noqa: B023
                for _ in range(BATCH // fan_out):  # noqa: B023
                    publish(route, Message(address, BODY, persistent))  # noqa: B023
                count = sum(bench.ack_all(sink) for sink in sinks)  # noqa: B023
                engine.take_batch()  # noqa: B023
                return count

            kind = "durable" if persistent else "transient"
            print(f"  publish + deliver + ack, {kind}, 1 -> {fan_out:2d}: {best_us(once):5.2f} us per reference")


def many_queues(count: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    try:
        bench = Bench(SqliteJournal(directory))
        assert bench.journal is not None
        bench.journal.open()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        _declare(bench, count)
        gc.collect()
        size = (tracemalloc.get_traced_memory()[0] - before) / count
        tracemalloc.stop()
        bench.journal.close()
        print(f"  {count:,} durable queues, a binding each: {size:,.0f} bytes per queue with its binding")
        shutil.rmtree(directory)
        bench = Bench(SqliteJournal(directory))
        assert bench.journal is not None
        bench.journal.open()
        started = time.perf_counter()
        _declare(bench, count)
        print(f"  declared and bound: {count / (time.perf_counter() - started):,.0f} queues/s, on disk")
        bench.journal.close()
        again = Bench(SqliteJournal(directory))
        assert again.journal is not None
        started = time.perf_counter()
        again.journal.open()
        gc.disable()  # as the broker does
        for record in again.journal.load():
            again.engine.replay(record)
        gc.enable()
        print(f"  opened again in {time.perf_counter() - started:.2f} s")
        again.journal.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _declare(bench: Bench, count: int) -> None:
    definitions = bench.engine.definitions
    for number in range(count):
        name = f"device-{number}"
        definitions.declare_queue("/", QueueSpec(name), None)
        definitions.bind("/", Binding("amq.topic", name, f"plant.{number}.command"), None)
        if number % BATCH == BATCH - 1:
            bench.commit()
    bench.commit()


def many_bindings(most: int) -> None:
    bench = Bench()
    engine = bench.engine
    for number in range(100):
        engine.definitions.declare_queue("/", QueueSpec(f"q{number}", durable=False), None)
    made = 0
    for count in [size for size in (1_000, 10_000, 100_000, 1_000_000) if size <= most]:
        while made < count:
            pattern = f"plant.{made}.line.*.temperature" if made % 2 else f"plant.{made}.#"
            engine.definitions.bind("/", Binding("amq.topic", f"q{made % 100}", pattern), None)
            made += 1
        table = engine.vhost("/").table
        keys = [f"plant.{number}.line.7.temperature" for number in range(1, count, max(count // 500, 1))]

        def once(keys: list[str] = keys) -> int:
            for key in keys:
                table.resolve("amq.topic", key, dict)  # noqa: B023
            return len(keys)

        print(f"  {count:9,} bindings of a topic exchange: {best_us(once):5.2f} us to find the queues of a key")


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _fill(directory: Path, count: int) -> None:
    bench = Bench(SqliteJournal(directory))
    assert bench.journal is not None
    bench.journal.open()
    bench.engine.definitions.declare_queue("/", QueueSpec("backlog"), None)
    route = bench.engine.vhost("/").route("", "backlog")
    started = time.perf_counter()
    for number in range(count):
        bench.engine.publish(route, Message(route.address, b"%0100d" % number, persistent=True))
        if number % BATCH == BATCH - 1:
            bench.commit()
    bench.commit()
    print(f"  filled at {count / (time.perf_counter() - started):,.0f} messages/s, batches of {BATCH:,}")
    bench.journal.close()


def _drain(directory: Path, count: int) -> None:
    bench = Bench(SqliteJournal(directory))
    assert bench.journal is not None
    gc.collect()
    before = _resident_mib()
    started = time.perf_counter()
    bench.journal.open()
    for record in bench.journal.load():
        bench.engine.replay(record)
    ready = time.perf_counter() - started
    grown = _resident_mib() - before
    started = time.perf_counter()
    cpu = time.thread_time()
    sink = bench.consumer("backlog", prefetch=BATCH)
    expected = 0
    most = 0.0
    while expected < count:
        bench.read_pages()
        for entry in sink.got:
            assert int(entry.message.body) == expected, (entry.message.body, expected)
            expected += 1
        bench.ack_all(sink)
        bench.commit()
        most = max(most, _resident_mib())
    seconds = time.perf_counter() - started
    cpu = time.thread_time() - cpu
    size = (directory / "journal.db").stat().st_size / 2**20
    print(f"  opened in {ready:.3f} s with {grown:.1f} MiB more; file {size:,.0f} MiB")
    print(f"  drained in order at {count / seconds:,.0f} a second ({cpu / count * 1e6:.1f} us CPU), +{most - before:.0f} MiB")
    bench.journal.close()


def backlog(count: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    try:
        for step in (_fill, _drain):
            process = multiprocessing.get_context("spawn").Process(target=step, args=(directory, count))
            process.start()
            process.join()
            assert process.exitcode == 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--queues", type=int, default=100_000)
    parser.add_argument("--bindings", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("engine", "queues", "bindings", "backlog"))
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "engine": engine_alone,
        "queues": lambda: many_queues(arguments.queues),
        "bindings": lambda: many_bindings(arguments.bindings),
        "backlog": lambda: backlog(arguments.messages),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            print(name)
            part()


if __name__ == "__main__":
    main()
