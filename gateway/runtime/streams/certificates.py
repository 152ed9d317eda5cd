"""With which certificate does a front-end speak TLS now, as its files change?"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from gateway.api.frontend import Log
from gateway.config import Transport
from gateway.errors import ConfigError
from gateway.runtime.streams.validity import validity

WATCH_S: Final = 2.0
"""How often the files are looked at. What has changed is taken when it was so at the look before, too: all are written by then."""

_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_OLDEST: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_FILES: Final = ("certificate", "key", "key_password_file", "client_ca")

State = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """The TLS context of one front-end. `context` is of the files as they were read last.

    Args:
        transport: its settings.
        log: where certificates that are not valid now, and files that can't be taken, are named.

    Raises:
        ConfigError: the files can't be used; names setting and file.
    """

    def __init__(self, transport: Transport, log: Log) -> None:
        self._transport = transport
        self._log = log
        self._seen = self._looked = self._look()
        self.context = make_context(transport)
        self._check_validity()

    async def watch(self) -> None:
        """Take what is new in the files, for as long as this is not cancelled."""
        while True:
            await trio.sleep(WATCH_S)
            self.look()

    def look(self) -> None:
        """Look at the files once; what can't be used is logged, and what was read before holds."""
        now = self._look()
        if now != self._seen and now == self._looked:
            self._seen = now
            self.reload()
        self._looked = now

    def reload(self) -> None:
        """Read the files again."""
        try:
            self.context = make_context(self._transport)
        except ConfigError as error:
            self._log.error("new TLS files can't be used: connections get the old certificate", error=error.text)
            return
        self._log.info("TLS files were read again: new connections get the new certificate")
        self._check_validity()

    def _look(self) -> State:
        return tuple(_state(path) for name in _FILES if (path := getattr(self._transport.tls, name)) is not None)

    def _check_validity(self) -> None:
        certificate = self._transport.tls.certificate
        assert certificate is not None
        for event, values in _doubts(certificate):
            self._log.warning(event, file=str(certificate), **values)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _doubts(path: Path) -> Sequence[tuple[str, dict[str, str]]]:
    """Return what is to be said of a certificate that can be used, but should not be."""
    period = validity(path)
    if period is None:
        return ()
    begin, end, now = *period, _now()
    if now > end:
        return (("the TLS certificate has expired: clients will refuse it", {"expired": str(end)}),)
    if now < begin:
        return (("the TLS certificate is not valid yet: clients will refuse it", {"valid_from": str(begin)}),)
    return ()


def _now() -> datetime:
    return datetime.now(UTC)


def check(transport: Transport, addresses: Sequence[str]) -> None:
    """See that what the addresses need can be used. Raises ConfigError: names setting and file."""
    if any(address.startswith(("tls://", "wss://")) for address in addresses):
        make_context(transport)


def make_context(transport: Transport) -> ssl.SSLContext:
    """Return a context of what the files hold now.

    Raises:
        ConfigError: names setting and file.
    """
    tls, keys = transport.tls, transport.tls_keys
    if tls.certificate is None:
        raise ConfigError(f"{keys['certificate']} is not set, and tls:// and wss:// addresses need one: the name of a PEM file")
    for name in _FILES:
        path = getattr(tls, name)
        if path is not None:
            _check_readable(keys[name], path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _OLDEST[tls.min_version or "1.2"]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.ciphers is not None:
        _set_ciphers(context, transport, tls.ciphers)
    _load_chain(context, transport, tls.certificate)
    _verify_clients(context, transport)
    return context


def _check_readable(key: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError(f"{key} = {str(path)!r}: can't be read: {error.strerror}") from None


def _set_ciphers(context: ssl.SSLContext, transport: Transport, ciphers: str) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise ConfigError(f"{transport.tls_keys['ciphers']} = {ciphers!r}: OpenSSL knows none of them") from None


def _load_chain(context: ssl.SSLContext, transport: Transport, certificate: Path) -> None:
    tls, keys = transport.tls, transport.tls_keys
    key_file = tls.key if tls.key is not None else certificate
    key_name = keys["key"] if tls.key is not None else keys["certificate"]
    if b"-----BEGIN CERTIFICATE-----" not in certificate.read_bytes():
        raise ConfigError(f"{keys['certificate']} = {str(certificate)!r}: holds no certificate in PEM form")
    where = f"{key_name} = {str(key_file)!r}"
    asked = _Password(transport, where)
    try:
        context.load_cert_chain(certificate, key_file, asked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{where}: is not the key of the certificate in {str(certificate)!r}") from None
        if asked.was_asked:
            named = f"{keys['key_password_file']} = {str(tls.key_password_file)!r}"
            raise ConfigError(f"{where}: is encrypted, and the password in {named} does not open it") from None
        if b"PRIVATE KEY-----" not in key_file.read_bytes():
            raise ConfigError(f"{where}: holds no private key in PEM form") from None
        raise ConfigError(f"{where}: key or certificate ({str(certificate)!r}) can't be used: {error.reason or error}") from None


class _Password:
    """Answers OpenSSL when a key is encrypted; without this it would ask at the terminal."""

    def __init__(self, transport: Transport, where: str) -> None:
        self._transport = transport
        self._where = where
        self.was_asked = False

    def __call__(self) -> bytes:
        self.was_asked = True
        path = self._transport.tls.key_password_file
        if path is None:
            name = self._transport.tls_keys["key_password_file"]
            raise ConfigError(f"{self._where}: is encrypted: {name} must name a file with its password")
        return (path.read_bytes().splitlines() or [b""])[0]


def _verify_clients(context: ssl.SSLContext, transport: Transport) -> None:
    tls, keys = transport.tls, transport.tls_keys
    context.verify_mode = _VERIFY[tls.client_certificate or ("none" if tls.client_ca is None else "required")]
    if context.verify_mode is ssl.CERT_NONE:
        return
    if tls.client_ca is None:
        raise ConfigError(
            f"{keys['client_certificate']} = {tls.client_certificate!r}: {keys['client_ca']} must name the roots they come from"
        )
    try:
        context.load_verify_locations(tls.client_ca)
    except ssl.SSLError:
        raise ConfigError(f"{keys['client_ca']} = {str(tls.client_ca)!r}: holds no certificates in PEM form") from None
