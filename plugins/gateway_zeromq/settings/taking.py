"""What have all endpoints that publish what comes?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from gateway.api import DEFAULT_EXCHANGE, MAX_KEY_WORDS, NOT_TOPIC
from gateway_zeromq.settings.common import Endpoint, ExchangeName, Frames


class TakingEndpoint(Endpoint):
    """A socket whose messages are published."""

    exchange: ExchangeName = Field(
        default="amq.topic", description="Where messages are published; a durable topic exchange is made if it is missing."
    )
    exchange_type: Literal["direct", "fanout", "topic", "headers"] | None = Field(
        default=None, description="Type of that exchange. Without one: what it is, or topic if it is made."
    )
    routing_key: str | None = Field(
        default=None, max_length=65_535, description="A fixed key, for frames body and raw; without one the empty key."
    )
    frames: Frames = Field(
        default="body",
        description="Frames of a message. headers: a msgpack map, or a JSON object. raw: any number, kept as they are.",
    )
    max_frames: int = Field(default=16, ge=1, le=1_024, description="Frames of one message, for frames raw.")
    persistent: bool = Field(default=True, description="Messages are stored on disk by durable queues.")
    rcvhwm: int = Field(
        default=1_000,
        ge=1,
        le=1_000_000,
        description="Messages per peer that libzmq takes ahead of the gateway; then it holds back.",
    )

    @model_validator(mode="after")
    def _check_type(self) -> TakingEndpoint:
        if self.exchange == DEFAULT_EXCHANGE and self.exchange_type is not None:
            raise ValueError("has exchange_type, but the exchange without a name is what it is: leave it out")
        return self

    @model_validator(mode="after")
    def _check_key(self) -> TakingEndpoint:
        if self.routing_key is not None and self.frames.startswith("key"):
            raise ValueError(f"has both routing_key and frames = {self.frames!r}: with a fixed key frames is body or raw")
        if self.spelled(self.routing_key or "").count(".") >= MAX_KEY_WORDS:
            raise ValueError(f"has a routing_key of more than {MAX_KEY_WORDS} words")
        return self

    def exchanges(self) -> Sequence[tuple[str, str | None]]:
        """See `Endpoint.exchanges`."""
        return ((self.exchange, self.exchange_type),)


class CollectingEndpoint(TakingEndpoint):
    """A socket whose peers send and expect no reply."""

    retain: bool = Field(
        default=False,
        description="Each message is the last value of its key, and an empty body clears it: who subscribes later gets it, by MQTT "
        "or XPUB. With frames key,headers,body the header x-retain says it for one message.",
    )

    @model_validator(mode="after")
    def _check_retain(self) -> CollectingEndpoint:
        if self.retain and (self.exchange in NOT_TOPIC or self.exchange_type not in (None, "topic")):
            raise ValueError(f"has retain, but last values are a topic exchange's, and {self.exchange!r} is none")
        return self
