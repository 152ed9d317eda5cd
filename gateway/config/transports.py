"""How do listeners speak: which certificates, which proxies, which files?"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.config.sections import Section, check_file

ON_UNIX_SOCKETS = "unix"
_LAST_MODE = 0o777
_File: TypeAlias = Annotated[Path | None, Field(strict=False), BeforeValidator(check_file)]


class TlsSettings(Section):
    """TLS of ``tls://`` and ``wss://`` addresses. The files are watched: what is new in them holds for new connections."""

    certificate: _File = Field(
        default=None, description="A PEM file: the certificate, then those between it and the root. Needed by tls:// and wss://."
    )
    key: _File = Field(default=None, description="A PEM file: the certificate's private key. Without a value: in the same file.")
    key_password_file: _File = Field(default=None, description="A file whose first line is the password of an encrypted key.")
    client_ca: _File = Field(default=None, description="A PEM file: the roots that clients' certificates must come from.")
    client_certificate: Literal["none", "optional", "required"] | None = Field(
        default=None,
        description="Whether clients are asked for a certificate; required: none gets in without one. "
        "Without a value: required if there is a client_ca, else none.",
    )
    min_version: Literal["1.2", "1.3"] | None = Field(
        default=None, description="The oldest TLS that is spoken. Without a value: 1.2."
    )
    ciphers: str | None = Field(
        default=None,
        min_length=1,
        description="Which ciphers of TLS 1.2, as OpenSSL writes them. Without a value: Python's choice.",
    )


def _check_mode(value: str) -> str:
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= _LAST_MODE:
        raise ValueError('must be the permissions of a file as octal digits, for instance "0660"')
    return value


def _check_proxy(value: str) -> str:
    if value == ON_UNIX_SOCKETS:
        return value
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f'must be an address, a network such as 10.0.0.0/8, or "{ON_UNIX_SOCKETS}": {error}') from None
    return value


def _check_origin(value: str) -> str:
    if not value.startswith(("http://", "https://")) or value.endswith("/"):
        raise ValueError("must be the origin of a page, for instance https://example.org, without a path")
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class HostSettings(Section):
    """The host's own keys in every front-end's section."""

    enabled: bool = Field(default=True, description="Start this front-end.")
    proxy_protocol: Annotated[list[Annotated[str, AfterValidator(_check_proxy)]], BeforeValidator(_as_list)] = Field(
        default=[],
        description="Addresses and networks of proxies; unix: all that comes over Unix sockets. Who connects from there must begin "
        "with a PROXY header (version 1 or 2), and its peer is believed to be the one that the header names.",
    )
    unix_mode: Annotated[str, AfterValidator(_check_mode)] = Field(
        default="0660", description="Permissions of the socket files of unix: addresses: who may write there may connect."
    )
    allowed_origins: Annotated[list[Annotated[str, AfterValidator(_check_origin)]], BeforeValidator(_as_list)] = Field(
        default=[],
        description="Origins of the web pages that may open a WebSocket, for instance https://example.org. None: all may.",
    )
    tls: TlsSettings | None = Field(default=None)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Transport:
    """What one front-end's listeners need to know.

    Args:
        tls: what its own section says, and section ``tls`` where that says nothing.
        tls_keys: who said it: the source and the dotted key, by the field's name; for the text of errors.
        proxies: as in `HostSettings.proxy_protocol`.
        unix_mode: permissions.
        origins: as in `HostSettings.allowed_origins`.
    """

    tls: TlsSettings = field(default_factory=TlsSettings)
    tls_keys: Mapping[str, str] = field(default_factory=lambda: {name: f"tls.{name}" for name in TlsSettings.model_fields})
    proxies: tuple[str, ...] = ()
    unix_mode: int = 0o660
    origins: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[Network, ...]:
        """The proxies that come over IP."""
        return tuple(ipaddress.ip_network(proxy) for proxy in self.proxies if proxy != ON_UNIX_SOCKETS)
