"""A broker that lies: it sends PUBACKs before the commit (to show that the test for that can fail).

Run as ``python -m tests.interop.liar serve ...``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from gateway.cli import main
from gateway.runtime.committer import Committer

WRITE_TAKES_S = 0.05


def lie() -> None:
    """Release outcomes when a batch is handed over, and let the disk be slow."""
    honest_write: Callable[[Committer, Any], None] = Committer._write

    async def later(committer: Committer, commit: Any) -> None:
        await trio.sleep(WRITE_TAKES_S)
        honest_write(committer, commit)

    def write(committer: Committer, commit: Any) -> None:
        committer._release()
        committer._token.run_sync_soon(trio.lowlevel.spawn_system_task, later, committer, commit)

    Committer._write = write  # type: ignore[method-assign]


if __name__ == "__main__":
    lie()
    main()
