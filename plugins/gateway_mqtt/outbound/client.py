"""What does a client want of what it is sent?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway_mqtt.codec.names import MAX_IDENTIFIER, MAX_LENGTH, MQTT_5, MQTT_311

MOST_ALIASED_BYTES: Final = 1_024
"""Routing keys that are longer get no alias: what a connection remembers is bounded in bytes."""
FEWEST_ALIASED_BYTES: Final = 3
"""Those that are no longer would not be spared anything."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What a connection may be sent.

    Args:
        level: of the protocol: 3, 4 or 5.
        receive_maximum: publishes of QoS 1 and 2 without an answer (MQTT 5.0 §3.1.2.11.3).
        topic_alias_maximum: how many topic aliases may be used; the smaller of the client's and the broker's.
        maximum_packet_bytes: of a whole packet (MQTT 5.0 §3.1.2.11.4).
        keeps_transient: the session's queue keeps messages of QoS 0 (`QueueSpec.keep_transient`).
        bridge: it wants the RETAIN flag as published, though its level has no option for that.
    """

    level: int = MQTT_311
    receive_maximum: int = MAX_IDENTIFIER
    topic_alias_maximum: int = 0
    maximum_packet_bytes: int = MAX_LENGTH + 5
    keeps_transient: bool = False
    bridge: bool = False

    @property
    def has_options(self) -> bool:
        """Subscriptions may say more than a QoS."""
        return self.level == MQTT_5 or self.bridge

    @property
    def is_strict(self) -> bool:
        """Every message has to be looked at."""
        return self.keeps_transient or self.topic_alias_maximum > 0 or self.maximum_packet_bytes < MAX_LENGTH + 5


class SentAliases:
    """Which routing keys stand behind which topic aliases, towards one client? First come, first served [MQTT5-3.1.2-26]."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._known: dict[str, int] = {}
        self._most: int = most

    def of(self, key: str) -> int:
        """Return the alias that the client knows for a key; 0: none."""
        return self._known.get(key, 0)

    def next(self, key: str) -> int:
        """Return the alias that a key could get; 0: none."""
        if len(self._known) >= self._most or not FEWEST_ALIASED_BYTES <= len(key) <= MOST_ALIASED_BYTES:
            return 0
        return len(self._known) + 1

    def sent(self, key: str) -> None:
        """A packet goes out that has both the topic and the next alias."""
        self._known[key] = len(self._known) + 1
