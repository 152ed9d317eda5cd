"""How far has a connection come?"""

from __future__ import annotations

from typing import Final

OPEN: Final = 0
SENDING: Final = 1
"""It is closing: the rest is being sent."""
LINGERING: Final = 2
"""All is sent; the peer may read it, until it closes or its time is over."""
LOST: Final = 3
"""Nothing can be sent any more; who served it is about to be told."""
GONE: Final = 4
CLOSING: Final = (SENDING, LINGERING)
