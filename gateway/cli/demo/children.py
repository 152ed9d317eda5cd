"""How are the demo's processes started, listened to, and ended whatever happens?"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_END_S = 3.0
_LINES_OF_COMPLAINT = 12


class Child:
    """A Python module that runs as a process of its own, with its standard output read line by line.

    Args:
        name: for messages, and of the file that gets its standard error.
        module: run with ``python -m``.
        directory: where that file goes.
        on_line: called with every line, in a thread of this child's.
        end_s: how long it may take to end when it is terminated.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        directory: Path,
        on_line: Callable[[str], None],
        *,
        end_s: float = _END_S,
    ) -> None:
        self.name = name
        self._end_s = end_s
        self._complaints = directory / f"{name}.log"
        with self._complaints.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=directory,
            )
        self._on_line = on_line
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._on_line(line.decode(errors="replace").rstrip("\n"))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    def complaint(self) -> str:
        """Return what it wrote last to its standard error."""
        lines = self._complaints.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LINES_OF_COMPLAINT:])

    def tell(self, order: bytes) -> None:
        """Give it an order (`gateway.cli.demo.reports`); nothing happens if it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the other end is closed, or ours
            os.write(self._process.stdin.fileno(), order + b"\n")

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._close()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, and until all its lines are read; say whether it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._close()
        return True

    def _close(self) -> None:
        self._reader.join(_END_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Terminate it; kill it if it does not end."""
        if self.status is None:
            self._process.terminate()
        if not self.wait(self._end_s):
            self.kill()
