"""What becomes of a test whose program is not on this machine?"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where programs are required (TIDEGATE_REQUIRE_PROGRAMS=1, as in CI)."""
    if os.environ.get("TIDEGATE_REQUIRE_PROGRAMS") == "1":
        pytest.fail(what)
    pytest.skip(what)
