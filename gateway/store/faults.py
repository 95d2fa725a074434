"""What SQLite and the file system raise, as errors that name the file."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.errors import StaleEpoch, StoreBusy, StoreDamaged, StoreError, StoreUnreachable


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


KINDS: Final = ("busy", "damaged", "stale", "unreachable", "other")


class ErrorCounts:
    """How often reads and writes have failed, by kind: too many waited, the store is damaged, another control
    is in charge, the database is away, or anything else.
    """

    def __init__(self) -> None:
        self.by_kind = dict.fromkeys(KINDS, 0)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the StoreError that the block may raise."""
        try:
            yield
        except StoreError as exc:
            self.by_kind[_kind_of(exc)] += 1
            raise


def _kind_of(error: StoreError) -> str:
    kinds = (
        (StoreBusy, "busy"),
        (StoreDamaged, "damaged"),
        (StaleEpoch, "stale"),
        (StoreUnreachable, "unreachable"),
    )
    return next((kind for each, kind in kinds if isinstance(error, each)), "other")
