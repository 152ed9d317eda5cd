"""Does a Celery application work: results, retries, ETA, prefetch, late acknowledgements, workers that are killed, restarts?"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import pika
import pytest
from celery import Celery, chain, group

from tests.interop.amqp_programs import PATIENCE_S, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"),  # Celery leaves some open
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
ROOT = Path(__file__).parents[2]


class Application:
    """The tests' side of the application, with a queue of its own, and workers."""

    def __init__(self, port, directory):
        self.port = port
        self.directory = directory
        self.queue = f"celery-{uuid.uuid4().hex[:8]}"
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        self.app = Celery("tests", broker=self.url, backend="rpc://", set_as_current=False)
        self.app.conf.update(task_default_queue=self.queue, broker_connection_timeout=PATIENCE_S)

    def task(self, name, *arguments):
        return self.app.signature(name, arguments)

    @contextmanager
    def worker(self, *options):
        """A worker process, from when it is ready on; by default it works itself, one task at a time."""
        environment = os.environ | {"TEST_CELERY_BROKER": self.url, "TEST_CELERY_QUEUE": self.queue}
        command = [sys.executable, "-m", "celery", "-A", "tests.interop.celery_tasks", "worker", "--loglevel=INFO"]
        command += [f"--hostname={uuid.uuid4().hex[:6]}@%h", *(options or ("--pool=solo",))]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
            lines = queue.SimpleQueue()
            reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout])
            reader.start()
            try:
                while not (line := lines.get(timeout=PATIENCE_S)).rstrip().endswith(" ready."):
                    assert process.poll() is None, line
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(PATIENCE_S)
                    finally:
                        process.kill()
                reader.join()

    def notes(self):
        file = self.directory / "notes"
        return file.read_text().splitlines() if file.exists() else []

    def ready(self):
        """Return how many tasks wait in the queue."""
        with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self.port)) as connection:
            return connection.channel().queue_declare(self.queue, passive=True).method.message_count

    def end(self):
        with suppress(AttributeError, OSError):  # it never began, or its broker has gone
            self.app.backend.result_consumer.stop()
        self.app.close()
        with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self.port)) as connection:
            connection.channel().queue_delete(self.queue)


@pytest.fixture
def application(amqp_port, tmp_path):
    made = Application(amqp_port, tmp_path)
    yield made
    made.end()


def test_tasks_are_done_chained_grouped_retried_and_begun_when_they_are_due(application):
    task, app = application.task, application.app
    with application.worker("--pool=prefork", "--concurrency=2"):
        assert task("add", 2, 3).delay().get(timeout=PATIENCE_S) == 5
        rest = [app.signature("add", (more,)) for more in (10, 100)]
        assert chain(task("add", 1, 2), *rest, app=app)().get(timeout=PATIENCE_S) == 113
        assert group((task("add", n, n) for n in range(20)), app=app)().get(timeout=PATIENCE_S) == [2 * n for n in range(20)]
        assert task("succeeds_at_last", 2).delay().get(timeout=PATIENCE_S) == 2
        with pytest.raises(OSError, match="not yet"):
            task("succeeds_at_last", 4).delay().get(timeout=PATIENCE_S)
        due = time.time() + 2
        began, redelivered = task("when").apply_async(countdown=2).get(timeout=PATIENCE_S)
        assert due - 0.1 <= began <= due + 30
        assert not redelivered
        (answer,) = app.control.ping(timeout=PATIENCE_S, limit=1)
        assert list(answer.values()) == [{"ok": "pong"}]


def test_a_busy_worker_leaves_the_rest_in_the_queue(application):
    with application.worker():
        results = [application.task("waits", str(application.directory), n).delay() for n in range(4)]
        until(lambda: application.notes() == ["began 0 False"])
        until(lambda: application.ready() <= 3)
        time.sleep(0.3)  # so long it could take more
        assert application.ready() in {2, 3}  # one is being done, and one may have been fetched ahead
        (application.directory / "go").touch()
        with application.worker():
            assert [result.get(timeout=PATIENCE_S) for result in results] == [0, 1, 2, 3]


def test_a_task_that_was_not_acknowledged_is_done_again_when_its_worker_is_killed(application):
    with application.worker() as doomed:
        application.task("takes_long", str(application.directory), 7, 300).delay()
        until(lambda: application.notes() == ["began 7 False"])
        doomed.kill()
        doomed.wait()
    until(lambda: application.ready() == 1)
    with application.worker() as second:
        until(lambda: application.notes() == ["began 7 False", "began 7 True"])
        second.kill()


def test_workers_come_back_after_a_restart_of_the_broker(own_amqp_broker, tmp_path):
    application = Application(own_amqp_broker.port, tmp_path)
    with application.worker():
        assert application.task("add", 1, 1).delay().get(timeout=PATIENCE_S) == 2
        own_amqp_broker.kill()
        own_amqp_broker.start()
        application.task("takes_long", str(tmp_path), 1, 0.1).apply_async(retry=True)
        until(lambda: application.notes()[-1:] == ["ended 1"])
    application.end()
