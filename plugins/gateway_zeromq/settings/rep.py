"""Which settings has a REP endpoint?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway_zeromq.settings.taking import TakingEndpoint


class RepEndpoint(TakingEndpoint):
    """A REP socket: what plain REQ clients ask is published, and what is answered to it is their reply."""

    socket: Literal["REP"] = Field(default="REP", description="The kind of socket.")
    persistent: bool = Field(default=False, description="Requests are stored on disk by durable queues.")
    reply_timeout_ms: int = Field(
        default=30_000,
        ge=10,
        le=86_400_000,
        description="So long a client waits for its reply; nobody works on its request any more.",
    )
    errors: bool = Field(
        default=True,
        description="A client whose request fails is told so: an empty frame, and the reason. Otherwise it is not answered.",
    )
    max_waiting: int = Field(default=10_000, ge=1, le=1_000_000, description="Requests that wait for a reply; more are refused.")
    sndhwm: int = Field(default=1_000, ge=1, le=1_000_000, description="Messages per client that libzmq takes to be sent.")
