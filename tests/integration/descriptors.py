"""Taking every descriptor of this process, for a while."""

import contextlib
import os
import resource
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let this process open no file and no socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = socket.socket()
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(last.fileno()))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        last.close()
        for descriptor in taken:
            os.close(descriptor)
