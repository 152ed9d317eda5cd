"""What do all MQTT connections share?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from gateway.api import Channel, Gateway, Overflow
from gateway_mqtt.codec.fields import Bounds
from gateway_mqtt.codec.names import MAX_IDENTIFIER, MAX_LENGTH, MQTT_5, MQTT_31, MQTT_311
from gateway_mqtt.codec.packets import Connect
from gateway_mqtt.expiry import Absences
from gateway_mqtt.halves import Halves
from gateway_mqtt.inbound import Terms
from gateway_mqtt.outbound import ClientLimits, Pulse
from gateway_mqtt.retained import Rota
from gateway_mqtt.session import SessionKey, Sessions
from gateway_mqtt.shared import Shares
from gateway_mqtt.store import Stores
from gateway_mqtt.sys_topics import SysTopics, Traffic
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.sessions import SESSION_OVERFLOW, SessionLimits
from gateway_mqtt.translate.topics import TopicLimits
from gateway_mqtt.waiting import Waiting

if TYPE_CHECKING:
    from gateway_mqtt.link import Link
    from gateway_mqtt.settings import MqttSettings

MAX_CONNECT_BYTES: Final = 512 * 1024
"""Of a CONNECT: five strings of 64 KiB, and some properties."""

MOST_TERMS: Final = 1_000
"""So many different ones are remembered."""
ANY_SIZE: Final = MAX_LENGTH + 5

_Limiting = tuple[int, int | None, int | None, int | None, bool, bool]
"""All that `ClientLimits` are made of: level, three properties, whether the session lasts, whether it is a bridge."""


class Chores(Protocol):
    """What the rooms without a clock or a task leave to the server."""

    def now_s(self) -> float:
        """Return the time that time-outs go by."""

    def sooner(self) -> None:
        """`Absences.next_due_ms` may have come closer."""

    def beat_soon(self) -> None:
        """Have `Pulse.beat` called in `PULSE_S`."""

    def memory(self) -> tuple[int, int]:
        """Return how much memory this process takes, and the most that it ever took, in bytes; 0: the system doesn't say."""


class Broker:
    """What all MQTT connections share; one per front-end that runs.

    Args:
        chores: who does what takes time, or has to be asked of the system.
    """

    __slots__ = (
        "_limits",
        "_terms",
        "absences",
        "bounds",
        "clean_limits",
        "encoders",
        "gateway",
        "halves",
        "lasting_limits",
        "max_connect_bytes",
        "pulse",
        "rota",
        "sessions",
        "settings",
        "shares",
        "stores",
        "sys_topics",
        "topic_limits",
        "traffic",
        "waiting",
    )

    def __init__(self, gateway: Gateway, settings: MqttSettings, chores: Chores) -> None:
        self.gateway: Gateway = gateway
        self.settings: MqttSettings = settings
        self.topic_limits = TopicLimits(settings.max_topic_levels, settings.max_topic_bytes)
        self.lasting_limits = SessionLimits(
            settings.session_max_messages,
            settings.session_max_bytes,
            SESSION_OVERFLOW[settings.session_overflow],
            settings.keep_offline_qos_0,
        )
        self.clean_limits = SessionLimits(settings.clean_session_max_messages, settings.clean_session_max_bytes, Overflow.END_QUEUE)
        self.bounds = Bounds(settings.max_filters_per_packet, settings.max_user_properties)
        self.max_connect_bytes: int = min(settings.max_packet_bytes, MAX_CONNECT_BYTES)
        self._terms: dict[tuple[int, bool, int], Terms] = {}
        self._limits: dict[_Limiting, ClientLimits] = {}
        self.rota = Rota(gateway.touch)
        self.pulse = Pulse(chores.beat_soon)
        before_5 = Encoder(MQTT_311, gateway.properties, gateway.now_ms)
        self.encoders: dict[int, Encoder] = {
            MQTT_31: before_5,
            MQTT_311: before_5,
            MQTT_5: Encoder(MQTT_5, gateway.properties, gateway.now_ms),
        }
        self.sessions: Sessions[Link] = Sessions()
        self.stores = Stores(gateway.log, gateway.count)
        self.absences = Absences(gateway, self.stores, self._ended, chores.sooner, self._shared)
        self.waiting = Waiting(settings.max_unconnected)
        self.halves = Halves(chores.now_s, settings.packet_timeout_s, settings.max_partial_bytes)
        self.traffic = Traffic()
        brief = SessionLimits(settings.clean_session_max_messages, settings.clean_session_max_bytes, Overflow.DROP_HEAD)
        self.shares = Shares(gateway, self.lasting_limits, brief)
        self.sys_topics = SysTopics(self, chores.memory)

    def terms(self, connect: Connect) -> Terms:
        """Return on which terms a client may publish; clients that say the same share them."""
        properties = connect.properties
        key = (connect.level, properties.request_problem_information is not False, properties.maximum_packet_size or 0)
        found = self._terms.get(key)
        if found is None:
            if len(self._terms) >= MOST_TERMS:
                self._terms.clear()
            found = self._terms[key] = self._made_terms(*key)
        return found

    def _made_terms(self, level: int, problem_information: bool, most_bytes: int) -> Terms:
        settings = self.settings
        five = level == MQTT_5
        return Terms(
            level,
            settings.receive_maximum if five else 0,
            settings.topic_alias_maximum if five else 0,
            settings.maximum_qos,
            settings.retained,
            settings.max_user_properties,
            problem_information,
            most_bytes,
        )

    def client_limits(self, connect: Connect, *, lasts: bool) -> ClientLimits:
        """Return what a client may be sent; clients that say the same share it."""
        asked = connect.properties
        key = (connect.level, asked.receive_maximum, asked.topic_alias_maximum, asked.maximum_packet_size, lasts, connect.bridge)
        found = self._limits.get(key)
        if found is None:
            if len(self._limits) >= MOST_TERMS:
                self._limits.clear()
            found = self._limits[key] = ClientLimits(
                connect.level,
                asked.receive_maximum or MAX_IDENTIFIER,
                min(asked.topic_alias_maximum or 0, self.settings.max_sent_topic_aliases),
                asked.maximum_packet_size or ANY_SIZE,
                keeps_transient=lasts and self.settings.keep_offline_qos_0,
                bridge=connect.bridge,
            )
        return found

    def _ended(self, key: SessionKey, channel: Channel) -> None:
        """A lasting session has ended."""
        self.shares.end_session(channel, key)

    def _shared(self, channel: Channel, key: SessionKey) -> int:
        return len(self.shares.wishes(channel, key))
