"""Which settings does the MQTT front-end have?"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.api import stream_address

MAX_CLIENT_ID_BYTES = 242
"""A session is a queue named after it, and queues have names of at most 255 bytes."""
MOST_MESSAGES = 1_000_000_000
MOST_BYTES = 1 << 50
LONGEST_S = 0xFFFFFFFF - 1
"""Of a session's expiry: what is above means never (MQTT 5.0 §3.1.2.11.2)."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _check_address(address: str) -> str:
    stream_address(address)
    return address


_Address: TypeAlias = Annotated[str, AfterValidator(_check_address)]


class MqttSettings(BaseModel):
    """Section ``frontend.mqtt``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    listen: Annotated[list[_Address], BeforeValidator(_as_list)] = Field(
        default=["tcp://127.0.0.1:1883"],
        min_length=1,
        description="Addresses, one or a list: tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, "
        "unix:/PATH. Port 0 is any free port; without a path any is served. WebSocket is understood on tcp:// and tls://, too.",
    )
    connect_timeout_s: float = Field(
        default=10.0, gt=0, le=3_600, description="Seconds that a client has from its connection to an answered CONNECT."
    )
    max_unconnected: int = Field(
        default=5_000,
        ge=1,
        le=1_000_000,
        description="Connections that may wait for the answer to their CONNECT; one more, and the one that has waited longest is "
        "closed.",
    )
    packet_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="Seconds in which a packet that was begun must be complete, or 1 KiB more of it be there; "
        "else its connection is closed, whatever its keep alive.",
    )
    max_packet_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1_024,
        le=268_435_455,
        description="Bytes of one packet after its remaining length. MQTT 5 clients are told (Maximum Packet Size).",
    )
    max_partial_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        description="What may be kept, of all connections, of packets that are not complete. Beyond it those connections are "
        "closed that have sent the most of one (MQTT 5: reason 0x89).",
    )
    max_keep_alive_s: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="Seconds: a client that asks for a longer keep alive, or for none, is held to this one, and told so in MQTT 5. "
        "0: no such limit.",
    )
    max_client_id_bytes: int = Field(
        default=MAX_CLIENT_ID_BYTES, ge=23, le=MAX_CLIENT_ID_BYTES, description="Bytes of a client identifier."
    )
    max_inflight: int = Field(
        default=1_000,
        ge=1,
        le=30_000,
        description="Messages of QoS 1 and 2 that a client may have been sent and not acknowledged; "
        "fewer if it asks for that (Receive Maximum).",
    )
    receive_maximum: int = Field(
        default=10_000,
        ge=1,
        le=65_535,
        description="Messages of QoS 1 and 2 that an MQTT 5 client may have sent without an answer (Receive Maximum).",
    )
    topic_alias_maximum: int = Field(
        default=100, ge=0, le=65_535, description="Topic aliases that an MQTT 5 client may use when it publishes. 0: none."
    )
    max_sent_topic_aliases: int = Field(
        default=20, ge=0, le=1_000, description="Topic aliases that are used towards an MQTT 5 client that allows some. 0: none."
    )
    max_user_properties: int = Field(
        default=200,
        ge=0,
        le=10_000,
        description="User properties in one packet of an MQTT 5 client. A PUBLISH with more gets reason 0x97, "
        "any other packet ends its connection with it.",
    )
    max_will_bytes: int = Field(
        default=96 * 1024,
        ge=128,
        le=1024 * 1024,
        description="Bytes of a will: topic, payload and properties together. It is kept as long as its session. "
        "More: CONNACK 0x97, before MQTT 5 the connection is closed.",
    )
    maximum_qos: Literal[0, 1, 2] = Field(
        default=2,
        description="The highest QoS that is granted to subscriptions and taken from publishers. A publish above it ends the "
        "connection (MQTT 5: reason 0x9B).",
    )
    retained: bool = Field(default=True, description="Whether messages may be retained. If not: MQTT 5 reason 0x9A.")
    wildcards: bool = Field(
        default=True, description="Whether topic filters may have wildcards. If not: SUBACK 0xA2, or 0x80 before MQTT 5."
    )
    shared_subscriptions: bool = Field(
        default=True, description="Whether $share/GROUP/FILTER may be subscribed to. If not: SUBACK 0x9E, or 0x80 before MQTT 5."
    )
    subscription_identifiers: bool = Field(
        default=True, description="Whether MQTT 5 subscriptions may have identifiers. If not: SUBACK 0xA1."
    )
    max_subscriptions: int = Field(
        default=5_000,
        ge=1,
        le=1_000_000,
        description="Topic filters per client; more are refused with SUBACK code 0x97, or 0x80 before MQTT 5.",
    )
    max_subscription_levels: int = Field(
        default=50_000,
        ge=1,
        le=1_000_000_000,
        description="Levels of all topic filters of a client together, as they are what takes memory; more are refused likewise.",
    )
    max_filters_per_packet: int = Field(
        default=1_000,
        ge=1,
        le=1_000_000,
        description="Topic filters in one SUBSCRIBE or UNSUBSCRIBE; more end the connection (MQTT 5: reason 0x97).",
    )
    max_topic_levels: int = Field(default=200, ge=1, le=65_536, description="Levels of a topic name or filter.")
    max_topic_bytes: int = Field(default=4_096, ge=1, le=65_535, description="Bytes of a topic name or filter.")
    max_session_expiry_s: int = Field(
        default=0,
        ge=0,
        le=LONGEST_S,
        description="Seconds that a session may outlive its connection: MQTT 5 clients that ask for more are told "
        "that they get this. "
        "0: no limit.",
    )
    persistent_session_expiry_s: int = Field(
        default=0,
        ge=0,
        le=LONGEST_S,
        description="Seconds that a persistent session (clean session 0) of MQTT 3.1 or 3.1.1 outlives its "
        "connection. 0: for ever.",
    )
    keep_offline_qos_0: bool = Field(
        default=False,
        description="Whether messages of QoS 0 wait for clients with persistent sessions that are away, in memory; else they are "
        "dropped and counted. Of sessions that are made from now on.",
    )
    session_max_messages: int = Field(
        default=5_000_000,
        ge=0,
        le=MOST_MESSAGES,
        description="Messages of QoS 1 and 2 in a persistent session, unacknowledged ones included. 0: no limit. "
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
        description="Messages of QoS 1 and 2 in a clean session, unacknowledged ones included; one more ends the session, and its "
        "client is disconnected. 0: no limit.",
    )
    clean_session_max_bytes: int = Field(
        default=64 * 1024 * 1024, ge=0, le=MOST_BYTES, description="Bytes of their bodies, likewise. 0: no limit."
    )
    response_prefix: str = Field(
        default="response",
        max_length=200,
        pattern=r"^[^+#\x00]*$",
        description="First levels of the topic that an MQTT 5 client gets for answers if it asks (Response Information): "
        "PREFIX/CLIENT-IDENTIFIER. Empty: none is given.",
    )
    sys_interval_s: float = Field(
        default=10.0, ge=0, le=86_400, description="Seconds between two publications of the $SYS topics. 0: there are none."
    )
