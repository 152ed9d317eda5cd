"""Where do log lines go, and in which form?"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from gateway.config import LogSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


MINUTE_S = 60.0
MOST_KINDS = 1_000


class Throttle:
    """Leaves out lines of a kind that comes too often: peers must not fill a disk, nor have the broker write all day.

    Args:
        most: lines of one kind (that is, with the same event) in a minute.
        now_s: a clock.
    """

    def __init__(self, most: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now_s = now_s
        self._kinds: dict[object, tuple[float, int]] = {}

    def __call__(self, logger: object, method: str, line: EventDict) -> EventDict:
        """Pass a line on, with what was left out before it; or leave it out (structlog.DropEvent)."""
        event = line.get("event")
        now_s = self._now_s()
        began_s, count = self._kinds.get(event, (now_s, 0))
        if now_s - began_s >= MINUTE_S:
            if count > self._most:
                line["left_out"] = count - self._most
            began_s, count = now_s, 0
        if not count and len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
        count += 1
        self._kinds[event] = (began_s, count)
        if count > self._most:
            raise structlog.DropEvent
        if count == self._most:
            line["note"] = "more of these in this minute are left out"
        return line


class _Lines:
    """Writes lines to a stream, for as long as somebody reads them: a log that nobody reads must not end the broker."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = msg


def make_log(settings: LogSettings, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Return the log of one gateway: an event and key-value pairs a line. Nothing global is changed.

    Args:
        stream: standard error, if None.
    """
    stream = stream if stream is not None else sys.stderr
    throttle: list[Processor] = [Throttle(settings.max_per_minute)] if settings.max_per_minute else []
    processors: list[Processor] = [
        *throttle,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _json() if settings.format == "json" else _text(colours=stream.isatty()),
    ]
    wrapper = structlog.make_filtering_bound_logger(_LEVELS[settings.level])
    logger = structlog.wrap_logger(_Lines(stream), processors, wrapper_class=wrapper, context_class=dict)
    return cast("FilteringBoundLogger", logger.bind())


def _json() -> Processor:
    return structlog.processors.JSONRenderer(default=str)


def _text(*, colours: bool) -> Processor:
    # Strings from peers are shown quoted, so that none can write to the terminal.
    return structlog.dev.ConsoleRenderer(
        colors=colours, repr_native_str=True, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )
