"""Does the demo show what it claims, and does it clean up?"""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from gateway.cli.demo import run as running
from gateway.cli.demo.children import Child
from gateway.cli.demo.reports import PAUSE, RESUME
from gateway.cli.demo.run import Plan, run_demo

TIDEGATE = str(Path(sys.executable).with_name("tidegate"))
SHORT = ["--seconds", "4", "--sensors", "4", "--workers", "2"]


@pytest.fixture
def marked(tmp_path):
    """An environment by which the demo's processes are known, with a directory of its own for temporary files."""
    return os.environ | {"TIDEGATE_TEST_MARK": uuid.uuid4().hex, "TMPDIR": str(tmp_path)}


def alive(environment):
    """The pids of all processes with this environment's mark."""
    mark = f"TIDEGATE_TEST_MARK={environment['TIDEGATE_TEST_MARK']}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def ends(environment, seconds):
    deadline = time.monotonic() + seconds
    while alive(environment) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(environment)


def demo(environment, *options):
    """Start a demo that hears SIGINT, even where these tests are run in the background and do not."""
    return subprocess.Popen(
        [TIDEGATE, "demo", *SHORT, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


needs_amqtt = pytest.mark.skipif(importlib.util.find_spec("amqtt") is None, reason="amqtt is not installed")
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc here")


@pytest.mark.slow
@needs_amqtt
@needs_proc
def test_a_short_demo_loses_nothing_and_leaves_nothing_behind(marked, tmp_path):
    process = demo(marked)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    table = {name: int(count) for name, count in re.findall(r"^(\w[a-z ]+?) +(\d+)$", out, re.MULTILINE)}
    assert set(table) == {"confirmed", "delivered", "lost", "duplicated", "redelivered", "waiting at the kill", "from disk"}
    assert table["confirmed"] > 50
    assert table["delivered"] >= table["confirmed"]
    assert table["lost"] == 0
    assert table["waiting at the kill"] > 10
    assert table["from disk"] == table["waiting at the kill"]
    assert f"{table['waiting at the kill']} wait in the queue" in out
    assert "killed with SIGKILL" in out
    assert list(tmp_path.glob("tidegate-demo-*")) == []  # where paths are long a killed broker leaves what shortened its socket's
    assert ends(marked, 0)


@pytest.mark.slow
@needs_amqtt
@needs_proc
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_demo_that_is_ended(marked, end):
    with demo(marked, "--seconds", "600") as process:  # it does not end by itself meanwhile
        for line in process.stdout:
            if re.search(r" confirmed [1-9]", line):
                break
        assert len(alive(marked)) == 1 + 1 + 1 + 2, "the demo, its broker, its sensors, its workers"
        process.send_signal(end)
        assert ends(marked, 60)
    assert process.returncode != 0


@pytest.mark.slow
@needs_amqtt
def test_with_a_journal_that_keeps_nothing_the_demo_fails(monkeypatch, capsys):
    monkeypatch.setattr(running, "_CONFIGURATION", running._CONFIGURATION + '[journal]\nkind = "memory"\n')
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run_demo(Plan(4.0, 4, 2)) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "Every confirmed message was delivered" not in capsys.readouterr().out


def test_without_amqtt_the_demo_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_demo(Plan()) == 2
    assert "In a checkout: pip install '.[demo]'" in capsys.readouterr().err


def test_a_child_that_does_not_end_when_asked_is_killed(tmp_path):
    stubborn = tmp_path / "stubborn.py"
    stubborn.write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(60)\n"
    )
    lines = []
    with Child("stubborn", "stubborn", [], tmp_path, lines.append, end_s=0.2) as child:
        while not lines:
            time.sleep(0.01)
        pid = child.pid
    assert lines == ["here"]
    assert child.status == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_ends_when_its_parent_is_gone(tmp_path):
    orphan = tmp_path / "orphan.py"
    orphan.write_text("import time\nfrom gateway.cli.demo.reports import watch_parent\nwatch_parent()\ntime.sleep(60)\n")
    with Child("orphan", "orphan", [], tmp_path, print) as child:
        child._process.stdin.close()
        assert child.wait(60)
        assert child.status == 1


def test_a_broker_that_does_not_start_is_told_with_its_own_words(tmp_path):
    broker = running.Broker(tmp_path)
    broker.mqtt = "tcp://nonsense"
    with pytest.raises(running.DemoFailed, match=r"(?s)ended with status 2.*frontend\.mqtt"):
        broker.start()


def test_a_child_does_what_it_is_told_in_the_order_in_which_it_is_told(tmp_path):
    obedient = tmp_path / "obedient.py"
    obedient.write_text(
        "import time\nfrom gateway.cli.demo.reports import PAUSE, RESUME, watch_parent\n"
        "say = lambda word: print(word, flush=True)\n"
        "watch_parent({PAUSE: lambda: say('pause'), RESUME: lambda: say('resume')})\ntime.sleep(60)\n"
    )
    lines = []
    with Child("obedient", "obedient", [], tmp_path, lines.append) as child:
        for order in (PAUSE, b"dance", RESUME, PAUSE):
            child.tell(order)
        deadline = time.monotonic() + 60
        while len(lines) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert lines == ["pause", "resume", "pause"]
    child.tell(PAUSE)  # it has ended: nothing happens
