"""What does a journal leave behind that is killed at one certain operation? A child process per question, of one parent.

Loaded with the fault injector; a line of JSON on standard input: directory, seed, steps (0: it is opened, and that is all), rule.
One as the answer: the steps that were confirmed, and how the child ended.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

from gateway.journal.sqlite import SqliteJournal

_spec = importlib.util.spec_from_file_location("crash_writer", Path(__file__).with_name("crash_writer.py"))
crash_writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(crash_writer)


def told(rule: str) -> None:
    control = Path(os.environ["FAULT_CONTROL"])
    fresh = control.with_suffix(".new")
    fresh.write_text(rule)
    fresh.replace(control)


def run(directory: str, seed: int, steps: int, rule: str) -> dict:
    told(rule)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        try:
            if steps:
                crash_writer.main(directory, "FULL", str(seed), str(steps))
            else:
                SqliteJournal(Path(directory)).open()
                os._exit(0)
        finally:
            os._exit(9)
    os.close(writing)
    with os.fdopen(reading) as lines:
        confirmed = [int(line) for line in lines]
    _, status = os.waitpid(child, 0)
    return {"confirmed": confirmed, "status": os.waitstatus_to_exitcode(status)}


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(**json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
