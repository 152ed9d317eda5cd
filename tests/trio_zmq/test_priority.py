"""Do libzmq's threads give way to their program, and nobody else's?"""

import os
import sys
import threading
from pathlib import Path

import pytest
import zmq

from trio_zmq import Context
from trio_zmq.priority import NICE, calm_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")


def niceness():
    """Return how nice each thread is that is not Python's, by its number."""
    pythons = {thread.native_id for thread in threading.enumerate()}
    threads = {int(task.name) for task in Path("/proc/self/task").iterdir()} - pythons
    return {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}


async def test_threads_of_a_context_give_way_and_those_of_others_are_left_alone():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    other = zmq.Context()
    other.socket(zmq.PAIR).close(0)
    before = niceness()
    try:
        async with Context(linger_ms=0) as context:
            context.socket(zmq.PULL)
            context.socket(zmq.PULL)
            after = niceness()
            new = {thread: nice for thread, nice in after.items() if thread not in before}
            assert len(new) >= 2  # one that reads and writes, one that tidies up
            assert set(new.values()) == {min(own + NICE, 19)}
            assert {thread: after[thread] for thread in before} == before
            assert os.getpriority(os.PRIO_PROCESS, 0) == own
    finally:
        other.destroy(linger=0)


def test_nobody_is_nicer_than_the_system_allows():
    context = zmq.Context()
    before = niceness()
    try:
        with calm_threads(nice=100):
            context.socket(zmq.PAIR).close(0)
        assert {nice for thread, nice in niceness().items() if thread not in before} == {19}
    finally:
        context.destroy(linger=0)


def test_a_thread_of_python_that_begins_meanwhile_is_left_alone():
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    with calm_threads():
        thread.start()
    try:
        assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        over.set()
        thread.join()
