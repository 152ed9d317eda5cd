"""What exactly is running?"""

from __future__ import annotations

import importlib.util
import platform
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from gateway import __version__

LIST = Path(__file__).with_name("compiled.txt")
"""The modules that the build compiled, one on each line; not there, if it compiled none."""


def build_of(modules: list[str]) -> str:
    """Say whether what the build compiled runs as machine code, all of it or in part, or as Python."""
    amount = sum(map(_is_machine_code, modules))
    if amount == 0:
        return "pure Python, not compiled"
    return "compiled" if amount == len(modules) else f"compiled in part: {amount} of {len(modules)} modules"


def is_compiled() -> bool:
    """Say whether all of the hot path runs as machine code."""
    return build_of(_compiled_modules()) == "compiled"


def version_line() -> str:
    """Return version, kind of build, Python and machine on one line."""
    build = build_of(_compiled_modules())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"tidegate {__version__} ({build}; {python}; {sys.platform} {platform.machine()})"


def _compiled_modules() -> list[str]:
    return LIST.read_text(encoding="utf-8").split() if LIST.exists() else []


def _is_machine_code(module: str) -> bool:
    """Say what an import of a module loads, without importing the packages that it is in: machine code goes before Python."""
    package, *rooms = module.split(".")
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations if spec is not None else None) or ()
    return any(Path(place, *rooms).with_suffix(suffix).exists() for place in places for suffix in EXTENSION_SUFFIXES)
