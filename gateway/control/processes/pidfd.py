"""Processes by descriptor (pidfd_open(2)): a pid may be given to somebody else, a descriptor never is."""

import os
import signal
from contextlib import suppress


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor of the running process; None if it is gone, or this system has no such thing."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def send_signal(pidfd: int, number: int) -> None:
    """Signal the process; nothing happens if it is gone."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
