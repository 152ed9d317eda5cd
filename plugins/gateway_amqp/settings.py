"""Which settings does the AMQP front-end have?"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.api import stream_address

MOST_MESSAGE_BYTES = 512 * 1024 * 1024


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _check_address(address: str) -> str:
    if stream_address(address).is_websocket:
        raise ValueError(
            "must be an address tcp://HOST:PORT, tls://HOST:PORT or unix:/PATH: AMQP 0-9-1 is not spoken over WebSocket"
        )
    return address


_Address: TypeAlias = Annotated[str, AfterValidator(_check_address)]


class AmqpSettings(BaseModel):
    """Section ``frontend.amqp``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    listen: Annotated[list[_Address], BeforeValidator(_as_list)] = Field(
        default=["tcp://127.0.0.1:5672"],
        min_length=1,
        description="Addresses, one or a list: tcp://HOST:PORT, tls://HOST:PORT (5671 is what clients expect), unix:/PATH. "
        "Port 0 is any free port.",
    )
    connect_timeout_s: float = Field(
        default=10.0, gt=0, le=3_600, description="Seconds that a client has from its connection to an answered Connection.Open."
    )
    max_unconnected: int = Field(
        default=5_000,
        ge=1,
        le=1_000_000,
        description="Connections that may be on their way to an answered Connection.Open; one more, and the one that has been "
        "for longest is closed.",
    )
    heartbeat_s: int = Field(
        default=60,
        ge=0,
        le=65_535,
        description="Seconds that are proposed to clients (Connection.Tune); what they say counts. A client that is not heard for "
        "twice as long is gone. 0: none.",
    )
    frame_max: int = Field(
        default=131_072, ge=4_096, le=16 * 1024 * 1024, description="Bytes of one frame, at most; a client may ask for less."
    )
    channel_max: int = Field(
        default=2_047, ge=1, le=65_535, description="Channels of one connection, at most; a client may ask for less."
    )
    max_message_bytes: int = Field(
        default=128 * 1024 * 1024,
        ge=1_024,
        le=MOST_MESSAGE_BYTES,
        description="Bytes of a message's body; a larger one closes its channel with 406. `limits.max_message_bytes` holds, too.",
    )
    max_partial_bytes: int = Field(
        default=512 * 1024 * 1024,
        ge=1024 * 1024,
        description="What may be kept, of all connections, of frames and messages that are not complete. Beyond it those "
        "connections are closed that have sent the most of one.",
    )
    server_product: str = Field(
        default="RabbitMQ",
        max_length=255,
        description="What clients are told as `product`. Kombu, and Celery with it, count on RabbitMQ's meaning of Basic.Qos, "
        "which is the one here, if they read RabbitMQ. `platform` and `information` name Tidegate.",
    )
    server_version: str = Field(
        default="3.13.0",
        max_length=255,
        description="What clients are told as `version`: the RabbitMQ whose semantics are the ones here. Kombu takes global "
        "prefetch limits for possible from 3.3 on and before 4.0.",
    )
