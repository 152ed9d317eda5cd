"""Do the programs of docs/clients.md do what the page says?"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import client
from gateway.client import on_trio
from tests.live_broker import LiveBroker

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("broker")) as live:
        yield live


def run(program, broker):
    text = program.replace("tcp://127.0.0.1:5570", broker.addresses["ROUTER"])
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_there_are_three_programs():
    assert len(PROGRAMS) == 3


@pytest.mark.parametrize("program", PROGRAMS[:2], ids=["sync", "trio"])
def test_what_is_published_is_worked_on(program, broker):
    lines = run(program, broker)
    assert len(lines) == 101
    assert lines[0] == "order.7.paid b'49.90'"
    assert lines[-1] == "order.99.paid b'10.00'"


def test_many_messages_are_all_there(broker):
    run(PROGRAMS[2], broker)
    with client.connect(broker.addresses["ROUTER"]) as checker:
        assert checker.declare_queue("numbers")["messages"] == 10_000


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def test_both_clients_have_the_same_names():
    only_sync, only_trio = public(client.Client) - public(on_trio.Client), public(on_trio.Client) - public(client.Client)
    assert only_sync == {"next_delivery", "poll"}
    assert only_trio == {"handed", "opened", "run"}
    assert public(client.Confirm) == public(on_trio.Confirm)
    assert public(client.Consumer) == public(on_trio.Consumer)


def test_every_error_is_told():
    for name in client.__all__:
        if isinstance(getattr(client, name), type) and issubclass(getattr(client, name), Exception):
            assert f"`{name}`" in PAGE
