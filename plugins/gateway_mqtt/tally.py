"""How much was received and sent, and of what kind?"""

from __future__ import annotations

from typing import Final

ACK_BYTES: Final = 4
"""Of a plain PUBACK."""


class Tally:
    """What many connections have received: ``acks`` (plain PUBACKs) and ``others``, among them ``rest`` (what is no PUBLISH).

    ``size`` bytes in all, ``rest_bytes`` of the rest. Added to once per read.
    """

    __slots__ = ("acks", "others", "rest", "rest_bytes", "size")

    def __init__(self) -> None:
        self.acks: int = 0
        self.others: int = 0
        self.size: int = 0
        self.rest: int = 0
        self.rest_bytes: int = 0

    def signal(self, size: int) -> None:
        """One more that is no PUBLISH and no PUBACK, on its own."""
        self.others += 1
        self.size += size
        self.rest += 1
        self.rest_bytes += size

    @property
    def packets(self) -> int:
        """How many in all."""
        return self.acks + self.others

    @property
    def publishes(self) -> int:
        """How many PUBLISHes."""
        return self.others - self.rest

    @property
    def publish_bytes(self) -> int:
        """How many bytes they had, the whole packets."""
        return self.size - ACK_BYTES * self.acks - self.rest_bytes


class Sent:
    """What many connections were sent: ``publishes``, and ``others`` of ``other_bytes`` in all.

    ``publishes`` are as of the last look at every connection: a copy is not counted on its own.
    """

    __slots__ = ("other_bytes", "others", "publishes")

    def __init__(self) -> None:
        self.publishes: int = 0
        self.others: int = 0
        self.other_bytes: int = 0

    def other(self, data: bytes) -> None:
        """One more that is no PUBLISH."""
        self.others += 1
        self.other_bytes += len(data)

    @property
    def packets(self) -> int:
        """How many in all."""
        return self.publishes + self.others
