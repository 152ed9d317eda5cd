"""How do the demo's processes tell their parent what they did, and how do they learn that it is gone?

One JSON object per line on standard output; orders come as lines on standard input. A child ends when its standard input
ends: so no child outlives its parent, even if the parent is killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

STOP, PAUSE, RESUME = b"stop", b"pause", b"resume"
_NO_ORDERS: Mapping[bytes, Callable[[], None]] = {}


def report(**values: Any) -> None:
    """Write one line to the parent."""
    sys.stdout.write(json.dumps(values, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def watch_parent(orders: Mapping[bytes, Callable[[], None]] = _NO_ORDERS) -> None:
    """Do (in a thread of its own) what the parent orders; end this process when the parent is gone."""

    def watch() -> None:
        rest = b""
        while data := os.read(0, 64):  # not sys.stdin: its lock would be held while the interpreter ends
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line in orders:
                    orders[line]()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
