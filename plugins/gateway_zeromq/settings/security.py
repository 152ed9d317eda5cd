"""Which settings say who may talk to an endpoint?"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway_zeromq.security.names import check_name
from gateway_zeromq.security.passwords import check_hash

_HOST = re.compile(r"tcp://(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:]+)):[^:]+")

_OF_SERVERS: Mapping[str, Sequence[str]] = {"null": (), "plain": ("users",), "curve": ("client_keys", "secret_key_file")}
_OF_CLIENTS: Mapping[str, Sequence[str]] = {
    "null": (),
    "plain": ("user", "password_file"),
    "curve": ("server_key_file", "secret_key_file"),
}
_NEEDED = {"client_keys", "secret_key_file", "user", "password_file", "server_key_file"}
_ALL = ("domain", "secret_key_file", "client_keys", "server_key_file", "users", "user", "password_file")

UserName = Annotated[str, AfterValidator(check_name)]


class Secured(BaseModel):
    """Who may talk to an endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    security: Literal["null", "plain", "curve"] = Field(
        default="null",
        description="Who gets in: null: everybody; plain: users with passwords, on this machine alone; "
        "curve: those whose keys are known.",
    )
    domain: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="The ZAP domain; without one the endpoint's name. Endpoints of one domain have the same users.",
    )
    secret_key_file: str | None = Field(
        default=None,
        min_length=1,
        description="For curve: the endpoint's own key, NAME.key_secret; `tidegate curve-keygen` makes one.",
    )
    client_keys: str | None = Field(
        default=None,
        min_length=1,
        description='For curve and bind: who gets in: a directory of NAME.key files, or a file with lines NAME = "KEY". '
        "What changes there holds for new connections.",
    )
    server_key_file: str | None = Field(
        default=None, min_length=1, description="For curve and connect: the public key of whom it connects to, NAME.key."
    )
    users: dict[UserName, Annotated[str, AfterValidator(check_hash)]] = Field(
        default={},
        description="For plain and bind: names and argon2 hashes (`tidegate password-hash`). Without any the broker decides as for "
        "passwords of other protocols.",
    )
    user: str | None = Field(default=None, min_length=1, max_length=255, description="For plain and connect: under which name.")
    password_file: str | None = Field(
        default=None, min_length=1, description="For plain and connect: a file whose first line is the password."
    )


def complaints(settings: Secured, bind: Sequence[str], connect: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the settings of security, given an endpoint's addresses."""
    kind = settings.security
    if kind != "null" and bind and connect:
        yield f'has security = "{kind}", and both bind and connect: one socket is either let in or lets in; make two endpoints'
        return
    allowed = (_OF_SERVERS if bind else _OF_CLIENTS)[kind]
    for key in _ALL:
        given = getattr(settings, key) not in (None, {})
        if given and key not in allowed and not (key == "domain" and kind != "null"):
            way = "" if kind == "null" else " and bind" if bind else " and connect"
            yield f'has {key}, which says nothing for security = "{kind}"{way}'
        if not given and key in allowed and key in _NEEDED:
            yield f'has security = "{kind}" without {key}'
    if kind != "null" and any(address.startswith("inproc://") for address in (*bind, *connect)):
        yield f'has security = "{kind}" at an inproc address: ZeroMQ asks for nothing there'
    if kind == "plain":
        yield from (
            f'has security = "plain" at {address}: passwords go over the wire as they are, so only 127.0.0.1, [::1] and ipc are '
            "allowed; use curve"
            for address in (*bind, *connect)
            if not is_loopback(address)
        )


def is_loopback(address: str) -> bool:
    """Say whether what goes to an address stays on this machine, for certain."""
    if address.startswith(("ipc://", "inproc://")):
        return True
    match = _HOST.fullmatch(address)
    if match is None:
        return False
    host = match["six"] or match["host"]
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
