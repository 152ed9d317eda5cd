"""How does hypothesis work in every test, what do its processes keep, and which tests has machine code no use for?"""

import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings

from gateway.version import is_compiled

# How long one example takes, or is drawn, says more of the machine's load than of the code. In CI the examples are the same each
# time, and one that fails is told as it is: to make it smaller takes minutes, and is done where somebody looks at it.
CI = bool(os.environ.get("CI"))
PHASES = (Phase.explicit, Phase.reuse, Phase.generate) if CI else tuple(Phase)
settings.register_profile("tidegate", deadline=None, derandomize=CI, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidegate")


# Else each process that a test starts, and a hundred are started, compiles all sources again, and pytest all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers() -> int:
    """Return one more than there are cores: tests wait for sockets and processes a third of their time."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what changes methods of the code under test, if that is compiled: its calls among itself would not see the change."""
    if is_compiled():
        for item in items:
            if item.get_closest_marker("interpreted") is not None:
                item.add_marker(pytest.mark.skip(reason="puts other methods into code that is compiled here"))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from going through thousands of tests again and again: they stay."""
    gc.collect()
    gc.freeze()
