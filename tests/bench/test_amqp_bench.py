"""Does bench/amqp.py measure what it says, and judge by it?"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bench import amqp_report, brokers
from bench.amqp_report import CONFIRMED, CONSUMED, TRANSIENT
from bench.load import amqp as load

SCRIPT = Path(__file__).parents[2] / "bench" / "amqp.py"
NAMES = ["tidegate compiled", "tidegate pure", "rabbitmq classic", "rabbitmq quorum"]


def speed(rate=1_000.0, cpu_us=1.0, busy=0.5, p50_ms=0.0, wrong=0):
    return {"rate": rate, "cpu_us": cpu_us, "busy": busy, "p50_ms": p50_ms, "p99_ms": 2 * p50_ms, "wrong": wrong}


@pytest.mark.parametrize(("rate", "met"), [(1_499.0, "**no**"), (1_500.0, "yes")])
def test_a_goal_of_rate_is_met_from_its_part_of_the_peer_s_on(rate, met):
    row = {NAMES[0]: speed(rate), "rabbitmq quorum": speed(1_000.0), "rabbitmq classic": speed(400.0)}
    quorum, classic = amqp_report.goals({CONFIRMED: row}, NAMES)
    assert quorum.endswith(f"wanted at least 1.5: {met}.")
    assert classic.endswith("wanted at least 3: yes.")


@pytest.mark.parametrize(("cpu_us", "met"), [(10.0, "yes"), (10.1, "**no**")])
def test_the_cpu_of_a_round_trip_is_a_goal_of_what_is_compiled_alone(cpu_us, met):
    (goal,) = amqp_report.goals({TRANSIENT: {NAMES[0]: speed(cpu_us=cpu_us), NAMES[1]: speed(cpu_us=99.0)}}, NAMES)
    assert goal.startswith("- tidegate compiled")
    assert goal.endswith(f"wanted at most 10: {met}.")


def test_what_is_wrong_and_a_load_that_is_the_bottleneck_are_marked_and_who_is_missing_too():
    row = {NAMES[0]: speed(9.0, 2.0, wrong=3), NAMES[1]: speed(8.0, 4.0, busy=0.95), "rabbitmq classic": speed(7.0, 5.0)}
    *_, line = amqp_report.speeds({CONSUMED: row}, NAMES)
    assert line == f"| {CONSUMED} | 2.00 (9) **3 wrong** | 4.00 (8) * | 5.00 (7) | - |"


def test_times_are_told_of_what_is_confirmed():
    rows = {CONFIRMED: {NAMES[0]: speed(p50_ms=1.0)}, CONSUMED: {NAMES[0]: speed(p50_ms=1.0)}, TRANSIENT: {NAMES[0]: speed()}}
    assert amqp_report.waits(rows, NAMES[:1])[2:] == [f"| {CONFIRMED} | 1.00, 2.00 |"]
    assert amqp_report.waits({TRANSIENT: rows[TRANSIENT]}, NAMES[:1]) == []


def test_the_page_has_the_marks():
    text = (SCRIPT.parents[1] / "docs" / "performance.md").read_text()
    assert text.index(amqp_report.BEGIN) < text.index(amqp_report.END)


# -- the load, against a broker that can spoil what it was given


START, TUNE, CLOSE = 0x000A000A, 0x000A001E, 0x00140028
ANSWERS = {
    0x000A0028: b"\0",  # connection.open
    0x0014000A: b"\0\0\0\0",  # channel.open
    0x0032000A: b"\1q" + bytes(8),  # queue.declare
    0x00320028: bytes(4),  # queue.delete
    0x003C000A: b"",  # basic.qos
    0x003C0014: b"\1t",  # basic.consume
    0x0055000A: b"",  # confirm.select
}
START_OK, PUBLISH, CONSUME, DELIVER, ACK, NACK = START + 1, 0x003C0028, 0x003C0014, 0x003C003C, 0x003C0050, 0x003C0078


class Spoiling:
    """Takes publishes, confirms each, and delivers what `spoil` makes of their bodies to who consumes."""

    def __init__(self, spoil, confirm=ACK, refuses=0):
        self.spoil = spoil
        self.confirm = confirm
        self.refuses = refuses
        self.bodies = []
        self.acked = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        with suppress(OSError), peer, peer.makefile("rwb") as stream:
            stream.read(8)
            self._say(stream, START, b"")
            tag = 0
            while head := stream.read(7):
                kind, _, size = struct.unpack("!BHI", head)
                payload = stream.read(size + 1)[:-1]
                if kind == 3:
                    self.bodies.append(payload)
                    tag += 1
                    self._say(stream, self.confirm, struct.pack("!QB", tag, 0))
                elif kind == 1:
                    self._take(stream, int.from_bytes(payload[:4], "big"), payload[4:])

    def _take(self, stream, method, arguments):
        if method == self.refuses:
            self._say(stream, CLOSE, struct.pack("!H", 404) + b"\7NOT - q" + bytes(4))
        elif method == START_OK:
            self._say(stream, TUNE, bytes(8))
        elif method == ACK:
            self.acked.append(int.from_bytes(arguments[:8], "big"))
        elif method in ANSWERS:
            self._say(stream, method + 1, ANSWERS[method])
        if method == CONSUME:
            for tag, body in enumerate(self.spoil(self.bodies), 1):
                self._say(stream, DELIVER, b"\1t" + struct.pack("!QB", tag, 0) + b"\0\1q")
                self._frame(stream, 2, struct.pack("!HHQHB", 60, 0, len(body), 0x1000, 2))
                self._frame(stream, 3, body)

    def _say(self, stream, method, arguments):
        self._frame(stream, 1, method.to_bytes(4, "big") + arguments)

    def _frame(self, stream, kind, payload):
        stream.write(struct.pack("!BHI", kind, 1, len(payload)) + payload + b"\xce")
        stream.flush()


def flooded(broker, **options):
    with closing(broker):
        return load.flood(broker.port, {"away": True, "window": 5, "fill": 10, "patience": 0.3, **options})


@pytest.mark.slow
def test_each_message_that_is_lost_comes_twice_or_out_of_order_is_counted():
    broker = Spoiling(lambda b: [b[0], b[1], b[1], b[3], b[2], b[5], b[7], b[8], b[9]])
    told = flooded(broker)
    whole = told["whole"]
    assert {key: whole[key] for key in load.WRONG} == {
        "lost": 2, "doubled": 1, "disordered": 1, "strange": 0, "refused": 0, "left": 0
    }  # fmt: skip
    assert told["publish"]["count"] == whole["sent"] == whole["confirmed"] == 10
    assert told["drain"]["count"] == whole["delivered"] == 8
    assert broker.acked == list(range(1, 10))


@pytest.mark.slow
def test_nothing_is_counted_as_wrong_when_nothing_is():
    broker = Spoiling(lambda bodies: bodies)
    told = flooded(broker, multiple=True, size=300)
    assert sum(told["whole"][key] for key in load.WRONG) == 0
    assert broker.acked[-1] == 10
    assert {len(body) for body in broker.bodies} == {300}


@pytest.mark.slow
def test_what_was_never_published_and_what_is_refused_is_counted():
    broker = Spoiling(lambda bodies: [*bodies, b"x" * 100], confirm=NACK)
    whole = flooded(broker)["whole"]
    assert (whole["refused"], whole["strange"], whole["lost"]) == (10, 1, 0)


@pytest.mark.slow
def test_a_broker_that_closes_is_not_measured_and_its_words_are_told():
    with pytest.raises(RuntimeError, match="closed with 404: NOT - q"):
        flooded(Spoiling(lambda bodies: bodies, refuses=CONSUME))


# -- with real brokers


@pytest.mark.slow
def test_the_script_measures_a_row_and_says_which_goal_is_met():
    command = [sys.executable, str(SCRIPT), "--rounds", "1", "--seconds", "0.2", "--only", "window 1,000", "--peers", "quorum"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert "failed" not in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith(f"| {CONFIRMED} |"))
    assert row.count("(") == (1 if brokers.rabbitmq_script() is None else 2)
    assert "wrong" not in row
