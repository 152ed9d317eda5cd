"""Do the programs that people begin with (examples/amqp: a queue, workers, news, logs, topics, questions) do their work?"""

import os
import queue
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pika
import pytest

from tests.interop.amqp_programs import until

EXAMPLES = Path(__file__).parents[2] / "examples" / "amqp"
PATIENCE_S = 60


class Programs:
    """Runs examples against one broker."""

    def __init__(self, port):
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
        self._environment = os.environ | {"TIDEGATE_AMQP": self.url, "PYTHONUNBUFFERED": "1"}

    def run(self, script, *arguments):
        """Run a program to its end and return its lines."""
        command = [sys.executable, EXAMPLES / script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=self._environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    @contextmanager
    def running(self, script, *arguments, says):
        """Run a program meanwhile, from when it has said that it is ready on; gives a function that returns its next line."""
        command = [sys.executable, EXAMPLES / script, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment) as process:
            lines = queue.SimpleQueue()
            reader = threading.Thread(target=lambda: [lines.put(line.rstrip("\n")) for line in process.stdout])
            reader.start()
            try:
                assert lines.get(timeout=PATIENCE_S) == says
                yield lambda: lines.get(timeout=PATIENCE_S)
            finally:
                process.kill()
                reader.join()


@pytest.fixture
def programs(amqp_port):
    running = Programs(amqp_port)
    with pika.BlockingConnection(pika.URLParameters(running.url)) as connection:
        channel = connection.channel()
        for name in ("hello", "tasks", "squares"):
            channel.queue_delete(name)
        for name in ("logs", "news"):
            channel.exchange_delete(name)
    return running


def test_a_message_waits_in_its_queue_for_whoever_listens(programs):
    assert programs.run("say_hello.py") == ["said: Hello World!"]
    with programs.running("hear_hello.py", says="listening") as heard:
        assert heard() == "heard: Hello World!"
        programs.run("say_hello.py")
        assert heard() == "heard: Hello World!"


@pytest.mark.slow
def test_workers_share_tasks_and_one_that_is_killed_loses_none(programs):
    with ExitStack() as stack:
        first = stack.enter_context(programs.running("do_tasks.py", says="ready for work"))
        with programs.running("do_tasks.py", says="ready for work") as second:
            for task in ("one", "two"):
                assert programs.run("give_task.py", task) == [f"given: {task}"]
            assert {first(), second()} == {"done: one", "done: two"}
            programs.run("give_task.py", "long" + "." * 300)
            programs.run("give_task.py", "long" + "." * 300)
    with pika.BlockingConnection(pika.URLParameters(programs.url)) as spy:
        channel = spy.channel()
        until(lambda: channel.queue_declare("tasks", passive=True).method.message_count == 2)


@pytest.mark.slow
def test_all_who_listen_are_told(programs):
    with programs.running("listen.py", says="listening") as one, programs.running("listen.py", says="listening") as other:
        assert programs.run("tell_all.py", "it", "rains") == ["told: it rains"]
        assert (one(), other()) == ("news: it rains", "news: it rains")


@pytest.mark.slow
def test_each_sees_the_severities_that_it_asked_for(programs):
    with (
        programs.running("watch_log.py", "error", says="watching") as errors,
        programs.running("watch_log.py", "info", "error", says="watching") as more,
    ):
        programs.run("log.py")
        programs.run("log.py", "error", "disk", "full")
        assert errors() == "error: disk full"
        assert [more(), more()] == ["info: all is well", "error: disk full"]


@pytest.mark.slow
def test_each_sees_the_topics_that_it_asked_for(programs):
    with (
        programs.running("watch_topics.py", "plant.*.temp", says="watching") as temperatures,
        programs.running("watch_topics.py", "plant.3.#", "#.temp", says="watching") as third,
    ):
        for topic, reading in (("plant.3.temp", "21.5"), ("plant.3.door.state", "open"), ("plant.4.temp", "19")):
            assert programs.run("measure.py", topic, reading) == [f"measured: {topic} {reading}"]
        assert [temperatures(), temperatures()] == ["plant.3.temp: 21.5", "plant.4.temp: 19"]
        assert [third() for _ in range(3)] == ["plant.3.temp: 21.5", "plant.3.door.state: open", "plant.4.temp: 19"]


def test_questions_are_answered_by_whichever_service_is_free(programs):
    with (
        programs.running("answer_squares.py", says="ready for questions"),
        programs.running("answer_squares.py", says="ready for questions"),
    ):
        said = programs.run("ask_squares.py", *map(str, range(10)))
    assert sorted(said) == sorted(f"{n} squared is {n * n}" for n in range(10))
