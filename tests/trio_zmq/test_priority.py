"""Do libzmq's threads give way to their program, and nobody else's?"""

import os
import sys
from pathlib import Path

import pytest
import zmq

from trio_zmq import Context
from trio_zmq.priority import NICE, calm_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")


def niceness():
    """Return how nice each thread of libzmq is, by its number."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(task.name): os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks if is_libzmq(task)}


def is_libzmq(task):
    try:
        return (task / "comm").read_text().startswith("ZMQbg")
    except FileNotFoundError:
        return False


async def test_threads_of_a_context_give_way_and_those_of_others_are_left_alone():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    other = zmq.Context()
    other.socket(zmq.PAIR).close(0)
    before = niceness()
    try:
        async with Context(linger_ms=0) as context:
            context.socket(zmq.PULL)
            context.socket(zmq.PULL)
            new = {thread: nice for thread, nice in niceness().items() if thread not in before}
            assert new
            assert set(new.values()) == {min(own + NICE, 19)}
            assert {thread: niceness()[thread] for thread in before} == before
            assert os.getpriority(os.PRIO_PROCESS, 0) == own
    finally:
        other.destroy(linger=0)


async def test_nobody_is_nicer_than_the_system_allows():
    context = zmq.Context()
    before = niceness()
    try:
        with calm_threads(nice=100):
            context.socket(zmq.PAIR).close(0)
        assert {nice for thread, nice in niceness().items() if thread not in before} == {19}
    finally:
        context.destroy(linger=0)
