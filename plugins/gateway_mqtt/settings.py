"""Which settings does the MQTT front-end have?"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.api import tcp_address

MOST_MESSAGES = 1_000_000_000
MOST_BYTES = 1 << 50


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _check_address(address: str) -> str:
    tcp_address(address)
    return address


_Address: TypeAlias = Annotated[str, AfterValidator(_check_address)]


class MqttSettings(BaseModel):
    """Section ``frontend.mqtt``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    listen: Annotated[list[_Address], BeforeValidator(_as_list)] = Field(
        default=["tcp://127.0.0.1:1883"],
        min_length=1,
        description="Addresses: tcp://HOST:PORT; port 0 is any free port; one or a list.",
    )
    connect_timeout_s: float = Field(
        default=10.0, gt=0, le=3_600, description="Seconds that a client has from its connection to an answered CONNECT."
    )
    max_packet_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1_024, le=268_435_455, description="Bytes of one packet after its remaining length."
    )
    max_keep_alive_s: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="Seconds: a client that asks for a longer keep alive, or for none, is held to this one. 0: no such limit.",
    )
    max_inflight: int = Field(
        default=1_000, ge=1, le=30_000, description="Messages of QoS 1 that a client may have been sent and not acknowledged."
    )
    max_subscriptions: int = Field(
        default=5_000, ge=1, le=1_000_000, description="Topic filters per client; more are refused with SUBACK code 0x80."
    )
    max_topic_levels: int = Field(default=200, ge=1, le=65_536, description="Levels of a topic name or filter.")
    max_topic_bytes: int = Field(default=4_096, ge=1, le=65_535, description="Bytes of a topic name or filter.")
    session_max_messages: int = Field(
        default=5_000_000,
        ge=0,
        le=MOST_MESSAGES,
        description="Messages of QoS 1 in a persistent session, unacknowledged ones included. 0: no limit. "
        "A session keeps the limits that it was made with, until a clean connect of its client ends it.",
    )
    session_max_bytes: int = Field(default=0, ge=0, le=MOST_BYTES, description="Bytes of their bodies, likewise. 0: no limit.")
    session_overflow: Literal["reject", "end-session"] = Field(
        default="reject",
        description="What a full persistent session does with one more message; of sessions that are made from now on. "
        "reject: it refuses; the publisher gets no PUBACK, and its connection is closed. "
        "end-session: it ends with all that it holds, its client is disconnected; the publisher gets its PUBACK.",
    )
    clean_session_max_messages: int = Field(
        default=100_000,
        ge=0,
        le=MOST_MESSAGES,
        description="Messages of QoS 1 in a clean session, unacknowledged ones included; one more ends the session, and its "
        "client is disconnected. 0: no limit.",
    )
    clean_session_max_bytes: int = Field(
        default=64 * 1024 * 1024, ge=0, le=MOST_BYTES, description="Bytes of their bodies, likewise. 0: no limit."
    )
