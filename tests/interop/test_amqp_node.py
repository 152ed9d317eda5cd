"""Does npm's amqplib work?"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.programs import missing

CACHE = Path(__file__).parents[2] / "build" / "npm-amqplib"
AMQPLIB = "2.3.1"
SCRIPT = Path(__file__).with_name("amqp_js.js")
PATIENCE_S = 60


def program(name):
    found = shutil.which(name)
    if found is None:
        missing(f"the program {name} is not installed")
    return found


@pytest.fixture(scope="module")
def amqplib():
    """Return where amqplib is; it is fetched only where programs are required."""
    module = CACHE / "node_modules" / "amqplib"
    if not module.exists() or f'"{AMQPLIB}"' not in (module / "package.json").read_text():
        if os.environ.get("TIDEGATE_REQUIRE_PROGRAMS") != "1":
            missing(f"npm's amqplib is not installed: npm install --prefix {CACHE} amqplib@{AMQPLIB}")
        CACHE.mkdir(parents=True, exist_ok=True)
        install = ["install", "--no-audit", "--no-fund", "--prefix", str(CACHE), f"amqplib@{AMQPLIB}"]
        done = subprocess.run([program("npm"), *install], check=False, capture_output=True, text=True, timeout=100)
        if done.returncode:
            missing(f"npm can't install amqplib: {done.stderr}")
    return module


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("work", "worked 50"),
        ("properties", "properties kept"),
        ("refusals", "refused"),
        ("answers", "answered heard!"),
        ("gone", "told"),
    ],
)
def test_amqplib_does(what, says, amqplib, amqp_port):
    url = f"amqp://guest:guest@127.0.0.1:{amqp_port}"
    command = [program("node"), str(SCRIPT), str(amqplib), url, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{says}\n", "")
