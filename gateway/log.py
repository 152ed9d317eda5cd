"""Where do log lines go, and in which form?"""

from __future__ import annotations

import sys
from typing import TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from gateway.config import LogSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


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
    processors: list[Processor] = [
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
