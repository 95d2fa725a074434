"""What SQLite and the file system raise, as errors that name the file."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import StoreError


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn what the block raises about the store at `path` into a StoreError with the file and the reason."""
    try:
        yield
    except OSError as exc:
        raise StoreError(f"{path}: {exc.strerror or exc}") from exc
    except sqlite3.Error as exc:
        raise StoreError(f"{path}: {exc}") from exc
    except StoreError as exc:
        if str(exc).startswith(f"{path}: "):
            raise
        raise type(exc)(f"{path}: {exc}") from exc
