"""Which endpoints can be configured, and which are there without a word?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from gateway_zeromq.settings.common import Endpoint
from gateway_zeromq.settings.dealer import DealerEndpoint
from gateway_zeromq.settings.publish import PubEndpoint, XpubEndpoint
from gateway_zeromq.settings.pull import PullEndpoint
from gateway_zeromq.settings.push import PushEndpoint
from gateway_zeromq.settings.rep import RepEndpoint
from gateway_zeromq.settings.router import RouterEndpoint
from gateway_zeromq.settings.subscribe import SubEndpoint, XsubEndpoint

AnyEndpoint: TypeAlias = (
    PullEndpoint
    | PushEndpoint
    | PubEndpoint
    | XpubEndpoint
    | SubEndpoint
    | XsubEndpoint
    | DealerEndpoint
    | RepEndpoint
    | RouterEndpoint
)

_KINDS = ("PULL", "PUSH", "PUB", "XPUB", "SUB", "XSUB", "DEALER", "REP", "ROUTER")
_NO_KINDS = {
    "REQ": "it can ask one question at a time, and hangs if the answer is lost: DEALER asks workers for the messages of a queue",
    "PAIR": "it knows one peer, and does not notice when that one is another: PULL and PUSH, or ROUTER, serve any number",
    "STREAM": "what it carries is no ZeroMQ messages, but pieces of a TCP connection",
}


def _complaint_of(kind: object) -> str | None:
    """Say what is wrong with a kind of socket."""
    if kind is None:
        return f"socket is missing: {_words(_KINDS)}"
    if kind in _NO_KINDS:
        return f'socket = "{kind}" makes no sense here: {_NO_KINDS[str(kind)]}'
    if isinstance(kind, str) and kind not in _KINDS and kind.strip().upper() in _KINDS:
        return f'socket = {kind!r} is no kind of socket; did you mean "{kind.strip().upper()}"?'
    return None if kind in _KINDS else f"socket = {kind!r} is no kind of socket: {_words(_KINDS)} can be used"


def _complaints(table: dict[str, Any]) -> Iterator[str]:
    """Yield what an endpoint asks for that makes no sense, or has its place, but is not built yet."""
    wrong = _complaint_of(table.get("socket"))
    if wrong is not None:
        yield wrong


def _words(choices: tuple[str, ...]) -> str:
    return ", ".join(choices)


def _check_table(table: object) -> object:
    """Refuse what is not built yet, in words; leave the rest to the models."""
    if isinstance(table, Endpoint):
        return table
    if not isinstance(table, dict):
        raise ValueError("must be a table")  # noqa: TRY004 - pydantic takes ValueErrors
    complaints = list(_complaints(table))
    if complaints:
        name = table.get("name")
        who = f"endpoint {name!r}: " if isinstance(name, str) else ""
        raise ValueError(who + "; ".join(complaints))
    return table


def _kind(value: object) -> str:
    return str(value.get("socket")) if isinstance(value, dict) else str(getattr(value, "socket", None))


_ENDPOINT: TypeAlias = Annotated[
    Annotated[PullEndpoint, Tag("PULL")]
    | Annotated[PushEndpoint, Tag("PUSH")]
    | Annotated[PubEndpoint, Tag("PUB")]
    | Annotated[XpubEndpoint, Tag("XPUB")]
    | Annotated[SubEndpoint, Tag("SUB")]
    | Annotated[XsubEndpoint, Tag("XSUB")]
    | Annotated[DealerEndpoint, Tag("DEALER")]
    | Annotated[RepEndpoint, Tag("REP")]
    | Annotated[RouterEndpoint, Tag("ROUTER")],
    Discriminator(_kind),
    BeforeValidator(_check_table),
]

DEFAULT_ENDPOINTS: list[AnyEndpoint] = [
    PullEndpoint(name="pull", socket="PULL", bind=["tcp://127.0.0.1:5557"], exchange="amq.topic", frames="key,body"),
    PushEndpoint(
        name="push",
        socket="PUSH",
        bind=["tcp://127.0.0.1:5558"],
        queue="zeromq.push",
        frames="body",
        ack="handover",
        bindings=[{"exchange": "amq.topic", "key": "zeromq.push.#"}],
    ),
    XpubEndpoint(name="xpub", socket="XPUB", bind=["tcp://127.0.0.1:5559"], exchange="amq.topic", frames="key,body"),
    RouterEndpoint(name="router", socket="ROUTER", bind=["tcp://127.0.0.1:5570"], protocols=["tgp/1", "mdp/0.1", "mdp/0.2"]),
]


class ZeroMqSettings(BaseModel):
    """Section ``frontend.zeromq``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    endpoint: list[_ENDPOINT] = Field(default=DEFAULT_ENDPOINTS)

    @field_validator("endpoint", mode="before")
    @classmethod
    def _check_brackets(cls, value: object) -> object:
        if isinstance(value, dict):
            raise ValueError("must be a list of tables: [[frontend.zeromq.endpoint]], in two brackets")  # noqa: TRY004 - see above
        return value

    @model_validator(mode="after")
    def _check_names(self) -> ZeroMqSettings:
        names = [endpoint.name for endpoint in self.endpoint if endpoint.name is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two endpoints have the name {twice[0]!r}")
        return self

    def named(self) -> Iterator[tuple[str, AnyEndpoint]]:
        """Yield every endpoint with its name; those without one are called by kind and number: ``pull-1``."""
        for number, endpoint in enumerate(self.endpoint, 1):
            yield endpoint.name or f"{endpoint.socket.lower()}-{number}", endpoint
