"""What does it cost to find the bindings that match a key? `python bench/routing.py`"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

from time import perf_counter_ns
from typing import Any

from gateway.model.declare import Binding, BindingOptions
from gateway.routing.keytree import KeyTree
from gateway.routing.table import Table

MQTT = BindingOptions(qos=1, mqtt=True)
ROUNDS = 5


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
    table = Table({}.get)
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
    table = Table({}.get)
    for number in range(count):
        table.bind(Binding("amq.topic", f"q{number}", "plant.#", options=MQTT), number)
    return best(lambda: table.resolve("amq.topic", "plant.1", dict), max(200_000 // count // 10, 1)) / count


def bind_cost(count: int) -> float:
    """Return nanoseconds for one binding made and removed, with others there."""
    table = Table({}.get)
    for number, key in enumerate(filters(count, "inner *")):
        table.bind(Binding("amq.topic", f"q{number}", key, options=MQTT), number)
    extra = Binding("amq.topic", "extra", "plant.x.line.*.temperature", options=MQTT)

    def once() -> None:
        table.bind(extra, "extra")
        table.unbind(extra)

    return best(once)


def look_up(count: int, pattern: str) -> tuple[float, int]:
    """Return nanoseconds per look-up of stored keys, and how many match."""
    tree: KeyTree[int] = KeyTree()
    for number in range(count):
        tree.put(f"plant.{number}.line.{number % 7}.temperature", number)
    matching = len(list(tree.match(pattern)))
    return best(
        lambda: tree.match(pattern), max(2000 // max(matching, count // 100 if pattern.startswith("*") else 1), 3)
    ), matching


def main() -> None:
    """Print all figures."""
    print(f"Python {sys.version.split()[0]}; best of {ROUNDS} rounds, no route cache")
    for count in (20, 10_000):
        for kind in ("literal", "trailing #", "inner *", "leading #"):
            cost, reached = measure(count, kind)
            print(f"resolve   {count:6} filters, {kind:10}  {cost:10,.0f} ns, {reached} reached")
        print(f"fan-out   {count:6} bindings              {fan_out(count):10,.0f} ns per destination")
        print(f"bind      {count:6} filters               {bind_cost(count):10,.0f} ns for bind and unbind")
        for pattern in ("plant.7.line.0.temperature", "plant.7.#", "plant.*.line.0.temperature", "#"):
            cost, matching = look_up(count, pattern)
            print(f"look up   {count:6} keys by {pattern:27}{cost:10,.0f} ns, {matching} match")


if __name__ == "__main__":
    main()
