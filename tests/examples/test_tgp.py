"""Can a client of TGP/1 be written in other languages, from docs/tgp.md, in less than 150 lines?"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.client import connect
from tests.live_broker import LiveBroker
from tests.programs import missing

EXAMPLES = Path(__file__).parents[2] / "examples" / "tgp"
CACHE = Path(__file__).parents[2] / "build" / "npm-zeromq"
ZEROMQ_JS = "6.8.0"
PATIENCE_S = 60


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("broker")) as live:
        yield live


def program(name):
    found = shutil.which(name)
    if found is None:
        missing(f"the program {name} is not installed")
    return found


@pytest.fixture(scope="module")
def c(tmp_path_factory):
    """The example in C, compiled; a command and its environment."""
    compiler, made = program("gcc"), tmp_path_factory.mktemp("c") / "jobs"
    probe = subprocess.run([compiler, "-E", "-include", "zmq.h", "-x", "c", os.devnull], capture_output=True, check=False)
    if probe.returncode:
        missing("libzmq's headers are not installed (Debian: libzmq3-dev)")
    source = str(EXAMPLES / "jobs.c")
    done = subprocess.run(
        [compiler, "-Wall", "-Wextra", "-Werror", "-o", str(made), source, "-lzmq"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [str(made)], {}


@pytest.fixture(scope="module")
def js():
    """The example in JavaScript. npm's zeromq is fetched only where programs are required."""
    node, module = program("node"), CACHE / "node_modules" / "zeromq"
    if not module.exists() or f'"{ZEROMQ_JS}"' not in (module / "package.json").read_text():
        if os.environ.get("TIDEGATE_REQUIRE_PROGRAMS") != "1":
            missing(f"npm's zeromq is not installed: npm install --prefix {CACHE} zeromq@{ZEROMQ_JS}")
        CACHE.mkdir(parents=True, exist_ok=True)
        install = ["install", "--no-audit", "--no-fund", "--prefix", str(CACHE), f"zeromq@{ZEROMQ_JS}"]
        done = subprocess.run([program("npm"), *install], check=False, capture_output=True, text=True, timeout=100)
        if done.returncode:
            missing(f"npm can't install zeromq: {done.stderr}")
    return [node, str(EXAMPLES / "jobs.js")], {"ZEROMQ_JS": str(module)}


@pytest.fixture
def example(request):
    return request.getfixturevalue(request.param)


both = pytest.mark.parametrize("example", ["c", "js"], indirect=True)


def start(example, broker, *arguments):
    command, environment = example
    return subprocess.Popen(
        [*command, *arguments],
        env=os.environ | environment | {"TIDEGATE_TGP": broker.addresses["ROUTER"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    return said.splitlines()


@both
def test_what_it_publishes_is_confirmed_and_what_it_works_on_leaves_the_queue(example, broker):
    with connect(broker.addresses["ROUTER"]) as client:
        client.declare_queue("jobs")
        for _ in range(2):  # the second one goes on counting where the first has ended
            said = finish(start(example, broker, "publish", "30"))
            assert [line.split()[0] for line in said] == ["confirmed"] * 30
        assert client.declare_queue("jobs")["messages"] == 60
        said = finish(start(example, broker, "work", "60"))
        assert [line for line in said if line != "waiting for jobs"] == [f"done job {n}" for _ in range(2) for n in range(1, 31)]
        client.poll(0.1)
        assert client.get("jobs") is None


@pytest.mark.slow
@both
def test_it_lives_through_heartbeats(example, broker):
    with connect(broker.addresses["ROUTER"]) as client:
        worker = start(example, broker, "work", "1")
        try:
            assert worker.stdout.readline() == "waiting for jobs\n"
            client.poll(7)  # more than three of its heartbeats
            client.publish("", "jobs", b"late", wait=True)
            assert finish(worker) == ["done late"]
        finally:
            worker.kill()
            worker.wait()


@pytest.mark.slow
def test_the_one_in_javascript_goes_on_when_the_broker_comes_back(js, tmp_path):
    with LiveBroker(tmp_path) as broker:
        worker = start(js, broker, "work", "20")
        try:
            with connect(broker.addresses["ROUTER"], client="test") as client:
                while (line := worker.stdout.readline()) != "waiting for jobs\n":
                    assert line
                client.publish_many([("", "jobs", b"%d" % n) for n in range(10)], wait=True)
                for n in range(10):
                    assert worker.stdout.readline() == f"done {n}\n"
                client.poll(0.2)
                broker.kill()
                broker.start()
                client.publish_many([("", "jobs", b"%d" % n) for n in range(10, 20)], wait=True)
            assert set(finish(worker)) == {f"done {n}" for n in range(10, 20)}
        finally:
            worker.kill()
            worker.wait()


@pytest.mark.parametrize("name", ["jobs.c", "jobs.js"])
def test_it_is_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) < 150
