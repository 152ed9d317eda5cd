"""With which words does a shell start this very program, and this very Python?"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

_NAME = "tidegate"


def own_command() -> str:
    """Return ``tidegate`` if that starts this installation; else its path, or the module that does."""
    started = Path(sys.argv[0])
    own = started if started.name == _NAME else Path(sys.executable).with_name(_NAME)
    found = shutil.which(_NAME)
    if not own.exists():
        return f"{own_python()} -m gateway"
    return _NAME if found is not None and Path(found).samefile(own) else shlex.quote(str(own.absolute()))


def own_python() -> str:
    """Return ``python`` if that is the one that runs here; else its path."""
    found = shutil.which("python")
    # Those of virtual environments are links to one and the same file: the directory tells them apart.
    if found is not None and Path(found).parent.resolve() == Path(sys.executable).parent.resolve():
        return "python"
    return shlex.quote(sys.executable)
