"""One control process a store: an flock on `gateway.lock` beside it, passed on at an upgrade."""

import fcntl
import os
from pathlib import Path
from typing import Final

from gateway.errors import StoreError

LOCK_NAME: Final = "gateway.lock"


class StoreLock:
    """The lock, held. The file names the holder's pid, and is emptied by one that ends properly."""

    def __init__(self, fd: int, *, was_abandoned: bool) -> None:
        self._fd = fd
        self.was_abandoned = was_abandoned
        """The last holder did not end properly: its workers may still serve."""

    @classmethod
    def acquire(cls, folder: Path) -> "StoreLock":
        """Take the lock of the store in `folder`. Raises StoreError naming the pid of who has it."""
        path = folder / LOCK_NAME
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StoreError(f"cannot open {path}: {exc.strerror}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            raise StoreError(f"{path} is held by process {holder}: one gateway a store") from None
        lock = cls(fd, was_abandoned=bool(_holder(fd)))
        lock.sign()
        return lock

    @classmethod
    def inherit(cls, fd: int) -> "StoreLock":
        """Take over a lock that another process passed on: both hold it until that one ends."""
        lock = cls(fd, was_abandoned=False)
        lock.sign()
        return lock

    def fileno(self) -> int:
        """Return the descriptor to pass on."""
        return self._fd

    def release(self) -> None:
        """Give the lock up for good: whoever comes next need not look for workers."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def drop(self) -> None:
        """Close our copy: a successor has one."""
        os.close(self._fd)

    def sign(self) -> None:
        """Write our pid into the file."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)


def _holder(fd: int) -> str:
    return os.pread(fd, 32, 0).decode(errors="replace").strip()
