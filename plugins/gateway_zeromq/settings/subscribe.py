"""Which settings have endpoints that subscribe: SUB and XSUB?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway_zeromq.settings.common import Frames
from gateway_zeromq.settings.taking import CollectingEndpoint

_DESCRIPTION = "What is asked for, by the first bytes of the first frame, as the publishers write it; an empty one is everything."


class SubEndpoint(CollectingEndpoint):
    """A SUB socket: what PUB and XPUB peers send is published, as far as it is subscribed to."""

    socket: Literal["SUB"] = Field(default="SUB", description="The kind of socket.")
    frames: Frames = Field(
        default="key,body",
        description="Frames of a message. headers: a msgpack map, or a JSON object. raw: any number, kept as they are.",
    )
    subscriptions: list[str] = Field(default=[""], min_length=1, description=_DESCRIPTION)


class XsubEndpoint(CollectingEndpoint):
    """An XSUB socket: as SUB; what peers send though it was not asked for is published, too."""

    socket: Literal["XSUB"] = Field(default="XSUB", description="The kind of socket.")
    frames: Frames = Field(
        default="key,body",
        description="Frames of a message. headers: a msgpack map, or a JSON object. raw: any number, kept as they are.",
    )
    subscriptions: list[str] = Field(default=[""], min_length=1, description=_DESCRIPTION)
