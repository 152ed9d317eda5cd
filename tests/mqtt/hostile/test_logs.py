"""Whoever makes the broker log line after line does not fill a disk with it."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from gateway.config import LogSettings
from gateway.log import MOST_KINDS, Throttle, make_log


def test_lines_of_one_kind_are_left_out_when_they_are_too_many_in_a_minute_and_counted():
    now = [0.0]
    throttle = Throttle(2, lambda: now[0])

    def line(event="protocol violation"):
        return throttle(None, "warning", {"event": event})

    assert line() == {"event": "protocol violation"}
    assert line()["note"]
    for _ in range(3):
        with pytest.raises(structlog.DropEvent):
            line()
    assert line("something else") == {"event": "something else"}
    now[0] = 60.0
    assert line() == {"event": "protocol violation", "left_out": 3}
    now[0] = 120.0
    assert line() == {"event": "protocol violation"}


def test_it_does_not_remember_for_ever():
    throttle = Throttle(2, lambda: 0.0)
    for n in range(3 * MOST_KINDS):
        throttle(None, "info", {"event": str(n)})
    assert len(throttle._kinds) <= MOST_KINDS


@pytest.mark.parametrize(("most", "written"), [(3, 3), (0, 50)])
def test_the_log_of_a_broker_is_held_to_its_setting(most, written):
    stream = io.StringIO()
    log = make_log(LogSettings(format="json", max_per_minute=most), stream)
    for n in range(50):
        log.warning("protocol violation", peer=f"1.2.3.4:{n}")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == written
    assert lines[0]["peer"] == "1.2.3.4:0"
