"""What is in a CURVE key file, and how is one made?

The form is that of CZMQ's zcert and of pyzmq's ``zmq.auth``: a public one (``NAME.key``), and a secret one
(``NAME.key_secret``) with both halves.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.utils import z85

from gateway_zeromq.security.names import check_name

PUBLIC_SUFFIX = ".key"
SECRET_SUFFIX = ".key_secret"  # noqa: S105 - of a name
KEY_BYTES = 32
MOST_FILE_BYTES = 65_536

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ENTRY = re.compile(r"""^\s*(public|secret)-key\s*=\s*["']?([^"'\s]*)["']?\s*$""", re.MULTILINE)
_CURVE = re.compile(r"^curve\s*$", re.MULTILINE)

_PUBLIC = """\
# The public half of a CURVE key pair: give it to those who shall know this program.
metadata
curve
    public-key = "{public}"
"""
_BOTH = """\
# Both halves of a CURVE key pair. Whoever has this file is this program: show it to nobody.
metadata
curve
    public-key = "{public}"
    secret-key = "{secret}"
"""


class KeyFileError(Exception):
    """A key file can't be used; the text names it and says why."""


class Pair(NamedTuple):
    """Both halves of a key, in Z85: 40 characters each."""

    public: bytes
    secret: bytes


def binary(key: str, path: Path) -> bytes:
    """Return the 32 bytes of a key in Z85. Raises: KeyFileError."""
    try:
        decoded = z85.decode(key)
    except (ValueError, KeyError, struct.error):
        decoded = b""
    if len(key) != KEY_BYTES * 5 // 4 or len(decoded) != KEY_BYTES:
        raise KeyFileError(f"{path}: a key is not 40 characters of Z85")
    return bytes(decoded)


def read(path: Path) -> str:
    """Return the text of a key file. Raises: KeyFileError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if len(content) > MOST_FILE_BYTES:
        raise KeyFileError(f"{path}: it has more than {MOST_FILE_BYTES} bytes: this is no key file")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise KeyFileError(f"{path}: it is not UTF-8: this is no key file") from None


def is_certificate(text: str) -> bool:
    """Say whether the text of a file is in the form of CZMQ."""
    return _CURVE.search(text) is not None


def public_in(text: str, path: Path) -> bytes:
    """Return the 32 bytes of the public key in a certificate. Raises: KeyFileError."""
    entries = dict(_ENTRY.findall(text))
    if "public" not in entries:
        raise KeyFileError(f'{path}: it has no line public-key = "..."')
    return binary(entries["public"], path)


def load_public(path: Path) -> bytes:
    """Return the public key in a file, in Z85. Raises: KeyFileError."""
    return z85.encode(public_in(read(path), path))


def load_pair(path: Path) -> Pair:
    """Return both halves from a secret file.

    Raises:
        KeyFileError: it can't be read, holds no secret key or halves that don't belong together, or is open to others.
    """
    text = read(path)
    if path.stat().st_mode & _OTHERS:
        raise KeyFileError(f"{path}: others can read this secret key: chmod 600 closes it")
    entries = dict(_ENTRY.findall(text))
    if "secret" not in entries:
        raise KeyFileError(f'{path}: it has no line secret-key = "...": give the file that ends in {SECRET_SUFFIX}')
    secret = z85.encode(binary(entries["secret"], path))
    public = zmq.curve_public(secret)
    if entries.get("public", public.decode()) != public.decode():
        raise KeyFileError(f"{path}: the public key is not that of the secret key")
    return Pair(public, secret)


def write_pair(directory: Path, name: str) -> tuple[Path, Path]:
    """Make a key pair and write both of its files; return their paths, the secret one first.

    Raises:
        FileExistsError: one of the files is there; nothing was changed. OSError: it can't be written. ValueError: no name.
    """
    check_name(name)
    secret_path, public_path = directory / (name + SECRET_SUFFIX), directory / (name + PUBLIC_SUFFIX)
    if os.path.lexists(public_path):
        raise FileExistsError(17, "File exists", str(public_path))
    public, secret = (half.decode() for half in zmq.curve_keypair())
    _write(secret_path, _BOTH.format(public=public, secret=secret), 0o600)
    try:
        _write(public_path, _PUBLIC.format(public=public), 0o644)
    except OSError:
        secret_path.unlink()
        raise
    return secret_path, public_path


def _write(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
