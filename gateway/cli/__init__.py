"""Which commands does tidegate have?"""

from __future__ import annotations

import sys

_OLDEST_PYTHON = (3, 11)
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; ends the process."""
    if sys.version_info < _OLDEST_PYTHON:  # said before anything is imported that an older Python can't read
        sys.exit(f"tidegate: needs Python 3.11 or later, this is {sys.version.split()[0]} at {sys.executable}")
    try:
        from gateway.cli.commands import app

        app(prog_name="tidegate")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
