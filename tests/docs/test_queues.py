"""Does docs/queues.md list what there is, and does its example work?"""

import re
import sys
from pathlib import Path
from subprocess import run

from gateway.client import connect
from gateway.model.arguments import POLICY_KEYS, QUEUE_ARGUMENTS, RETRY_ARGUMENTS
from tests.live_broker import LiveBroker

PAGE = (Path(__file__).parents[2] / "docs" / "queues.md").read_text()
ROWS = re.findall(r"^\| (`x-.*?) \| .* \| (yes|no) \|$", PAGE, re.MULTILINE)


def arguments(policy):
    return {name for names, by_policy in ROWS for name in re.findall(r"`(x-[a-z-]+)`", names) if by_policy in policy}


def test_the_table_has_every_argument_and_no_other():
    assert arguments({"yes", "no"}) == {*QUEUE_ARGUMENTS, *RETRY_ARGUMENTS, "x-queue-type"}


def test_the_table_says_which_a_policy_can_set():
    assert {name.removeprefix("x-") for name in arguments({"yes"})} == {
        *POLICY_KEYS,
        *(name.removeprefix("x-") for name in RETRY_ARGUMENTS),
    }


def test_the_example_makes_a_queue_whose_rejected_messages_are_found_beside_it(tmp_path):
    (example,) = re.findall(r"^<!-- retry -->\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    with LiveBroker(tmp_path) as live:
        address = live.addresses["ROUTER"]
        program = example.replace("tcp://127.0.0.1:5570", address)
        run([sys.executable, "-c", program], check=True, timeout=60)
        with connect(address) as client:
            client.publish("", "jobs", b"broken", wait=True)
            next(iter(client.consume("jobs"))).nack(requeue=False)
            dead = next(iter(client.consume("jobs.dead")))
            assert dead.body == b"broken"
            assert [(death["queue"], death["reason"]) for death in dead.properties["headers"]["x-death"]] == [("jobs", "rejected")]
