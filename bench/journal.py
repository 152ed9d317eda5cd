"""What does the journal cost on the main thread, and how fast does it write?

    python bench/journal.py [--directory DIR] [--seconds 2] [--body 100] [--only prepare|write|life]

prepare: CPU time of the calling thread per message, for messages with one reference each (the best of several rounds, without
garbage collection). write: prepare, write and wait, one batch after the other, on the disk of DIR.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import gc
import tempfile
import threading
import time
from pathlib import Path

from gateway.journal.memory import MemoryJournal
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import BindingOptions
from gateway.model.message import Address, Message
from gateway.model.records import Batch, Reference

OPTIONS = BindingOptions(qos=1, mqtt=True)


def batch(first, count, body, *, queues=1, topics=200, fan_out=1, options=None, wire=b"", elide=0):  # noqa: PLR0913 - a workload
    """Make a batch of messages; `elide`: how many of ten are settled before they are handed over."""
    addresses = [Address("/", "amq.topic", f"plant.{number}.temperature") for number in range(topics)]
    made = Batch()
    for number in range(count):
        message = Message(addresses[number % topics], body, True, "mqtt" if wire else "", wire)
        made.messages.append(message)
        for copy in range(fan_out):
            reference = Reference(message, 1 + (number + copy) % queues, first + number, options)
            message.live += 1
            if message.first is None:
                message.first = reference
            else:
                message.more = [*(message.more or []), reference]
            if number % 10 < elide:
                reference.settled = True
                message.live -= 1
    return made


def cpu(function):
    started = time.thread_time_ns()
    result = function()
    return result, (time.thread_time_ns() - started) / 1000


def prepare_cost(directory, body, count, rounds=15, **how):
    journal = SqliteJournal(directory, synchronous="OFF")
    journal.open()
    best = best_settle = 1e9
    first = 1
    gc.disable()
    for _ in range(rounds):
        made = batch(first, count, body, **how)
        references = [r for m in made.messages for r in (m.first, *(m.more or ()))]
        first += count
        commit, spent = cpu(lambda made=made: journal.prepare(made))
        best = min(best, spent / count)
        wait(journal, commit)
        settling = Batch()
        settling.settled = [r for r in references if r.segment is not None]
        for reference in settling.settled:
            reference.settled = True
        commit, spent = cpu(lambda settling=settling: journal.prepare(settling))
        best_settle = min(best_settle, spent / max(len(settling.settled), 1))
        wait(journal, commit)
        gc.collect()
    gc.enable()
    journal.close()
    return best, best_settle


def wait(journal, commit):
    if commit is None:
        return
    done = threading.Event()
    errors = []
    journal.write(commit, lambda error: (errors.append(error), done.set()))
    done.wait()
    if errors[0] is not None:
        raise errors[0]


def written_bytes():
    text = Path("/proc/self/io").read_text() if Path("/proc/self/io").exists() else ""
    return int(text.split("write_bytes: ")[1].split()[0]) if text else 0


def write_rate(journal, body, count, seconds, *, settle):
    journal.open()
    messages = commits = 0
    spent = 0.0
    before = []
    first = 1
    written = written_bytes()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        building = time.perf_counter()
        made = batch(first, count, body, wire=b"\x01", options=OPTIONS)
        references = [m.first for m in made.messages]
        if settle:
            made.settled = before
        spent += time.perf_counter() - building
        commit = journal.prepare(made)
        wait(journal, commit)
        for reference in references:
            reference.settled = True
        before = references
        first += count
        messages += count
        commits += 1
    elapsed = time.perf_counter() - started - spent
    written = written_bytes() - written
    journal.close()
    return messages / elapsed, commits / elapsed, written / messages


def life(directory, payload, count, *, fan_out=1, elide=0, sticky=0, size=500):  # noqa: PLR0913 - a workload
    """Write messages, settle each batch with the one after the next; `sticky`: one of so many is never settled.

    Returns bytes written per byte of payload, and the size of the file against the bodies that are left in it.
    """
    journal = SqliteJournal(directory)
    journal.open()
    written = written_bytes()
    waiting = []
    live = first = 0
    body = bytes(payload)
    while first < count:
        made = batch(first + 1, size, body, queues=fan_out, fan_out=fan_out, options=OPTIONS, elide=elide)
        references = [r for m in made.messages for r in (m.first, *(m.more or ())) if not r.settled]
        waiting.append([r for n, r in enumerate(references) if not sticky or n % sticky])
        live += len(references) - len(waiting[-1])
        made.settled = waiting.pop(0) if len(waiting) > 2 else []
        for reference in made.settled:
            reference.settled = True
        wait(journal, journal.prepare(made))
        first += size
    rest = Batch()
    rest.settled = [reference for references in waiting for reference in references]
    wait(journal, journal.prepare(rest))
    del references, made, waiting, rest
    for _ in range(2_000):  # an idle broker goes on tidying up
        if not journal.upkeep:
            break
        wait(journal, journal.prepare(Batch()))
        time.sleep(0.001)
    written = written_bytes() - written
    journal.close()
    file = (directory / "journal.db").stat().st_size
    return written / (count * payload), file / (live * payload) if live else file / 1e6


def prepare_table(directory, arguments):
    body = bytes(arguments.body)
    print(f"prepare, CPU us per message ({arguments.body} B)            prepare   settle, per reference")
    cases = {
        "one queue, no options": {},
        "MQTT 3.1.1: wire, options": {"wire": b"\x01", "options": OPTIONS},
        "MQTT, wires differ": {"wire": b"\x01\x02\x03\x04", "options": OPTIONS},
        "10 queues in turn": {"queues": 10, "options": OPTIONS},
        "every message its own topic": {"topics": 4000},
        "fan-out to 5 queues": {"queues": 5, "fan_out": 5},
        "90 % elided": {"elide": 9},
    }
    for number, (name, how) in enumerate(cases.items()):
        for count in (1, 50, 2000):
            cost, settling = prepare_cost(directory / f"p{number}.{count}", body, count, **how)
            print(f"  {name:30s} batch {count:5d}   {cost:12.2f}   {settling:12.2f}")


def write_table(directory, arguments):
    body = bytes(arguments.body)
    print("\nprepare + write, one batch after the other, the one before settled with it")
    for count in (1, 10, 100, 500, 2000, 4000):
        journal = SqliteJournal(directory / f"w{count}")
        rate, commits, size = write_rate(journal, body, count, arguments.seconds, settle=True)
        print(f"  FULL    batch {count:5d} {rate:12,.0f} messages/s {commits:9,.0f} commits/s {size:8,.0f} B written per message")
    rate, commits, _ = write_rate(MemoryJournal(), body, 500, arguments.seconds, settle=True)
    print(f"  memory  batch   500 {rate:12,.0f} messages/s {commits:9,.0f} commits/s")


def life_table(directory, _):
    print("\nover the whole life of a message: bytes written per byte of its body")
    lives = {
        "1 KiB, one queue": ({}, 50_000),
        "1 KiB, 90 % acknowledged before their batch was handed over": ({"elide": 9}, 100_000),
        "1 KiB to 50 queues": ({"fan_out": 50}, 10_000),
    }
    for number, (name, (how, count)) in enumerate(lives.items()):
        written, _ = life(directory / f"l{number}", 1024, count, **how)
        print(f"  {name:60s} {written:6.2f}")
    print("\nsize of the file against the bodies that are left in it, and bytes written per byte of body")
    for percent, count in ((1, 1_000_000), (10, 200_000)):
        written, file = life(directory / f"s{percent}", 1024, count, sticky=100 // percent)
        print(f"  1 KiB, {percent:2d} % never acknowledged {'':35s} {file:6.2f}   {written:6.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=None, help="where to write; its disk is what is measured")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--body", type=int, default=100)
    parser.add_argument("--only", choices=("prepare", "write", "life"))
    arguments = parser.parse_args()
    parts = {"prepare": prepare_table, "write": write_table, "life": life_table}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        for name, part in parts.items():
            if arguments.only in (None, name):
                part(Path(directory), arguments)


if __name__ == "__main__":
    main()
