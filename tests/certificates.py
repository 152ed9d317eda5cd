"""Certificates of an authority that lives as long as a test run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import trustme


@cache
def authority(name: str) -> trustme.CA:
    """An authority; making its key takes a moment, so that tests share it. Another name is another authority."""
    return trustme.CA(organization_name=f"Tidegate tests: {name}")


@dataclass(frozen=True)
class Files:
    """PEM files in a directory: `certificate`, `key` and the roots in `ca`; a client's both in `client`."""

    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "server.pem"

    @property
    def key(self) -> Path:
        return self.directory / "server.key"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def client(self) -> Path:
        return self.directory / "client.pem"

    def issue(self, *names: str, expires: datetime | None = None, by: str = "good") -> None:
        """Write a server's certificate and key."""
        issued = authority(by).issue_cert(*(names or ("localhost", "127.0.0.1")), not_after=expires)
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def issue_client(self, common_name: str | None, *, by: str = "good") -> Path:
        """Write a client's certificate with its key; return the file."""
        issued = authority(by).issue_cert("device@example.org", common_name=common_name)
        self.client.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        return self.client

    def encrypt_key(self, password: str) -> None:
        """Encrypt the server's key, by the library that trustme uses."""
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode()),
            )
        )


def make(directory: Path) -> Files:
    """Write a server's certificate for localhost, its key, and the authority."""
    files = Files(directory)
    authority("good").cert_pem.write_to_path(str(files.ca))
    files.issue()
    return files
