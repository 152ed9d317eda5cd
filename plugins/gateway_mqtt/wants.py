"""What does a client want to be sent, and on which terms may it publish?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway_mqtt.codec.names import MAX_IDENTIFIER, MAX_LENGTH, MQTT_5
from gateway_mqtt.codec.packets import Connect
from gateway_mqtt.inbound import Terms
from gateway_mqtt.outbound import ClientLimits

if TYPE_CHECKING:
    from gateway_mqtt.settings import MqttSettings

MOST_WANTS: Final = 1_000
"""So many different ones are remembered."""
ANY_SIZE: Final = MAX_LENGTH + 5

_Said = tuple[int, bool, bool, bool, int, int, int]
"""All that `Wants` are made of: level, whether the session lasts, whether it is a bridge, four properties."""


class Wants:
    """What clients that say the same share."""

    __slots__ = ("limits", "terms")

    def __init__(self, terms: Terms, limits: ClientLimits) -> None:
        self.terms: Terms = terms
        self.limits: ClientLimits = limits


class AllWants:
    """What clients have wanted so far."""

    __slots__ = ("_known", "_settings")

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._known: dict[_Said, Wants] = {}

    def of(self, connect: Connect, *, lasts: bool) -> Wants:
        """Return what a client wants. `lasts`: its session outlives the connection."""
        asked = connect.properties
        said = (
            connect.level,
            lasts,
            connect.bridge,
            asked.request_problem_information is not False,
            asked.receive_maximum or MAX_IDENTIFIER,
            asked.topic_alias_maximum or 0,
            asked.maximum_packet_size or 0,
        )
        found = self._known.get(said)
        if found is None:
            if len(self._known) >= MOST_WANTS:
                self._known.clear()
            found = self._known[said] = self._made(*said)
        return found

    def _made(  # noqa: PLR0913 - see `_Said`
        self, level: int, lasts: bool, bridge: bool, informed: bool, receive_maximum: int, alias_maximum: int, most_bytes: int
    ) -> Wants:
        settings = self._settings
        five = level == MQTT_5
        terms = Terms(
            level,
            settings.receive_maximum if five else 0,
            settings.topic_alias_maximum if five else 0,
            settings.maximum_qos,
            settings.retained,
            settings.max_user_properties,
            informed,
            most_bytes,
        )
        limits = ClientLimits(
            level,
            receive_maximum,
            min(alias_maximum, settings.max_sent_topic_aliases),
            most_bytes or ANY_SIZE,
            keeps_transient=lasts and settings.keep_offline_qos_0,
            bridge=bridge,
        )
        return Wants(terms, limits)
