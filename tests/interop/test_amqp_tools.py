"""Do amqp-tools (C, librabbitmq) publish, get, consume, declare and delete?"""

import shutil
import subprocess
import time
import uuid

import pytest

from tests.programs import missing

PATIENCE_S = 60


class Tools:
    def __init__(self, port):
        self._url = f"amqp://guest:guest@127.0.0.1:{port}"

    def command(self, name, *arguments):
        found = shutil.which(name)
        if found is None:
            missing(f"the program {name} is not installed (Debian: amqp-tools)")
        return [found, f"--url={self._url}", *arguments]

    def run(self, name, *arguments, stdin=b""):
        """Return exit status, output and complaints."""
        command = self.command(name, *arguments)
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE_S, check=False)
        return done.returncode, done.stdout, done.stderr.decode()

    def output(self, name, *arguments, stdin=b""):
        status, output, complaints = self.run(name, *arguments, stdin=stdin)
        assert (status, complaints) == (0, "")
        return output


@pytest.fixture
def tools(amqp_port):
    return Tools(amqp_port)


@pytest.fixture
def name(tools):
    name = f"tools-{uuid.uuid4()}"
    yield name
    tools.run("amqp-delete-queue", f"--queue={name}")


def test_a_queue_is_declared_filled_read_and_deleted(tools, name):
    assert tools.output("amqp-declare-queue", f"--queue={name}").decode().strip() == name
    assert tools.run("amqp-get", f"--queue={name}")[0] == 2
    tools.output("amqp-publish", f"--routing-key={name}", "--body=first", "--persistent", "--content-type=text/plain")
    tools.output("amqp-publish", f"--routing-key={name}", stdin=b"from standard input")
    assert tools.output("amqp-get", f"--queue={name}") == b"first"
    assert tools.output("amqp-delete-queue", f"--queue={name}").strip() == b"1"
    status, _, complaint = tools.run("amqp-get", f"--queue={name}")
    assert status == 1
    assert f"NOT_FOUND - no queue '{name}' in vhost '/'" in complaint


def test_each_message_is_given_to_a_program_and_acknowledged(tools, name):
    tools.output("amqp-declare-queue", "--durable", f"--queue={name}")
    for n in range(3):
        tools.output("amqp-publish", f"--routing-key={name}", f"--body={n}")
    assert tools.output("amqp-consume", f"--queue={name}", "--count=2", "--prefetch-count=1", "cat") == b"01"
    assert tools.output("amqp-get", f"--queue={name}") == b"2"


def test_lines_are_messages_and_a_temporary_queue_hears_an_exchange(tools, name):
    listen = tools.command("amqp-consume", "--exchange=amq.topic", f"--routing-key={name}.#", "--count=3", "cat")
    with subprocess.Popen(listen, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listener:
        try:
            assert listener.stderr.readline().startswith(b"Server provided queue name: amq.gen-")
            lines = ["amqp-publish", "--exchange=amq.topic", f"--routing-key={name}.a", "--line-buffered"]
            deadline = time.monotonic() + PATIENCE_S
            while listener.poll() is None:  # it says its queue's name before it binds it
                tools.output(*lines, stdin=b"x\nx\n")
                assert time.monotonic() < deadline
        finally:
            listener.kill()
        assert listener.stdout.read().split() == [b"x", b"x", b"x"]


def test_what_is_refused_is_told(tools):
    status, _, complaint = tools.run("amqp-declare-queue", "--queue=amq.mine")
    assert status == 1
    assert "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'" in complaint
