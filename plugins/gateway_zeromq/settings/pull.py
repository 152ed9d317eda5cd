"""Which settings has a PULL endpoint?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway_zeromq.settings.taking import CollectingEndpoint


class PullEndpoint(CollectingEndpoint):
    """A PULL socket: what plain PUSH peers send is published."""

    socket: Literal["PULL"] = Field(default="PULL", description="The kind of socket.")
