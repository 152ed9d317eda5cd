"""What do the tests of several pages start?"""

import subprocess
import sys

import pytest


@pytest.fixture
def running():
    """Start Python programs; they end with the test."""
    processes = []

    def start(text):
        process = subprocess.Popen([sys.executable, "-u", "-c", text], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
