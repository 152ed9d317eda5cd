"""Where does a peer of a ROUTER socket stand, whatever it speaks?"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a peer stands."""

    GREETING = "it was not let in yet"
    READY = "ready"
    CLOSED = "gone, or about to be told so"
