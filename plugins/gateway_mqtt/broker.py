"""What do all MQTT connections share?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from gateway.api import Channel, Gateway, Overflow
from gateway_mqtt.codec.fields import Bounds
from gateway_mqtt.codec.names import MQTT_5, MQTT_31, MQTT_311
from gateway_mqtt.expiry import Absences
from gateway_mqtt.halves import Halves
from gateway_mqtt.outbound import Pulse
from gateway_mqtt.retained import Rota
from gateway_mqtt.session import SessionKey, Sessions
from gateway_mqtt.shared import Shares
from gateway_mqtt.store import Stores
from gateway_mqtt.sys_topics import SysTopics, Traffic
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.sessions import SESSION_OVERFLOW, SessionLimits
from gateway_mqtt.translate.topics import TopicLimits
from gateway_mqtt.waiting import Waiting
from gateway_mqtt.wants import AllWants

if TYPE_CHECKING:
    from gateway_mqtt.link import Link
    from gateway_mqtt.settings import MqttSettings

MAX_CONNECT_BYTES: Final = 512 * 1024
"""Of a CONNECT: five strings of 64 KiB, and some properties."""


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

    ``connacks``: of level 5, by all that `gateway_mqtt.entering` says in one that says nothing else.
    """

    __slots__ = (
        "absences",
        "bounds",
        "clean_limits",
        "connacks",
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
        "wants",
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
        self.wants = AllWants(settings)
        self.connacks: dict[tuple[bool, int | None, int | None], bytes] = {}
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

    def _ended(self, key: SessionKey, channel: Channel) -> None:
        """A lasting session has ended."""
        self.shares.end_session(channel, key)

    def _shared(self, channel: Channel, key: SessionKey) -> int:
        return len(self.shares.wishes(channel, key))
