"""The event log loses what it cannot write, and breaks nothing by it."""

import io

import structlog

from gateway import log


class FullDisk(io.StringIO):
    """A stream on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_breaks_nothing() -> None:
    """The line may tell of a rollback, in the middle of it."""
    log.configure(stream=FullDisk())
    try:
        log.get_logger(component="test").error("something_happened")
    finally:
        structlog.reset_defaults()
