"""Whose CURVE keys are let in, and what if their files change?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gateway_zeromq.security.keys import PUBLIC_SUFFIX, KeyFileError, binary, is_certificate, public_in, read
from gateway_zeromq.security.names import check_name

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Name, time of the last change, size and number of every file: what differs has changed."""


class View(NamedTuple):
    """What was there when somebody looked: users by their keys, and what could not be read."""

    stamp: Stamp
    users: dict[bytes, str]
    complaints: tuple[str, ...]


NOTHING = View((), {}, ())


class ClientKeys:
    """Public keys of clients: a directory of ``NAME.key`` files, one such file, or one with a line ``NAME = "KEY"`` for each.

    ``view``: what is known of them now. Whoever keeps it fresh calls `look`, which reads files and may run in any thread, and
    sets it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.view = NOTHING

    def user_of(self, key: bytes) -> str | None:
        """Return whose key this is; None: a stranger's."""
        return self.view.users.get(key)

    def look(self) -> View:
        """Return what is there now: `view` itself if nothing has changed.

        Raises:
            KeyFileError: there is no such file or directory.
        """
        try:
            stamp = tuple(_stamps(self.path))
        except OSError as error:
            raise KeyFileError(f"{self.path}: {(error.strerror or str(error)).lower()}") from None
        if stamp == self.view.stamp and self.view is not NOTHING:
            return self.view
        return self._read(stamp)

    def _read(self, stamp: Stamp) -> View:
        users: dict[bytes, str] = {}
        complaints: list[str] = []
        for name, *_ in stamp:
            path = self.path / name if name else self.path
            try:
                for user, key in _entries(path):
                    if users.setdefault(key, user) != user:
                        complaints.append(f"{path}: the key of {user!r} is that of {users[key]!r}, too: one of them can't be true")
            except KeyFileError as error:
                complaints.append(str(error))
        return View(stamp, users, tuple(complaints))


def _stamps(path: Path) -> Iterator[tuple[str, int, int, int]]:
    if not path.is_dir():
        status = path.stat()
        yield "", status.st_mtime_ns, status.st_size, status.st_ino
        return
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.endswith(PUBLIC_SUFFIX) and not entry.name.startswith("."):
                try:
                    status = entry.stat()
                except FileNotFoundError:  # just removed
                    continue
                yield entry.name, status.st_mtime_ns, status.st_size, status.st_ino


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    text = read(path)
    if path.suffix == PUBLIC_SUFFIX or is_certificate(text):
        yield _name(path.name.removesuffix(PUBLIC_SUFFIX), path), public_in(text, path)
        return
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            name, equals, key = stripped.partition("=")
            if not equals:
                raise KeyFileError(f'{path}: line {number} is not NAME = "KEY"')
            yield _name(name.strip().strip("\"'"), path), binary(key.strip().strip("\"'"), path)


def _name(name: str, path: Path) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise KeyFileError(f"{path}: {error}") from None
