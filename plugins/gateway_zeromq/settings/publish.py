"""Which settings have endpoints that send to whoever subscribes: PUB and XPUB?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gateway.api import NOT_TOPIC, GatewayError, queue_spec
from gateway_zeromq.settings.common import BindingTable, Endpoint, ExchangeName, Frames, QueueName, WantedQueue


class PublishingEndpoint(Endpoint):
    """A socket that sends to those who subscribe."""

    exchange: ExchangeName = Field(
        default="amq.topic", min_length=1, description="Whose messages are sent; a durable topic exchange is made if it is missing."
    )
    keys: list[str] | None = Field(
        default=None, min_length=1, description="Binding keys: what is taken from the exchange, whatever is subscribed to."
    )
    queue: QueueName | None = Field(
        default=None,
        min_length=1,
        description="Whose messages are sent, in place of an exchange's; made, durable, if it is missing. "
        "They wait there while nobody subscribes.",
    )
    queue_arguments: dict[str, Any] = Field(
        default={}, description="With which arguments the queue is declared: x-max-length, x-max-length-bytes, x-overflow."
    )
    bindings: list[BindingTable] = Field(
        default=[], description="Bindings of the queue, made if missing: { exchange, key, arguments }."
    )
    frames: Frames = Field(
        default="key,body", description="Frames of a message; headers: a msgpack map. Subscribers choose by the first frame."
    )
    slow_subscriber: Literal["drop", "hold"] = Field(
        default="drop",
        description="When one has no room: drop: it misses messages. hold: all wait for it, as long as the queue has room.",
    )
    max_waiting: int = Field(
        default=100_000,
        ge=1,
        le=10_000_000,
        description="Messages that wait here; with more the oldest is dropped. Not with a queue.",
    )
    max_waiting_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1_024, description="Bodies that wait here; with more the oldest is dropped. Not with a queue."
    )
    max_subscriptions: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Prefixes that are told apart; with more everything is taken, and filtered."
    )
    prefetch: int = Field(default=256, ge=1, le=65_536, description="Messages that are taken from the queue ahead of the socket.")
    sndhwm: int = Field(default=1_000, ge=1, le=1_000_000, description="Messages per subscriber that libzmq takes to be sent.")

    @field_validator("queue_arguments")
    @classmethod
    def _check_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            queue_spec("", arguments=arguments)
        except GatewayError as error:
            raise ValueError(error.text) from error
        return arguments

    @model_validator(mode="after")
    def _check_source(self) -> PublishingEndpoint:
        given = self.model_fields_set
        if self.queue is None:
            for key in ("queue_arguments", "bindings"):
                if key in given:
                    raise ValueError(f"has {key}, but no queue: give a queue, or keys for the exchange")
        for key in ("exchange", "keys", "max_waiting", "max_waiting_bytes"):
            if self.queue is not None and key in given:
                raise ValueError(f"has both queue and {key}: messages come from one of them; a queue's bindings are in bindings")
        return self

    @model_validator(mode="after")
    def _check_exchange(self) -> PublishingEndpoint:
        if self.queue is None and self.keys is None and self.exchange in NOT_TOPIC:
            raise ValueError(f"can't choose by prefix from {self.exchange!r}, which is no topic exchange: give keys")
        return self

    @property
    def key_first(self) -> bool:
        """The first frame, by which subscribers choose, is the key."""
        return self.frames.startswith("key")

    def exchanges(self) -> Sequence[tuple[str, str | None]]:
        """See `Endpoint.exchanges`."""
        return () if self.queue is not None else ((self.exchange, None if self.keys is not None else "topic"),)

    def queues(self) -> Sequence[WantedQueue]:
        """See `Endpoint.queues`."""
        return () if self.queue is None else (WantedQueue(self.queue, self.queue_arguments, self.bindings),)


class PubEndpoint(PublishingEndpoint):
    """A PUB socket: all that comes is sent, and subscribers choose from it by the first bytes of the first frame."""

    socket: Literal["PUB"] = Field(default="PUB", description="The kind of socket.")


class XpubEndpoint(PublishingEndpoint):
    """An XPUB socket: what is subscribed to is taken from the exchange, and sent; new subscribers get last values."""

    socket: Literal["XPUB"] = Field(default="XPUB", description="The kind of socket.")
    last_values: bool | None = Field(
        default=None,
        description="Retained values are sent again when somebody subscribes, to all who asked for them. "
        "Without a value: if they are an exchange's, and frames begin with the key.",
    )
    max_last_values: int = Field(default=10_000, ge=1, le=1_000_000, description="Retained values that one subscription brings.")

    @model_validator(mode="after")
    def _check_last_values(self) -> XpubEndpoint:
        if self.last_values and not (self.key_first and self.queue is None):
            raise ValueError("has last_values, which need an exchange, and frames that begin with the key")
        return self

    @property
    def sends_last_values(self) -> bool:
        """Retained values are sent to new subscribers."""
        return self.last_values is not False and self.key_first and self.queue is None
