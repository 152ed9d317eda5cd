"""How much memory does this process take, and how much may it?"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_STATM = "/proc/self/statm"
_CGROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""What cgroups of version 1 say where there is no limit, and more, is no limit."""


def resident_bytes() -> int:
    """Return what the process has in memory now; 0 where the system does not tell (it is read from Linux' /proc)."""
    try:
        with open(_STATM, "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def allowed_bytes(cgroups: Path = _CGROUPS, root: Path = _ROOT) -> int:
    """Return what the process may take: the least limit of its cgroups, or the machine's memory; 0: nobody knows."""
    limits = [limit for limit in (*_cgroup_limits(cgroups, root), _machine_bytes()) if 0 < limit < _UNLIMITED]
    return min(limits, default=0)


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _cgroup_limits(cgroups: Path, root: Path) -> list[int]:
    """Return the limits of the groups that the process is in, and of those around them."""
    try:
        lines = cgroups.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        controllers, path = line.split(":", 2)[1:] if line.count(":") > 1 else ("", "")
        if not controllers:
            limits += _limits_of(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits_of(root / "memory", path, "memory.limit_in_bytes")
    return limits


def _limits_of(root: Path, path: str, name: str) -> list[int]:
    group = root / path.lstrip("/")
    limits = []
    for directory in (group, *group.parents):
        with suppress(OSError, ValueError):  # "max" is no number; in a container the path may be that of another tree
            limits.append(int((directory / name).read_text(encoding="ascii")))
        if directory == root:
            break
    return limits


def _find_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


_trim = _find_trim()


def give_back() -> None:
    """Give memory that is free inside the process back to the system, where the C library can: else it counts as taken."""
    if _trim is not None:
        _trim(0)
