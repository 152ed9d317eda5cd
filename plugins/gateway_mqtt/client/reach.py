"""Where is a broker, and how is it reached: TCP, TLS, or a Unix socket?"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True)
class Tls:
    """How a broker is to prove who it is, and what proves who we are.

    Args:
        ca: a file with certificates to trust; empty: the system's.
        certificate, key: files with our own; empty: none.
        insecure: any certificate will do.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """Return what checks it.

        Raises:
            OSError: a file can't be read, or is no certificate (ssl.SSLError is one).
        """
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key or None)
        return context


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker listens: a host and port, over TLS or not, or the path of a Unix socket."""

    host: str = "127.0.0.1"
    port: int = 1883
    tls: Tls | None = None
    path: str = ""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    async def connect(self) -> trio.abc.Stream:
        """Return a stream to it.

        Raises:
            OSError: nobody listens there, or TLS fails.
        Cancellation: safe.
        """
        if self.path:
            return await trio.open_unix_socket(self.path)
        if self.tls is None:
            return await trio.open_tcp_stream(self.host, self.port)
        context = self.tls.context()
        stream = await trio.open_ssl_over_tcp_stream(self.host, self.port, ssl_context=context, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            raise OSError(f"TLS failed: {error.__cause__ or error}") from None
        return stream
