"""What is lost with a worker that is killed, and how soon does another one have its messages?"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import zmq

from bench import zeromq_settings
from gateway.client import connect

WORKERS = Path(__file__).parent / "load" / "zmqworkers.py"
READY = b"ready"
CONNECTED_S = 0.3
"""So long after a plain worker is ready it is connected, too."""
QUIET_S = 2.0
MOST_S = 30.0
ASKED = 50
"""Requests of Majordomo that have no answer yet."""


@dataclass(frozen=True)
class Sort:
    """A sort of workers. `allowed`: messages that may be lost with each that is killed; None: it is not promised."""

    name: str
    kind: str
    allowed: int | None = 0
    push: str = ""
    rcvhwm: int = 0
    stall: int = 0
    count: int = 4_000
    kills: int = 3


SORTS = [
    Sort("TGP/1", "tgp"),
    Sort("Majordomo, durable", "mdp", count=2_000),
    Sort("pong, RCVHWM 1", "pull", 1, 'ack="pong"', 1),
    Sort("pong, RCVHWM 100", "pull", 100, 'ack="pong"', 100),
    Sort("pong, RCVHWM 1,000", "pull", 1_000, 'ack="pong"', 1_000, count=6_000),
    Sort("pong, RCVHWM 1,000, stalled", "pull", 1_000, 'ack="pong"', 1_000, stall=50, count=6_000, kills=1),
    Sort("pong, RCVHWM 10, worker_rcvhwm = 10", "pull", 0, 'ack="pong", worker_rcvhwm=10', 10),
    Sort("pong, RCVHWM 100, worker_rcvhwm = 100", "pull", 0, 'ack="pong", worker_rcvhwm=100', 100),
    Sort("handover, stalled", "pull", None, 'ack="handover"', stall=50, count=20_000, kills=1),
]


class Crew:
    """Processes that work, and what they said is done."""

    def __init__(self, kind: str, address: str, **options: object) -> None:
        self.command = [sys.executable, str(WORKERS), kind, address]
        self.options = options
        self.selector = selectors.DefaultSelector()
        self.alive: list[subprocess.Popen[bytes]] = []
        self.rest: dict[int, bytes] = {}
        self.done: Counter[bytes] = Counter()
        self.ready = 0
        self.moved = time.monotonic()

    def start(self, **more: object) -> subprocess.Popen[bytes]:
        words = [word for name, value in {**self.options, **more}.items() if value for word in (f"--{name}", str(value))]
        words = [word for word in words if word != "True"]
        process = subprocess.Popen([*self.command, *words], stdout=subprocess.PIPE)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self.selector.register(process.stdout, selectors.EVENT_READ)
        self.alive.append(process)
        return process

    def listen(self, seconds: float) -> None:
        """Note what they say within so long."""
        for key, _ in self.selector.select(seconds):
            data = self.rest.pop(key.fd, b"") + (os.read(key.fd, 1 << 20) or b"")
            *lines, rest = data.split(b"\n")
            if not lines and not rest:
                self.selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
                continue
            self.rest[key.fd] = rest
            self.ready += lines.count(READY)
            self.done.update(line for line in lines if line != READY)
            self.moved = time.monotonic()

    def wait_for(self, happened: Callable[[], bool]) -> None:
        until = time.monotonic() + MOST_S
        while not happened():
            if time.monotonic() > until:
                raise RuntimeError("a worker does not get what it should")
            self.listen(0.05)

    def kill(self) -> None:
        """Kill the oldest one."""
        process = self.alive.pop(0)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        while self.alive:
            self.kill()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()


# -- losses


class Asker:
    """A client of Majordomo that has so many requests under way. What is answered is done."""

    def __init__(self, address: str, bodies: list[bytes]) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(address)
        self.bodies = iter(bodies)
        self.asked = 0
        self.answered: set[bytes] = set()

    def turn(self) -> None:
        while self.socket.poll(0):
            self.answered.add(self.socket.recv_multipart()[-1])
        while self.asked - len(self.answered) < ASKED and (body := next(self.bodies, None)) is not None:
            self.socket.send_multipart([b"", b"MDPC01", b"bench", body])
            self.asked += 1

    def close(self) -> None:
        self.context.destroy(linger=0)


@contextmanager
def fed(sort: Sort, into: str, bodies: list[bytes]) -> Iterator[Callable[[], set[bytes] | None]]:
    """Give a gateway its messages; yield what is called again and again, and returns what is answered (None: nothing can be)."""
    if sort.kind == "mdp":
        with closing(Asker(into, bodies)) as asker:

            def turn() -> set[bytes]:
                asker.turn()
                return asker.answered

            yield turn
    elif sort.kind == "tgp":
        with connect(into) as client:
            client.publish_many([("", "bench", body) for body in bodies], wait=True)
        yield lambda: None
    else:
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.connect(into)
            for body in bodies:
                socket.send(body)
            yield lambda: None
            socket.close(0)


def settings(sort: Sort, into: str, out_of: str) -> list[str]:
    if sort.kind == "pull":
        return zeromq_settings.pipe(into, out_of, persistent=True, push=sort.push)
    return zeromq_settings.router(into, ', protocols=["tgp/1", "mdp/0.1"], mdp_durable=true' if sort.kind == "mdp" else "")


def losses(sort: Sort, start: zeromq_settings.Start, core: set[int] | None) -> dict[str, float]:
    """Kill workers while they work; return how many messages nobody did, and how many were done again."""
    into, out_of = zeromq_settings.address(), zeromq_settings.address()
    bodies = [b"%d" % number for number in range(sort.count)]
    addresses = (into, out_of) if sort.kind == "pull" else (into,)
    with zeromq_settings.tidegate(start, core, settings(sort, into, out_of), *addresses):
        if sort.kind == "tgp":
            with connect(into) as client:
                client.declare_queue("bench")
        with closing(Crew(sort.kind, out_of if sort.kind == "pull" else into, rcvhwm=sort.rcvhwm)) as crew:
            crew.start(stall=sort.stall)
            crew.start()
            crew.wait_for(lambda: crew.ready == len(crew.alive))
            time.sleep(CONNECTED_S)
            with fed(sort, into, bodies) as turn:
                kills = _watch(sort, crew, turn)
                answered = turn()
    done = crew.done.keys() if answered is None else answered
    return {
        "messages": sort.count,
        "kills": kills,
        "lost": sort.count - len(done),
        "twice": sum(crew.done.values()) - len(crew.done),
        "allowed": -1 if sort.allowed is None else kills * (sort.allowed + bool(sort.allowed)),  # and the one in its hands
    }


def _watch(sort: Sort, crew: Crew, turn: Callable[[], set[bytes] | None]) -> int:
    kills = 0
    crew.moved = time.monotonic()
    until = time.monotonic() + MOST_S
    while time.monotonic() < until:
        answered = turn()
        crew.listen(0.005)
        count = len(crew.done if answered is None else answered)
        is_quiet = time.monotonic() - crew.moved > QUIET_S
        if kills < sort.kills and (count > sort.count * (kills + 1) // (sort.kills + 1) or is_quiet):
            crew.kill()
            crew.start()
            crew.moved = time.monotonic()
            kills += 1
        elif kills == sort.kills and (count == sort.count or is_quiet):
            break
    for _ in range(10):
        crew.listen(0.02)
    return kills


# -- how soon it is known


def known_tgp(start: zeromq_settings.Start, core: set[int] | None, times: int) -> list[float]:
    """Return, for each worker that was killed with a message in its hands, after how long (ms) another one had that message."""
    into = zeromq_settings.address()
    took = []
    with zeromq_settings.tidegate(start, core, zeromq_settings.router(into), into), connect(into) as publisher:
        publisher.declare_queue("bench")
        for number in range(times):
            with closing(Crew("tgp", into, hold=True)) as crew:
                crew.start()
                body = b"%d" % number
                publisher.publish("", "bench", body, wait=True)
                crew.wait_for(lambda crew=crew, body=body: bool(crew.done[body]))
                with connect(into) as client, client.consume("bench", credit=1) as consumer:
                    killed = time.monotonic()
                    crew.alive[0].send_signal(signal.SIGKILL)
                    delivery = consumer.receive(timeout=MOST_S)
                    took.append((time.monotonic() - killed) * 1e3)
                    if delivery is None or delivery.body != body:
                        raise RuntimeError("another message came")
                    delivery.ack()
    return took


def known_pong(start: zeromq_settings.Start, core: set[int] | None, times: int) -> list[float]:
    """As `known_tgp`, for plain PULL workers that are stopped before they are killed, so that they pong nothing."""
    into, out_of = zeromq_settings.address(), zeromq_settings.address()
    settings = zeromq_settings.pipe(into, out_of, push='ack="pong"')
    tidegate = zeromq_settings.tidegate(start, core, settings, into, out_of)
    with tidegate, zmq.Context() as context, context.socket(zmq.PUSH) as push, context.socket(zmq.PULL) as pull:
        push.connect(into)
        pull.connect(out_of)
        took = [_known_pong(push, pull, out_of) for _ in range(times)]
        push.close(0)
    return took


def _known_pong(push: zmq.Socket[bytes], pull: zmq.Socket[bytes], out_of: str) -> float:
    with closing(Crew("pull", out_of)) as crew:
        crew.start()
        until = time.monotonic() + MOST_S
        while not crew.done and time.monotonic() < until:
            push.send(b"both")
            crew.listen(0.02)
        while pull.poll(100):
            pull.recv()
        crew.alive[0].send_signal(signal.SIGSTOP)
        push.send(b"one")
        push.send(b"other")
        first = pull.recv() if pull.poll(5_000) else b""
        if not first or pull.poll(50):
            raise RuntimeError("the stopped worker was sent nothing")
        killed = time.monotonic()
        crew.alive[0].send_signal(signal.SIGKILL)
        if not pull.poll(MOST_S * 1e3) or pull.recv() == first:
            raise RuntimeError("its message did not come")
        return (time.monotonic() - killed) * 1e3


def summary(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {"times": len(ordered), "p50_ms": ordered[len(ordered) // 2], "worst_ms": ordered[-1]}


def known(start: zeromq_settings.Start, core: set[int] | None, times: int) -> dict[str, dict[str, float]]:
    return {"TGP/1": summary(known_tgp(start, core, times)), "pong": summary(known_pong(start, core, times))}
