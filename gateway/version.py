"""What exactly is running?"""

from __future__ import annotations

import importlib.util
import platform
import sys

from gateway import __version__

_COMPILED_FIRST = "gateway.engine.engine"


def is_compiled() -> bool:
    """Say whether the hot path runs as machine code (an extension module) or as Python."""
    spec = importlib.util.find_spec(_COMPILED_FIRST)
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def version_line() -> str:
    """Return version, kind of build, Python and machine on one line."""
    build = "compiled" if is_compiled() else "pure Python, not compiled"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"tidegate {__version__} ({build}; {python}; {sys.platform} {platform.machine()})"
