"""The event log on stderr, through structlog: a JSON object a line, or lines for people on a terminal.

For what happens now and then (a worker died, a step was taken), never for requests: those have the access
log.
"""

import logging
import os
import sys
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import structlog


class _Lossy:
    """A stream that loses what it cannot write: a full disk must not break what the line tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        with suppress(OSError):
            self._stream.write(line)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure(*, level: str = "info", stream: Any = None) -> None:
    """Send the event log to `stream` (default: stderr) from `level` up. Call once a process, at its start."""
    stream = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(for_people=_is_terminal(stream)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lossy(stream))),
        cache_logger_on_first_use=False,
    )


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except ValueError:  # it is closed
        return False


def _renderers(*, for_people: bool) -> list[Any]:
    """Return what makes a line of an event."""
    if for_people:
        return [
            structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"), exception_formatter=_plain)
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


_plain: Final = structlog.dev.plain_traceback


def get_logger(**bound: Any) -> Any:
    """Return a logger whose every line carries `bound`."""
    return structlog.get_logger(**bound)
