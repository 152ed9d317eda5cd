"""What does this machine lack that a broker needs?"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterator

_SYSTEMS = ("linux", "darwin")
_MACHINES = ("x86_64", "amd64", "arm64", "aarch64")
_OLDEST_SQLITE = (3, 38, 0)


def lacking() -> Iterator[str]:
    """Yield what makes a start impossible, one sentence each."""
    for module, purpose in (("fcntl", "the lock of the data directory"), ("resource", "the limit of open files")):
        if importlib.util.find_spec(module) is None:
            yield f"Python's module {module} is missing here ({purpose}): Tidegate runs on Linux and macOS, this is {sys.platform}"
    if importlib.util.find_spec("_sqlite3") is None:
        yield "this Python was built without SQLite, in which Tidegate keeps its journal"
        return
    import sqlite3

    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        yield f"this Python's SQLite is {sqlite3.sqlite_version}: the journal needs 3.38 or later"


def untried() -> str:
    """Return a warning if nobody has tried this kind of machine; empty if it is a known one."""
    if sys.platform in _SYSTEMS and platform.machine().lower() in _MACHINES:
        return ""
    return f"Tidegate is tried on Linux and macOS on x86-64 and arm64, not on {sys.platform} on {platform.machine()}"
