"""Whose is the path of an ipc address, and who may connect there?

libzmq takes a path away from whoever listens on it, deletes what is there whatever it is, and leaves the permissions to the
umask. So a path is claimed before it is bound, by a lock beside it.
"""

from __future__ import annotations

import fcntl
import os
import socket as sockets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LONGEST_PATH_BYTES = 107
_LOCK = ".lock"


class Unsafe(Exception):
    """A path can't be used; the text says why. ``is_had``: somebody has it, or the system does not give it."""

    def __init__(self, text: str, *, is_had: bool = False) -> None:
        super().__init__(text)
        self.is_had = is_had


class Claim:
    """A path that is this process's until `release`; it belongs to one process, however that ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Path(f"{path}{_LOCK}")
        self._descriptor = -1
        self._made: os.stat_result | None = None

    def take(self) -> None:
        """Make sure that the path is free and stays so.

        Raises:
            Unsafe: somebody listens there, something else is there, or anybody could put something else there.
        """
        if len(os.fsencode(self.path)) > _LONGEST_PATH_BYTES:
            raise Unsafe(f"the path has more than {_LONGEST_PATH_BYTES} bytes")
        try:
            self._check_directory()
            self._descriptor = self._locked()
        except OSError as error:
            raise Unsafe(f"{error.filename or self.path}: {(error.strerror or str(error)).lower()}", is_had=True) from error
        try:
            self._check_path()
        except BaseException:
            self.release()
            raise

    def _check_directory(self) -> None:
        directory = self.path.parent
        directory.mkdir(mode=0o700, exist_ok=True)
        mode = directory.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise Unsafe(f"everybody can write in {directory}, and could put another socket there: chmod o-w closes it")

    def _locked(self) -> int:
        while True:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self._lock.stat()):
                        return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise Unsafe("another program listens there", is_had=True) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its owner removed it just now

    def _check_path(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise Unsafe("there is a file that is no socket", is_had=True)
        with sockets.socket(sockets.AF_UNIX) as probe:
            try:
                probe.connect(str(self.path))
            except OSError:
                return
        raise Unsafe("another program listens there", is_had=True)

    def made(self, mode: int) -> None:
        """The socket is there now: give it its permissions. Raises: OSError."""
        self.path.chmod(mode)
        self._made = self.path.lstat()

    def release(self) -> None:
        """Give the path up, and take away what was made there, which libzmq leaves behind. Again: nothing happens."""
        if self._descriptor >= 0:
            with suppress(OSError):
                if self._made is not None and os.path.samestat(self._made, self.path.lstat()):
                    self.path.unlink()
            with suppress(OSError):
                self._lock.unlink()
            os.close(self._descriptor)
            self._descriptor = -1


def open_to(address: str, mode: int) -> None:
    """Give the file of an address that needs no claim its permissions; of an abstract name there is none."""
    with suppress(FileNotFoundError):
        Path(address.removeprefix("ipc://")).chmod(mode)


def claim_of(address: str) -> Claim | None:
    """Return the claim for an ipc address; None: it needs none, as it is no path (abstract names, ``*``), or no ipc address."""
    path = address.removeprefix("ipc://")
    return None if path in (address, "*") or path.startswith("@") else Claim(Path(path).absolute())


@contextmanager
def private_files() -> Iterator[None]:
    """Make files (of ipc: addresses) for their owner alone."""
    before = os.umask(stat.S_IRWXG | stat.S_IRWXO | stat.S_IXUSR)
    try:
        yield
    finally:
        os.umask(before)
