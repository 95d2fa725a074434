"""The event log: one JSON object a line on stderr, through structlog.

For what happens now and then (a worker died, a step was taken), never for requests: those have the access
log.
"""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

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
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lossy(stream or sys.stderr))),
        cache_logger_on_first_use=False,
    )


def get_logger(**bound: Any) -> Any:
    """Return a logger whose every line carries `bound`."""
    return structlog.get_logger(**bound)
