"""How do the demo's processes tell their parent what they did, and how do they learn that it is gone?

One JSON object per line on standard output. A child ends when its standard input ends: so no child outlives its parent, even if
the parent is killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

STOP = b"stop\n"


def report(**values: Any) -> None:
    """Write one line to the parent."""
    sys.stdout.write(json.dumps(values, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def watch_parent(on_stop: Callable[[], None] = lambda: None) -> None:
    """Call `on_stop` (in a thread of its own) when the parent asks for it; end this process when the parent is gone."""

    def watch() -> None:
        while data := os.read(0, 64):  # not sys.stdin: its lock would be held while the interpreter ends
            if STOP in data:
                on_stop()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
