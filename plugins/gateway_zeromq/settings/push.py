"""Which settings has a PUSH endpoint?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from gateway.api import GatewayError, queue_spec
from gateway_zeromq.settings.common import BindingTable, Endpoint, Frames, QueueName, WantedQueue


class PushEndpoint(Endpoint):
    """A PUSH socket: a queue's messages go to plain PULL peers, in turns."""

    socket: Literal["PUSH"] = Field(default="PUSH", description="The kind of socket.")
    queue: QueueName = Field(
        default="zeromq.push", min_length=1, description="Whose messages are sent; made, durable, if it is missing."
    )
    queue_arguments: dict[str, Any] = Field(
        default={}, description="With which arguments the queue is declared: x-max-length, x-max-length-bytes, x-overflow."
    )
    bindings: list[BindingTable] = Field(
        default=[], description="Bindings of the queue, made if missing: { exchange, key, arguments }."
    )
    frames: Frames = Field(default="body", description="Frames of a message; headers: a msgpack map.")
    ack: Literal["handover"] = Field(
        default="handover", description="A message is settled when libzmq takes it: at most once from there on."
    )
    prefetch: int = Field(default=256, ge=1, le=65_536, description="Messages that are taken from the queue ahead of the socket.")
    sndhwm: int = Field(
        default=1_000, ge=1, le=1_000_000, description="Messages per peer that libzmq takes before the next peer's turn."
    )

    @field_validator("queue_arguments")
    @classmethod
    def _check_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            queue_spec("", arguments=arguments)
        except GatewayError as error:
            raise ValueError(error.text) from error
        return arguments

    def queues(self) -> Sequence[WantedQueue]:
        """See `Endpoint.queues`."""
        return (WantedQueue(self.queue, self.queue_arguments, self.bindings),)
