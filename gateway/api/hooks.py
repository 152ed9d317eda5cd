"""Which hooks may a plugin offer? pluggy specifications; a plugin implements those that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer

    from gateway.api.frontend import FrontEnd

PROJECT = "tidegate"
API_VERSION = 1
ENTRY_POINT_GROUP = "tidegate.frontends"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def tidegate_frontends() -> Sequence[FrontEnd]:  # type: ignore[empty-body]
    """Return the front-ends of this plugin; they are not started yet."""


@hookspec
def tidegate_commands() -> Sequence[typer.Typer]:  # type: ignore[empty-body]
    """Return command-line verbs: Typer applications whose commands are added to ``tidegate``."""
