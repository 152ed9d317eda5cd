"""The coverage-guided fuzzer of the codec, for a bounded time."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import missing

ROOT = Path(__file__).parents[3]
SECONDS = 30


@pytest.mark.slow
def test_half_a_minute_of_guided_fuzzing_finds_nothing(tmp_path):
    if importlib.util.find_spec("atheris") is None:
        missing("atheris is not installed")
    command = [sys.executable, "-m", "tests.mqtt.codec.fuzz", f"--seconds={SECONDS}", f"--folder={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=6 * SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "runs in" in done.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.name != "corpus"]
