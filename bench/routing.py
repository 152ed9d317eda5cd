"""What does it cost to find the bindings that match a key, and the stored keys that match a pattern? `python bench/routing.py`"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

from random import Random
from time import perf_counter_ns
from typing import Any

from gateway.model.declare import Binding, BindingOptions
from gateway.model.message import Address, Message
from gateway.routing.keytree import KeyTree
from gateway.routing.table import Table

MQTT = BindingOptions(qos=1, mqtt=True)
NO_QUEUES: dict[str, object] = {}
ROUNDS = 5
SLICE = 100
"""What one client is sent before another has its turn; a turn of the loop has eight."""


def filters(count: int, kind: str) -> list[str]:
    """Return `count` patterns like those that devices and services subscribe to; about one in `count` matches."""
    match kind:
        case "literal":
            return [f"plant.{number}.line.{number % 7}.temperature" for number in range(count)]
        case "trailing #":
            return [f"plant.{number}.#" for number in range(count)]
        case "inner *":
            return [f"plant.{number}.line.*.temperature" for number in range(count)]
        case _:
            return [f"#.{number}.temperature" for number in range(count)]


def measure(count: int, kind: str) -> tuple[float, int]:
    """Return nanoseconds per resolved key, and how many destinations one key reaches."""
    table = Table(NO_QUEUES.get)
    for number, key in enumerate(filters(count, kind)):
        table.bind(Binding("amq.topic", f"q{number}", key, options=MQTT), number)
    key = "plant.7.line.0.temperature" if kind != "leading #" else "plant.line.7.temperature"
    reached = len(table.resolve("amq.topic", key, dict)[0])
    return best(lambda: table.resolve("amq.topic", key, dict)), reached


def best(call: Any, calls: int = 2000) -> float:
    """Return the nanoseconds per call of the best of some rounds."""
    times = []
    for _ in range(ROUNDS):
        begin = perf_counter_ns()
        for _ in range(calls):
            call()
        times.append((perf_counter_ns() - begin) / calls)
    return min(times)


def fan_out(count: int) -> float:
    """Return nanoseconds per destination where one key reaches them all."""
    table = Table(NO_QUEUES.get)
    for number in range(count):
        table.bind(Binding("amq.topic", f"q{number}", "plant.#", options=MQTT), number)
    return best(lambda: table.resolve("amq.topic", "plant.1", dict), max(200_000 // count // 10, 1)) / count


def bind_cost(count: int) -> float:
    """Return nanoseconds for one binding made and removed, with others there."""
    table = Table(NO_QUEUES.get)
    for number, key in enumerate(filters(count, "inner *")):
        table.bind(Binding("amq.topic", f"q{number}", key, options=MQTT), number)
    extra = Binding("amq.topic", "extra", "plant.x.line.*.temperature", options=MQTT)

    def once() -> None:
        table.bind(extra, "extra")
        table.unbind(extra)

    return best(once)


def stored_keys(count: int) -> list[str]:
    """Return keys of a plant with a thousand lines, in no order."""
    keys = [f"plant.{number % 1000}.device.{number}.temperature" for number in range(count)]
    Random(1).shuffle(keys)
    return keys


def slices(tree: KeyTree[Message], pattern: str, most: int) -> tuple[float, int, float, float]:
    """Look stored keys up in slices: ms in all, how many match, ms of the median and of the longest slice.

    The longest of each slice over some rounds counts if all of them are so long: else it was another process.
    """
    rounds: list[list[int]] = []
    found = 0
    for _ in range(ROUNDS):
        look_up = tree.look_up(pattern, mqtt=True)
        times = []
        found = 0
        while not look_up.done:
            begin = perf_counter_ns()
            found += len(look_up.next_slice(most, most))
            times.append(perf_counter_ns() - begin)
        rounds.append(times)
    per_slice = sorted(min(times) for times in zip(*rounds, strict=True))
    return min(map(sum, rounds)) / 1e6, found, per_slice[len(per_slice) // 2] / 1e6, per_slice[-1] / 1e6


def stored(count: int) -> KeyTree[Message]:
    """Print what it costs to store so many last values, and to replace and remove some; return them."""
    tree: KeyTree[Message] = KeyTree()
    messages = [Message(Address("/", "amq.topic", key), b"21.5") for key in stored_keys(count)]
    begin = perf_counter_ns()
    for message in messages:
        tree.put(message.routing_key, message)
    print(f"store     {count:9,} keys                {(perf_counter_ns() - begin) / count:10,.0f} ns per key")
    some = messages[:: max(count // 1000, 1)]

    def replace() -> None:
        for message in some:
            tree.put(message.routing_key, message)

    def remove_and_store() -> None:
        for message in some:
            tree.remove(message.routing_key)
            tree.put(message.routing_key, message)

    print(f"replace   {count:9,} keys                {best(replace, 10) / len(some):10,.0f} ns per key")
    print(f"remove    {count:9,} keys, and store anew{best(remove_and_store, 10) / len(some):10,.0f} ns per key")
    return tree


def last_values(count: int) -> None:
    """Print what look-ups of last values cost."""
    tree = stored(count)
    some = f"plant.{7 % count}.device.{7 % count}"
    for pattern in (f"{some}.temperature", f"{some}.#", "plant.7.#", "plant.*.device.7.#", "*.x", "#", "#.x", "plant.*.device.*.x"):
        cost, found, middle, longest = slices(tree, pattern, SLICE)
        print(
            f"look up   {count:9,} keys by {pattern:29}{cost:11,.3f} ms, {found:9,} match;"
            f" slices of {SLICE}: median {middle:.3f} ms, longest {longest:.3f} ms"
        )


def main() -> None:
    """Print all figures."""
    print(f"Python {sys.version.split()[0]}; best of {ROUNDS} rounds, no route cache")
    for count in (20, 10_000):
        for kind in ("literal", "trailing #", "inner *", "leading #"):
            cost, reached = measure(count, kind)
            print(f"resolve   {count:6} filters, {kind:10}  {cost:10,.0f} ns, {reached} reached")
        print(f"fan-out   {count:6} bindings              {fan_out(count):10,.0f} ns per destination")
        print(f"bind      {count:6} filters               {bind_cost(count):10,.0f} ns for bind and unbind")
    for count in (10_000, 1_000_000):
        last_values(count)


if __name__ == "__main__":
    main()
