"""Which settings has a DEALER endpoint?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from gateway.api import GatewayError, queue_spec
from gateway_zeromq.settings.common import BindingTable, Endpoint, Frames, QueueName, WantedQueue


class DealerEndpoint(Endpoint):
    """A DEALER socket: a queue's messages are requests to plain REP workers, whose replies go where the requests say."""

    socket: Literal["DEALER"] = Field(default="DEALER", description="The kind of socket.")
    queue: QueueName = Field(min_length=1, description="Whose messages are requests; made, durable, if it is missing.")
    queue_arguments: dict[str, Any] = Field(
        default={},
        description="With which arguments the queue is declared: x-max-length, x-delivery-limit, x-dead-letter-exchange.",
    )
    bindings: list[BindingTable] = Field(
        default=[], description="Bindings of the queue, made if missing: { exchange, key, arguments }."
    )
    frames: Frames = Field(
        default="body", description="Frames of a request; headers: a msgpack map. A reply has one frame, or with raw any number."
    )
    max_frames: int = Field(default=16, ge=1, le=1_024, description="Frames of one reply, for frames raw.")
    window: int = Field(
        default=16, ge=1, le=10_000, description="Requests that are with workers, all together; the next waits for a reply."
    )
    reply_timeout_ms: int = Field(
        default=30_000, ge=10, le=86_400_000, description="A request without a reply for so long goes back to its queue."
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
