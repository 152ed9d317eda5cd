"""Which settings has a PUSH endpoint?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gateway.api import GatewayError, queue_spec
from gateway_zeromq.settings.common import BindingTable, Endpoint, Frames, QueueName, WantedQueue

_OF_HANDOVER = ("prefetch", "sndhwm")
_OF_PONG = ("window", "window_bytes", "ping_every", "worker_rcvhwm", "heartbeat_ms", "pong_timeout_ms", "older_peers")


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
    ack: Literal["handover", "pong"] = Field(
        default="handover",
        description="When a message is settled. handover: when libzmq takes it, at most once from there on. pong: when its "
        "peer's libzmq has taken it; what it has not goes back to the queue when it goes.",
    )
    prefetch: int = Field(default=256, ge=1, le=65_536, description="Messages that are taken from the queue ahead of the socket.")
    sndhwm: int = Field(
        default=1_000, ge=1, le=1_000_000, description="Messages per peer that libzmq takes before the next peer's turn."
    )

    window: int = Field(
        default=256,
        ge=1,
        le=65_536,
        description="For pong: messages per peer that are sent and not ponged; then the next peer's turn.",
    )
    window_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1, description="For pong: their bodies. One message is always allowed, if small ones sixteen."
    )
    ping_every: int = Field(
        default=64,
        ge=1,
        le=4_096,
        description="For pong: messages after which a peer is asked how far it is; so many at most does the next worker get "
        "again that this one had done.",
    )
    worker_rcvhwm: int | None = Field(
        default=None,
        ge=1,
        le=65_000,
        description="For pong: the RCVHWM of all workers. Then a message is settled only when its worker must have asked for the "
        "next one: one that does one after the other loses nothing. The last ones stay unsettled until more come, or it goes.",
    )
    heartbeat_ms: int = Field(
        default=5_000,
        ge=50,
        le=600_000,
        description="For pong: a peer that has nothing to pong is asked so often whether it lives; three times as long without an "
        "answer it is dead.",
    )
    pong_timeout_ms: int = Field(
        default=600_000,
        ge=0,
        le=86_400_000,
        description="For pong: a peer that has messages and pongs none for so long is dead, and others get them; 0: never. "
        "Longer than ping_every messages take a busy worker.",
    )
    older_peers: Literal["handover", "ping", "refuse"] = Field(
        default="handover",
        description="For pong: peers of ZMTP below 3.1 (libzmq before 4.3.3). handover: what the kernel takes for them is settled. "
        "ping: those of ZMTP 3.0 are asked all the same: libzmq 4.2 and above answers, 4.1 hands the question to the application.",
    )

    @model_validator(mode="after")
    def _check_ack(self) -> PushEndpoint:
        idle = [name for name in (_OF_HANDOVER if self.ack == "pong" else _OF_PONG) if name in self.model_fields_set]
        if idle:
            raise ValueError(f'has {", ".join(idle)}, which says nothing for ack = "{self.ack}"')
        if self.worker_rcvhwm is not None and self.window < 2 * (self.worker_rcvhwm + 1):
            raise ValueError(
                f"has window = {self.window}, which is too little for worker_rcvhwm = {self.worker_rcvhwm}: at least "
                f"{2 * (self.worker_rcvhwm + 1)}, as so many and one more are always unsettled"
            )
        if self.ack == "pong" and (self.security == "curve" or (self.security == "plain" and self.connect)):
            can = "null, and with bind plain" if self.security == "curve" else "plain with bind, null with connect"
            raise ValueError(f'has ack = "pong" with security = "{self.security}": it speaks a ZMTP of its own, which can {can}')
        return self

    @field_validator("queue_arguments")
    @classmethod
    def _check_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            queue_spec("", arguments=arguments)
        except GatewayError as error:
            raise ValueError(error.text) from error
        return arguments

    @property
    def counts_connections(self) -> bool:
        """See `Endpoint`: with pong there is no libzmq."""
        return self.ack == "handover" and super().counts_connections

    def queues(self) -> Sequence[WantedQueue]:
        """See `Endpoint.queues`."""
        return (WantedQueue(self.queue, self.queue_arguments, self.bindings),)
