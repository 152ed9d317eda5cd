"""Do the programs of docs/trio-zmq.md run, and does the page name all that there is?"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import trio_zmq
from trio_zmq import Context, Monitor, Socket
from trio_zmq.context import MAX_SOCKETS
from trio_zmq.socket import LINGER_MS

PAGE = (Path(__file__).parents[2] / "docs" / "trio-zmq.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_its_programs_run(number):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAMS[number]], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_programs_say_what_the_page_says():
    assert len(PROGRAMS) == 5
    said = subprocess.run([sys.executable, "-c", PROGRAMS[3]], capture_output=True, text=True, timeout=60, check=True).stdout
    kinds = [line.split()[0] for line in said.splitlines()]
    assert kinds == ["LISTENING", "ACCEPTED", "HANDSHAKE_SUCCEEDED", "DISCONNECTED"]


def test_it_names_everything_that_is_public():
    for name in trio_zmq.__all__:
        assert f"`{name}" in PAGE or f"{name}(" in PAGE, name
    for thing in (Context, Socket, Monitor):
        for name in vars(thing):
            if not name.startswith("_") and name not in {"kind", "closed", "next_event"}:
                assert re.search(rf"`[^`]*\b{name}\b", PAGE), f"{thing.__name__}.{name}"


def test_its_numbers_are_those_of_the_code():
    assert f"max_sockets={MAX_SOCKETS}, io_threads=1, linger_ms={LINGER_MS}" in PAGE


def test_the_package_needs_pyzmq_and_trio_and_nothing_else():
    program = (
        "import sys, trio, zmq; before = set(sys.modules); import trio_zmq; "
        "print({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.strip() == "{'trio_zmq'}"
